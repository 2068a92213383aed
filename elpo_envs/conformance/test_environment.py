"""Collected by `pytest --pyargs elpo_envs.conformance`; see the package."""

from __future__ import annotations

import pytest

from elpo_envs.conformance.checks import CHECKS, NEED_SNAPSHOTS
from elpo_envs.conformance.subject import Subject


@pytest.mark.parametrize("name", list(CHECKS))
def test_conformance(name: str, conformance_subject: Subject) -> None:
    if name in NEED_SNAPSHOTS and conformance_subject.snapshot is None:
        pytest.skip("this environment has no snapshots")
    CHECKS[name](conformance_subject)
