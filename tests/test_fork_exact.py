"""The `fork` backend is exact: a branch continues as the session itself would have, to the last byte of its output."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import time
from collections.abc import Iterator, Sequence

import pytest
from _fork_fragments import ADDRESSED, PLAIN, REPEATABLE
from _fork_watch import needs_fork
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elpo_envs.sandbox import Execution, Limits, ReplaySandbox, Sandbox, SandboxSnapshot
from elpo_envs.sandbox.fork.pool import Pool
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
from elpo_envs.sandbox.language import LanguagePolicy

pytestmark = needs_fork

FRAGMENTS = REPEATABLE | ADDRESSED
LIMITS = Limits(wall_s=60.0, cpu_s=60.0)  # a time-out would be no fault of exactness
BRANCHES = 3


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(preload=("numpy", "sympy"))
    yield pool
    pool.shut_down()


@pytest.fixture(scope="module")
def other_pool() -> Iterator[Pool]:
    pool = Pool(preload=("numpy", "sympy"))
    yield pool
    pool.shut_down()


def make(pool: Pool, restricted: bool = True) -> ForkSandbox:
    return ForkSandbox(LIMITS, pool, LanguagePolicy() if restricted else None)


def outputs(box: Sandbox, program: Sequence[str]) -> list[Execution]:
    return [box.run(code) for code in program]


def programs(names: Sequence[str], longest: int) -> st.SearchStrategy[list[str]]:
    """Sequences in which a few fragments come again and again, so that what one left is used later."""
    some = st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True)
    return some.flatmap(lambda chosen: st.lists(st.sampled_from(chosen), min_size=2, max_size=longest))


def check_branches(pool: Pool, program: list[str], split: int, seed: int, restricted: bool = True) -> list[Execution]:
    """Branch at `split`; return what the unbranched session showed."""
    session = make(pool, restricted)
    session.open(seed)
    before = outputs(session, program[:split])
    snapshot = session.snapshot()
    onwards = outputs(session, program[split:])
    for branch in range(BRANCHES):
        box = session if branch == 0 else make(pool, restricted)
        if branch == 2:
            session.close()
        box.restore(snapshot)
        assert outputs(box, program[split:]) == onwards, f"branch {branch}"
    assert not any(done.kind in ("timeout", "sandbox_failure") for done in before + onwards)
    return before + onwards


# --- any program, split anywhere ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FRAGMENTS, *PLAIN])
def test_each_kind_of_state_is_carried_over(pool: Pool, name: str) -> None:
    restricted = name in FRAGMENTS
    program = [(FRAGMENTS if restricted else PLAIN)[name]] * 4
    shown = check_branches(pool, program, 2, seed=11, restricted=restricted)
    assert "ProcessDied" not in str(shown)


@examples(15)
@given(data=st.data(), seed=st.integers(-(2**70), 2**70))
def test_any_program_split_anywhere(pool: Pool, data: st.DataObject, seed: int) -> None:
    _check_any_program(pool, data, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@examples(600)
@given(data=st.data(), seed=st.integers(-(2**70), 2**70))
def test_any_program_split_anywhere_many_times(pool: Pool, data: st.DataObject, seed: int) -> None:
    _check_any_program(pool, data, seed)


def _check_any_program(pool: Pool, data: st.DataObject, seed: int) -> None:
    names = data.draw(programs(sorted(FRAGMENTS), 9))
    begun = sorted(set(names) & set(ADDRESSED))  # what they show was settled when they first ran
    names = [*begun, *names]
    split = data.draw(st.integers(len(begun), len(names) - 1))
    program = [FRAGMENTS[name] for name in names]
    shown = check_branches(pool, program, split, seed)
    if not begun:
        alone = make(pool)
        alone.open(seed)
        assert outputs(alone, program) == shown


@examples(8)
@given(names=programs(sorted(PLAIN), 7), data=st.data())
def test_any_program_without_the_language_layer(pool: Pool, names: list[str], data: st.DataObject) -> None:
    split = data.draw(st.integers(0, len(names) - 1))
    check_branches(pool, [PLAIN[name] for name in names], split, seed=3, restricted=False)


@examples(8)
@given(names=programs(sorted(REPEATABLE), 4), turns=st.lists(st.integers(0, 4), min_size=4, max_size=12))
def test_trees_of_branches(pool: Pool, names: list[str], turns: list[int]) -> None:
    """Branches of branches, continued in any order, show what their own way from the root would."""
    program = [REPEATABLE[name] for name in names]
    leaves = [make(pool)]
    leaves[0].open(5)
    ways: list[list[str]] = [[]]
    shown: list[list[Execution]] = [[]]
    for turn, which in enumerate(turns):
        parent = which % len(leaves)
        leaf = make(pool)
        leaf.restore(leaves[parent].snapshot())
        code = program[turn % len(program)]
        leaves.append(leaf)
        ways.append([*ways[parent], code])
        shown.append([*shown[parent], leaf.run(code)])
    alone = make(pool)
    for way, seen in zip(ways, shown, strict=True):
        alone.open(5)
        assert outputs(alone, way) == seen


def test_awaited_calls_show_the_same(pool: Pool) -> None:
    names = ["random", "generator_half_run", "csv_half_read", "error", "class_state"]
    program = [REPEATABLE[name] for name in names * 2]

    async def awaited(box: ForkSandbox) -> list[Execution]:
        return [await box.run_async(code) for code in program]

    async def side_by_side(boxes: list[ForkSandbox]) -> list[list[Execution]]:
        return await asyncio.gather(*map(awaited, boxes))

    boxes = [make(pool) for _ in range(9)]
    for box in boxes:
        box.open(4)
    expected = outputs(boxes.pop(), program)
    assert asyncio.run(side_by_side(boxes)) == [expected] * 8


@pytest.mark.parametrize("code", ["if True print(1)", "del __builtins__", "globals().clear()", "undefined"])
@pytest.mark.parametrize("restricted", [True, False])
def test_a_process_that_waits_needs_nothing_of_the_namespace(pool: Pool, code: str, restricted: bool) -> None:
    box = make(pool, restricted)
    box.open(0)
    box.run(code)
    time.sleep(0.05)  # in which the next process gets ready
    assert box.run("1 + 1").text == "2"


# --- branches do not see each other -----------------------------------------------------------------------------

_SHARED_STATE = """
import contextlib, pathlib, random
import numpy as np
x, items = 1, [1]
log = open('log', 'w+')
log.write('start;')
log.flush()
raw = open('raw', 'wb+', buffering=0)
raw.write(b'0123456789')
pathlib.Path('a').mkdir()
pathlib.Path('b').mkdir()
"""
_CHANGE = """
x += {n}
items.append({n})
log.write('{n};' * {n})
log.flush()
raw.seek({n})
raw.write(b'{folder}')
contextlib.chdir('{folder}').__enter__()
pathlib.Path('only{n}').write_text('{n}')
"""
_SHOW = """
log.seek(0)
raw_at = raw.tell()
raw.seek(0)
print(x, items, log.read(), raw_at, raw.read(), pathlib.Path.cwd(), sorted(map(str, pathlib.Path().glob('**/*'))))
"""


def test_branches_do_not_see_each_other(pool: Pool) -> None:
    root = make(pool)
    root.open(0)
    root.run(_SHARED_STATE)
    snapshot = root.snapshot()
    first, second, untouched = make(pool), make(pool), make(pool)
    for box in (first, second, untouched):
        box.restore(snapshot)
    first.run(_CHANGE.format(n=1, folder="a"))
    second.run(_CHANGE.format(n=2, folder="b"))
    first.run("x += 100")
    root.run("x = 'moved on'; log.close(); raw.close(); pathlib.Path('log').unlink()")
    late = make(pool)
    late.restore(snapshot)
    as_it_was = "1 [1] start; 10 b'0123456789' /scratch ['a', 'b', 'log', 'raw']"
    assert untouched.run(_SHOW).text == late.run(_SHOW).text == as_it_was
    assert first.run(_SHOW).text == "102 [1, 1] start;1; 2 b'0a23456789' /scratch/a ['only1']"
    assert second.run(_SHOW).text == "3 [1, 2] start;2;2; 3 b'01b3456789' /scratch/b ['only2']"


def test_memory_mapped_files_are_not_shared_between_branches(pool: Pool) -> None:
    """Either such a mapping is a branch's own, or it cannot be had."""
    root = make(pool)
    root.open(0)
    mapped = root.run("import numpy as np\nm = np.memmap('m', mode='w+', shape=4, dtype='u1')\nm[0] = 1")
    if mapped.kind == "error":
        assert "PermissionError" in mapped.text
        return
    snapshot = root.snapshot()
    branch = make(pool)
    branch.restore(snapshot)
    branch.run("m[:] = 7\nm.flush()")
    root.run("m[1] = 9")
    root.restore(snapshot)
    assert root.run("m.tolist()").text == "[1, 0, 0, 0]"


