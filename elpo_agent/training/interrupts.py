"""Keep Ctrl-C out of moments that must be whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGINT back until the block is done, then raise KeyboardInterrupt.

    An interrupt inside a log writer's queue leaves its lock taken, and closing it would wait for ever. Outside the
    main thread, where Python delivers no signals, and where a handler set from C could not be put back, this does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            raise KeyboardInterrupt
