"""Part of the time for a first way, so that there is some left for a second one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class ShareSpentError(BaseException):
    """The time is up. No Exception: sympy catches those on its way."""


@contextmanager
def cpu_share(seconds: float) -> Iterator[None]:
    """Raise ShareSpentError in the block after that much CPU time (never on Windows). Main thread only."""
    if sys.platform == "win32":
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise ShareSpentError

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
