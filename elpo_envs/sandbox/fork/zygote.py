"""The program behind the `fork` backend. Run by path; standard library only.

Three kinds of process come of it. The launcher, which the host starts, makes namespaces where it may and cleans up
in the end. The zygote imports what sessions are to have, forks the template, and then supervises. The template
enters the jail; every process of a session is forked from it, directly or not.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__" and not TYPE_CHECKING:
    # The random generators of a session must go on in its forks as if nothing had happened; `random`, which was not
    # imported up to here, would reseed.
    os.register_at_fork = lambda **_: None
    # A package of this name stands for the folder, so that the package around it is not imported.
    _folder = types.ModuleType("_elpo_sandbox")
    _folder.__path__ = [str(Path(__file__).parent.parent)]
    sys.modules["_elpo_sandbox"] = _folder
    jail = importlib.import_module("_elpo_sandbox.jail")
    heap = importlib.import_module("_elpo_sandbox.fork.heap")
    node = importlib.import_module("_elpo_sandbox.fork.node")
    scratch = importlib.import_module("_elpo_sandbox.fork.scratch")
    supervisor = importlib.import_module("_elpo_sandbox.fork.supervisor")
    wire = importlib.import_module("_elpo_sandbox.fork.wire")
else:
    from .. import jail
    from . import heap, node, scratch, supervisor, wire

_SCRATCH_BYTES = 1 << 30
_SCRATCH_INODES = 1 << 18
_HOST_CHECK_S = 1.0
_END_S = 2.0
_BADNESS = "500"  # of 1000: where memory runs out, sessions go before the host does


def launch(host: socket.socket, root: str, options: dict[str, Any]) -> int:
    """Be the launcher: make namespaces, fork the zygote, wait for its end, clean up. Returns the exit status."""
    parent = os.getppid()
    off = frozenset(options["disabled"])
    unshared = jail.unshare(off)
    mounted = unshared.active and jail.mount_tmpfs(root, _SCRATCH_BYTES, _SCRATCH_INODES)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_BADNESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jail.adopt_orphans()
    zygote = os.fork()
    if not zygote:
        jail.set_death_signal()
        _run_zygote(host, root, options, {"namespaces": unshared.reason, "tmpfs": mounted})
        os._exit(0)
    host.close()
    signal.signal(signal.SIGTERM, lambda *_: os.kill(zygote, signal.SIGKILL))
    status = _await(zygote, parent)
    _end_orphans()
    if mounted:
        jail.unmount(root)
    scratch.remove_tree(root)
    return status


def _await(zygote: int, parent: int) -> int:
    """Wait for the zygote; end it where the host is gone and it has not noticed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    while True:
        pid, status = os.waitpid(zygote, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if os.getppid() != parent:
            time.sleep(_END_S)
            with contextlib.suppress(ProcessLookupError):
                os.kill(zygote, signal.SIGKILL)
            continue
        signal.sigtimedwait([signal.SIGCHLD], _HOST_CHECK_S)


def _end_orphans() -> None:
    """End what was forked by a session's code instead of ours, and so did not die with the zygote."""
    with contextlib.suppress(ChildProcessError):
        while True:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                for child in _children():
                    os.kill(child, signal.SIGKILL)
                os.waitpid(-1, 0)


def _children() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                yield int(entry.name)


def _run_zygote(host: socket.socket, root: str, options: dict[str, Any], surroundings: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    loaded = [name for name in options["preload"] if _import(name)]
    directories = scratch.ScratchRoot(root, f"/proc/self/fd/{wire.SCRATCH}")
    ours, theirs = wire.pair()
    jail.prepare_fork()
    gc.collect()
    gc.freeze()
    large = heap.enlarge_pages()
    zygote = os.getpid()
    template = os.fork()
    if not template:
        heap.divide_tables(large)
        jail.set_death_signal()
        host.close()
        ours.close()
        _be_template(theirs, zygote, directories, frozenset(options["disabled"]))
    theirs.close()
    packet, descriptors, _, _ = socket.recv_fds(ours, wire.MAX_PACKET, 1)
    if not packet:
        raise RuntimeError("the template ended before it was ready")
    report = wire.unpack(packet)
    if surroundings["namespaces"] is None:
        report["active"].append("namespaces")
    else:
        report["missing"]["namespaces"] = surroundings["namespaces"]
    host.send(wire.pack({"ready": {**report, "tmpfs": surroundings["tmpfs"], "preloaded": loaded}}))
    listener = descriptors[0] if descriptors else None
    try:
        bounded = "rlimits" not in options["disabled"]
        supervisor.Supervisor(host, ours, template, listener, directories, bounded).run()
    finally:
        scratch.remove_tree(directories.live)


def _import(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _be_template(control: socket.socket, zygote: int, directories: Any, disabled: frozenset[str]) -> None:
    """In the template; does not return."""
    try:
        os.dup2(control.detach(), wire.CONTROL, inheritable=False)
        for standard in (0, 1, 2):
            os.set_inheritable(standard, True)
        os.chdir("/")
        bounds = jail.Bounds(address_space_bytes=None, cpu_s=None, open_files=None)  # the supervisor sets these
        spec = jail.JailSpec(
            read=jail.read_paths(), write=(directories.live,), keep=(wire.CONTROL,), bounds=bounds, disabled=disabled
        )
        report = jail.enter(spec)  # which clears the environment
        template = node.Node(zygote, directories.link)
        listener = [] if report.listener is None else [report.listener]
        message = wire.pack(
            {"active": list(report.active), "missing": dict(report.missing), "isolated": report.isolated}
        )
        socket.send_fds(template.control, [message], listener)
        for descriptor in listener:
            os.close(descriptor)
        template.live()
    except BaseException as error:
        print(f"sandbox template: {error!r}", file=sys.stderr)
    finally:
        os._exit(1)


def _main() -> None:
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGXCPU):  # the host may have ignored or blocked them
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    host = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=int(sys.argv[1]))
    sys.exit(launch(host, sys.argv[2], json.loads(sys.argv[3])))


if __name__ == "__main__":
    _main()
