"""Landlock: which files a process and its children may touch, set by the process itself and never to be widened."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable

from .kernel import explained, invoke
from .syscalls import LANDLOCK_ADD_RULE, LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF

_MEANINGS = {
    errno.ENOSYS: "the kernel has no Landlock",
    errno.EOPNOTSUPP: "Landlock is switched off at boot",
    errno.EPERM: "a container or an outer filter refuses Landlock",
}
_QUERY_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE_DIR = 1 << 4
_REMOVE_FILE = 1 << 5
_MAKE_DIR = 1 << 7
_MAKE_REG = 1 << 8
_REFER = 1 << 13
_TRUNCATE = 1 << 14

# The rights on files that each version of the interface handles, as the position of its highest bit.
_HIGHEST_FILE_RIGHT = {1: 12, 2: 13, 3: 14, 4: 14, 5: 15}
_ALL_TCP = 0b11
_TCP_SINCE = 4
_ALL_SCOPES = 0b11
_SCOPES_SINCE = 6

_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER
_DEVICE = _READ_FILE | _WRITE_FILE


def version() -> int:
    """The kernel's Landlock interface version, from 1.

    Raises:
        OSError: the kernel has no Landlock, or it is switched off.
    """
    try:
        return invoke("syscall", LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_QUERY_VERSION))
    except OSError as error:
        code = error.errno or 0
        raise OSError(code, _MEANINGS.get(code, "Landlock cannot be asked for its version")) from error


def missing() -> str | None:
    """Why Landlock cannot be had here, or None if it can."""
    try:
        version()
    except OSError as error:
        return explained(error)
    return None


def restrict(read: Iterable[str], write: Iterable[str], execute: Iterable[str] = ()) -> None:
    """Confine this process for good. What is not granted is refused: files, TCP, signals and abstract sockets
    beyond this process and its children (the last two where the kernel can, from versions 4 and 6).

    Args:
        read: files and folders that may be read, with all below them. One that does not exist, or that this
            process may not look up, is passed over: it could not be read anyway.
        write: folders below which regular files and folders may be made, read, written, moved and removed.
            Links, sockets, fifos and device nodes may not be made anywhere. `/dev/null` may always be written.
        execute: files that may be executed.

    Raises:
        OSError: the kernel refuses, or a folder in `write` cannot be opened.
    """
    known = version()
    handled_files = (1 << (_HIGHEST_FILE_RIGHT.get(known, 15) + 1)) - 1
    handled_tcp = _ALL_TCP if known >= _TCP_SINCE else 0
    scoped = _ALL_SCOPES if known >= _SCOPES_SINCE else 0
    fields = 3 if known >= _SCOPES_SINCE else 2 if known >= _TCP_SINCE else 1
    attributes = struct.pack("QQQ", handled_files, handled_tcp, scoped)[: 8 * fields]
    ruleset = invoke("syscall", LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    try:
        for path in read:
            with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
                _grant(ruleset, path, _READ & handled_files)
        for path in execute:
            _grant(ruleset, path, (_READ | _EXECUTE) & handled_files)
        for path in write:
            _grant(ruleset, path, _WRITE & handled_files)
        with contextlib.suppress(FileNotFoundError):
            _grant(ruleset, os.devnull, _DEVICE & handled_files)
        invoke("syscall", LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _grant(ruleset: int, path: str, rights: int) -> None:
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, target)
        invoke("syscall", LANDLOCK_ADD_RULE, ruleset, ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint(0))
    finally:
        os.close(target)
