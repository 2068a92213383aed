"""What the `fork` backend leaves on the machine: processes, directories and descriptors, counted from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from elpo_envs.sandbox.choice import why_not_fork
from elpo_envs.sandbox.fork.pool import Pool

needs_fork = pytest.mark.skipif(why_not_fork() is not None, reason=f"the fork backend: {why_not_fork()}")


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether `holds` came true in that time, which is for hangs only."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Its children that have not ended, the oldest first."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in found.split() if alive(int(child))]


def descendants(pid: int) -> list[int]:
    """Its children, their children and so on."""
    return [below for child in children(pid) for below in (child, *descendants(child))]


def launcher(pool: Pool) -> int:
    """The process that the host started."""
    return pool._zygote.pid


def zygote(pool: Pool) -> int:
    """The parent of all processes of sessions."""
    return children(launcher(pool))[0]


def nodes(pool: Pool) -> list[int]:
    """The processes of sessions, the template not among them."""
    return children(zygote(pool))[1:]


def scratch_directories(pool: Pool) -> int:
    """How many there are, seen as the zygote sees the file system."""
    root = f"/proc/{zygote(pool)}/root{pool._root}"
    return _entries(f"{root}/live") + _entries(f"{root}/frozen")


def descriptors(pid: int | None = None) -> int:
    """How many descriptors a process, or this one, has open."""
    return _entries(f"/proc/{pid or 'self'}/fd")


def resident_mb(pid: int) -> float:
    """The memory that a process takes now, in MiB."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _entries(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())
