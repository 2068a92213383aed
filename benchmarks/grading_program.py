"""Grades pairs for `benchmarks.grading` with one grader; started by the interpreter that has it installed.

    python grading_program.py ours|math-verify

It prints a line of JSON, `{"version": ...}`, and then answers every line `{"pairs": [[answer, gold], ...], "threads":
n}` with `{"seconds": ..., "times": [...], "verdicts": [...]}`: for all pairs together, for each, and true, false or the
error of each. With 0 threads the main thread grades; else so many others share the pairs.

Each grader is given a turn that boxes the answer, and a bare gold answer. Away from the main thread Math-Verify is
called as its documentation says: with its time-outs off, since they use signals.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

Grader = Callable[[str, str], bool]
_MEMORY_BYTES = 4 << 30


def ours() -> Grader:
    """`grade_response`."""
    grade_response = importlib.import_module("elpo_envs.grading").grade_response

    def grade(answer: str, gold: str) -> bool:
        return bool(grade_response(rf"\boxed{{{answer}}}", gold).correct)

    return grade


def math_verify() -> Grader:
    """`parse` and `verify` with their defaults."""
    library = importlib.import_module("math_verify")

    def grade(answer: str, gold: str) -> bool:
        main = threading.current_thread() is threading.main_thread()
        parsing: dict[str, Any] = {} if main else {"parsing_timeout": None}
        verifying: dict[str, Any] = {} if main else {"timeout_seconds": None}
        parsed = library.parse(f"${gold}$", **parsing)
        return bool(library.verify(parsed, library.parse(rf"\boxed{{{answer}}}", **parsing), **verifying))

    return grade


def _graded(grade: Grader, answer: str, gold: str) -> tuple[float, bool | str]:
    started = time.perf_counter()
    try:
        verdict: bool | str = grade(answer, gold)
    except Exception as error:
        # The library raises whatever it likes; that is a result of the benchmark.
        verdict = f"{type(error).__name__}: {str(error)[:100]}"
    return time.perf_counter() - started, verdict


def run(grade: Grader, pairs: list[list[str]], threads: int) -> dict[str, Any]:
    """Grade all pairs."""
    results: list[tuple[float, bool | str]] = [(0.0, "not graded")] * len(pairs)

    def work(first: int, step: int) -> None:
        for at in range(first, len(pairs), step):
            results[at] = _graded(grade, *pairs[at])

    started = time.perf_counter()
    if threads:
        workers = [threading.Thread(target=work, args=(first, threads)) for first in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    else:
        work(0, 1)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "times": [time for time, _ in results], "verdicts": [verdict for _, verdict in results]}


def main() -> None:
    """Answer until standard input ends."""
    import logging
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    logging.disable(logging.CRITICAL)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not reach the replies
    mine = sys.argv[1] == "ours"
    grade = ours() if mine else math_verify()
    # Imports, tables, and the child process of ours that compares symbolically.
    for answer, gold in ((r"3\sqrt{13}", r"\sqrt{117}"), ("1/2", "0.5"), (r"\{1,2\}", "2,1")):
        _graded(grade, answer, gold)
    replies.write(json.dumps({"version": None if mine else version("math-verify")}) + "\n")
    replies.flush()
    for line in sys.stdin:
        request = json.loads(line)
        replies.write(json.dumps(run(grade, request["pairs"], request["threads"])) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
