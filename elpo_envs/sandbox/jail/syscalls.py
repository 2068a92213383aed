"""Numbers of the Linux system calls that the filters name, for the two machines they can be built for."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping
from types import MappingProxyType

# The same on every machine that the package can meet: they were added after the tables were unified.
CLOSE_RANGE = 436
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446

# fmt: off
_X86_64 = {
    "brk": 12, "capget": 125, "chdir": 80, "clock_getres": 229, "clock_gettime": 228, "clock_nanosleep": 230,
    "clone": 56, "clone3": 435, "close": 3, "dup": 32, "dup3": 292, "epoll_create1": 291, "epoll_ctl": 233,
    "epoll_pwait": 281, "eventfd2": 290, "execve": 59, "exit": 60, "exit_group": 231, "faccessat": 269,
    "faccessat2": 439, "fadvise64": 221, "fchdir": 81, "fcntl": 72, "fdatasync": 75, "fstat": 5, "fsync": 74,
    "ftruncate": 77, "futex": 202, "getcpu": 309, "getcwd": 79, "getdents64": 217, "getegid": 108, "geteuid": 107,
    "getgid": 104, "getitimer": 36, "getpgid": 121, "getpid": 39, "getppid": 110, "getrandom": 318, "getrlimit": 97,
    "getrusage": 98, "getsockname": 51, "getsockopt": 55, "gettid": 186, "gettimeofday": 96, "getuid": 102,
    "ioctl": 16, "lseek": 8, "madvise": 28, "membarrier": 324, "memfd_create": 319, "mkdirat": 258, "mmap": 9,
    "mprotect": 10, "mremap": 25, "msync": 26, "munmap": 11, "nanosleep": 35, "newfstatat": 262, "openat": 257,
    "pipe2": 293, "pkey_alloc": 330, "pkey_free": 331, "pkey_mprotect": 329, "ppoll": 271, "prctl": 157,
    "pread64": 17, "preadv": 295, "prlimit64": 302, "pselect6": 270, "pwrite64": 18, "pwritev": 296, "read": 0,
    "readlinkat": 267, "readv": 19, "recvfrom": 45, "recvmsg": 47, "renameat": 264, "renameat2": 316,
    "restart_syscall": 219, "rseq": 334, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
    "sched_getaffinity": 204, "sched_yield": 24, "seccomp": 317, "sendmsg": 46, "sendto": 44, "set_robust_list": 273,
    "set_tid_address": 218, "setitimer": 38, "shutdown": 48, "sigaltstack": 131, "statx": 332, "sysinfo": 99,
    "times": 100, "umask": 95, "uname": 63, "unlinkat": 263, "wait4": 61, "write": 1, "writev": 20,

    # Older forms that newer machines were never given.
    "access": 21, "alarm": 37, "arch_prctl": 158, "creat": 85, "dup2": 33, "epoll_wait": 232, "getpgrp": 111,
    "lstat": 6, "mkdir": 83, "open": 2, "pause": 34, "poll": 7, "readlink": 89, "rename": 82, "rmdir": 84,
    "select": 23, "stat": 4, "time": 201, "unlink": 87,
}
_AARCH64 = {
    "brk": 214, "capget": 90, "chdir": 49, "clock_getres": 114, "clock_gettime": 113, "clock_nanosleep": 115,
    "clone": 220, "clone3": 435, "close": 57, "dup": 23, "dup3": 24, "epoll_create1": 20, "epoll_ctl": 21,
    "epoll_pwait": 22, "eventfd2": 19, "execve": 221, "exit": 93, "exit_group": 94, "faccessat": 48,
    "faccessat2": 439, "fadvise64": 223, "fchdir": 50, "fcntl": 25, "fdatasync": 83, "fstat": 80, "fsync": 82,
    "ftruncate": 46, "futex": 98, "getcpu": 168, "getcwd": 17, "getdents64": 61, "getegid": 177, "geteuid": 175,
    "getgid": 176, "getitimer": 102, "getpgid": 155, "getpid": 172, "getppid": 173, "getrandom": 278,
    "getrlimit": 163, "getrusage": 165, "getsockname": 204, "getsockopt": 209, "gettid": 178, "gettimeofday": 169,
    "getuid": 174, "ioctl": 29, "lseek": 62, "madvise": 233, "membarrier": 283, "memfd_create": 279, "mkdirat": 34,
    "mmap": 222, "mprotect": 226, "mremap": 216, "msync": 227, "munmap": 215, "nanosleep": 101, "newfstatat": 79,
    "openat": 56, "pipe2": 59, "pkey_alloc": 289, "pkey_free": 290, "pkey_mprotect": 288, "ppoll": 73, "prctl": 167,
    "pread64": 67, "preadv": 69, "prlimit64": 261, "pselect6": 72, "pwrite64": 68, "pwritev": 70, "read": 63,
    "readlinkat": 78, "readv": 65, "recvfrom": 207, "recvmsg": 212, "renameat": 38, "renameat2": 276,
    "restart_syscall": 128, "rseq": 293, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
    "sched_getaffinity": 123, "sched_yield": 124, "seccomp": 277, "sendmsg": 211, "sendto": 206,
    "set_robust_list": 99, "set_tid_address": 96, "setitimer": 103, "shutdown": 210, "sigaltstack": 132, "statx": 291,
    "sysinfo": 179, "times": 153, "umask": 166, "uname": 160, "unlinkat": 35, "wait4": 260, "write": 64, "writev": 66,
}
# fmt: on

SYSCALLS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {"x86_64": MappingProxyType(_X86_64), "aarch64": MappingProxyType(_AARCH64)}
)
"""Machine name, as `os.uname` gives it, to system call name to number."""


def machine() -> str | None:
    """The machine this process runs on if the filters can be built for it, else None."""
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        return None
    name = os.uname().machine
    return name if name in SYSCALLS else None


def no_machine() -> str:
    """Why `machine` is None, in one sentence."""
    if sys.platform != "linux":
        return f"this system is {sys.platform}, not Linux"
    bits = struct.calcsize("P") * 8
    known = " and ".join(SYSCALLS)
    return f"system call numbers are known for {known} with 64 bits, not for {os.uname().machine} with {bits}"
