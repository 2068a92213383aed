"""Attempts on the kernel, run without the language layer: processes, signals, network, privileges, limits."""

from __future__ import annotations

from _attempt import Attempt, low

_SECCOMP = frozenset({"seccomp"})
_EXECUTION = frozenset({"seccomp", "landlock"})
_ESCAPED = "\nprint('ESCAPED')"

_PROCESSES = (
    low("fork", "seccomp", "os.fork() or os._exit(0)" + _ESCAPED, opens=_SECCOMP),
    low("vfork", "seccomp", "import subprocess\nsubprocess.run(['/bin/true'])" + _ESCAPED, opens=_EXECUTION),
    low("shell", "seccomp", "if os.system('exit 0') == 0: print('ESCAPED')", opens=_EXECUTION),
    low("execute", "seccomp", "os.execv('/bin/echo', ['echo', 'ESCAPED'])"),
    low("execute-a-memory-file", "seccomp", "f = os.memfd_create('x')\nos.execve(f, ['x'], {})" + _ESCAPED),
    low(
        "execute-at",
        "seccomp",
        "call(322, 281, -100, b'/bin/true', None, None, 0)\nif failure not in ('EPERM', 'ENOSYS'): print('ESCAPED')",
    ),
    low("spawn", "seccomp", "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)" + _ESCAPED, opens=_EXECUTION),
    low("clone-a-child", "seccomp", "if clone(17) >= 0: os.getppid() and print('ESCAPED')"),
    low(
        "clone-a-thread",
        "seccomp",
        "call(56, 220, 0x3D0F00, None)\nif failure != 'EPERM': print('ESCAPED')",
    ),
    low("clone-in-namespaces", "seccomp", "if clone(0x10008011) >= 0: print('ESCAPED')"),
    low(
        "clone-sharing-memory",
        "seccomp",
        "call(56, 220, 0x8000 | 0x100 | 17, None)\nif failure != 'EPERM': print('ESCAPED')",
    ),
    low(
        "clone3",
        "seccomp",
        "call(435, 435, struct.pack('11Q', *[0] * 11), 88)\nif failure != 'ENOSYS': print('ESCAPED')",
    ),
    low(
        "thread",
        "seccomp",
        "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()" + _ESCAPED,
        opens=_SECCOMP,
    ),
    low(
        "threads-by-the-hundred",
        "seccomp",
        "import threading\nfor n in range(200):\n    try: threading.Thread(target=time.sleep, args=(0.1,)).start()\n"
        "    except RuntimeError: continue\n    print('ESCAPED')",
    ),
    low(
        "fork-without-an-order",
        "fork_grants",
        """
made = clone()
if made == 0:
    os._exit(0)
if made > 0:
    print("ESCAPED")
""",
        opens=frozenset({"fork_grants"}),
    ),
    low(
        "fork-bomb",
        "fork_grants",
        """
for n in range(500):
    made = clone()
    if made == 0:
        os._exit(0)
    if made > 0:
        print("ESCAPED")
""",
    ),
)

_SIGNALS = (
    *(
        low(f"signal-{name}", "seccomp", f"{code}\nprint('ESCAPED')", opens=opens)
        for name, code, opens in (
            ("the-supervisor", "os.kill(os.getppid(), 0)", None),
            ("the-host", "os.kill(@HOST_PID@, 0)", frozenset({"seccomp", "landlock", "namespaces"})),
            ("another-session", "os.kill(@WITNESS_PID@, 0)", frozenset({"seccomp", "namespaces"})),
            ("everybody", "os.kill(-1, 0)", None),
            ("the-group", "os.killpg(os.getpgrp(), 0)", _SECCOMP),
            ("itself", "os.kill(os.getpid(), 0)", _SECCOMP),
            ("by-descriptor", "os.pidfd_open(os.getpid())", _SECCOMP),
        )
    ),
    low("signal-a-thread", "seccomp", "if call(200, 130, os.getpid(), 0) == 0: print('ESCAPED')", opens=_SECCOMP),
    low(
        "signal-a-thread-of-a-group",
        "seccomp",
        "if call(234, 131, os.getpid(), os.getpid(), 0) == 0: print('ESCAPED')",
        opens=_SECCOMP,
    ),
    low(
        "signal-with-a-value",
        "seccomp",
        "info = struct.pack('iii', 10, 0, -1) + bytes(116)\n"
        "import signal\nsignal.signal(10, signal.SIG_IGN)\n"
        "if call(129, 138, os.getpid(), 10, info) == 0: print('ESCAPED')",
        opens=_SECCOMP,
    ),
    low(
        "signal-by-the-owner-of-a-descriptor",
        "seccomp",
        "import fcntl\nfcntl.fcntl(4, fcntl.F_SETOWN, os.getpid())" + _ESCAPED,
        opens=_SECCOMP,
    ),
    low("trace-me", "seccomp", "if call(101, 117, 16, 0, 0, 0) >= 0: print('ESCAPED')"),
    low(
        "trace-another",
        "seccomp",
        "for pid in (os.getppid(), @WITNESS_PID@):\n    if call(101, 117, 16, pid, 0, 0) == 0: print('ESCAPED')",
    ),
    low(
        "memory-of-another",
        "seccomp",
        """
room = ctypes.create_string_buffer(8)
here = struct.pack("PN", ctypes.addressof(room), 8)
for pid in (os.getppid(), @WITNESS_PID@):
    if call(310, 270, pid, here, 1, here, 1, 0) >= 0:
        print("ESCAPED")
""",
    ),
    low("signal-descriptor", "seccomp", "if call(289, 74, -1, bytes(8), 8, 0) >= 0: print('ESCAPED')", opens=_SECCOMP),
)

