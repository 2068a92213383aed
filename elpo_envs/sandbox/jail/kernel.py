"""Calls into the kernel that the standard library does not offer, through the C library that is already loaded."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Any

# A jailed process cannot load a library, so the handle is made at import.
LIBC: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_TID_ADDRESS = 40
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4


def invoke(function: str, *arguments: int | bytes | Any) -> int:
    """Call a C library function that returns -1 on failure. Whole numbers are passed as `long`, the rest as it is.

    Raises:
        OSError: the call failed, or this C library (or system) does not have it.
    """
    if LIBC is None or not hasattr(LIBC, function):
        raise OSError(errno.ENOSYS, f"{function}: {os.strerror(errno.ENOSYS)}")
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(getattr(LIBC, function)(*passed))  # which ctypes remembers, unlike LIBC[function]
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")
    return result


def prctl(option: int, *arguments: int | Any) -> int:
    """`prctl` with the arguments left out given as 0, as newer options demand.

    Raises:
        OSError: the kernel refuses.
    """
    return invoke("prctl", option, *arguments, *[0] * (4 - len(arguments)))


def explained(error: OSError) -> str:
    """A reason for a report: the call, what the kernel said, and the symbol of the error."""
    return f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
