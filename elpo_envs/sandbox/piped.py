"""The host's side of a process behind pipes: speak to it in frames, end it, let go of it, on any system."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable
from typing import IO

from elpo_envs.sandbox.frames import UnreadableReplyError, read_frame, write_frame

_EXIT_S = 2.0
_PIPE_BYTES = 4096  # a pipe takes so much without anybody reading, everywhere


class SessionLostError(Exception):
    """The process ended, or wrote something that is no reply, instead of answering."""


def start_process(
    line: list[str], variables: dict[str, str], stderr: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process for `PipedProcess` with just these environment variables; raises OSError if that fails."""
    return subprocess.Popen(
        line,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        start_new_session=True,
    )


class PipedProcess:
    """A running process that answers frames with frames.

    It ends by `end`, by `discard`, when nothing refers to it any more, or when the host's process ends. A process
    that `os.fork` made from the host lets go of it. Where the system has process groups, what the process started
    and did not move to another group ends with it.

    Args:
        process: from `start_process`.
        max_frame_bytes: longer frames are no replies.
        release: called once, after the process has ended; it must not refer to this object.
    """

    def __init__(self, process: subprocess.Popen[bytes], max_frame_bytes: int, release: Callable[[], object]) -> None:
        self._process = process
        self._finish = weakref.finalize(self, _finish, process, release)
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        _running.add(self)
        threading.Thread(target=_receive, args=(process, max_frame_bytes, self._frames), daemon=True).start()

    def usable(self) -> bool:
        """Whether it can take a request: alive, quiet, and started by this very process."""
        return self._finish.alive and self._process.poll() is None and self._frames.empty()

    def kill(self) -> None:
        """Make a request under way, in another thread, raise SessionLostError."""
        self._process.kill()

    def end(self) -> int:
        """Kill the process if it still runs; return its exit code, negative for a signal."""
        self._let_exit()  # it closed its connection, so it is about to end by itself
        self._finish()
        return int(self._process.returncode)

    def discard(self) -> None:
        """Kill the process and release what belongs to it. Idempotent."""
        self._finish()

    def abandon(self) -> None:
        """Let go of the process without ending it: for a forked host, whose parent still uses it."""
        if self._finish.detach() is not None:
            self._process.returncode = 0  # or `Popen.__del__` would try to wait for it
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # the reading thread closed it just before the fork
                    pipe.close()

    def _let_exit(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_S)

    def _send(self, message: object, timeout_s: float) -> None:
        """Send `message` as JSON; raises TimeoutError or SessionLostError."""
        assert self._process.stdin is not None
        payload = json.dumps(message).encode()
        deadline = time.monotonic() + timeout_s
        # A process that does not read would block the host for ever; its death does not.
        guard = threading.Timer(timeout_s, self._process.kill) if len(payload) > _PIPE_BYTES else None
        try:
            if guard is not None:
                guard.start()
            write_frame(self._process.stdin.fileno(), payload)
        except (OSError, ValueError) as error:  # ValueError: discarded, which closed the pipe on this side
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            raise SessionLostError("it closed its connection") from error
        finally:
            if guard is not None:
                guard.cancel()

    def _await_frame(self, timeout_s: float) -> bytes:
        """The next frame, empty in place of one that is too long; raises TimeoutError or SessionLostError."""
        try:
            frame = self._frames.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if frame is None:
            raise SessionLostError("it closed its connection")
        return frame


_running: weakref.WeakSet[PipedProcess] = weakref.WeakSet()


def _abandon_all() -> None:
    # A copy of a pipe in a forked host would keep the process from seeing the end of its own host.
    for process in list(_running):
        process.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def _receive(process: subprocess.Popen[bytes], max_frame_bytes: int, frames: queue.SimpleQueue[bytes | None]) -> None:
    assert process.stdout is not None
    with process.stdout as source:
        try:
            while (frame := read_frame(source.fileno(), max_frame_bytes)) is not None:
                frames.put(frame)
        except UnreadableReplyError:
            frames.put(b"")  # which is no reply either
    frames.put(None)


def _finish(process: subprocess.Popen[bytes], release: Callable[[], object]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of the group lives
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    release()
