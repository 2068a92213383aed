"""Scratch directories: one for each process, copied when a node branches, out of reach once it is frozen.

Used by the supervisor only. Names are random, and the folder of the live ones can be neither listed nor changed from
within the jail, so that a process finds no directory but its own; frozen ones lie where the jail lets nobody write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import subprocess
from collections.abc import Container, Iterator
from pathlib import Path

MAX_BYTES = 32 << 20
MAX_FILES = 1000
_MAX_DEPTH = 40
FULL = f"its files were more than {MAX_BYTES >> 20} MB, {MAX_FILES} files or {_MAX_DEPTH} folders deep"


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
        Path(self.live).mkdir(0o700)
        Path(self._frozen).mkdir(0o700)
        Path(self.link).symlink_to(link_target)
        self._listing = os.open(self.live, os.O_RDONLY | os.O_DIRECTORY)
        Path(self.live).chmod(0o100)
        # Who is root here, or in a namespace of its own, needs no permission; nobody in the jail is.
        self._privileged = os.access(self.live, os.W_OK)

    def name(self) -> str:
        """Where a new directory is to be; nobody can guess it."""
        return f"{self.live}/{secrets.token_hex(16)}"

    def frozen_name(self, path: str) -> str:
        """Where `freeze` moves a directory."""
        return f"{self._frozen}/{Path(path).name}"

    def make(self, path: str, source: str | None = None) -> None:
        """Make the directory `path`, a copy of `source` where one is given.

        Raises:
            OSError: `source` holds too much to be copied, or the system has no room.
        """
        filled = source is not None and any(os.scandir(source))
        if source is not None and filled and is_full(source):
            raise OSError(errno.EDQUOT, FULL)
        with self._changing():
            Path(path).mkdir(0o700)
        if source is None or not filled:
            return
        try:
            shutil.copytree(source, path, symlinks=True, dirs_exist_ok=True)
        except OSError as error:
            self.remove(path)
            raise OSError(errno.ENOSPC, "its files could not be copied") from error

    def freeze(self, path: str) -> str:
        """Move a live directory out of reach; returns where to."""
        frozen = self.frozen_name(path)
        with self._changing():
            Path(path).rename(frozen)
        return frozen

    def remove(self, path: str) -> None:
        """Remove a directory, live or frozen, with all that a program may have made of it."""
        with self._changing():
            remove_tree(path)

    def sweep(self, known: Container[str]) -> None:
        """Remove what processes made beside the `known` live directories in the moments in which they could."""
        if not self._privileged:
            with os.scandir(self._listing) as entries:
                found = [f"{self.live}/{entry.name}" for entry in entries]
            for path in found:
                if path not in known:
                    self.remove(path)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """While directories are made and removed."""
        if self._privileged:
            yield
            return
        Path(self.live).chmod(0o300)
        try:
            yield
        finally:
            Path(self.live).chmod(0o100)


def is_full(path: str) -> bool:
    """Whether more is in the directory `path` than a process may keep there. Never follows a link.

    What cannot be counted is too much: folders that may not be read, paths that are too long for the system.
    """
    files = size = 0
    folders = [(path, 0)]
    while folders:
        folder, depth = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, depth + 1))
                    with contextlib.suppress(FileNotFoundError):
                        size += entry.stat(follow_symlinks=False).st_size
                    if files > MAX_FILES or size > MAX_BYTES or depth >= _MAX_DEPTH:
                        return True
        except FileNotFoundError:
            continue
        except OSError:
            return True
    return False


def remove_tree(path: str) -> None:
    """Remove a directory, whatever a program may have made of it; nothing is raised."""
    target = Path(path)
    try:
        target.rmdir()  # most are empty
        return
    except FileNotFoundError:
        return
    except NotADirectoryError:
        target.unlink(missing_ok=True)
        return
    except OSError:
        pass
    with contextlib.suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if target.exists():  # nested deeper than Python can follow, or with folders that their owner may not read
        subprocess.run(["chmod", "-R", "u+rwx", path], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", path], check=False, capture_output=True)
