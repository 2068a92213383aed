"""What every kind of session process has in common, on the host's side: how it is started and spoken to."""

from __future__ import annotations

import json
import os
import site
import sys
from pathlib import Path
from typing import Protocol

Reply = tuple[str, str]
MAX_FRAME_BYTES = 64 << 20
START_S = 30.0

_KINDS = ("ok", "empty", "error")
_PROGRAM = Path(__file__).with_name("zygote.py")
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class SessionLostError(Exception):
    """The session's process ended, or wrote something that is no reply, instead of answering."""


class Session(Protocol):
    """A running session process. It ends by `end`, by `discard`, or when nothing refers to it any more."""

    def usable(self) -> bool:
        """Whether it can take a request: alive, quiet, and started by this very process."""

    def request(self, request: object, replies: int, timeout_s: float) -> list[Reply]:
        """Send one request, as JSON, and return the `(text, kind)` pairs of its reply, `replies` in number.

        Raises:
            TimeoutError: `timeout_s` of wall-clock time went by.
            SessionLostError: the process did not live to answer.
        """

    def end(self) -> int:
        """Kill the process if it still runs; return its exit code, negative for a signal.

        Raises:
            SandboxError: the exit code cannot be had.
        """

    def discard(self) -> None:
        """Kill the process without waiting. Idempotent."""


def command(*arguments: str) -> list[str]:
    """The zygote's command line: as isolated as `python -I`, except that PYTHONHASHSEED is heeded."""
    user_site = [] if site.ENABLE_USER_SITE else ["-s"]
    return [sys.executable, "-P", *user_site, str(_PROGRAM), *arguments]


def environment() -> dict[str, str]:
    """All that the zygote and the sessions see of the host's environment variables."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    threads = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
    # More threads than asked for would not fit into the address space of a session on a large machine.
    threads = dict.fromkeys(_THREAD_VARIABLES, "1") | threads
    user = {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
    return kept | threads | user | {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LANG": "C.UTF-8"}


def decode_reply(frame: bytes, expected: int) -> list[Reply]:
    """The replies in a frame that the session, which the code under test can forge, sent."""
    try:
        replies = [(text, kind) for text, kind in json.loads(frame)]
        for text, kind in replies:
            text.encode()
            _KINDS.index(kind)
        if len(replies) != expected:
            raise ValueError(f"{len(replies)} replies in place of {expected}")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SessionLostError("it wrote an unreadable reply") from error
    return replies