def test_shared_memory_between_branches_is_refused(pool: Pool) -> None:
    box = make(pool, restricted=False)
    box.open(0)
    for flags in ("mmap.MAP_SHARED", "mmap.MAP_SHARED | mmap.MAP_ANONYMOUS"):
        code = f"import mmap\nm = mmap.mmap(-1, 4096, flags={flags})"
        assert "PermissionError" in box.run(code).text
    assert box.run("m = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE)\nm[0] = 1\nm[0]").text == "1"


# --- random generators -------------------------------------------------------------------------------------------

DRAWS = "import random\nimport numpy as np\nprint(random.random(), random.gauss(0, 1), np.random.rand())"


def test_reseeding_tells_branches_apart(pool: Pool) -> None:
    box = make(pool)
    box.open(1)
    box.run(DRAWS)
    snapshot = box.snapshot()

    def drawn(reseed: int | None) -> str:
        box.restore(snapshot, reseed)
        return box.run(DRAWS).text + box.run(DRAWS).text

    unchanged = drawn(None)
    assert drawn(7) == drawn(7) != unchanged
    assert len({drawn(seed) for seed in range(20)}) == 20
    assert drawn(None) == unchanged


def test_a_snapshot_directly_after_reseeding(pool: Pool, other_pool: Pool) -> None:
    box = make(pool)
    box.open(1)
    box.run(DRAWS)
    box.restore(box.snapshot(), reseed=7)
    reseeded = box.snapshot()
    expected = outputs(box, [DRAWS, DRAWS])
    durable = SandboxSnapshot.from_json(json.loads(json.dumps(reseeded.to_json())))
    later = box.snapshot()
    box.restore(later, reseed=8)
    box.restore(box.snapshot(), reseed=9)
    twice = box.snapshot()
    expected_twice = outputs(box, [DRAWS])
    for home in (pool, other_pool):
        fresh = make(home)
        for snapshot in (reseeded, durable):
            fresh.restore(snapshot)
            assert outputs(fresh, [DRAWS, DRAWS]) == expected
        for snapshot in (twice, SandboxSnapshot.from_json(twice.to_json())):
            fresh.restore(snapshot)
            assert outputs(fresh, [DRAWS]) == expected_twice


