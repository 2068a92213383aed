"""Calls in threads: their order, how many at a time, when the event loop hears of them, and how they are taken back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from elpo_agent.rollout.call_threads import CallThreads


@dataclass(eq=False)
class Noted:
    """A call that notes where and when it was run and finished; `work` is done in the thread."""

    log: list[tuple[str, int]]
    number: int = 0
    work: Callable[[], object] = lambda: None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    thread: str = ""

    def run(self) -> None:
        self.thread = threading.current_thread().name
        self.work()
        self.log.append(("run", self.number))

    def finish(self) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.log.append(("finish", self.number))
        self.done.set()


def test_results_come_together_when_the_last_is_ready() -> None:
    log: list[tuple[str, int]] = []
    refills: list[int] = []
    threads = CallThreads(1, 0.02, lambda: refills.append(len(log)))

    async def main() -> None:
        threads.begin()
        calls = [Noted(log, i) for i in range(50)]
        threads.submit(calls, more=False)
        await asyncio.wait_for(asyncio.gather(*(call.done.wait() for call in calls)), 30)
        assert {call.thread.split("_")[0] for call in calls} == {"elpo-env"}

    asyncio.run(main())
    threads.close()
    assert log[:50] == [("run", i) for i in range(50)], "in the order in which they were submitted"
    assert log[50:] == [("finish", i) for i in range(50)]
    assert refills == [100], "one wake-up for all of them"


def test_no_more_calls_at_a_time_than_threads() -> None:
    log: list[tuple[str, int]] = []
    running, most = set[int](), [0]
    threads = CallThreads(3, 0.02, lambda: None)

    def work() -> None:
        running.add(threading.get_ident())
        most[0] = max(most[0], len(running))
        time.sleep(0.005)
        running.discard(threading.get_ident())

    async def main() -> None:
        threads.begin()
        calls = [Noted(log, i, work) for i in range(12)]
        threads.submit(calls[:6], more=True)
        threads.submit(calls[6:], more=False)
        await asyncio.wait_for(asyncio.gather(*(call.done.wait() for call in calls)), 30)
        assert len({call.thread for call in calls}) > 1

    asyncio.run(main())
    threads.close()
    assert most[0] <= 3


def test_a_slow_call_does_not_hold_up_what_is_ready() -> None:
    log: list[tuple[str, int]] = []
    release = threading.Event()
    threads = CallThreads(2, 0.02, lambda: None)

    async def main() -> None:
        threads.begin()
        slow = Noted(log, 0, lambda: release.wait(30))
        quick = [Noted(log, i) for i in (1, 2, 3)]
        threads.submit([slow, *quick], more=False)
        await asyncio.wait_for(asyncio.gather(*(call.done.wait() for call in quick)), 20)
        assert not slow.done.is_set()
        release.set()
        await asyncio.wait_for(slow.done.wait(), 20)

    asyncio.run(main())
    threads.close()
    assert log[-2:] == [("run", 0), ("finish", 0)]


def test_more_calls_are_asked_for_before_threads_are_idle() -> None:
    log: list[tuple[str, int]] = []
    release = threading.Event()
    asked = asyncio.Event()
    threads = CallThreads(2, 60.0, lambda: asked.set())

    async def main() -> None:
        threads.begin()
        held = [Noted(log, i, lambda: release.wait(30)) for i in range(2)]
        # Of four, two are done and two are left, as many as threads: time to ask for more, at once.
        threads.submit([Noted(log, 2), Noted(log, 3), *held], more=True)
        await asyncio.wait_for(asked.wait(), 20)
        assert ("finish", 3) in log and not held[0].done.is_set()
        release.set()
        await asyncio.wait_for(asyncio.gather(*(call.done.wait() for call in held)), 20)

    asyncio.run(main())
    threads.close()


def test_calls_that_no_thread_has_begun_can_be_taken_back() -> None:
    log: list[tuple[str, int]] = []
    release, begun = threading.Event(), threading.Event()
    threads = CallThreads(1, 0.02, lambda: None)

    def hold() -> None:
        begun.set()
        release.wait(30)

    async def main() -> None:
        threads.begin()
        first, second, third = Noted(log, 0, hold), Noted(log, 1), Noted(log, 2)
        threads.submit([first, second, third], more=False)
        assert begun.wait(20)
        assert threads.withdraw(second) and not threads.withdraw(second)
        assert not threads.withdraw(first), "it is running"
        release.set()
        await asyncio.wait_for(asyncio.gather(first.done.wait(), third.done.wait()), 20)
        assert not second.done.is_set()

    asyncio.run(main())
    threads.close()
    assert ("run", 1) not in log


def test_a_new_loop_waits_for_what_still_runs_and_hears_nothing_of_it() -> None:
    log: list[tuple[str, int]] = []
    release, begun = threading.Event(), threading.Event()
    threads = CallThreads(1, 0.02, lambda: None)

    def hold() -> None:
        begun.set()
        release.wait(30)

    async def abandoned() -> None:
        threads.begin()
        threads.submit([Noted(log, 0, hold), Noted(log, 1)], more=False)
        assert begun.wait(20)

    asyncio.run(abandoned())

    async def main() -> None:
        threading.Timer(0.05, release.set).start()
        threads.begin()
        assert log == [("run", 0)], "it was waited for, and what was queued behind it is forgotten"
        call = Noted(log, 2)
        threads.submit([call], more=False)
        await asyncio.wait_for(call.done.wait(), 20)

    asyncio.run(main())
    threads.close()
    assert log == [("run", 0), ("run", 2), ("finish", 2)]


def test_closed_threads_take_no_calls() -> None:
    threads = CallThreads(1, 0.02, lambda: None)
    threads.close()
    threads.close()
    with pytest.raises(RuntimeError, match="are closed; make a new runner"):
        threads.begin()
