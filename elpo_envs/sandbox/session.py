"""The life of a session process: bound it, then answer requests until the connection ends.

A frame is a 4-byte big-endian length and that many bytes of JSON. The first request holds the `Settings`.
Every other one is a list whose items are code to run (strings) or seeds for the random generators (integers),
in order. The reply lists `[text, kind]` for each code; to the settings it is an empty list, once the session
is ready. Standard library only; see `interpreter`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from .interpreter import Interpreter

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_FILE_BYTES = 8 << 20
_OPEN_FILES = 64
LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Settings:
    """What a session is started with; the bounds are those of `Limits`."""

    seed: int
    output_chars: int
    cpu_s: float
    memory_mb: int


def serve(source: int, sink: int, scratch: str) -> None:
    """Answer requests read from descriptor `source` on descriptor `sink`; returns when `source` ends.

    `scratch` is an existing directory that becomes the working directory, home and temporary directory.
    """
    os.chdir(scratch)
    os.environ.update(HOME=scratch, TMPDIR=scratch)
    tempfile.tempdir = None
    sys.argv = [""]
    sys.path.insert(0, "")  # modules that the code wrote can be imported, as at the prompt
    foreign = _redirect_descriptors()
    first = read_frame(source)
    if first is None:
        return
    settings = Settings(**json.loads(first))
    _bound_process(settings)
    # The depth at which the code meets RecursionError must not depend on how the session was started.
    sys.setrecursionlimit(1000 + _depth())
    interpreter = Interpreter(settings.seed, settings.output_chars, True, foreign, scratch)
    process = os.getpid()
    write_frame(sink, b"[]")
    while (request := read_frame(source)) is not None:
        replies = []
        for item in json.loads(request):
            if isinstance(item, int):
                interpreter.reseed(item)
                continue
            _allow_cpu(settings.cpu_s)
            replies.append(interpreter.execute(item))
            if os.getpid() != process:
                os._exit(0)  # the code forked and its child came back here; only the parent may reply
            _stop_alarm()
        write_frame(sink, json.dumps(replies).encode())


def read_frame(source: int) -> bytes | None:
    """The next frame, or None at the end of the connection."""
    header = _read_exactly(source, LENGTH.size)
    return None if header is None else _read_exactly(source, LENGTH.unpack(header)[0])


def write_frame(sink: int, payload: bytes) -> None:
    """Send `payload` as one frame."""
    view = memoryview(LENGTH.pack(len(payload)) + payload)
    while view:
        view = view[os.write(sink, view) :]


def _read_exactly(source: int, size: int) -> bytes | None:
    parts = []
    while size:
        try:
            part = os.read(source, min(size, 1 << 20))
        except ConnectionResetError:
            return None
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _redirect_descriptors() -> Callable[[], str]:
    """Make descriptor 0 empty and 1 and 2 one file; return what gives and forgets that file's content."""
    if hasattr(os, "memfd_create"):
        capture = os.memfd_create("output")
    else:
        with tempfile.TemporaryFile() as file:
            capture = os.dup(file.fileno())
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(capture, 1)
    os.dup2(capture, 2)

    def take() -> str:
        # 1, 2 and `capture` share one offset, and so do subprocesses: it says how much was written.
        size = os.lseek(capture, 0, os.SEEK_CUR)
        if not size:
            return ""
        os.lseek(capture, 0, os.SEEK_SET)
        data = os.read(capture, size)
        os.lseek(capture, 0, os.SEEK_SET)
        os.ftruncate(capture, 0)
        return data.decode("utf-8", "replace")

    return take


def _bound_process(settings: Settings) -> None:
    if resource is None:
        return
    _lower(resource.RLIMIT_AS, settings.memory_mb << 20)
    _lower(resource.RLIMIT_FSIZE, _FILE_BYTES)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # macOS refuses an address-space limit below what is mapped already; the other bounds still hold there.
    with contextlib.suppress(ValueError):
        resource.setrlimit(limit, (value, value))


def _allow_cpu(seconds: float) -> None:
    """Let the process use `seconds` more of CPU time before SIGXCPU ends it."""
    if resource is None:
        return
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _stop_alarm() -> None:
    """An alarm that the code left running would end the session between two calls."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _depth() -> int:
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth
