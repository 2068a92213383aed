"""`elpo sandbox check`: it says what holds here, finds what does not hold, and its status says which."""

from __future__ import annotations

import re

import pytest

from elpo_agent.cli.main import main
from elpo_envs.sandbox import Limits, Sandbox
from elpo_envs.sandbox.check import self_test
from elpo_envs.sandbox.choice import why_not_fork

pytestmark = pytest.mark.skipif(why_not_fork() is not None, reason=f"no fork sandbox here: {why_not_fork()}")


def test_a_jailed_sandbox_passes(capsys: pytest.CaptureFixture[str]) -> None:
    from elpo_envs.sandbox.fork.pools import current_pool

    if not current_pool().jail.isolated:
        pytest.skip(f"this machine cannot isolate: {dict(current_pool().jail.missing)}")
    assert main(["sandbox", "check"]) == 0
    shown = capsys.readouterr().out
    assert "FAIL" not in shown and shown.count("  ok   ") >= 12
    for layer in ("landlock", "seccomp", "fork_grants", "capabilities"):
        assert re.search(rf"  active +{layer}\n", shown)
    assert re.search(r"a call of x = 1 +\d+\.\d\d ms", shown)


def test_a_sandbox_without_a_jail_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "check", "--backend", "replay"]) == 1
    shown = capsys.readouterr().out
    assert "NOT isolated" in shown and "FAIL cannot open a socket" in shown
    assert "ok   branches three times to the same state" in shown


def test_a_missing_layer_is_found() -> None:
    from elpo_envs.sandbox.fork.pool import Pool
    from elpo_envs.sandbox.fork.sandbox import ForkSandbox
    from elpo_envs.sandbox.language import LanguagePolicy

    pool = Pool(disabled=frozenset({"landlock"}))

    def make(limits: Limits, restricted: bool) -> Sandbox:
        return ForkSandbox(limits, pool, LanguagePolicy() if restricted else None)

    try:
        failed = {finding.name for finding in self_test(make) if not finding.holds}
    finally:
        pool.shut_down()
    assert failed == {"cannot read the host's files"}
