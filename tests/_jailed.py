"""Run by path: a supervisor that jails a child, runs a program in it, and answers the forks it asks for.

Usage: `_jailed.py FOLDER OPTIONS`, the folder being that of `elpo_envs/sandbox` (or a copy) and the options JSON:
`write`, `read` and `execute` (paths), `keep` (descriptors), `bounds`, `profile` and `disabled` for the `JailSpec`;
`unshare`; `mount`, a folder to mount memory on; `grants`, how many forks to allow; `first` and `before`, programs for
the supervisor before all else and for the child before it is jailed. The program for the jail comes on standard
input. The last line that is printed is JSON.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import socket
import sys
import types

folder, options = sys.argv[1], json.loads(sys.argv[2])
package = types.ModuleType("_elpo_sandbox")
package.__path__ = [folder]
sys.modules["_elpo_sandbox"] = package
from _elpo_sandbox import jail  # type: ignore[import-not-found]  # noqa: E402

libc = ctypes.CDLL(None, use_errno=True)
inotify_add_watch, setrlimit = libc.inotify_add_watch, resource.setrlimit


def syscall(number, *arguments):
    """The symbol of the error that a system call ends with, or "" if it succeeds."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in padded]
    ctypes.set_errno(0)
    return errno.errorcode[ctypes.get_errno()] if libc.syscall(ctypes.c_long(number), *passed) < 0 else ""


def error_of(action, *arguments, **named):
    """The symbol of the error that an action ends with, or "" if it succeeds."""
    try:
        action(*arguments, **named)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""


program = sys.stdin.read()
report = {"unshared": None, "mounted": None, "asked": 0, "statuses": {}}
exec(options.get("first", ""))
if options.get("unshare"):
    unshared = jail.unshare(options.get("disabled", []))
    report["unshared"] = [unshared.active, unshared.reason]
    supervisor = os.fork()
    if supervisor:
        _, status = os.waitpid(supervisor, 0)
        sys.exit(os.waitstatus_to_exitcode(status))
if options.get("mount"):
    report["mounted"] = jail.mount_tmpfs(options["mount"], options.get("mount_bytes", 1 << 20), 50)

ours, theirs = socket.socketpair()
supervisor = os.getpid()
child = os.fork()
if child == 0:
    ours.close()
    scope = {**globals(), "supervisor": supervisor}
    exec(options.get("before", ""), scope)
    jail.prepare_fork()
    spec = jail.JailSpec(
        read=tuple(options["read"]) if "read" in options else jail.read_paths(),
        write=tuple(options.get("write", ())),
        keep=(theirs.fileno(), *options.get("keep", ())),
        # The kernel lets a user send no descriptors while more than this many of his are under way anywhere.
        bounds=jail.Bounds(**{"open_files": 1024, **options.get("bounds", {})}),
        profile=options.get("profile", "python"),
        disabled=frozenset(options.get("disabled", ())),
        execute=tuple(options.get("execute", ())),
    )
    entered = jail.enter(spec)
    facts = json.dumps([entered.active, dict(entered.missing), entered.isolated]).encode()
    socket.send_fds(theirs, [facts], [] if entered.listener is None else [entered.listener])
    if entered.listener is not None:
        os.close(entered.listener)
    status = 1
    try:
        exec(program, scope)
        status = 0
    finally:
        sys.stdout.flush()
        if status:
            sys.excepthook(*sys.exc_info())
        os._exit(status)

theirs.close()
facts, listeners, _, _ = socket.recv_fds(ours, 1 << 16, 1)
report["child"] = child
report["active"], report["missing"], report["isolated"] = json.loads(facts)
if listeners:
    grants = jail.ForkGrants(listeners[0])
    poll = select.poll()
    poll.register(grants, select.POLLIN)
    while poll.poll()[0][1] & select.POLLIN:
        notice = grants.receive()
        if notice is None:
            continue
        report["asked"] += 1
        report.setdefault("askers", []).append(notice[1])
        if report["asked"] <= options.get("grants", 0):
            grants.allow(notice[0])
        else:
            grants.deny(notice[0], errno.EAGAIN)
with contextlib.suppress(ChildProcessError):
    while True:
        process, status = os.wait()
        report["statuses"][process] = os.waitstatus_to_exitcode(status)
print(json.dumps(report))