_NETWORK = (
    *(
        low(f"socket-{name}", "seccomp", f"socket.socket({arguments}).close()" + _ESCAPED, opens=opens)
        for name, arguments, opens in (
            ("tcp", "socket.AF_INET", _SECCOMP),
            ("udp", "socket.AF_INET, socket.SOCK_DGRAM", _SECCOMP),
            ("version-6", "socket.AF_INET6", None),
            ("unix", "socket.AF_UNIX", _SECCOMP),
            ("netlink", "socket.AF_NETLINK, socket.SOCK_RAW", _SECCOMP),
            ("packet", "socket.AF_PACKET, socket.SOCK_RAW", None),
            ("cryptography", "socket.AF_ALG, socket.SOCK_SEQPACKET", None),
            ("machines", "socket.AF_VSOCK", None),
        )
    ),
    low("socket-pair", "seccomp", "socket.socketpair()" + _ESCAPED, opens=_SECCOMP),
    low(
        "connect",
        "seccomp",
        "socket.create_connection(('127.0.0.1', @PORT@), 1)" + _ESCAPED,
        opens=frozenset({"seccomp", "landlock", "namespaces"}),
    ),
    low(
        "listen",
        "seccomp",
        "socket.create_server(('127.0.0.1', 0))" + _ESCAPED,
        opens=frozenset({"seccomp", "landlock"}),
    ),
    low(
        "send-to-an-address",
        "seccomp",
        "control().sendto(b'x', '/tmp/nobody')\n" + _ESCAPED,
    ),
    low("accept-on-what-is-there", "seccomp", "control().listen()" + _ESCAPED),
    low("name-of-a-connection", "seccomp", "control().getsockname()" + _ESCAPED, opens=_SECCOMP),
    low("option-of-a-connection", "seccomp", "control().setsockopt(1, 7, 1 << 30)" + _ESCAPED, opens=_SECCOMP),
    low(
        "network-namespace-of-the-machine",
        "namespaces",
        "if os.getppid() == @ZYGOTE_PID@: print('ESCAPED')",
        opens=frozenset({"namespaces"}),
    ),
)

