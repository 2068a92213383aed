"""Sessions without snapshots run their calls in one process; what a lost call took along is rebuilt."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from _fork_watch import needs_fork, nodes, wait_until

from elpo_envs.sandbox import Execution, Limits
from elpo_envs.sandbox.fork.pool import Cap, Pool
from elpo_envs.sandbox.fork.repeatable import is_repeatable
from elpo_envs.sandbox.fork.sandbox import ForkSandbox

pytestmark = needs_fork

LIMITS = Limits(wall_s=1.0, cpu_s=30.0, memory_mb=512)
SET_UP = "import random\nx, f, g = [random.random()], open('f', 'w+'), iter(range(99))\nf.write('one')"
LOOK = "next(g), x, f.tell(), random.getrandbits(32)"
LOSSES = {
    "hang": "x.append(1); f.write('lost')\nwhile True: pass",
    "crash": "import os\nx.append(1)\nos._exit(7)",
    "fault": "import ctypes\nx.append(1)\nctypes.string_at(0)",
    "disk": "for i in range(40): open(f'f{i}', 'wb').write(bytes(1 << 20))",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(cap=Cap(1000, 100_000))
    yield pool
    pool.shut_down()


@pytest.fixture
def box(pool: Pool) -> Iterator[ForkSandbox]:
    with contextlib.closing(ForkSandbox(LIMITS, pool)) as box:
        assert wait_until(lambda: not nodes(pool))
        box.open(5)
        yield box


@pytest.fixture(scope="module")
def unbroken(pool: Pool) -> list[Execution]:
    """What a session without losses shows."""
    with contextlib.closing(ForkSandbox(LIMITS, pool)) as box:
        box.open(5)
        return [box.run(code) for code in (SET_UP, *[LOOK] * 6)]


def test_calls_in_a_row_share_a_process(pool: Pool, box: ForkSandbox) -> None:
    box.run("x = 0")
    (process,) = nodes(pool)
    assert [box.run("x += 1; x").text for _ in range(20)] == [str(n) for n in range(1, 21)]
    assert nodes(pool) == [process]


def test_a_snapshot_freezes_the_process(pool: Pool, box: ForkSandbox) -> None:
    box.run("x = [0]")
    box.run("x[0] += 1")
    (process,) = nodes(pool)
    snapshot = box.snapshot()
    assert box.run("x[0] += 1; x").text == "[2]"
    assert box.run("x[0] += 1; x").text == "[3]"
    assert process in nodes(pool)
    for _ in range(2):
        box.restore(snapshot)
        assert snapshot.restored == "exact"
        assert box.run("x[0] += 10; x").text == "[11]"


@pytest.mark.parametrize("loss", LOSSES)
def test_what_a_lost_call_took_along_is_rebuilt(box: ForkSandbox, unbroken: list[Execution], loss: str) -> None:
    before = [box.run(code) for code in (SET_UP, LOOK, LOOK)]
    lost = box.run(LOSSES[loss])
    assert lost.kind == ("timeout" if loss == "hang" else "error")
    assert "variables are as they were" in lost.text
    after = [box.run(LOOK), box.run(LOOK)]
    assert box.run(LOSSES[loss]) == lost
    assert box.snapshot().restored == "exact"
    assert before + after + [box.run(LOOK)] == unbroken[:6]


def test_a_process_that_was_killed_between_calls_is_rebuilt(
    pool: Pool, box: ForkSandbox, unbroken: list[Execution]
) -> None:
    before = [box.run(code) for code in (SET_UP, LOOK)]
    (process,) = nodes(pool)
    os.kill(process, signal.SIGKILL)
    assert wait_until(lambda: not nodes(pool))
    assert before + [box.run(LOOK) for _ in range(5)] == unbroken


def test_a_cancelled_call_leaves_the_session_as_it_was(box: ForkSandbox, unbroken: list[Execution]) -> None:
    async def cancelled() -> list[Execution]:
        before = [await box.run_async(code) for code in (SET_UP, LOOK)]
        call = asyncio.create_task(box.run_async("x.append(2)\nwhile True: pass"))
        await asyncio.sleep(0.1)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        return before + [await box.run_async(LOOK) for _ in range(5)]

    assert asyncio.run(cancelled()) == unbroken


def test_code_that_reads_the_clock_is_never_repeated(pool: Pool, box: ForkSandbox) -> None:
    box.run("import time")
    first = box.run("start = time.perf_counter(); start").text
    assert box.run("while True: pass").kind == "timeout"
    assert box.run("start").text == first


def test_costly_calls_are_not_repeated_for_a_lost_one(pool: Pool, box: ForkSandbox) -> None:
    box.run("x = 0")
    box.run("x = sum(range(10_000_000))")
    costly = nodes(pool)
    assert box.run("while True: pass").kind == "timeout"
    assert set(costly) <= set(nodes(pool))
    assert box.run("x").text == str(sum(range(10_000_000)))


def test_forged_words_after_a_call_are_not_taken_for_the_next_reply(box: ForkSandbox) -> None:
    forge = "getattr(__import__('o' + 's'), 'write')(4, b'\\0\\0\\0\\x0f[[\"2\", \"ok\"]]   ')"
    box.run("x = 1")
    box.run(f"x = 5; {forge}; {forge}")
    assert box.run("x").text != "2"


@pytest.mark.parametrize(
    ("code", "repeatable"),
    [
        ("x = 1", True),
        ("import numpy as np\nnp.random.rand()", True),
        ("time = distance / speed\nfrom sympy import solve", True),
        ("rng = np.random.default_rng(0)\nrandom.seed(1)", True),
        ("from_date, sys, stat = 1, 2, 3", True),
        ("import time", False),
        ("import math, time", False),
        ("from datetime import date", False),
        ("import uuid as u", False),
        ("rng = np.random.default_rng()", False),
        ("random.seed( None )", False),
        ("r = random.Random()", False),
        ("from numpy.random import default_rng as make\nmake()", False),
        ("random.SystemRandom().random()", False),
        ("pd.Timestamp.now()", False),
        ("id(x)", False),
        ("open('/proc/self/stat')", False),
        ("__import__('time')", False),
    ],
)
def test_code_whose_results_may_differ_is_told_by_its_names(code: str, repeatable: bool) -> None:
    assert is_repeatable(code) is repeatable
