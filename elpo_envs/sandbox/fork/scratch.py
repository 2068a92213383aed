"""Scratch directories: one for each process, copied when a node branches, out of reach once it is frozen.

Used by the supervisor only. Names are random and the folder of the live ones cannot be listed, so that a process
finds no directory but its own; frozen ones lie where the jail lets nobody write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 32 << 20
MAX_FILES = 1000
_MAX_DEPTH = 40


class ScratchFullError(OSError):
    """A scratch directory holds more than it may."""


@dataclass(frozen=True)
class Usage:
    """Files and directories in a scratch directory, and the bytes of the files."""

    files: int
    bytes: int

    @property
    def excessive(self) -> bool:
        return self.files > MAX_FILES or self.bytes > MAX_BYTES


class ScratchRoot:
    """All scratch directories of a zygote, below `root`.

    Attributes:
        live: the folder that processes may write below.
        link: a path that leads each process to its own directory, so that paths which a program keeps stay
            right in every branch.
    """

    def __init__(self, root: str, link_target: str) -> None:
        self.live = f"{root}/live"
        self._frozen = f"{root}/frozen"
        self.link = f"{root}/scratch"
        Path(self.live).mkdir(0o300)
        Path(self._frozen).mkdir(0o700)
        Path(self.link).symlink_to(link_target)

    def name(self) -> str:
        """Where a new directory is to be; nobody can guess it."""
        return f"{self.live}/{secrets.token_hex(16)}"

    def frozen_name(self, path: str) -> str:
        """Where `freeze` moves a directory."""
        return f"{self._frozen}/{Path(path).name}"

    def make(self, path: str, source: str | None = None) -> None:
        """Make the directory `path`, a copy of `source` where one is given.

        Raises:
            ScratchFullError: `source` holds too much, or is nested too deep, to be copied.
            OSError: the system has no room.
        """
        if source is None or not any(os.scandir(source)):
            Path(path).mkdir(0o700)
            return
        if measure(source).excessive:
            raise ScratchFullError(errno.EDQUOT, f"its files exceed {MAX_BYTES >> 20} MB or {MAX_FILES} files")
        try:
            shutil.copytree(source, path, symlinks=True)
        except OSError as error:
            remove(path)
            raise OSError(errno.ENOSPC, "its files could not be copied") from error

    def freeze(self, path: str) -> str:
        """Move a live directory out of reach; returns where to."""
        frozen = self.frozen_name(path)
        Path(path).rename(frozen)
        return frozen


def measure(path: str) -> Usage:
    """What is in `path`; counting stops once it is excessive."""
    files = size = 0
    for entry in _walk(path):
        files += 1
        with contextlib.suppress(FileNotFoundError):
            size += entry.stat(follow_symlinks=False).st_size
        if (usage := Usage(files, size)).excessive:
            return usage
    return Usage(files, size)


def _walk(path: str) -> Iterator[os.DirEntry[str]]:
    folders = [(path, 0)]
    while folders:
        folder, depth = folders.pop()
        with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(folder) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    if depth >= _MAX_DEPTH:
                        raise ScratchFullError(errno.EDQUOT, f"its folders are nested more than {_MAX_DEPTH} deep")
                    folders.append((entry.path, depth + 1))


def remove(path: str) -> None:
    """Remove a directory with all that a program may have made of it."""
    try:
        Path(path).rmdir()  # most are empty
        return
    except FileNotFoundError:
        return
    except OSError:
        pass

    def unlock(function: object, name: str, error: object) -> None:
        with contextlib.suppress(OSError):
            Path(name).parent.chmod(stat.S_IRWXU)
            Path(name).chmod(stat.S_IRWXU)
            function(name)  # type: ignore[operator]

    with contextlib.suppress(RecursionError, OSError):
        shutil.rmtree(path, onerror=unlock)
    if Path(path).exists():  # nested deeper than Python can follow
        subprocess.run(["rm", "-rf", path], check=False, capture_output=True)
