"""Sessions that are plain subprocesses, for systems without fork or descriptor passing."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import weakref
from pathlib import Path

from elpo_envs.sandbox.base import SandboxError
from elpo_envs.sandbox.processes import (
    MAX_FRAME_BYTES,
    Reply,
    SessionLostError,
    command,
    decode_reply,
    environment,
)
from elpo_envs.sandbox.session import LENGTH


class PlainSession:
    """A `Session` in a subprocess of its own, connected by pipes that a thread reads, as any system can."""

    def __init__(self) -> None:
        scratch = str(Path(tempfile.mkdtemp(prefix="elpo-sandbox-")).resolve())
        try:
            self._process = subprocess.Popen(
                command("--single", scratch),
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise SandboxError(f"a session process could not be started: {error}") from error
        self._owner = os.getpid()
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=_read_frames, args=(self._process, self._frames), daemon=True).start()
        self._discard = weakref.finalize(self, _discard_plain, self._process, scratch, self._owner)

    def usable(self) -> bool:
        return self._owner == os.getpid() and self._process.poll() is None and self._frames.empty()

    def request(self, request: object, replies: int, timeout_s: float) -> list[Reply]:
        payload = json.dumps(request).encode()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(LENGTH.pack(len(payload)) + payload)
            self._process.stdin.flush()
        except OSError as error:
            raise SessionLostError("it closed its connection") from error
        return decode_reply(self._receive(timeout_s), replies)

    def end(self) -> int:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)  # it closed its connection, so it is about to end by itself
        self._discard()
        return int(self._process.returncode)

    def discard(self) -> None:
        self._discard()

    def _receive(self, timeout_s: float) -> bytes:
        try:
            frame = self._frames.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if frame is None:
            raise SessionLostError("it closed its connection")
        return frame


def _read_frames(process: subprocess.Popen[bytes], frames: queue.SimpleQueue[bytes | None]) -> None:
    assert process.stdout is not None
    with process.stdout as source:
        while len(header := source.read(LENGTH.size)) == LENGTH.size:
            size = LENGTH.unpack(header)[0]
            if size > MAX_FRAME_BYTES or len(frame := source.read(size)) < size:
                break
            frames.put(frame)
    frames.put(None)


def _discard_plain(process: subprocess.Popen[bytes], scratch: str, owner: int) -> None:
    assert process.stdin is not None
    if owner != os.getpid():
        process.returncode = 0
        return
    process.kill()
    process.wait()
    with contextlib.suppress(OSError):  # what it had not read yet cannot be flushed
        process.stdin.close()
    shutil.rmtree(scratch, ignore_errors=True)
