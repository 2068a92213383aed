"""A `replay` session's process: start it and ask it, on any system."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

from elpo_envs.sandbox.base import SandboxError
from elpo_envs.sandbox.frames import MAX_FRAME_BYTES, Reply, UnreadableReplyError, decode_replies
from elpo_envs.sandbox.launch import command, environment
from elpo_envs.sandbox.piped import PipedProcess, SessionLostError, start_process
from elpo_envs.sandbox.replay.session import Settings

_PROGRAM = Path(__file__).with_name("session.py")
_START_S = 30.0


class SubprocessSession(PipedProcess):
    """A running session: a Python process of its own, with a scratch directory.

    The scratch directory is removed at the end, except where the process is killed between the death of its host
    and its own end (by its limit of CPU time, say).

    Raises:
        SandboxError: the process could not be started.
    """

    def __init__(self, settings: Settings) -> None:
        scratch = str(Path(tempfile.mkdtemp(prefix="elpo-sandbox-")).resolve())
        remove = functools.partial(shutil.rmtree, scratch, ignore_errors=True)
        try:
            process = start_process(command(_PROGRAM, scratch), environment())
        except OSError as error:
            remove()
            raise SandboxError(f"a session process could not be started: {error}") from error
        super().__init__(process, MAX_FRAME_BYTES, remove)
        try:
            self.request(settings._asdict(), 0, _START_S)
        except (TimeoutError, SessionLostError) as error:
            self.discard()
            raise SandboxError(f"a session process did not start: {error!r}") from error
        except BaseException:
            self.discard()
            raise

    def request(self, request: object, replies: int, timeout_s: float) -> list[Reply]:
        """Send one request, as JSON, and return the `(text, kind)` pairs of its reply, `replies` in number.

        Raises:
            TimeoutError: `timeout_s` seconds of wall-clock time went by.
            SessionLostError: the process did not live to answer.
        """
        self._send(request, timeout_s)
        frame = self._await_frame(timeout_s)
        try:
            return decode_replies(frame, replies)
        except UnreadableReplyError as error:
            raise SessionLostError(str(error)) from error
