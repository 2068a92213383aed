"""Runs LiveCodeBench's public harness for `livecodebench`; its interpreter needs numpy and tqdm, and nothing of ours.

    python livecodebench_harness_program.py CHECKOUT SECONDS

CHECKOUT is a copy of github.com/LiveCodeBench/LiveCodeBench, SECONDS the limit of one test. It prints the line
`{"ready": true}`, and then answers every line `{"sample": ..., "program": ...}` with `{"results": [...], "metadata":
{...}, "seconds": ...}`: what the harness says of each test that it ran, and how long that took.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def main() -> None:
    checkout, limit = sys.argv[1], int(sys.argv[2])
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)  # programs may read from these, and print there, and so does the harness
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    sys.path.insert(0, checkout)
    metrics = importlib.import_module("lcb_runner.evaluation.compute_code_generation_metrics")
    print('{"ready": true}', file=answers, flush=True)
    for line in requests:
        request = json.loads(line)
        sample = {"input_output": json.dumps(request["sample"])}
        start = time.perf_counter()
        # What each worker of the harness's pool calls for a problem.
        results, metadata = metrics.evaluate_generations_by_problem(([request["program"]], sample, False, limit))
        seconds = time.perf_counter() - start
        answer = {"results": results[0], "metadata": metadata[0], "seconds": seconds}
        print(json.dumps(answer, default=repr), file=answers, flush=True)


if __name__ == "__main__":
    main()
