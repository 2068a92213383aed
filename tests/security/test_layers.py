"""One layer at a time: what it stops comes through without it, so each does its part and the attempts are real."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import defaultdict
from pathlib import Path

import pytest
from _attempt import LOW, Attempt
from _ground import Ground, family, ground, judged, wait_until
from _registry import ATTEMPTS, applicable

from elpo_envs.sandbox.base import Limits
from elpo_envs.sandbox.choice import why_not_fork
from elpo_envs.sandbox.fork.pool import Pool
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
from elpo_envs.sandbox.jail import LAYERS

pytestmark = pytest.mark.skipif(why_not_fork() is not None, reason=f"the fork backend: {why_not_fork()}")


def expectations() -> dict[frozenset[str], dict[Attempt, bool]]:
    """Layers to switch off -> attempts, and whether each comes through.

    Where several layers stop an attempt, it is also made with all of them but one switched off.
    """
    found: dict[frozenset[str], dict[Attempt, bool]] = defaultdict(dict)
    for attempt in filter(applicable, ATTEMPTS):
        if attempt.opens is not None:
            found[attempt.opens][attempt] = True
            for layer in attempt.opens:
                if len(attempt.opens) > 1:
                    found[attempt.opens - {layer}][attempt] = False
    return found


EXPECTATIONS = expectations()


def test_every_layer_is_needed_by_an_attempt() -> None:
    by_name = {layer for attempt in ATTEMPTS for layer in attempt.opens or ()}
    assert by_name | {"death_signal"} == set(LAYERS)  # that one has tests of its own, below


@pytest.mark.parametrize("disabled", sorted(EXPECTATIONS, key=sorted), ids=lambda disabled: "-".join(sorted(disabled)))
def test_without(disabled: frozenset[str]) -> None:
    with ground(disabled) as field:
        assert disabled <= field.pool.jail.missing.keys()
        found = [surprise(field, *expected) for expected in EXPECTATIONS[disabled].items()]
    assert [wrong for wrong in found if wrong] == []


def surprise(field: Ground, attempt: Attempt, comes_through: bool) -> str:
    """What is not as expected, or ""."""
    executions = asyncio.run(field.make(attempt, restricted=False))
    escaped = any("it escaped" in problem for problem in judged(attempt, False, executions))
    return "" if escaped == comes_through else f"{attempt.name}: escaped={escaped}: {executions}"


# --- death signals: without namespaces, in which the kernel ends all together


GROWN = 150 << 20
SLEEP = LOW + f"{{before}}\nheld = b'x' * {GROWN}\ntime.sleep(60)"
FORGET = "assert call(157, 167, 1, 0, 0, 0, 0) == 0"


@pytest.mark.parametrize(
    ("disabled", "before", "survives"),
    [({"namespaces"}, "", False), ({"namespaces", "seccomp"}, "", False), ({"namespaces", "seccomp"}, FORGET, True)],
    ids=["with-all", "without-filter", "signal-cleared"],
)
def test_sessions_die_with_a_supervisor_that_was_killed(disabled: set[str], before: str, survives: bool) -> None:
    pool = Pool(disabled=frozenset(disabled))
    launcher = pool._zygote.pid
    sandbox = ForkSandbox(Limits(wall_s=60, cpu_s=5), pool=pool)
    sandbox.open(1)
    call = threading.Thread(target=sandbox.run, args=(SLEEP.format(before=before),))
    call.start()
    try:
        assert wait_until(lambda: any(resident(process) > GROWN for process in family(launcher)))
        zygote = next(process for process, parent in family(launcher).items() if parent == launcher)
        os.kill(launcher, signal.SIGKILL)
        os.kill(zygote, signal.SIGKILL)
        all_ended = wait_until(lambda: not family(launcher), seconds=1.0 if survives else 20.0)
        assert all_ended == (not survives), family(launcher)
    finally:
        for process in family(launcher):
            os.kill(process, signal.SIGKILL)
        call.join()
        pool.shut_down()


def resident(process: int) -> int:
    """Bytes of a process's memory that are present; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def test_what_a_session_forked_itself_ends_with_the_pool() -> None:
    """Code that carries out its order to fork by itself need not ask for the death signal."""
    code = LOW + "order()\nif clone() == 0: time.sleep(60)\n'forked'"
    pool = Pool(disabled=frozenset({"namespaces"}))
    launcher = pool._zygote.pid
    try:
        for _ in range(10):  # the order is there while the call works only if the process was not born before it
            sandbox = ForkSandbox(Limits(wall_s=1.0), pool)
            sandbox.open(1)
            assert sandbox.run("1").text == "1"
            sandbox.snapshot()  # so that forks of it are ordered
            before = len(family(launcher))
            if sandbox.run(code).text == "'forked'":
                break
        else:
            pytest.fail("the code never had its order")
        assert len(family(launcher)) > before
    finally:
        pool.shut_down()
    assert wait_until(lambda: not family(launcher)), family(launcher)


@pytest.mark.slow
def test_a_fork_that_does_not_say_who_it_is_is_ended_with_its_session() -> None:
    code = LOW + "held = order()\nif clone() == 0: time.sleep(60)\n'forked'"
    with ground() as field:
        before = len(field.family())
        sandbox = ForkSandbox(pool=field.pool)
        sandbox.open(1)
        sandbox.run("1")
        sandbox.snapshot()  # so that forks of it are ordered
        assert sandbox.run(code).text == "'forked'"
        assert wait_until(lambda: len(field.family()) <= before, seconds=60.0)
        sandbox.close()
        assert field.problems() == []