# The call, its numbers on x86-64 and aarch64, and arguments that would do no harm.
_CALLS: dict[str, tuple[int, int, str]] = {
    "io-uring": (425, 425, "1, bytes(120)"),
    "bpf": (321, 280, "0, bytes(64), 64"),
    "performance-events": (298, 241, "bytes(112), 0, -1, -1, 0"),
    "user-faults": (323, 282, "0"),
    "unshare": (272, 97, "0x10000000"),
    "set-namespace": (308, 268, "0, 0"),
    "mount": (165, 40, "b'none', b'/', None, 0x44000, None"),
    "unmount": (166, 39, "b'/nowhere', 0"),
    "new-mount": (428, 428, "-100, b'/', 1"),
    "change-root": (161, 51, "b'/'"),
    "pivot-root": (155, 41, "b'.', b'.'"),
    "open-by-handle": (304, 265, "-100, bytes(136), 0"),
    "open-with-rules": (437, 437, "-100, b'/etc/passwd', bytes(24), 24"),
    "keys": (250, 219, "0, -3, 0"),
    "add-a-key": (248, 217, "b'user', b'x', b'x', 1, -3"),
    "secret-memory": (447, 447, "0"),
    "shared-memory": (29, 194, "0, 4096, 0o1600"),
    "semaphores": (64, 190, "0, 1, 0o1600"),
    "messages": (68, 186, "0, 0o1600"),
    "message-queue": (240, 180, "b'elpo', 0o102, 0o600, None"),
    "user": (105, 146, "os.getuid()"),
    "groups": (116, 159, "0, None"),
    "capabilities": (126, 91, "struct.pack('Ii', 0x20080522, 0), bytes(24)"),
    "filter": (317, 277, "1, 0, bytes(16)"),
    "landlock": (444, 444, "None, 0, 1"),
    "personality": (135, 92, "0xFFFFFFFF"),
    "name-of-the-machine": (170, 161, "b'x', 0"),
    "clock": (227, 112, "0, bytes(16)"),
    "adjust-the-clock": (159, 171, "bytes(208)"),
    "modules": (313, 273, "-1, b'', 0"),
    "new-kernel": (246, 104, "0, 0, None, 0"),
    "restart-with-bad-magic": (169, 142, "0, 0, 0, None"),
    "kernel-log": (103, 116, "3, ctypes.create_string_buffer(8), 8"),
    "ports": (172, 0, "0, 0, 0"),
    "quota": (179, 60, "0, None, 0, None"),
    "accounting": (163, 89, "b'/nowhere'"),
    "swap": (168, 225, "b'/nowhere'"),
    "splice": (275, 76, "0, None, 1, None, 1, 0"),
    "tee": (276, 77, "0, 1, 1, 0"),
    "pages-into-a-pipe": (278, 75, "1, bytes(16), 1, 0"),
    "descriptor-of-another": (438, 438, "0, 0, 0"),
    "memory-of-another-written": (311, 271, "os.getppid(), bytes(16), 1, bytes(16), 1, 0"),
    "advise-another": (440, 440, "0, bytes(16), 1, 0, 0"),
    "pages-of-another": (279, 239, "os.getppid(), 0, None, None, None, 0"),
    "compare-processes": (312, 272, "os.getppid(), os.getpid(), 0, 0, 0"),
    "priority": (141, 140, "0, 0, 0"),
    "scheduler": (144, 119, "0, 0, bytes(4)"),
    "affinity": (203, 122, "0, 8, b'\\xff' * 8"),
    "session": (112, 157, ""),
    "process-group": (109, 154, "0, 0"),
    "timer-by-number": (222, 107, "0, None, ctypes.create_string_buffer(8)"),
    "timer-descriptor": (283, 85, "0, 0"),
    "events-descriptor": (290, 19, "0, 0"),
    "watch-everything": (300, 262, "0, 0"),
    "locks-on-files": (73, 32, "0, 8"),
    "all-to-disk": (162, 81, ""),
}
_OPEN_TO_ALL = frozenset(
    [
        "user",
        "priority",
        "scheduler",
        "affinity",
        "process-group",
        "timer-by-number",
        "timer-descriptor",
        "events-descriptor",
        "locks-on-files",
        "splice",
        "tee",
        "pages-into-a-pipe",
        "filter",
        "capabilities",
        "memory-of-another-written",
        "advise-another",
    ]
)
"""Calls that any process may make anywhere, so that nothing but our filter can be what stops them."""

_BY_NUMBER = tuple(
    low(
        f"call-{name}",
        "seccomp",
        f"call({x86}, {arm}, {arguments})\n"
        # Without the filter it is something else that fails, if anything does.
        "if failure != 'EPERM': print('ESCAPED')",
        opens=_SECCOMP if name in _OPEN_TO_ALL else None,
    )
    for name, (x86, arm, arguments) in _CALLS.items()
)

