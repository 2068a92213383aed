"""The grader of mathematics beside Math-Verify: agreement, speed, the worst case, and Math-Verify's own test-suite.

    python -m benchmarks.grading --math-verify-python PATH [--suite PATH] [--data PATH]
        [--quick] [--repeats 5] [--json PATH] [--only numbers,written,hostile,suite] [--every 1]

Give the interpreter of an environment that has `math-verify` and `pytest` installed (or ELPO_MATH_VERIFY_PYTHON), a
checkout of Math-Verify's repository for `--suite`, and the folder of `math500.jsonl.gz` for `--data` (or ELPO_DATA);
what is not given is left out. `--every 4` takes every fourth pair of MATH500, for a slow machine.

Both graders run in a process of their own, new for each round, on the same pairs: a turn that boxes the answer, and a
bare gold answer. Each pair is equal or not by how it was made, so that where the two disagree the report says who is
right. `--threads` has no effect here.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.grading_pairs import Pair, hostile, numbers, written_variants
from benchmarks.grading_peer import Graded, Grader
from benchmarks.grading_suite import SuiteRun, run_suite
from benchmarks.measure import Options, Ratio, Report, Row, Sample, interleave, parse_options

GROUPS = ("numbers", "written", "hostile", "suite")
OURS, PEER = "ours", "math-verify"
HOSTILE_LIMIT_S = 8.0
"""A grader that takes longer for one hostile pair is ended; so long it counts."""
CROWD = 4
WAYS = {"main thread": 0, "another thread": 1}
_SHOWN = 40


@dataclass
class Run:
    """One run of the benchmark, and what it found so far."""

    options: Options
    report: Report
    graders: dict[str, Path]
    findings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def role(self, name: str) -> Any:
        return "ours" if name == OURS else "peer"


def speed(run: Run, group: str, rounds: Sequence[list[Pair]], ways: Mapping[str, int]) -> None:
    """Pairs/s and verdicts; round -1, the warm-up, has the last list. `ways`: names and numbers of threads."""
    verdicts: dict[str, dict[Pair, bool | str]] = {name: {} for name in run.graders}

    def contestant(name: str, threads: int) -> Any:
        def graded(number: int) -> dict[str, float]:
            pairs = rounds[number % len(rounds)]
            with Grader(name, run.graders[name]) as grader:
                result = grader.grade(pairs, threads)
            verdicts[name].update(zip(pairs, result.verdicts, strict=True))
            return {"pairs/s": len(pairs) / result.seconds}

        return graded

    runs = {f"{name}, {way}": (name, threads) for way, threads in ways.items() for name in run.graders}
    samples = interleave({label: contestant(*given) for label, given in runs.items()}, run.options.repeats)
    for label, (name, _) in runs.items():
        run.report.add(Row(label, run.role(name), "pairs/s", samples[label]["pairs/s"], group))
    if PEER in run.graders:
        for way in ways:
            ours, peer = (samples[f"{name}, {way}"]["pairs/s"] for name in (OURS, PEER))
            run.report.ratios.append(Ratio(f"ours / math-verify, {way}", ours.over(peer), group))
    run.findings[group] = agreement(verdicts)


def agreement(verdicts: dict[str, dict[Pair, bool | str]]) -> dict[str, Any]:
    """How often the graders are right, and agree; what they do not agree on."""
    ours = verdicts[OURS]
    found: dict[str, Any] = {"pairs": len(ours)}
    for name, given in verdicts.items():
        wrong = [pair for pair, verdict in given.items() if verdict is not pair.equal]
        found[f"right: {name}"] = len(given) - len(wrong)
        found[f"wrong: {name}"] = dict(
            Counter(f"{p.name.split(',')[0]} ({'equal' if p.equal else 'unequal'})" for p in wrong)
        )
    if PEER in verdicts:
        peer = verdicts[PEER]
        apart = [pair for pair in ours if ours[pair] is not peer[pair]]
        found["agree"] = len(ours) - len(apart)
        found["disagreements"] = [
            {
                # Rows of data are named, not copied.
                **(
                    {"pair": pair.name}
                    if "row" in pair.name
                    else {"pair": pair.name, "answer": pair.answer, "gold": pair.gold}
                ),
                "equal": pair.equal,
                "ours": ours[pair],
                "math-verify": peer[pair],
                "right": "ours" if ours[pair] is pair.equal else "math-verify",
            }
            for pair in apart
        ]
    return found


def worst_cases(run: Run) -> None:
    """Seconds for each hostile pair, from the main thread and from another; ours also from several at once.

    Math-Verify has one round: its times are its time-outs.
    """
    group = "hostile answers, worst case"
    pairs = hostile()[:3] if run.options.quick else hostile()
    every: dict[str, list[dict[str, Any]]] = {}
    for way, threads in WAYS.items():
        rounds: dict[str, list[list[Graded]]] = {name: [] for name in run.graders}
        for name in run.graders:
            for _ in range(run.options.repeats if name == OURS else 1):
                with Grader(name, run.graders[name]) as grader:
                    rounds[name].append([grader.grade_one(pair, threads, HOSTILE_LIMIT_S) for pair in pairs])
        for name, done in rounds.items():
            worst = Sample(tuple(max(graded.seconds for graded in one) for one in done))
            run.report.add(Row(f"{name}, {way}", run.role(name), "s", worst, group))
            slow = sorted(zip(pairs, done[-1], strict=True), key=lambda item: -item[1].seconds)[:8]
            every[f"{name}, {way}"] = [
                {"pair": pair.name, "seconds": round(graded.seconds, 3), "verdict": graded.verdicts[0]}
                for pair, graded in slow
            ]
            outcomes = Counter(_outcome(graded) for graded in done[-1])
            run.findings.setdefault("hostile verdicts", {})[f"{name}, {way}"] = dict(outcomes)
    with Grader(OURS, run.graders[OURS]) as grader:
        crowd = grader.grade(pairs, CROWD)
    run.report.add(Row(f"ours, {CROWD} threads at once", "ours", "s", Sample((max(crowd.times),)), group))
    run.findings["slowest hostile pairs"] = every


def _outcome(graded: Graded) -> str:
    verdict = graded.verdicts[0]
    if graded.ended:
        return f"over {HOSTILE_LIMIT_S:g} s, or died"
    return "unequal" if verdict is False else "equal" if verdict is True else "error"


def suite(run: Run, checkout: Path) -> None:
    """Math-Verify's own tests against both."""
    runs: dict[str, SuiteRun] = {OURS: run_suite(checkout)}
    if PEER in run.graders:
        runs[PEER] = run_suite(checkout, run.graders[PEER])
    for name, done in runs.items():
        passed = Sample((float(len(done.passed)),))
        run.report.add(
            Row(name, run.role(name), f"of {len(done.passed) + len(done.failed)} passed", passed, "Math-Verify's tests")
        )
        # Names only: a parametrised test's name holds the case, which is not ours to copy.
        run.findings[f"Math-Verify's tests that fail: {name}"] = sorted(_short(case) for case in done.failed)


