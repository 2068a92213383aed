"""Forks a sibling instead of a child, in the one form that the seccomp profile lets through."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import ctypes
import errno
import os
import signal
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .kernel import LIBC, PR_GET_TID_ADDRESS, prctl
from .profiles import SIBLING_FLAGS
from .syscalls import SYSCALLS, machine, no_machine

_THREAD_BYTES = 1024
_SIGNALS = signal.valid_signals()


@dataclass(frozen=True)
class _Prepared:
    clone: Callable[[], int]
    before: Callable[[], object]
    after_in_parent: Callable[[], object]
    after_in_child: Callable[[], object]


_prepared: _Prepared | None = None


def prepare_fork() -> None:
    """Look up all that `fork_sibling` needs, while libraries and `prctl` can still be had. Idempotent.

    Call it in the thread that will fork, or in one that it was forked from.

    Raises:
        OSError: not Linux, a machine whose calls are not known, or a C library that hides where it keeps the
            number of the thread.
    """
    global _prepared
    if _prepared is not None:
        return
    name = machine()
    if name is None:
        raise OSError(errno.ENOSYS, no_machine())
    thread = ctypes.c_void_p(_thread_number_address())
    # The interpreter's lock stays held through the call, as `os.fork` does it.
    call: Any = ctypes.PyDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    number, flags, none = ctypes.c_long(SYSCALLS[name]["clone"]), ctypes.c_ulong(SIBLING_FLAGS), ctypes.c_void_p()
    tail = (thread, none) if name == "x86_64" else (none, thread)

    def clone() -> int:
        return int(call(number, flags, none, none, *tail))

    steps = [
        getattr(ctypes.pythonapi, f"PyOS_{step}") for step in ("BeforeFork", "AfterFork_Parent", "AfterFork_Child")
    ]
    for step in steps:
        step.restype = None
    _prepared = _Prepared(clone, *steps)


def fork_sibling() -> int:
    """Fork this process; the new one gets this one's parent, so that the two are siblings.

    Only for processes with a single thread: locks that others hold would stay locked. The parent that gets the new
    child has to reap it, and the child has to call `set_death_signal` itself.

    Returns:
        0 in the new process, its number in the old one.

    Raises:
        OSError: the kernel, or whoever answers for the jail, refuses.
    """
    if _prepared is None:
        prepare_fork()
    assert _prepared is not None
    # A signal that comes in between makes the kernel start the call again, which would take a second grant.
    unblocked = _signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # `signal` would make an object of each
    try:
        _prepared.before()
        process = _prepared.clone()
        error = ctypes.get_errno()
        if process == 0:
            _prepared.after_in_child()
        else:
            _prepared.after_in_parent()
    finally:
        _signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    if process < 0:
        raise OSError(error, os.strerror(error))
    return process


def _thread_number_address() -> int:
    """Where the C library keeps the number of this thread, which the kernel has to correct in the new process."""
    found = ctypes.c_void_p()
    try:
        prctl(PR_GET_TID_ADDRESS, ctypes.byref(found))
    except OSError:
        found.value = None  # a kernel built without checkpoint and restore
    own = threading.get_native_id()
    if found.value and ctypes.c_int.from_address(found.value).value == own:
        return found.value
    places = _places_of(own) & _places_in_child()
    if len(places) != 1:
        raise OSError(errno.ENOTSUP, f"{len(places)} places in the C library's record of a thread may hold its number")
    return _thread_record() + places.pop()


def _thread_record() -> int:
    pthread_self: Any = LIBC.pthread_self
    pthread_self.restype = ctypes.c_size_t
    return int(pthread_self())


def _places_of(number: int) -> set[int]:
    record = ctypes.string_at(_thread_record(), _THREAD_BYTES)
    return {4 * place for place, (value,) in enumerate(struct.iter_unpack("i", record)) if value == number}


def _places_in_child() -> set[int]:
    """The same search in a child made by the C library, whose number differs."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, bytes(place // 4 for place in _places_of(threading.get_native_id())))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        places = answer.read()
    os.waitpid(child, 0)
    return {4 * place for place in places}