# --- the durable form --------------------------------------------------------------------------------------------

REPEATED_QUICKLY = sorted(name for name, code in REPEATABLE.items() if "numpy" not in code and "sympy" not in code)


def test_a_snapshot_can_be_copied_and_sent(pool: Pool) -> None:
    """A copy stands for the same process; what is sent elsewhere is repeated there."""
    box = make(pool)
    box.open(0)
    box.run("import random\nx = [random.random()]")
    snapshot = box.snapshot()
    shown = box.run("x").text
    assert copy.deepcopy(snapshot).live is snapshot.live
    sent = pickle.loads(pickle.dumps(snapshot))
    assert sent.live is None
    assert sent.to_json() == snapshot.to_json()
    for other in (copy.deepcopy(snapshot), copy.copy(snapshot), sent):
        box.restore(other)
        assert box.run("x").text == shown


def durable(box: Sandbox) -> SandboxSnapshot:
    return SandboxSnapshot.from_json(json.loads(json.dumps(box.snapshot().to_json())))


@examples(10)
@given(names=programs(sorted(REPEATABLE), 7), data=st.data(), seed=st.integers(0, 2**40))
def test_the_durable_form_continues_likewise(
    pool: Pool, other_pool: Pool, names: list[str], data: st.DataObject, seed: int
) -> None:
    program = [REPEATABLE[name] for name in names]
    split = data.draw(st.integers(0, len(program) - 1))
    box = make(pool)
    box.open(seed)
    outputs(box, program[:split])
    snapshot = durable(box)
    onwards = outputs(box, program[split:])
    for home in (pool, other_pool):
        again = make(home)
        again.restore(snapshot)
        assert outputs(again, program[split:]) == onwards


