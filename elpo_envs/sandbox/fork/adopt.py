"""What a forked process does to have files of its own: offsets and contents are shared after a fork."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat
from pathlib import Path

from .wire import OPEN_FILES, OUTPUT

_COPY_BYTES = 1 << 20
_user_descriptors = select.poll()  # tells in one system call which of them are open; files are always ready
for _descriptor in range(OUTPUT + 1, OPEN_FILES):
    _user_descriptors.register(_descriptor, select.POLLIN | select.POLLOUT)
# What `open` may be given again, from what F_GETFL says.
_KEPT_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK


def adopt_files(before: str | None, now: str) -> None:
    """Replace every open regular file by one of this process alone, at the same offset.

    Files below the directory `before` become their copies below `now`; a file that has no name any more is
    copied into memory; any other is opened again. What cannot be opened stays as it was.
    """
    for descriptor, events in _user_descriptors.poll(0):
        if not events & select.POLLNVAL:
            with contextlib.suppress(OSError):
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode):
                    _adopt(descriptor, status, before, now)


def _adopt(descriptor: int, status: os.stat_result, before: str | None, now: str) -> None:
    offset = os.lseek(descriptor, 0, os.SEEK_CUR)
    path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    if status.st_nlink == 0 or not path.startswith("/"):
        own = _copy(descriptor, status.st_size)
        fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)
    else:
        if before is not None and path.startswith(before + "/"):
            path = now + path[len(before) :]
        own = os.open(path, fcntl.fcntl(descriptor, fcntl.F_GETFL) & _KEPT_FLAGS)
    inheritable = os.get_inheritable(descriptor)
    os.lseek(own, offset, os.SEEK_SET)
    os.dup2(own, descriptor, inheritable)
    os.close(own)


def _copy(descriptor: int, size: int) -> int:
    own = os.memfd_create("scratch")
    done = 0
    while done < size and (part := os.pread(descriptor, min(_COPY_BYTES, size - done), done)):
        done += os.write(own, part)
    return own
