"""How many processes the `fork` backend keeps: only those that are needed, and never more than its cap."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Callable, Iterator

import pytest
from _fork_watch import descriptors, needs_fork, nodes, resident_mb, wait_until, zygote

from elpo_envs.sandbox import SandboxSnapshot
from elpo_envs.sandbox.fork.pool import Cap, Pool
from elpo_envs.sandbox.fork.process import Process
from elpo_envs.sandbox.fork.sandbox import ForkSandbox

pytestmark = needs_fork

ROOMY = Cap(10_000, 100_000)


@pytest.fixture
def make_pool() -> Iterator[Callable[[Cap], Pool]]:
    pools: list[Pool] = []

    def make(cap: Cap) -> Pool:
        pools.append(Pool(cap=cap))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shut_down()


def opened(pool: Pool, seed: int = 0) -> ForkSandbox:
    box = ForkSandbox(pool=pool)
    box.open(seed)
    return box


def process_of(snapshot: SandboxSnapshot) -> Process:
    assert isinstance(snapshot.live, Process)
    return snapshot.live


def settled(pool: Pool, expected: int) -> bool:
    """Whether as many processes as expected are alive, once those that were let go have ended."""
    gc.collect()
    pool.flush()
    return wait_until(lambda: len(nodes(pool)) == expected) and pool.processes() == expected


# --- the cap --------------------------------------------------------------------------------------------------------


def test_snapshots_beyond_the_cap_can_be_restored(make_pool: Callable[[Cap], Pool]) -> None:
    pool = make_pool(Cap(20, 100_000))
    box = ForkSandbox(pool=pool)
    snapshots = []
    for number in range(100):
        box.open(number)
        box.run(f"import random\nx = [{number}, random.random()]\nf = open('f', 'w+')\nf.write(repr(x))")
        snapshots.append((box.snapshot(), box.run("f.seek(0); x, f.read()").text))
        assert pool.processes() <= 20
    assert wait_until(lambda: len(nodes(pool)) <= 20)
    ended = [snapshot for snapshot, _ in snapshots if not process_of(snapshot).alive]
    assert len(ended) >= 80
    order = list(range(100))
    random.Random(0).shuffle(order)
    for index in order:
        snapshot, expected = snapshots[index]
        box.restore(snapshot)
        assert box.run("f.seek(0); x, f.read()").text == expected
        assert pool.processes() <= 20
    assert wait_until(lambda: len(nodes(pool)) <= 20)


def test_an_ended_snapshot_that_cannot_be_repeated_is_refused(make_pool: Callable[[Cap], Pool]) -> None:
    pool = make_pool(Cap(6, 100_000))
    box = opened(pool)
    box.run("import time\nprint(time.time_ns())")
    snapshot = box.snapshot()
    others = [opened(pool) for _ in range(8)]
    for other in others:
        other.run("x = 1")
    assert not process_of(snapshot).alive
    box.restore(snapshot)
    refused = box.run("1")
    assert refused.kind == "sandbox_failure" and "gave other results than the first time" in refused.text


def test_what_was_used_longest_ago_goes_first(make_pool: Callable[[Cap], Pool]) -> None:
    pool = make_pool(Cap(12, 100_000))
    box = opened(pool)
    box.run("x = 'used'")
    used = box.snapshot()
    box.open(1)
    box.run("x = 'unused'")
    unused = box.snapshot()
    kept = []
    for _ in range(20):
        box.restore(used)
        assert box.run("x").text == "'used'"
        kept.append(box.snapshot())
    assert process_of(used).alive
    assert not process_of(unused).alive
    box.restore(unused)
    assert box.run("x").text == "'unused'"


@pytest.mark.parametrize("processes", [1, 2, 4, 9])
def test_a_cap_below_what_is_in_use_costs_only_time(make_pool: Callable[[Cap], Pool], processes: int) -> None:
    pool = make_pool(Cap(processes, 100_000))

    async def use(number: int) -> list[str]:
        box = opened(pool)
        await box.run_async(f"x = {number}")
        return [(await box.run_async("import time; time.sleep(0.01); x += 1; x")).text for _ in range(4)]

    async def all_at_once() -> list[list[str]]:
        return await asyncio.gather(*map(use, range(8)))

    assert asyncio.run(all_at_once()) == [[str(number + n) for n in range(1, 5)] for number in range(8)]
    box = opened(pool)
    assert [box.run("x = globals().get('x', 0) + 1; x").text for _ in range(5)] == list("12345")
    assert wait_until(lambda: len(nodes(pool)) <= max(processes, 3))


@pytest.mark.parametrize(("field", "value"), [("processes", 0), ("processes", -1), ("memory_mb", 0)])
def test_caps_are_checked(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"Cap.{field}"):
        Cap(**({"processes": 10, "memory_mb": 10} | {field: value}))


def test_the_default_cap_fits_the_machine() -> None:
    cap = Cap.default()
    assert 16 <= cap.processes <= 1000
    assert cap.memory_mb >= 512


def test_memory_is_capped(make_pool: Callable[[Cap], Pool]) -> None:
    pool = make_pool(Cap(1000, 210))
    snapshots = []
    for number in range(12):
        box = opened(pool)
        box.run(f"x = bytearray([{number}]) * (50 << 20)")
        snapshots.append(box.snapshot())
        box.run("y = 1")
    alive = [snapshot for snapshot in snapshots if process_of(snapshot).alive]
    assert 2 <= len(alive) <= 5
    assert pool._private_mb() <= 210 + 60
    for number, snapshot in enumerate(snapshots):
        box.restore(snapshot)
        assert box.run("len(x) >> 20, x[0], x[-1]").text == f"(50, {number}, {number})"


def test_branches_of_a_large_session_are_not_counted_as_large(make_pool: Callable[[Cap], Pool]) -> None:
    pool = make_pool(Cap(1000, 300))
    box = opened(pool)
    box.run("x = bytearray(b'a') * (100 << 20)")
    root = box.snapshot()
    branches = []
    for number in range(20):
        box.restore(root)
        box.run(f"y = {number}")
        branches.append(box.snapshot())
    assert all(process_of(snapshot).alive for snapshot in [root, *branches])


# --- only what is needed ----------------------------------------------------------------------------------------------


def test_only_the_processes_of_snapshots_are_kept(make_pool: Callable[[Cap], Pool]) -> None:
    pool = make_pool(ROOMY)
    box = opened(pool)
    snapshots = {}
    for number in range(40):
        box.run(f"x = {number}")
        if number % 10 == 5:
            snapshots[number] = box.snapshot()
    running = 2  # the state, and the process forked from it for the next call
    assert settled(pool, running + 4)
    del snapshots[15]
    assert settled(pool, running + 3)
    box.close()
    assert settled(pool, 3)
    for number, snapshot in snapshots.items():
        box.restore(snapshot)
        assert box.run("x").text == str(number)
    box.close()
    snapshots.clear()
    del snapshot
    assert settled(pool, 0)


def test_a_tree_of_branches_is_released_from_the_root_or_the_leaves(make_pool: Callable[[Cap], Pool]) -> None:
    pool = make_pool(ROOMY)
    for leaves_first in (False, True):
        box = opened(pool)
        box.run("x = ()")
        levels = [[box.snapshot()]]
        for _ in range(3):
            level = []
            for parent in levels[-1]:
                for branch in range(3):
                    box.restore(parent)
                    box.run(f"x += ({branch},)")
                    level.append(box.snapshot())
            levels.append(level)
            del parent
        box.close()
        assert settled(pool, sum(map(len, levels)))
        while len(levels) > 1:
            levels.pop(-1 if leaves_first else 0)
            del level
            level = levels[-1]
            assert settled(pool, sum(map(len, levels)))
        box.restore(level[-1])
        assert box.run("x").text == ("()" if leaves_first else "(2, 2, 2)")
        box.close()
        levels.clear()
        level.clear()
        assert settled(pool, 0)


def test_a_session_of_many_calls_does_not_get_slower_or_larger(make_pool: Callable[[Cap], Pool]) -> None:
    pool = make_pool(ROOMY)
    box = opened(pool)
    box.run("x = 0")
    for number in range(150):
        assert box.run("x += 1; x").text == str(number + 1)
    assert settled(pool, 2)


def _create_and_release(pool: Pool, count: int) -> None:
    chance = random.Random(1)
    boxes = [opened(pool, seed) for seed in range(10)]
    kept: list[SandboxSnapshot] = []
    flat: list[tuple[int, float]] = []
    for number in range(count):
        box = boxes[number % len(boxes)]
        if kept and chance.random() < 0.3:
            box.restore(chance.choice(kept))
        assert box.run("x = globals().get('x', 0) + 1; x").text.isdigit()
        kept.append(box.snapshot())
        if len(kept) > 30:
            kept.pop(chance.randrange(len(kept)))
        if number % (count // 4) == count // 4 - 1:
            most = len(kept) + 2 * len(boxes)
            assert wait_until(lambda most=most: len(nodes(pool)) <= most + 10)
            assert pool.processes() <= most
            flat.append((descriptors(), resident_mb(zygote(pool))))
    first, *_, last = flat
    assert abs(last[0] - first[0]) < 40, "the connections of what is kept, which vary with it"
    assert last[1] - first[1] < 4
    del box
    boxes.clear()
    kept.clear()
    assert settled(pool, 0)


def test_snapshots_come_and_go(make_pool: Callable[[Cap], Pool]) -> None:
    before = descriptors()
    pool = make_pool(ROOMY)
    _create_and_release(pool, 2000)
    pool.shut_down()
    assert descriptors() <= before


@pytest.mark.slow
def test_ten_thousand_snapshots_come_and_go(make_pool: Callable[[Cap], Pool]) -> None:
    _create_and_release(make_pool(ROOMY), 10_000)


@pytest.mark.slow
def test_a_thousand_snapshots_at_once(make_pool: Callable[[Cap], Pool]) -> None:
    pool = make_pool(Cap(400, 100_000))
    box = opened(pool)
    box.run("x = 0")
    root = box.snapshot()
    snapshots = []
    for number in range(1000):
        box.restore(root)
        box.run(f"x = {number}")
        snapshots.append(box.snapshot())
        assert pool.processes() <= 400
    for number in (0, 1, 500, 998, 999):
        box.restore(snapshots[number])
        assert box.run("x").text == str(number)


def test_the_collector_releases_processes_in_any_thread(make_pool: Callable[[Cap], Pool]) -> None:
    pool = make_pool(ROOMY)

    class Knot:
        def __init__(self, snapshot: SandboxSnapshot) -> None:
            self.snapshot, self.itself = snapshot, self

    def tie() -> None:
        box = opened(pool)
        for number in range(20):
            box.run(f"x = {number}")
            Knot(box.snapshot())
            if number % 7 == 0:
                gc.collect()

    threads = [threading.Thread(target=tie) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert settled(pool, 0)
