"""What a forked process does to have files of its own: offsets and contents are shared after a fork."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path

from .wire import OPEN_FILES, SPARE

_COPY_BYTES = 1 << 20
_user_descriptors = select.poll()  # tells in one system call which of them are open; files are always ready
for _descriptor in range(SPARE + 1, OPEN_FILES):
    _user_descriptors.register(_descriptor, select.POLLIN | select.POLLOUT)
# What `open` may be given again, from what F_GETFL says.
_KEPT_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_DIRECTORY


def adopt_files(before: str | None, now: str) -> None:
    """Replace every open file and folder by one of this process alone, files at the same offset.

    What lies below the directory `before` becomes its copy below `now`; other things are opened again. A file that
    has no name any more, or that may not be opened again, is copied into memory.
    """
    for descriptor, status in _open_files():
        with contextlib.suppress(OSError):
            own = _reopen(descriptor, before, now)
            if own is None and stat.S_ISREG(status.st_mode):
                own = _copy(descriptor, status.st_size)
            if own is not None:
                if stat.S_ISREG(status.st_mode):
                    os.lseek(own, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
                os.dup2(own, descriptor, os.get_inheritable(descriptor))
                os.close(own)


def nameless_bytes() -> int:
    """Bytes in files that are open here and have no name any more, so that no folder shows them."""
    files = [status for _, status in _open_files() if stat.S_ISREG(status.st_mode) and not status.st_nlink]
    return sum(status.st_size for status in files)


def _open_files() -> Iterator[tuple[int, os.stat_result]]:
    """The code's open files and folders."""
    for descriptor, events in _user_descriptors.poll(0):
        if not events & select.POLLNVAL:
            with contextlib.suppress(OSError):
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                    yield descriptor, status


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
