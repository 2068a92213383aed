"""Installs the filter that decides which system calls a process may make."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Sequence

from .bpf import NOTIFY, Rule, program
from .kernel import explained, invoke
from .syscalls import SYSCALLS, machine, no_machine

_MEANINGS = {
    errno.EBUSY: "an outer filter has a listener already, as in some containers",
    errno.EINVAL: "the kernel has no seccomp user notification, or no filters",
    errno.EACCES: "no_new_privs is missing",
}
_SET_MODE_FILTER = 1
_GET_ACTION_AVAIL = 2
_NEW_LISTENER = 1 << 3
_WAIT_KILLABLE_RECV = 1 << 5


def missing() -> str | None:
    """Why filters cannot be installed here, or None if they can."""
    return _action_missing(0x00050000, "the kernel has no seccomp filters")


def notification_missing() -> str | None:
    """Why a supervisor cannot be asked about a system call here, or None if it can. An outer listener, as some
    container runtimes have, shows only when the filter is installed."""
    return _action_missing(NOTIFY, "the kernel has no seccomp user notification")


def install(rules: Sequence[Rule], default: int, *, listener: bool) -> int | None:
    """Put the filter on this thread and its children, for good. Needs no_new_privs, or CAP_SYS_ADMIN.

    Returns:
        The descriptor that notifications are read from if `listener`, else None.

    Raises:
        OSError: the kernel refuses. Nothing is installed.
    """
    name = machine()
    if name is None:
        raise OSError(errno.ENOSYS, no_machine())
    code = program(name, rules, default)
    instructions = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions))
    # Without WAIT_KILLABLE a timer of the jailed program can interrupt, and so repeat, a fork that was granted.
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE_RECV, _NEW_LISTENER) if listener else (0,):
        try:
            installed = invoke("syscall", SYSCALLS[name]["seccomp"], _SET_MODE_FILTER, flags, header)
        except OSError as error:
            if error.errno != errno.EINVAL or flags in (0, _NEW_LISTENER):
                raise OSError(error.errno, _MEANINGS.get(error.errno or 0, "the filter was refused")) from error
        else:
            return installed if listener else None
    raise AssertionError("the last attempt returns or raises")


def _action_missing(action: int, meaning: str) -> str | None:
    name = machine()
    if name is None:
        return no_machine()
    try:
        invoke("syscall", SYSCALLS[name]["seccomp"], _GET_ACTION_AVAIL, 0, struct.pack("I", action))
    except OSError as error:
        return meaning if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL) else explained(error)
    return None