def _short(case: str) -> str:
    return case.partition("[")[0].partition(" ")[0] + " " + case[case.rindex("#") :]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--math-verify-python", type=Path, default=os.environ.get("ELPO_MATH_VERIFY_PYTHON"))
    parser.add_argument("--suite", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("ELPO_DATA"))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", default=",".join(GROUPS))
    own, rest = parser.parse_known_args(argv)
    options = parse_options(f"{__doc__.splitlines()[0]} Also: {parser.format_usage().partition(' ')[2]}", rest)
    chosen = own.only.split(",")
    if unknown := sorted(set(chosen) - set(GROUPS)):
        parser.error(f"--only {', '.join(unknown)} is not among {', '.join(GROUPS)}")
    graders = {OURS: Path(sys.executable)}
    run = Run(options, Report("grading", {}), graders)
    if own.math_verify_python:
        graders[PEER] = Path(own.math_verify_python)
    else:
        run.notes.append("Math-Verify: skipped, no interpreter given (--math-verify-python or ELPO_MATH_VERIFY_PYTHON)")
    versions = {name: Grader.version_of(name, python) for name, python in graders.items()}
    if "numbers" in chosen:
        count = 28 if options.quick else 420
        speed(run, "integers and fractions", [numbers(seed, count) for seed in range(options.repeats + 1)], WAYS)
    if "written" in chosen and own.data:
        pairs = written_variants(Path(own.data))
        pairs = pairs[:20] if options.quick else pairs[:: own.every]
        slices = [pairs[at :: options.repeats + 1] for at in range(options.repeats + 1)]
        speed(run, "MATH500 answers as written", slices, {"main thread": 0})
    elif "written" in chosen:
        run.notes.append("MATH500: skipped, no folder given (--data or ELPO_DATA)")
    if "hostile" in chosen:
        worst_cases(run)
    if "suite" in chosen and own.suite:
        suite(run, own.suite)
    elif "suite" in chosen:
        run.notes.append("Math-Verify's tests: skipped, no checkout given (--suite)")
    run.report.settings = {
        "versions": versions,
        "hostile_limit_s": HOSTILE_LIMIT_S,
        "every": own.every,
        "skipped": run.notes,
        **run.findings,
    }
    run.report.finish(options)
    _show(run, Console())


def _show(run: Run, console: Console) -> None:
    for name, finding in run.findings.items():
        console.print(f"[bold]{name}[/bold]")
        if isinstance(finding, dict):
            disagreements = finding.get("disagreements", [])
            for key, value in finding.items():
                if key != "disagreements":
                    console.print(f"  {key}: {value}", markup=False)
            for item in disagreements[:_SHOWN]:
                console.print(f"  disagree: {item}", markup=False)
            if len(disagreements) > _SHOWN:
                console.print(f"  ... and {len(disagreements) - _SHOWN} more; --json has all")
        else:
            for item in finding:
                console.print(f"  {item}", markup=False)
    for note in run.notes:
        console.print(note)


if __name__ == "__main__":
    main()
