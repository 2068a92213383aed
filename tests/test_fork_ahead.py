"""Processes that the `fork` backend has forked before they are asked for, and what its zygote does to fork fast."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _fork_watch import children, needs_fork, nodes, wait_until, zygote

from elpo_envs.sandbox import Limits
from elpo_envs.sandbox.base import SandboxError, SandboxSnapshot
from elpo_envs.sandbox.fork import heap
from elpo_envs.sandbox.fork.pool import Cap, Pool
from elpo_envs.sandbox.fork.process import Process, SessionSettings
from elpo_envs.sandbox.fork.sandbox import ForkSandbox

pytestmark = needs_fork


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool(cap=Cap(10_000, 100_000))
    yield made
    made.shut_down()


@pytest.fixture
def box(pool: Pool) -> Iterator[ForkSandbox]:
    made = ForkSandbox(pool=pool)
    made.open(7)
    made.run("import random\nx = [0]")
    yield made
    made.close()


def births(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The ids of the processes that are forked from now on; None for the template."""
    made: list[int | None] = []
    fork = pool.fork

    def counted(parent: Process | None, settings: SessionSettings) -> Process:
        made.append(None if parent is None else parent.id)
        return fork(parent, settings)

    monkeypatch.setattr(pool, "fork", counted)
    return made


def branch(box: ForkSandbox, snapshot: SandboxSnapshot, number: int) -> str:
    box.restore(snapshot)
    return box.run(f"x.append({number}); x, random.random()").text


