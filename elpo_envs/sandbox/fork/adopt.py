"""What a forked process does to have files of its own: offsets and contents are shared after a fork."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from .wire import OPEN_FILES, SPARE

_COPY_BYTES = 1 << 20
# An argument of poll(2), which tells in one call, and without an object for each, which descriptors are open.
_POLLED = struct.Struct("ihh")
_descriptors = range(SPARE + 1, OPEN_FILES)
_polled = ctypes.create_string_buffer(b"".join(_POLLED.pack(d, select.POLLIN, 0) for d in _descriptors))
_ALL_CLOSED = b"".join(_POLLED.pack(d, select.POLLIN, select.POLLNVAL) for d in _descriptors) + b"\0"
_poll = ctypes.CDLL(None).poll
_poll.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int]
# What `open` may be given again, from what F_GETFL says.
_KEPT_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_DIRECTORY


@dataclass(frozen=True)
class OpenFile:
    """A file or folder that the code has open.

    Attributes:
        descriptor: its number.
        folder: whether it is a folder.
        nameless_bytes: size of a file that has no name any more, so that no folder shows it; else 0.
    """

    descriptor: int
    folder: bool
    nameless_bytes: int


def open_files() -> tuple[OpenFile, ...]:
    """What the code has open now."""
    _poll(_polled, len(_descriptors), 0)
    if _polled.raw == _ALL_CLOSED:
        return ()
    found = []
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            folder = stat.S_ISDIR(status.st_mode)
            if folder or stat.S_ISREG(status.st_mode):
                found.append(OpenFile(descriptor, folder, 0 if folder or status.st_nlink else status.st_size))
    return tuple(found)


def adopt_files(files: tuple[OpenFile, ...], before: str | None, now: str) -> None:
    """Replace every open file and folder by one of this process alone, files at the same offset.

    What lies below the directory `before` becomes its copy below `now`; other things are opened again. A file that
    has no name any more, or that may not be opened again, is copied into memory.
    """
    for file in files:
        with contextlib.suppress(OSError):
            descriptor = file.descriptor
            own = _reopen(descriptor, before, now)
            if own is None and not file.folder:
                own = _copy(descriptor, os.fstat(descriptor).st_size)
            if own is not None:
                if not file.folder:
                    os.lseek(own, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
                os.dup2(own, descriptor, os.get_inheritable(descriptor))
                os.close(own)


def _reopen(descriptor: int, before: str | None, now: str) -> int | None:
    path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    if before is not None and (path == before or path.startswith(before + "/")):
        path = now + path[len(before) :]
    try:
        return os.open(path, fcntl.fcntl(descriptor, fcntl.F_GETFL) & _KEPT_FLAGS)
    except OSError:
        return None


def _copy(descriptor: int, size: int) -> int:
    own = os.memfd_create("scratch")
    done = 0
    while done < size and (part := os.pread(descriptor, min(_COPY_BYTES, size - done), done)):
        done += os.write(own, part)
    fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)
    return own
