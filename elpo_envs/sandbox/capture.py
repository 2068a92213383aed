"""What a session's code writes to file descriptors 1 and 2 past `sys.stdout`. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Callable


def capture_descriptors(at: int | None = None) -> Callable[[], str]:
    """Make descriptor 0 empty and 1 and 2 one file; return what gives and forgets that file's content as text.

    The file is in memory where the system has such files, else in the temporary directory, already removed.
    Processes forked afterwards share it, until they call this again: with the same `at`, the descriptor that is
    to hold the file, what an earlier call returned reads the new file from then on.
    """
    if hasattr(os, "memfd_create"):
        capture = os.memfd_create("output")
    else:
        import tempfile  # slow to import, and seldom needed

        with tempfile.TemporaryFile() as file:
            capture = os.dup(file.fileno())
    if at is not None and at != capture:
        os.dup2(capture, at, inheritable=False)
        os.close(capture)
        capture = at
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
