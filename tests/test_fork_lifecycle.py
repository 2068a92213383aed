"""The `fork` backend's processes: whom they serve, when they end, and that they leave nothing behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _fork_watch import (
    alive,
    children,
    descendants,
    descriptors,
    launcher,
    needs_fork,
    nodes,
    scratch_directories,
    wait_until,
    zygote,
)

from elpo_envs.sandbox import Limits, SandboxError
from elpo_envs.sandbox.fork.pool import Pool
from elpo_envs.sandbox.fork.pools import current_pool, preload, running_pool
from elpo_envs.sandbox.fork.sandbox import ForkSandbox

pytestmark = needs_fork

HANG_S = 60.0


@pytest.fixture(scope="module", autouse=True)
def light_pool() -> Iterator[None]:
    """The pool that sandboxes share, without the libraries that take long to import."""
    from elpo_envs.sandbox.fork import pools

    before = pools._preload
    preload()
    yield
    preload(*before)


@pytest.fixture
def box() -> Iterator[ForkSandbox]:
    box = ForkSandbox()
    box.open(1)
    box.run("x = 1")
    yield box
    box.close()


# --- supervisors that end -----------------------------------------------------------------------------------------


def _template(pool: Pool) -> int:
    return children(zygote(pool))[0]


@pytest.mark.parametrize("whom", [launcher, zygote, _template])
@pytest.mark.parametrize("when", ["between calls", "in a call"])
def test_sessions_outlive_a_supervisor(box: ForkSandbox, whom: Callable[[Pool], int], when: str) -> None:
    pool = current_pool()
    other = ForkSandbox()
    other.open(2)
    other.run("import random; y = [random.random()]")
    snapshot = other.snapshot()
    drawn = other.run("y").text
    processes = [launcher(pool), *descendants(launcher(pool))]
    if when == "in a call":
        killer = threading.Timer(0.3, os.kill, (whom(pool), signal.SIGKILL))
        killer.start()
        shown = box.run("import time; time.sleep(1.0); x += 1")
        killer.join()
        assert shown.kind in ("empty", "sandbox_failure"), "it may be repeated in a new process"
        expected = "2" if shown.kind == "empty" else "1"
    else:
        os.kill(whom(pool), signal.SIGKILL)
        expected = "1"
    assert box.run("x").text == expected
    assert box.run("x += 10; x").text == f"{int(expected) + 10}"
    assert other.run("y").text == drawn
    other.restore(snapshot)
    assert other.run("y").text == drawn
    assert current_pool() is not pool
    assert wait_until(lambda: not any(map(alive, processes)))


def test_a_pool_that_cannot_start_is_a_sandbox_failure(
    box: ForkSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from elpo_envs.sandbox.fork import pool as pool_module

    program = tmp_path / "broken.py"
    program.write_text("raise SystemExit('no')")
    snapshot, pid = box.snapshot(), launcher(current_pool())
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not alive(pid))
    with monkeypatch.context() as patch:
        patch.setattr(pool_module, "_PROGRAM", program)
        box.restore(snapshot)  # which starts nothing
        failed = box.run("x")
        assert failed.kind == "sandbox_failure"
        assert "the sandbox's zygote did not start" in failed.text
        patch.setattr(sys, "executable", str(tmp_path / "nowhere"))
        assert "could not be started" in box.run("x").text
    assert box.run("x").text == "1"


def test_a_pool_that_was_shut_down_is_a_sandbox_failure() -> None:
    pool = Pool()
    box = ForkSandbox(pool=pool)
    box.open(0)
    box.run("x = 1")
    pool.shut_down()
    assert box.run("x").kind == "sandbox_failure"
    with pytest.raises(SandboxError, match="no session"):
        ForkSandbox(pool=pool).run("1")
    box.close()


def test_other_libraries_can_be_preloaded_while_sessions_run(box: ForkSandbox) -> None:
    first, snapshot = current_pool(), box.snapshot()
    preload("colorsys", "no_such_module")
    try:
        assert box.run("import sys; x, 'colorsys' in sys.modules").text == "(1, True)"
        assert current_pool().preloaded == ("colorsys",)
        assert not alive(launcher(first))
    finally:
        preload()
    box.restore(snapshot)
    assert box.run("x").text == "1"


# --- hosts that fork ----------------------------------------------------------------------------------------------


def _use_sandbox(queue: multiprocessing.queues.SimpleQueue[object]) -> None:
    """In a child of the test's process: a session of its own, and one that came along."""
    preload()
    box = ForkSandbox()
    box.open(5)
    box.run("import random; x = random.random()")
    queue.put((launcher(current_pool()), box.run("x").text))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_have_pools_of_their_own(box: ForkSandbox, method: str) -> None:
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    ours = current_pool()
    workers = [context.Process(target=_use_sandbox, args=(answers,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    told = [answers.get() for _ in workers]
    for worker in workers:
        worker.join(HANG_S)
    assert [worker.exitcode for worker in workers] == [0, 0]
    pids, drawn = zip(*told, strict=True)
    assert len({launcher(ours), *pids}) == 3
    assert len(set(drawn)) == 1
    assert wait_until(lambda: not any(map(alive, pids)))
    assert current_pool() is ours
    assert box.run("x").text == "1"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_host_continues_its_sessions_apart(box: ForkSandbox) -> None:
    snapshot = box.snapshot()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            shown = [box.run("x += 1; x").text]
            box.restore(snapshot)
            shown += [box.run("x").text, str(launcher(current_pool()))]
            box.close()
            current_pool().shut_down()
            os.write(writer, " ".join(shown).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        told = answer.read().split()
    os.waitpid(child, 0)
    assert told[:2] == ["2", "1"]
    assert int(told[2]) != launcher(current_pool())
    assert box.run("x").text == "1"
    assert wait_until(lambda: not alive(int(told[2])))


# --- event loops, threads, interrupts --------------------------------------------------------------------------------


def test_inside_a_running_event_loop(box: ForkSandbox) -> None:
    """As in a notebook: blocking and awaited calls, in one loop after another."""

    async def use(x: int) -> None:
        assert box.run("x").text == str(x)
        assert (await box.run_async("x += 1; x")).text == str(x + 1)
        snapshot = box.snapshot()
        box.restore(snapshot, reseed=1)
        slow = asyncio.create_task(box.run_async("import time; time.sleep(0.3); x"))
        ticks = 0
        while not slow.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert (await slow).text == str(x + 1)
        assert ticks > 3, "the loop went on"

    asyncio.run(use(1))
    asyncio.run(use(2))


def _interrupt_after(seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_an_interrupted_call_leaves_no_trace(box: ForkSandbox) -> None:
    snapshot = box.snapshot()
    pool = current_pool()
    for delay in (0.05, 0.2):
        timer = _interrupt_after(delay)
        with pytest.raises(KeyboardInterrupt):
            box.run("import time\nx = 2\nopen('f', 'w')\ntime.sleep(1000)")
        timer.join()
        assert box.snapshot() == snapshot
        assert box.run("import pathlib; x, pathlib.Path('f').exists()").text == "(1, False)"
        box.restore(snapshot)
    assert current_pool() is pool
    box.close()
    assert wait_until(lambda: len(nodes(pool)) <= 2), "the interrupted calls have ended"


def test_a_cancelled_call_leaves_no_trace(box: ForkSandbox) -> None:
    snapshot = box.snapshot()
    pool = current_pool()

    async def cancel(after: float) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(box.run_async("import time\nx = 2\ntime.sleep(1000)"), after)
        assert box.snapshot() == snapshot
        assert (await box.run_async("x")).text == "1"
        box.restore(snapshot)

    for after in (0.0, 0.001, 0.01, 0.2):
        asyncio.run(cancel(after))
    box.close()
    assert wait_until(lambda: len(nodes(pool)) <= 2), "the cancelled calls have ended"


def test_sessions_in_several_threads_at_once() -> None:
    def use(number: int) -> list[str]:
        box = ForkSandbox()
        box.open(number)
        box.run(f"x = {number}; f = open('f', 'w+'); f.write('{number}')")
        snapshot = box.snapshot()
        shown = []
        for branch in range(4):
            box.restore(snapshot)
            box.run(f"x += {branch}")
            shown.append(box.run("f.seek(0); x, f.read()").text)
        box.close()
        return shown

    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        seen = list(threads.map(use, range(24)))
    assert seen == [[f"({number + branch}, '{number}')" for branch in range(4)] for number in range(24)]


def test_the_first_pool_is_started_once_by_many_threads() -> None:
    current_pool().shut_down()
    started: list[Pool] = []
    threads = [threading.Thread(target=lambda: started.append(current_pool())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 8 and len(set(map(id, started))) == 1


# --- nothing accumulates -------------------------------------------------------------------------------------------


def test_closed_and_collected_sandboxes_leave_nothing() -> None:
    gc.collect()
    pool = Pool()
    try:
        before = descriptors()
        first = ForkSandbox(Limits(wall_s=0.3), pool)
        first.open(0)
        first.run("x = 1")
        first.run("while True: pass")
        first.close()
        del first
        gc.collect()
        pool.flush()
        assert wait_until(lambda: nodes(pool) == [])
        below = descriptors(zygote(pool))
        for end in ("close", "collect", "fail"):
            boxes = [ForkSandbox(Limits(wall_s=0.3), pool) for _ in range(12)]
            for box in boxes:
                box.open(0)
                box.run("import pathlib; pathlib.Path('f').write_text('x'); x = 1")
                box.restore(box.snapshot())
                if end == "fail":
                    box.run("import os; os._exit(3)")
            assert len(nodes(pool)) >= 12
            assert scratch_directories(pool) >= 12
            if end == "close":
                for box in boxes:
                    box.close()
            del box, boxes
            gc.collect()
            pool.flush()
            assert wait_until(lambda: nodes(pool) == []), end
            assert wait_until(lambda: scratch_directories(pool) == 0), end
            assert pool.processes() == 0
            assert descriptors(zygote(pool)) == below
            assert descriptors() == before
    finally:
        pool.shut_down()


def test_a_shut_down_pool_leaves_nothing() -> None:
    gc.collect()
    before = descriptors()
    for _ in range(3):
        pool = Pool()
        box = ForkSandbox(pool=pool)
        box.open(0)
        box.run("open('f', 'w').write('x')")
        processes = [launcher(pool), *descendants(launcher(pool))]
        pool.shut_down()
        assert not Path(pool._root).exists()
        assert wait_until(lambda processes=processes: not any(map(alive, processes)))
        del box, pool
        gc.collect()
    assert descriptors() == before


def test_a_closed_sandbox_does_not_start_a_pool() -> None:
    current_pool().shut_down()
    box = ForkSandbox()
    box.open(0)
    box.snapshot()
    box.close()
    box.close()
    assert running_pool() is None
    assert box.capabilities.exact
    assert running_pool() is None