@examples(5)
@given(names=programs(REPEATED_QUICKLY, 6), data=st.data(), seed=st.integers(0, 2**40))
def test_replay_continues_likewise_and_backends_take_over_from_each_other(
    pool: Pool, names: list[str], data: st.DataObject, seed: int
) -> None:
    _check_replay(pool, names, data, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@examples(100)
@given(names=programs(sorted(REPEATABLE), 8), data=st.data(), seed=st.integers(0, 2**40))
def test_replay_continues_any_program_likewise(pool: Pool, names: list[str], data: st.DataObject, seed: int) -> None:
    _check_replay(pool, names, data, seed)


def _check_replay(pool: Pool, names: list[str], data: st.DataObject, seed: int) -> None:
    program = [REPEATABLE[name] for name in names]
    split = data.draw(st.integers(0, len(program) - 1))
    forked = make(pool)
    replayed = ReplaySandbox(LIMITS, LanguagePolicy())
    try:
        for box in (forked, replayed):
            box.open(seed)
        assert outputs(forked, program[:split]) == outputs(replayed, program[:split])
        from_forked, from_replayed = durable(forked), replayed.snapshot()
        onwards = outputs(forked, program[split:])
        for snapshot in (from_replayed, from_forked):
            replayed.restore(snapshot)
            assert outputs(replayed, program[split:]) == onwards
        forked.restore(SandboxSnapshot.from_json(from_replayed.to_json()))
        assert outputs(forked, program[split:]) == onwards
    finally:
        replayed.close()


@pytest.mark.parametrize(
    "code",
    ["import time\ntime.time_ns()", "import secrets\nsecrets.token_hex()", "import random\nrandom.Random().random()"],
)
def test_a_session_that_cannot_be_repeated_is_refused(pool: Pool, code: str) -> None:
    box = make(pool)
    box.open(0)
    outputs(box, ["x = 1", code, "x += 1"])
    snapshot = box.snapshot()
    box.restore(SandboxSnapshot.from_json(snapshot.to_json()))
    refused = box.run("x")
    assert refused.kind == "sandbox_failure"
    assert "repeating the session's 3 calls gave other results" in refused.text
    assert box.run("x").kind == "sandbox_failure", "it stays refused"
    box.restore(snapshot)
    assert box.run("x").text == "2", "its process continues all the same"


def test_a_digest_of_other_executions_is_refused(pool: Pool) -> None:
    box = make(pool)
    box.open(0)
    outputs(box, ["x = 1", "x"])
    data = box.snapshot().to_json()
    for field, value in (("seed", 1), ("digest", "0" * 32), ("calls", ["x = 2", "x"])):
        box.restore(SandboxSnapshot.from_json({**data, field: value}))
        expected = "ok" if field == "seed" else "sandbox_failure"  # the seed is not used
        assert box.run("x").kind == expected, field
