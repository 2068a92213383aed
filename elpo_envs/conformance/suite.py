"""The checks as a class of tests, for pytest or unittest alike."""

from __future__ import annotations

import unittest
from collections.abc import Callable

from elpo_envs.conformance.checks import CHECKS, NEED_SNAPSHOTS
from elpo_envs.conformance.subject import Subject


def conformance_tests(subject: Subject) -> type[unittest.TestCase]:
    """A class with one test for each of `CHECKS`; bind it to a name that starts with `Test`."""
    tests = {f"test_{name}": _test(name, check, subject) for name, check in CHECKS.items()}
    return type("TestConformance", (unittest.TestCase,), tests)


def _test(name: str, check: Callable[[Subject], None], subject: Subject) -> Callable[[unittest.TestCase], None]:
    def test(case: unittest.TestCase) -> None:
        if name in NEED_SNAPSHOTS and (subject.snapshot is None or subject.restore is None):
            case.skipTest("this environment has no snapshots")
        check(subject)

    test.__doc__ = check.__doc__
    return test
