"""`elpo grade traces.jsonl`: grade recorded episodes again, without playing them. Needs no trainer."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from elpo_envs.offline import DEFAULT_ENV, OfflineGrader, Regrade

_SHOWN = 20


def run(argv: Sequence[str]) -> int:
    """Run the command; the exit status is 0 if every record could be graded."""
    parser = argparse.ArgumentParser(prog="elpo grade", description="Grade recorded episodes again.")
    parser.add_argument("traces", type=Path, help="a .jsonl(.gz), .json or .parquet file, as RecordTraces writes it")
    parser.add_argument(
        "--env", default=DEFAULT_ENV, help="for records that name no environment (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="write the records with their new grades to this .jsonl file")
    args = parser.parse_args(argv)
    try:
        with OfflineGrader(args.env) as grader:
            graded = list(grader.grade_file(args.traces))
        if args.output is not None:
            _write(args.output, graded)
    except (OSError, ValueError) as error:
        print(f"elpo grade: {error}", file=sys.stderr)
        return 1
    if not graded:
        print(f"elpo grade: {args.traces} has no records", file=sys.stderr)
        return 1
    _print(graded)
    return 1 if any(one.failed for one in graded) else 0


def _print(graded: Sequence[Regrade]) -> None:
    counts: dict[str, Counter[str]] = {}
    for one in graded:
        counts.setdefault(one.env_id, Counter()).update(
            records=1,
            right=one.correct,
            recorded=bool(one.recorded),
            unanswered=one.verdict is None,
            ungraded=one.failed,
        )
    print(f"{'environment':28}{'records':>8}{'right':>8}{'as recorded':>13}{'no answer':>11}{'not graded':>12}")
    for env_id, count in counts.items():
        figures = f"{count['records']:>8}{count['right']:>8}{count['recorded']:>13}{count['unanswered']:>11}"
        print(f"{env_id:28}{figures}{count['ungraded']:>12}")
    changed = [one for one in graded if one.recorded is not None and one.recorded != one.correct and not one.failed]
    for one in changed[:_SHOWN]:
        was, now = ("right", "wrong") if one.recorded else ("wrong", "right")
        method = "" if one.verdict is None else f" ({one.verdict.grade.get('method', '')})"
        print(f"{one.place}: was {was}, is {now}{method}")
    if len(changed) > _SHOWN:
        print(f"... and {len(changed) - _SHOWN} more that changed")


def _write(path: Path, graded: Sequence[Regrade]) -> None:
    """Whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("w", encoding="ascii") as file:
            for one in graded:
                file.write(json.dumps(one.to_json()) + "\n")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
