"""Every attempt, in the sandbox as it is by default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _attempt import Attempt
from _ground import PRELOAD, Ground, ground
from _registry import ATTEMPTS, applicable

from elpo_envs.sandbox.choice import why_not_fork

pytestmark = pytest.mark.skipif(why_not_fork() is not None, reason=f"the fork backend: {why_not_fork()}")

SWIFT = [attempt for attempt in ATTEMPTS if applicable(attempt) and not attempt.patient]
PATIENT = [attempt for attempt in ATTEMPTS if applicable(attempt) and attempt.patient]


@pytest.fixture(scope="module")
def field() -> Iterator[Ground]:
    with ground(preload=PRELOAD) as made:
        yield made
        assert not made.witness.problem_at_its_start()


def test_there_are_enough_and_names_are_unique() -> None:
    assert len(ATTEMPTS) >= 120
    assert len({attempt.name for attempt in ATTEMPTS}) == len(ATTEMPTS)


@pytest.mark.parametrize("attempt", SWIFT, ids=lambda attempt: attempt.name)
def test_attempt(field: Ground, attempt: Attempt) -> None:
    assert field.verdict(attempt) == []


def test_attempts_that_run_until_they_are_stopped(field: Ground) -> None:
    assert field.verdicts(PATIENT) == []