_PRIVILEGES = (
    low(
        "new-privileges",
        "no_new_privs",
        "if call(157, 167, 39, 0, 0, 0, 0) == 0: print('ESCAPED')",
        opens=frozenset({"no_new_privs"}),
    ),
    low(
        "dumpable-again",
        "seccomp",
        "if call(157, 167, 4, 1, 0, 0, 0) == 0: print('ESCAPED')",
        opens=_SECCOMP,
    ),
    low(
        "no-death-signal",
        "seccomp",
        "if call(157, 167, 1, 0, 0, 0, 0) == 0: print('ESCAPED')",
        opens=_SECCOMP,
    ),
    low("another-death-signal", "seccomp", "if call(157, 167, 1, 10, 0, 0, 0) == 0: print('ESCAPED')", opens=_SECCOMP),
    low("adopt-orphans", "seccomp", "if call(157, 167, 36, 1, 0, 0, 0) == 0: print('ESCAPED')", opens=_SECCOMP),
    low("trusted-tracer", "seccomp", "if call(157, 167, 0x59616D61, -1, 0, 0, 0) == 0: print('ESCAPED')"),
    low(
        "name-of-the-process", "seccomp", "if call(157, 167, 15, b'x', 0, 0, 0) == 0: print('ESCAPED')", opens=_SECCOMP
    ),
    low(
        "environment-of-the-zygote",
        "environment",
        "if 'PYTHONHASHSEED' in os.environ or 'PATH' in os.environ: print('ESCAPED')",
        opens=frozenset({"environment"}),
    ),
    low(
        "environment-in-memory",
        "host",
        """
import re
libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
memory = os.memfd_create("memory")
here = ctypes.addressof(ctypes.c_char_p.in_dll(libc, "environ"))
place = ctypes.c_void_p.in_dll(libc, "__libc_stack_end").value & ~4095 if hasattr(libc, "__libc_stack_end") else here
for page in range(place, place + (1 << 20), 4096):
    if libc.write(memory, page, 4096) < 0:
        break
data = os.pread(memory, 1 << 20, 0)
assert b"python" in data, "the arguments lie there, and so would the environment"
if re.search(rb"elpo-secret=[0-9a-f]{32}", data): print("ESCAPED")
""",
    ),
    low(
        "descriptors-of-others",
        "descriptors",
        """
for n in range(7, 1024):
    try:
        if b"sessions" in os.pread(n, 100, 0):
            print("ESCAPED")
    except OSError:
        pass
""",
        opens=frozenset({"descriptors"}),
    ),
    low(
        "big-file",
        "rlimits",
        "with open('big', 'wb') as f: f.write(bytes(9 << 20))\nprint('ESCAPED')",
        opens=frozenset({"rlimits"}),
    ),
    low(
        "more-memory-than-granted",
        "rlimits",
        "import mmap\nmmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\nprint('ESCAPED')",
        opens=frozenset({"rlimits"}),
    ),
    low(
        "higher-limits",
        "seccomp",
        "import resource\nfor kind in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):\n"
        "    resource.setrlimit(kind, resource.getrlimit(kind))\n    print('ESCAPED')",
        opens=_SECCOMP,
    ),
    low(
        "limits-of-another",
        "seccomp",
        "import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)" + _ESCAPED,
        opens=_SECCOMP,
    ),
    low("core-dump", "rlimits", "import resource\nif resource.getrlimit(resource.RLIMIT_CORE)[1]: print('ESCAPED')"),
    low("nice", "seccomp", "os.nice(0)" + _ESCAPED, opens=_SECCOMP),
    low("terminal-input", "seccomp", "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')" + _ESCAPED),
    low(
        "terminal-input-with-high-bits",
        "seccomp",
        "call(16, 29, 0, ctypes.c_long((1 << 32) | 0x5412), b'x')\nif failure != 'EPERM': print('ESCAPED')",
    ),
    low(
        "old-calls",
        "seccomp",
        """
import mmap
page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
page.write(bytes.fromhex("b814000000cd80c3"))  # getpid of 32 bits
ctypes.PYFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print("ESCAPED")
""",
        machine="x86_64",
        kinds=("error",),
    ),
    low("calls-of-x32", "seccomp", "call(0x40000000 | 39, 0)" + _ESCAPED, machine="x86_64", kinds=("error",)),
    low(
        "huge-pages",
        "seccomp",
        "import mmap\nmmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)" + _ESCAPED,
    ),
    low(
        "every-other-call",
        "seccomp",
        """
for number in @REFUSED@:
    call(number, number, -1, -1, -1, -1, -1, -1)
    if failure != "EPERM":
        print("ESCAPED", number, failure)
""",
    ),
)

SYSTEM_ATTEMPTS: tuple[Attempt, ...] = (*_PROCESSES, *_SIGNALS, *_NETWORK, *_BY_NUMBER, *_PRIVILEGES)
