"""Math-Verify's own test-suite, run twice: against Math-Verify, and against our grader behind the same names.

The suite stays where it is (a checkout of its repository); nothing of it is copied.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class SuiteRun:
    """The outcome of each test case, by "file::function[parameters]"."""

    passed: frozenset[str]
    failed: frozenset[str]


def run_suite(suite: Path, python: Path | None = None) -> SuiteRun:
    """Run the tests of the checkout `suite`: with `python`, which has Math-Verify and pytest; else against our grader.

    Raises:
        ValueError: no tests ran there.
    """
    tests = suite / "tests"
    if not tests.is_dir():
        raise ValueError(f"--suite {suite} has no folder tests; give a checkout of Math-Verify's repository")
    stand_in = ["-p", "benchmarks.grading_stand_in"] if python is None else []
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [
            *(str(python or sys.executable), "-P", "-m", "pytest", str(tests), "-q", "-p", "no:cacheprovider"),
            *(*stand_in, "--rootdir", str(suite), f"--junitxml={report}"),
        ]
        done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True)
        if not report.exists():
            raise ValueError(f"pytest did not run in {suite}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        passed: set[str] = set()
        failed: set[str] = set()
        for at, case in enumerate(ElementTree.parse(report).iter("testcase")):
            name = f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name')} #{at + 1}"
            bad = case.find("failure") is not None or case.find("error") is not None
            (failed if bad else passed).add(name)
    if not passed and not failed:
        raise ValueError(f"no tests ran in {suite}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return SuiteRun(frozenset(passed), frozenset(failed))
