"""What an attempt to break out of a session is, and the code that many of them share.

Code prints `REACHED` once it holds something that the language layer keeps from it, and `ESCAPED` once it has done
something that the jail forbids. Both are printed after the deed and never before. Nothing here harms the machine
where it succeeds: files are read or made in a temporary folder, connections go to this machine, loops have an end.

In code, `@NAME@` stands for what the run knows: CANARY (a file that no session may read), OUTSIDE (the folder of
that file), HOST_PID, ZYGOTE_PID, WITNESS_PID (numbers of this machine), WITNESS_FROZEN (a directory of another
session), PORT (somebody listens there on 127.0.0.1) and REPOSITORY (the folder of the package). The environment of the
host holds `elpo-secret=` and 32 digits.
"""

from __future__ import annotations

from dataclasses import dataclass

from elpo_envs.sandbox.jail import LAYERS

# Besides the layers of the jail: the language layer, and the two who must not trust what a session says.
STOPPERS = ("language", *LAYERS, "supervisor", "host")


@dataclass(frozen=True)
class Attempt:
    """One way in which code may try to get out of its session, or to harm others from within.

    Attributes:
        name: unique among all attempts.
        layer: what is expected to stop it, one of `STOPPERS`. Where that is "language", it is also run without the
            language layer, where it must come through to the jail and be stopped there.
        calls: the code, call by call.
        raw: run without the language layer only.
        opens: with these layers switched off, and no fewer, it succeeds; None where nobody tries.
        kinds: how the last call must end; any way that is not our failure if empty.
        wall_s: seconds of time and of CPU time for a call; more than 1 only where it takes less by far.
        patient: it runs until it is stopped.
        machine: the only kind of machine on which it means something; "" for all.
    """

    name: str
    layer: str
    calls: tuple[str, ...]
    raw: bool = False
    opens: frozenset[str] | None = None
    kinds: tuple[str, ...] = ()
    wall_s: float = 5.0
    patient: bool = False
    machine: str = ""

    def __post_init__(self) -> None:
        if self.layer not in STOPPERS:
            raise ValueError(f"Attempt.layer is {self.layer!r}; give one of {', '.join(STOPPERS)}")

    @property
    def modes(self) -> tuple[bool, ...]:
        """With the language layer (True) and without it (False)."""
        return (False,) if self.raw else (True, False)


HARM = '''
def harm(os):
    """Use the module `os`, or `posix`, for what the jail must not let it do."""
    os.getpid()
    print("REACHED")
    deeds = {
        "read a file": lambda: os.read(os.open("@CANARY@", os.O_RDONLY), 1),
        "made a file": lambda: os.close(os.open("@CANARY@.made", os.O_WRONLY | os.O_CREAT)),
        "listed a folder": lambda: os.listdir("@OUTSIDE@"),
        "sent a signal": lambda: os.kill(os.getppid(), 0) or True,
        "ran a program": lambda: os.system("exit 0") == 0,
        "forked": lambda: os.fork() or os._exit(0),
        "made a link": lambda: os.symlink("@CANARY@", "link") or True,
    }
    for deed, act in deeds.items():
        try:
            if act():
                print("ESCAPED:", deed)
        except OSError:
            pass
'''
"""For attempts that end up with a module: `harm(os)`."""

LOW = """
import ctypes, errno, json, os, socket, struct, sys, time

libc = ctypes.PyDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"


def call(x86, arm, *arguments):
    '''A system call by its numbers; -1 sets `failure`.'''
    global failure
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in (*arguments, *[0] * (6 - len(arguments)))]
    ctypes.set_errno(0)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(x86 if X86 else arm), *passed)
    failure = errno.errorcode.get(ctypes.get_errno(), "") if result == -1 else ""
    return result


def clone(flags=0x8000 | 0x200000 | 0x1000000 | 17):
    '''Fork a sibling as the jail's filter lets it through, or with other flags.'''
    thread = ctypes.byref(ctypes.c_int())
    return call(56, 220, flags, None, None, *((thread, None) if X86 else (None, thread)))


def control():
    '''The connection to the supervisor.'''
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=os.dup(3))


def order():
    '''The order to fork that waits there: the order, the child's connections to the host and to the supervisor.'''
    packet, descriptors, _, _ = socket.recv_fds(control(), 65536, 2)
    return json.loads(packet), *descriptors


def reply(descriptor=4, text="forged", kind="ok"):
    data = json.dumps([[text, kind]]).encode()
    os.write(descriptor, struct.pack("!I", len(data)) + data)


def tell(descriptor, packet):
    '''Send a packet that may be larger than the socket likes.'''
    try:
        os.write(descriptor, packet)
    except OSError as error:
        print(error)
"""
"""For raw attempts: system calls by number, and the conversation with supervisor and host."""


def attempt(name: str, layer: str, *calls: str, **options: object) -> Attempt:
    """An `Attempt` of some calls."""
    return Attempt(name, layer, tuple(calls), **options)  # type: ignore[arg-type]


def walk(name: str, code: str, **options: object) -> Attempt:
    """An attempt whose code binds `found` to the module `os` or `posix`, past the language layer."""
    return Attempt(name, "language", (f"{HARM}\n{code}\nharm(found)",), **options)  # type: ignore[arg-type]


def low(name: str, layer: str, *calls: str, **options: object) -> Attempt:
    """A raw attempt whose first call starts with `LOW`."""
    first, *others = calls
    return Attempt(name, layer, (f"{LOW}\n{first}", *others), raw=True, **options)  # type: ignore[arg-type]
