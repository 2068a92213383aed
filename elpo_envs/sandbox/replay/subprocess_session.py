"""The host's side of a `replay` session's process: start it, speak to it, end it, on any system."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from pathlib import Path

from elpo_envs.sandbox.base import SandboxError
from elpo_envs.sandbox.frames import (
    MAX_FRAME_BYTES,
    Reply,
    UnreadableReplyError,
    decode_replies,
    read_frame,
    write_frame,
)
from elpo_envs.sandbox.launch import command, environment
from elpo_envs.sandbox.replay.session import Settings

_PROGRAM = Path(__file__).with_name("session.py")
_START_S = 30.0
_EXIT_S = 0.5
_PIPE_BYTES = 4096  # a pipe takes so much without anybody reading, everywhere


class SessionLostError(Exception):
    """The session's process ended, or wrote something that is no reply, instead of answering."""


class SubprocessSession:
    """A running session: a Python process of its own, connected by pipes, with a scratch directory.

    It ends by `end`, by `discard`, when nothing refers to it any more, or when the host's process ends. A process
    that `os.fork` made from the host lets go of it. Where the system has process groups, what the code started
    and did not move to another group ends with it. The scratch directory is removed at the end, except where the
    process is killed between the death of its host and its own end (by its limit of CPU time, say).

    Raises:
        SandboxError: the process could not be started.
    """

    def __init__(self, settings: Settings) -> None:
        scratch = str(Path(tempfile.mkdtemp(prefix="elpo-sandbox-")).resolve())
        try:
            self._process = subprocess.Popen(
                command(_PROGRAM, scratch),
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise SandboxError(f"a session process could not be started: {error}") from error
        self._discard = weakref.finalize(self, _discard, self._process, scratch)
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        _running.add(self)
        threading.Thread(target=_receive, args=(self._process, self._frames), daemon=True).start()
        try:
            self.request(settings._asdict(), 0, _START_S)
        except (TimeoutError, SessionLostError) as error:
            self.discard()
            raise SandboxError(f"a session process did not start: {error!r}") from error
        except BaseException:
            self.discard()
            raise

    def usable(self) -> bool:
        """Whether it can take a request: alive, quiet, and started by this very process."""
        return self._discard.alive and self._process.poll() is None and self._frames.empty()

    def request(self, request: object, replies: int, timeout_s: float) -> list[Reply]:
        """Send one request, as JSON, and return the `(text, kind)` pairs of its reply, `replies` in number.

        Raises:
            TimeoutError: `timeout_s` seconds of wall-clock time went by.
            SessionLostError: the process did not live to answer.
        """
        self._send(json.dumps(request).encode(), timeout_s)
        try:
            frame = self._frames.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if frame is None:
            raise SessionLostError("it closed its connection")
        try:
            return decode_replies(frame, replies)
        except UnreadableReplyError as error:
            raise SessionLostError(str(error)) from error

    def kill(self) -> None:
        """Make a request under way, in another thread, raise SessionLostError."""
        self._process.kill()

    def end(self) -> int:
        """Kill the process if it still runs; return its exit code, negative for a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_S)  # it closed its connection, so it is about to end by itself
        self._discard()
        return int(self._process.returncode)

    def discard(self) -> None:
        """Kill the process and remove its scratch directory. Idempotent."""
        self._discard()

    def abandon(self) -> None:
        """Let go of the process without ending it: for a forked host, whose parent still uses it."""
        if self._discard.detach() is not None:
            self._process.returncode = 0  # or `Popen.__del__` would try to wait for it
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # the reading thread closed it just before the fork
                    pipe.close()

    def _send(self, payload: bytes, timeout_s: float) -> None:
        assert self._process.stdin is not None
        deadline = time.monotonic() + timeout_s
        # A process that does not read would block the host for ever; its death does not.
        guard = threading.Timer(timeout_s, self._process.kill) if len(payload) > _PIPE_BYTES else None
        try:
            if guard is not None:
                guard.start()
            write_frame(self._process.stdin.fileno(), payload)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            raise SessionLostError("it closed its connection") from error
        finally:
            if guard is not None:
                guard.cancel()


_running: weakref.WeakSet[SubprocessSession] = weakref.WeakSet()


def _abandon_all() -> None:
    # A copy of a pipe in a forked host would keep the session from seeing the end of its own host.
    for session in list(_running):
        session.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def _receive(process: subprocess.Popen[bytes], frames: queue.SimpleQueue[bytes | None]) -> None:
    assert process.stdout is not None
    with process.stdout as source:
        try:
            while (frame := read_frame(source.fileno(), MAX_FRAME_BYTES)) is not None:
                frames.put(frame)
        except UnreadableReplyError:
            frames.put(b"")  # which is no reply either
    frames.put(None)


def _discard(process: subprocess.Popen[bytes], scratch: str) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of the group lives
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    shutil.rmtree(scratch, ignore_errors=True)
