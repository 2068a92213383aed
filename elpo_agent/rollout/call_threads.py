"""Blocking calls in threads, whose results reach the event loop many at a time."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol


class Call(Protocol):
    """Something to be done in a thread."""

    def run(self) -> None:
        """Do it, in a thread; raises nothing."""

    def finish(self) -> None:
        """Take note that it is done, in the event loop's thread; raises nothing."""


class CallThreads:
    """Runs calls in threads, in the order in which they came, and tells the event loop of their ends.

    The loop is woken when the last call is done, or when so few are left that threads would have nothing to do. Results
    before that are handed over when no other has come for `quiet_s` to twice that: nobody waits for a few results while
    others are missing, and to handle them one by one, in turn with the threads that run the others, costs more than all
    that is then done with them. All methods are for the loop's thread.

    Args:
        threads: calls at a time; >= 1.
        quiet_s: seconds between two looks at the calls under way.
        refill: called by the loop after it was told of ended calls, to submit more.
    """

    def __init__(self, threads: int, quiet_s: float, refill: Callable[[], None]) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="elpo-env")
        self._threads = threads
        self._quiet_s = quiet_s
        self._refill = refill
        self._changed = threading.Condition()
        # All of these are guarded by `_changed`.
        self._queue: deque[Call] = deque()
        self._ended: list[Call] = []
        self._working = 0  # threads that take calls from the queue
        self._open = 0  # calls queued or running
        self._closed = False
        self._low = 0  # open calls at which the loop is woken beside 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._seen = 0  # results that were ready at the last look

    def begin(self) -> None:
        """Prepare for a new event loop: forget what an earlier one left behind, and wait for what still runs of it.

        Raises:
            RuntimeError: the threads are closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the environments' threads are closed; make a new runner")
            self._queue.clear()
            while self._working:
                self._changed.wait()
            self._ended.clear()
            self._open = 0
        self._loop = self._timer = None

    def close(self) -> None:
        """End the threads, after the calls that are running. Idempotent."""
        with self._changed:
            self._closed = True
            self._queue.clear()
        self._executor.shutdown(wait=True)

    def submit(self, calls: Iterable[Call], *, more: bool) -> None:
        """Queue calls.

        Args:
            calls: `finish` of each will be called by the running loop.
            more: others will be submitted as soon as some of these are done, so do not let threads go idle.
        Raises:
            RuntimeError: no thread can be had; the calls may be done all the same.
        """
        loop = self._loop = asyncio.get_running_loop()
        with self._changed:
            before = len(self._queue)
            self._queue.extend(calls)
            self._open += len(self._queue) - before
            self._low = self._threads if more else 0
            starting = min(self._threads - self._working, len(self._queue))
            self._working += starting
        if self._timer is None:
            self._look_later(loop)
        for started in range(starting):
            try:
                self._executor.submit(self._work)
            except RuntimeError:
                with self._changed:
                    self._working -= starting - started
                raise

    def withdraw(self, call: Call) -> bool:
        """Take back a call that no thread has begun; whether that was so."""
        with self._changed:
            if call not in self._queue:
                return False
            self._queue.remove(call)
            self._open -= 1
        return True

    def _work(self) -> None:
        """Run calls until there are none, in a thread."""
        while True:
            with self._changed:
                if not self._queue:
                    self._working -= 1
                    self._changed.notify_all()
                    return
                call = self._queue.popleft()
            call.run()
            with self._changed:
                self._ended.append(call)
                self._open -= 1
                loop = self._loop if self._open in (0, self._low) else None
            if loop is not None and not loop.is_closed():
                try:
                    loop.call_soon_threadsafe(self.hand_over)
                except RuntimeError:
                    if not loop.is_closed():  # just now, by a second Ctrl-C: nobody waits any more
                        raise

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._quiet_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand results over if there are any and no new one has come since the last look."""
        self._timer = None
        with self._changed:
            ready, waiting = len(self._ended), self._open > 0
        if ready and (ready == self._seen or not waiting):
            self.hand_over()
        else:
            self._seen = ready
        if waiting and self._timer is None:
            self._look_later(loop)

    def hand_over(self) -> bool:
        """Finish the calls that have ended, all at once; whether there were any."""
        self._seen = 0
        with self._changed:
            ended, self._ended = self._ended, []
            if not self._open and self._timer is not None:
                self._timer.cancel()
                self._timer = None
        for call in ended:
            call.finish()
        if ended:
            self._refill()
        return bool(ended)
