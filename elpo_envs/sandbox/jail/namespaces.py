"""Namespaces: a network, process numbers and mounts of its own for the supervisor and all below it."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from .kernel import explained, invoke

_NEWNS = 0x0002_0000
_NEWUTS = 0x0400_0000
_NEWIPC = 0x0800_0000
_NEWUSER = 0x1000_0000
_NEWPID = 0x2000_0000
_NEWNET = 0x4000_0000
_ALL = _NEWUSER | _NEWNS | _NEWNET | _NEWPID | _NEWIPC | _NEWUTS

_MNT_DETACH = 2
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_REC = 1 << 14
_MS_PRIVATE = 1 << 18

# Each switches user namespaces off, for those who are not root, when it holds this value.
_SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", "0"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
)


@dataclass(frozen=True)
class Unshared:
    """Whether the namespaces were made, and why not if they were not."""

    active: bool
    reason: str | None = None


def missing() -> str | None:
    """Why new namespaces cannot be made, as far as settings tell; None promises nothing, only `unshare` knows."""
    if sys.platform != "linux":
        return f"this system is {sys.platform}, not Linux"
    if os.geteuid() == 0:
        return None
    for path, value in _SWITCHES:
        try:
            found = Path(path).read_text().strip()
        except OSError:
            continue  # this kernel has no such setting
        if found == value:
            return f"{path} is {found}"
    return None


def unshare(disabled: Collection[str] = ()) -> Unshared:
    """Move this process into new user, mount, network, process, IPC and UTS namespaces.

    The user and group stay the same numbers, and mounts made from now on are seen by no process outside. The new
    process numbers are for children: the first one forked is number 1 there, and when it dies all others do.
    The steps are tried in a child first, so a refusal leaves this process as it was.

    Args:
        disabled: nothing is done if "namespaces" is among them.
    """
    if "namespaces" in disabled:
        return Unshared(False, "switched off")
    if sys.platform != "linux":
        return Unshared(False, missing())
    if threading.active_count() > 1:
        return Unshared(False, "this process has several threads")
    reason = _tried(_unshare)
    if reason is None:
        _unshare()
    return Unshared(reason is None, reason)


def mount_tmpfs(path: str, bytes: int, inodes: int) -> bool:
    """Mount an empty file system in memory on the folder `path`, open to this user only.

    Args:
        path: a folder that exists. Call it after `unshare`, or the whole machine sees the mount.
        bytes: all that the files in it may take, 1 or more.
        inodes: how many files and folders it may hold, the folder itself included, 2 or more.

    Returns:
        False if the kernel refuses, or is not Linux.

    Raises:
        ValueError: a bound is too small; 0 would mean none.
    """
    if bytes < 1:
        raise ValueError(f"bytes is {bytes}; give 1 or more")
    if inodes < 2:
        raise ValueError(f"inodes is {inodes}; give 2 or more")
    if sys.platform != "linux":
        return False
    options = f"size={bytes},nr_inodes={inodes},mode=0700,uid={os.geteuid()},gid={os.getegid()}"
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    try:
        invoke("mount", b"tmpfs", os.fsencode(path), b"tmpfs", flags, options.encode())
    except OSError:
        return False
    return True


def unmount(path: str) -> bool:
    """Take away what `mount_tmpfs` put on `path`, with all that is in it; False if there is nothing to take away."""
    try:
        invoke("umount2", os.fsencode(path), ctypes.c_int(_MNT_DETACH))
    except OSError:
        return False
    return True


def _unshare() -> None:
    user, group = os.geteuid(), os.getegid()
    invoke("unshare", ctypes.c_int(_ALL))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    invoke("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)


def _tried(action: Callable[[], None]) -> str | None:
    """Do it in a child that ends at once; return why it failed, or None."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        reason = "the attempt ended early"
        try:
            action()
            reason = ""
        except OSError as error:
            reason = explained(error)
        finally:
            os.write(writer, reason.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        reason = answer.read().decode()
    _, status = os.waitpid(child, 0)
    return reason or (None if status == 0 else f"the attempt ended with status {status}")
