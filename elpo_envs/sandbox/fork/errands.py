"""Things that nobody waits for, done by a thread of their own, or at once by whoever turns out to need them done."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

_logger = logging.getLogger(__name__)


class Errand:
    """Something to be done once, by whichever thread comes to it first."""

    def __init__(self, do: Callable[[], object]) -> None:
        self._do: Callable[[], object] | None = do
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def finish(self) -> None:
        """See to it that it is done on return. In a forked child, which lacks the thread, nothing is done."""
        if self._owner == os.getpid():
            with self._lock:
                do, self._do = self._do, None
                if do is not None:
                    do()

    def cancel(self) -> None:
        """See to it that it is not begun after this returns."""
        if self._owner == os.getpid():
            with self._lock:
                self._do = None


class _Runner:
    """The thread, started when it is first needed."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Errand] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, errand: Errand) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="elpo-sandbox-errands", daemon=True)
                    self._thread.start()
        self._queue.put(errand)

    def _work(self) -> None:
        while True:
            try:
                self._queue.get().finish()
            except Exception:
                _logger.exception("an errand of the sandbox failed")


_runner = _Runner()


def _start_afresh() -> None:
    global _runner
    _runner = _Runner()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)


def errand(do: Callable[[], object]) -> Errand:
    """Have `do` called soon, by another thread unless somebody finishes it before."""
    given = Errand(do)
    _runner.put(given)
    return given
