"""What a process gives up by itself: descriptors, environment, resources, privileges, and life without its parent."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from .kernel import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    PR_SET_SECUREBITS,
    invoke,
    prctl,
)
from .syscalls import CLOSE_RANGE

if sys.platform != "win32":
    import resource

_CAPABILITY_VERSION = 0x20080522
_SIGKILL = 9
_LAST_DESCRIPTOR = 0xFFFFFFFF
_HIGHEST_BOUND = 1 << 62
_CAP_SETPCAP = 1 << 8
# NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE with their locks, and the lock of KEEP_CAPS.
_NO_ROOT_FOR_GOOD = 0b1110_1111


@dataclass(frozen=True)
class Bounds:
    """Resources of one jailed process, fixed for good. There are never core dumps.

    Attributes:
        address_space_bytes: all memory that is mapped, used or not. Node.js maps far more than it uses. None where
            the supervisor bounds each process.
        cpu_s: CPU time from the fork on. SIGXCPU when it is up, SIGKILL one second later. None likewise.
        file_bytes: size of a file that is written; SIGXFSZ (which Python ignores) and EFBIG beyond it.
        open_files: one more than the highest descriptor. A user who has more descriptors than this under way in
            messages, over all processes, can send no more of them. None likewise.
        data_bytes: memory that is private and may be written. It bounds what Node.js uses; None sets no limit.
    """

    address_space_bytes: int | None = 1 << 30
    cpu_s: int | None = 4
    file_bytes: int = 8 << 20
    open_files: int | None = 64
    data_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is None and name in ("address_space_bytes", "cpu_s", "open_files", "data_bytes"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _HIGHEST_BOUND:
                raise ValueError(f"Bounds.{name} is {value!r}; give a whole number from 1 to 2**62")


def close_descriptors(keep: Iterable[int]) -> None:
    """Close all descriptors except 0, 1, 2 and those in `keep`.

    Raises:
        OSError: the kernel refuses.
    """
    first = 3
    for descriptor in sorted({kept for kept in keep if kept >= first}):
        _close_range(first, descriptor - 1)
        first = descriptor + 1
    _close_range(first, _LAST_DESCRIPTOR)


def _close_range(first: int, last: int) -> None:
    if first > last:
        return
    try:
        invoke("syscall", CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_int(0))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        os.closerange(first, min(last + 1, os.sysconf("SC_OPEN_MAX")))


def clear_environment() -> None:
    """Remove all environment variables but `*_NUM_THREADS`, without which numerical libraries start threads.

    The memory of the process may still hold the old values, so start it with few to begin with.
    """
    for name in list(os.environ):
        if not name.endswith("_NUM_THREADS"):
            del os.environ[name]


def limit_resources(bounds: Bounds) -> None:
    """Set the soft and the hard limits; a hard limit that is already lower stays.

    Raises:
        OSError: the kernel refuses.
    """
    for kind, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_AS, bounds.address_space_bytes, bounds.address_space_bytes),
        (resource.RLIMIT_CPU, bounds.cpu_s, None if bounds.cpu_s is None else bounds.cpu_s + 1),
        (resource.RLIMIT_FSIZE, bounds.file_bytes, bounds.file_bytes),
        (resource.RLIMIT_NOFILE, bounds.open_files, bounds.open_files),
        (resource.RLIMIT_DATA, bounds.data_bytes, bounds.data_bytes),
    ):
        if soft is None or hard is None:
            continue
        present = resource.getrlimit(kind)[1]
        highest = hard if present == resource.RLIM_INFINITY else min(hard, present)
        resource.setrlimit(kind, (min(soft, highest), highest))


def drop_capabilities() -> None:
    """Give up all capabilities, and the ways in which user 0 gets them back by executing a file.

    Raises:
        OSError: the kernel refuses, or some are left.
    """
    if _capabilities()[0] & _CAP_SETPCAP:
        # Both matter only when a file is executed, where no_new_privs stands in the way as well.
        with contextlib.suppress(OSError):
            prctl(PR_SET_SECUREBITS, _NO_ROOT_FOR_GOOD)
        with contextlib.suppress(OSError):
            for capability in range(64):
                prctl(PR_CAPBSET_DROP, capability)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    invoke("capset", _capability_header(), struct.pack("6I", *[0] * 6))
    if any(_capabilities()):
        raise OSError(errno.EPERM, "some capabilities are left")


def _capability_header() -> bytes:
    return struct.pack("Ii", _CAPABILITY_VERSION, 0)


def _capabilities() -> tuple[int, int, int]:
    """The effective, permitted and inheritable sets."""
    sets = ctypes.create_string_buffer(24)
    invoke("capget", _capability_header(), sets)
    low = struct.unpack("6I", sets.raw)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


def refuse_new_privileges() -> None:
    """No program that is executed from now on gains rights by set-user-id or file capabilities.

    Raises:
        OSError: the kernel refuses.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_death_signal() -> None:
    """Have the kernel kill this process when the one that it is a child of dies.

    A fork clears it, so each new process calls this. A parent that died before the call goes unnoticed.

    Raises:
        OSError: the kernel refuses.
    """
    prctl(PR_SET_PDEATHSIG, _SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, in place of the process with number 1.

    Raises:
        OSError: the kernel refuses.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def make_undumpable() -> None:
    """No core dumps, and no other process of this user may look into this one. Executing a file undoes it.

    Raises:
        OSError: the kernel refuses.
    """
    prctl(PR_SET_DUMPABLE, 0)
