"""Threads where there can be none: contest programs start one, for a larger stack, and wait for it at once.

Where the system refuses a thread, as the jail does, its function runs to its end inside `start`.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import Any

_ended: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_start, _join, _is_alive = threading.Thread.start, threading.Thread.join, threading.Thread.is_alive


def install() -> None:
    """Replace `start`, `join` and `is_alive` of `threading.Thread`."""
    for name, replacement in (("start", _start_or_run), ("join", _join_or_return), ("is_alive", _alive)):
        setattr(threading.Thread, name, replacement)


def _start_or_run(thread: threading.Thread) -> None:
    try:
        _start(thread)
    except RuntimeError:
        if thread in _ended or thread.ident is not None:
            raise
        _ended.add(thread)
        with contextlib.suppress(SystemExit):
            thread.run()


def _join_or_return(thread: threading.Thread, timeout: Any = None) -> None:
    if thread not in _ended:
        _join(thread, timeout)


def _alive(thread: threading.Thread) -> bool:
    return thread not in _ended and _is_alive(thread)
