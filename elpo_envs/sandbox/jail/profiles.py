"""What a jailed process may ask of the kernel: the two profiles, as rules for the filter."""

from __future__ import annotations

import errno
import os
import sys

from .bpf import ALLOW, ERRNO, NOTIFY, WHOLE, Check, Rule
from .syscalls import SYSCALLS

PROFILES = ("python", "node")
DEFAULT_ACTION = ERRNO | errno.EPERM

SIGCHLD = 17
CLONE_PARENT = 0x0000_8000
CLONE_CHILD_CLEARTID = 0x0020_0000
CLONE_CHILD_SETTID = 0x0100_0000
SIBLING_FLAGS = CLONE_PARENT | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD
# VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID and CHILD_CLEARTID; musl adds the void DETACHED.
_THREAD_FLAGS = (0x003D_0F00, 0x007D_0F00)

# Without conditions, in both profiles. Names that a machine does not have are passed over.
_FILES = """
    read write readv writev pread64 pwrite64 preadv pwritev close lseek stat fstat lstat newfstatat statx access
    faccessat faccessat2 readlink readlinkat getdents64 getcwd chdir fchdir fadvise64 fsync fdatasync ftruncate umask
    dup dup2 dup3 pipe2 poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait
    recvfrom sendmsg recvmsg shutdown
"""
_MEMORY = "mprotect munmap mremap madvise msync brk membarrier"
_SIGNALS = "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack pause restart_syscall"
_TIME = """
    alarm getitimer setitimer nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times
"""
_PROCESS = """
    rseq set_robust_list set_tid_address arch_prctl getrandom getcpu sched_yield sched_getaffinity getpid getppid gettid
    getpgrp getpgid getuid geteuid getgid getegid getrlimit getrusage sysinfo uname wait4 exit exit_group
"""
_EVERYWHERE = f"{_FILES} {_MEMORY} {_SIGNALS} {_TIME} {_PROCESS}".split()
# Landlock decides about these. Nothing else would, so they are refused without it.
_CHANGES = ("rename", "renameat", "mkdir", "mkdirat", "rmdir", "creat", "unlink", "unlinkat")
# What Node.js needs besides: `execve` to become Node.js, of files that Landlock grants and no other.
_NODE = ("execve", "eventfd2", "capget", "getsockopt", "getsockname", "pkey_alloc", "pkey_free", "pkey_mprotect")

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_SIGKILL = 9
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, the locks, F_DUPFD_CLOEXEC, F_GETPIPE_SZ and the seals. Never F_SETOWN
# and F_SETSIG: with them a full pipe sends any signal to any process of this user.
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032, 1033, 1034)
_IOCTL_REQUESTS = (0x5401, 0x541B, 0x5421, 0x5451, 0x5450)  # TCGETS FIONREAD FIONBIO FIOCLEX FIONCLEX
# WAIT WAKE REQUEUE CMP_REQUEUE WAKE_OP WAIT_BITSET WAKE_BITSET, on any clock. No priority inheritance.
_FUTEX_OPERATIONS = (0, 1, 3, 4, 5, 9, 10)
_FUTEX_FLAGS = 128 | 256
_RENAME_NOREPLACE = 1
# Among TYPE, ANONYMOUS and HUGETLB. Memory that is shared and can be written would tie a process to the copies that are
# forked from it.
_MMAP_OWN = (0x02, 0x22)  # PRIVATE, PRIVATE|ANONYMOUS
_MMAP_SHARED = (0x01,)
_MMAP_KIND_BITS = 0x4002F
_PROT_WRITE = 2
_MEMFD_FLAGS = 1 | 2 | 8  # CLOEXEC, ALLOW_SEALING, NOEXEC_SEAL; not huge pages


def rules(machine: str, profile: str, *, landlock: bool, notify: bool) -> list[Rule]:
    """The rules of `profile`; what they do not name fails with EPERM.

    Args:
        machine: a key of `SYSCALLS`.
        profile: one of `PROFILES`. Only "node" may make threads and execute files, only "python" may fork.
        landlock: whether Landlock decides which files may be changed. If not, no file may be changed, made,
            or opened for writing, not even below the folders that were granted.
        notify: whether a supervisor is asked about each fork; if not, forks are not counted.
    """
    checked: list[tuple[str, int, tuple[Check, ...]]] = [
        ("clone3", ERRNO | errno.ENOSYS, ()),
        ("fcntl", ALLOW, (Check(1, _FCNTL_COMMANDS),)),
        ("ioctl", ALLOW, (Check(1, _IOCTL_REQUESTS),)),
        ("futex", ALLOW, (Check(1, _FUTEX_OPERATIONS, 0xFFFFFFFF & ~_FUTEX_FLAGS),)),
        ("memfd_create", ALLOW, (Check(1, (0,), 0xFFFFFFFF & ~_MEMFD_FLAGS),)),
        ("prlimit64", ALLOW, (Check(0, (0,)), Check(2, (0,), WHOLE))),
        ("sendto", ALLOW, (Check(4, (0,), WHOLE),)),
        ("open", ALLOW, (_open_flags(1, landlock),)),
        ("openat", ALLOW, (_open_flags(2, landlock),)),
    ]
    allowed = list(_EVERYWHERE)
    if landlock:
        allowed += _CHANGES
        checked.append(("renameat2", ALLOW, (Check(4, (0, _RENAME_NOREPLACE)),)))
    if profile == "node":
        allowed += _NODE
        allowed.append("mmap")
        checked.append(("clone", ALLOW, (Check(0, _THREAD_FLAGS, WHOLE),)))
        checked.append(("prctl", ALLOW, (Check(0, (_PR_SET_NAME,)),)))
    else:
        checked.append(("mmap", ALLOW, (Check(3, _MMAP_OWN, _MMAP_KIND_BITS),)))
        checked.append(("mmap", ALLOW, (Check(3, _MMAP_SHARED, _MMAP_KIND_BITS), Check(2, (0,), _PROT_WRITE))))
        checked.append(("clone", NOTIFY if notify else ALLOW, (Check(0, (SIBLING_FLAGS,), WHOLE),)))
        checked.append(("prctl", ALLOW, (Check(0, (_PR_SET_PDEATHSIG,)), Check(1, (_SIGKILL,), WHOLE))))
    numbers = SYSCALLS[machine]
    named = [*checked, *((name, ALLOW, ()) for name in allowed)]
    return [Rule(numbers[name], action, checks) for name, action, checks in named if name in numbers]


def _open_flags(argument: int, landlock: bool) -> Check:
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "a seccomp filter needs Linux")
    if not landlock:
        return Check(argument, (os.O_RDONLY,), os.O_ACCMODE | os.O_CREAT | os.O_TRUNC)
    # Opened for reading and truncated: early versions of Landlock take that for reading.
    opened = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC)
    return Check(argument, opened, os.O_ACCMODE | os.O_TRUNC)