def test_a_state_restored_again_and_again_is_forked_ahead(
    pool: Pool, box: ForkSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = box.snapshot()
    anchor = snapshot.live.id
    expected = branch(box, snapshot, 5)
    made = births(pool, monkeypatch)
    assert branch(box, snapshot, 5) == expected
    assert made == [anchor, anchor], "one process for this branch, and one for the next"
    for _ in range(5):
        made.clear()
        assert branch(box, snapshot, 5) == expected
        assert made == [anchor], "the branch has a process already; another one is made for the next"


def test_every_branch_from_a_process_forked_ahead_is_the_same(box: ForkSandbox) -> None:
    snapshot = box.snapshot()
    first = {number: branch(box, snapshot, number) for number in range(8)}
    assert {number: branch(box, snapshot, number) for number in range(8)} == first


def test_what_was_forked_ahead_of_one_state_never_serves_another(pool: Pool, box: ForkSandbox) -> None:
    one = box.snapshot()
    box.run("x = [1]")
    other = box.snapshot()
    for _ in range(3):
        assert branch(box, one, 9).startswith("([0, 9]")
        assert branch(box, one, 9).startswith("([0, 9]")
        assert branch(box, other, 9).startswith("([1, 9]")
        assert branch(box, other, 9).startswith("([1, 9]")
        assert branch(box, other, 9).startswith("([1, 9]")
        box.open(3)
        assert "NameError" in box.run("x").text


def test_a_branch_may_go_on_and_one_be_stopped_between_others(box: ForkSandbox) -> None:
    snapshot = box.snapshot()
    expected = branch(box, snapshot, 1)
    for _ in range(3):
        assert branch(box, snapshot, 1) == expected
        assert box.run("x[0] += 1; x").text == "[1, 1]"
        assert box.run("x[0] += 1; x").text == "[2, 1]"
        box.restore(snapshot)
        box.limits = Limits(wall_s=0.3)
        assert box.run("import time; time.sleep(9)").kind == "timeout"
        box.limits = Limits()
        assert box.run("x.append(1); x, random.random()").text == expected


def test_a_branch_with_another_seed_does_not_change_the_next(box: ForkSandbox) -> None:
    snapshot = box.snapshot()
    expected = branch(box, snapshot, 1)
    assert branch(box, snapshot, 1) == expected
    box.restore(snapshot, reseed=99)
    assert box.run("x.append(1); x, random.random()").text != expected
    assert branch(box, snapshot, 1) == expected


def test_limits_changed_between_branches_are_kept(box: ForkSandbox) -> None:
    snapshot = box.snapshot()
    for _ in range(3):
        branch(box, snapshot, 1)
    box.limits = Limits(output_chars=100)
    box.restore(snapshot)
    assert len(box.run("'z' * 1000").text) <= 100


def test_nothing_forked_ahead_outlives_its_use(pool: Pool, box: ForkSandbox) -> None:
    before = pool.processes()
    snapshot = box.snapshot()
    for number in range(4):
        branch(box, snapshot, number)
    assert pool.processes() <= before + 2, "the last branch, and the one ahead"
    box.run("x")  # goes on, so that a process is forked ahead of its next call, too
    box.close()
    pool.flush()
    assert wait_until(lambda: pool.processes() == 1 and len(nodes(pool)) == 1), "only what the snapshot holds"
    del snapshot
    pool.flush()
    assert wait_until(lambda: pool.processes() == 0 and not nodes(pool))


def test_the_one_forked_ahead_may_be_ended_to_make_room() -> None:
    pool = Pool(cap=Cap(3, 100_000))
    try:
        box = ForkSandbox(pool=pool)
        box.open(1)
        box.run("x = [0]\nimport random")
        snapshot = box.snapshot()
        expected = branch(box, snapshot, 1)
        others = []
        for number in range(4):
            assert branch(box, snapshot, 1) == expected
            others.append(ForkSandbox(pool=pool))
            others[-1].open(number)
            assert others[-1].run(f"y = {number}; y").text == str(number)
            assert pool.processes() <= 3
        assert branch(box, snapshot, 1) == expected
    finally:
        pool.shut_down()


def test_what_waits_for_a_call_is_ended_before_what_holds_a_state() -> None:
    pool = Pool(cap=Cap(8, 100_000))
    try:
        boxes = [ForkSandbox(pool=pool) for _ in range(6)]
        for number, box in enumerate(boxes):
            box.open(number)
            box.run(f"x = {number}")
            box.run("x += 1")  # from here on, a process is forked ahead of the next call
        states = [box.snapshot() for box in boxes]
        assert [state.live.alive for state in states] == [True] * 6
        for number, box in enumerate(boxes):
            assert box.run("x").text == str(number + 1)
    finally:
        pool.shut_down()


def test_a_call_does_not_fail_where_nothing_can_be_forked_ahead(
    pool: Pool, box: ForkSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork, snapshot = pool.fork, box.snapshot()
    expected = branch(box, snapshot, 1)
    asked: list[str] = []

    def fails(parent: Process | None, settings: SessionSettings) -> Process:
        asked.append("ahead")
        raise SandboxError("no connection to a session could be made: Too many open files")

    branch(box, snapshot, 1)
    box.restore(snapshot)
    monkeypatch.setattr(pool, "fork", fails)
    assert box.run("x.append(1); x, random.random()").text == expected
    assert asked
    monkeypatch.setattr(pool, "fork", fork)
    assert box.run("x.append(2); x").text == "[0, 1, 2]"


# --- the zygote's heap ----------------------------------------------------------------------------------------------


def collapses() -> bool:
    version = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    size = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
    return version >= (6, 1) and size.exists() and int(size.read_text()) == 2 << 20


_PROGRAM = """
import json, os, re, sys
from elpo_envs.sandbox.fork import heap

things = [[str(number)] for number in range(400_000)]
check = hash(tuple(map(tuple, things)))

def large_kb():
    return sum(map(int, re.findall(r"AnonHugePages: +([0-9]+) kB", open("/proc/self/smaps").read())))

before = large_kb()
pages = heap.enlarge_pages()
enlarged = large_kb()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    heap.divide_tables(pages)
    same = hash(tuple(map(tuple, things))) == check
    os.write(writer, json.dumps([large_kb(), same]).encode())
    os._exit(0)
os.waitpid(child, 0)
divided, same = json.loads(os.read(reader, 100))
same = same and hash(tuple(map(tuple, things))) == check
print(json.dumps({"pages": len(pages), "before": before, "enlarged": enlarged, "divided": divided, "same": same}))
"""


def test_large_pages_hold_what_the_small_ones_held() -> None:
    if not collapses():
        pytest.skip("collapsing pages on request needs Linux 6.1 with transparent huge pages of 2 MiB")
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["pages"] > 10
    assert told["enlarged"] - told["before"] >= 0.8 * 2048 * told["pages"]
    assert told["divided"] <= 0.1 * told["enlarged"], "what a fork inherits has small entries"
    assert told["same"]


def test_nothing_happens_where_the_system_has_no_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_MADV_COLLAPSE", 10_000)
    assert heap.enlarge_pages() == ()
    heap.divide_tables(())
    monkeypatch.setattr(Path, "read_text", lambda _: (_ for _ in ()).throw(FileNotFoundError("/proc/self/maps")))
    assert heap.enlarge_pages() == ()


def test_the_template_hands_small_entries_on(pool: Pool) -> None:
    template = children(zygote(pool))[0]
    sizes = dict(re.findall(r"(\w+): +(\d+) kB", Path(f"/proc/{template}/smaps_rollup").read_text()))
    assert int(sizes["AnonHugePages"]) <= 0.1 * int(sizes["Anonymous"])
