"""A program, run by path in a process of its own, whose forks are the sessions. Standard library only.

It is spawned and never forked from the host, so threads and devices in the host do not matter, and a session
starts with one fork of a small process, made in advance where there was time. `forked.Zygote` is its other
end. Requests come over a Unix socket as frames (see `session`) holding a JSON list:

- `["open", null]`: start a session; the reply is its process id and carries the host's end of its connection,
  or is minus an errno.
- `["preload", name]`: import a module, so that later sessions have it; the reply is 0, or -1 if that failed.
- `["status", pid]`: end a session; the reply is its exit code, negative for a signal.
- `["discard", pids]`: end sessions; no reply.

A reply is one signed 64-bit number. When the socket ends, or the host is gone, all sessions are killed and
the scratch directory is removed. Started with `--single`, the program is one session on stdin and stdout: the
way of systems without fork or descriptor passing.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import threading
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if __name__ == "__main__" and not TYPE_CHECKING:
    # A package of this name stands for the folder, so that the package around it is not imported.
    _folder = types.ModuleType("_elpo_session")
    _folder.__path__ = [str(Path(__file__).parent)]
    sys.modules["_elpo_session"] = _folder
    session = importlib.import_module("_elpo_session.session")
else:
    from . import session

REPLY = struct.Struct("!q")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_HOST_CHECK_S = 2.0


class _Session(NamedTuple):
    pid: int
    connection: socket.socket  # the host's end
    scratch: str


class _Server:
    """The zygote's side: its socket to the host, its scratch directory and the sessions alive."""

    def __init__(self, host: socket.socket, root: str) -> None:
        self._host = host
        self._root = root
        self._sessions: dict[int, str] = {}  # process id -> its scratch directory
        self._killed: list[int] = []  # sessions that are still to be reaped
        self._spare: _Session | None = None
        self._wants_spare = False
        self._started = 0
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        if self._libc is not None:  # what a session leaves behind becomes our child, and can be found
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self) -> None:
        """Serve until the host's end of the socket is closed or the host is gone."""
        parent = os.getppid()
        poll = select.poll()
        poll.register(self._host, select.POLLIN)
        try:
            while True:
                busy = self._wants_spare or bool(self._killed)
                if poll.poll(0 if busy else _HOST_CHECK_S * 1000):
                    request = session.read_frame(self._host.fileno())
                    if request is None:
                        return
                    self._answer(*json.loads(request))
                elif busy:
                    self._use_idle_time()
                elif os.getppid() != parent:  # some other process holds a copy of the host's socket
                    return
        except (BrokenPipeError, ConnectionResetError):
            return  # the host is gone
        finally:
            self._kill(list(self._sessions))
            self._reap()
            shutil.rmtree(self._root, ignore_errors=True)

    def _answer(self, operation: str, argument: Any) -> None:
        if operation == "open":
            self._open()
        elif operation == "discard":
            self._kill(argument)
        elif operation == "status":
            self._await_exit(argument)
            self._kill([argument])
            self._host.sendall(REPLY.pack(self._reap().get(argument, -int(signal.SIGKILL))))
        elif operation == "preload":
            self._drop_spare()
            self._host.sendall(REPLY.pack(_preload(argument)))

    def _open(self) -> None:
        try:
            opened = self._spare or self._start()
        except OSError as error:
            self._host.sendall(REPLY.pack(-(error.errno or 1)))
            return
        self._spare = None
        self._wants_spare = True
        socket.send_fds(self._host, [REPLY.pack(opened.pid)], [opened.connection.fileno()])
        opened.connection.close()

    def _use_idle_time(self) -> None:
        if self._wants_spare:
            self._wants_spare = False
            with contextlib.suppress(OSError):  # the next `open` will try again, and report it
                self._spare = self._start()
        else:
            self._reap()

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.connection.close()
            self._kill([self._spare.pid])
            self._spare = None

    def _start(self) -> _Session:
        ours, theirs = socket.socketpair()
        with theirs:
            self._started += 1
            scratch = f"{self._root}/{self._started:08}"
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                raise
            if not pid:
                ours.close()
                self._become_session(theirs, scratch)
        self._sessions[pid] = scratch
        return _Session(pid, ours, scratch)

    def _become_session(self, connection: socket.socket, scratch: str) -> None:
        """In the forked child; does not return."""
        try:
            zygote = os.getppid()
            if self._libc is not None:
                self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == zygote:
                os.setsid()
                self._host.close()
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                Path(scratch).mkdir(0o700)
                session.serve(connection.fileno(), connection.fileno(), scratch)
            os._exit(0)
        finally:
            os._exit(1)  # only after an error, or if the zygote died before prctl

    def _kill(self, pids: list[int]) -> None:
        """Kill sessions with all they started; `_reap` does the rest."""
        for pid in pids:
            if pid in self._sessions and pid not in self._killed:
                for kill in (os.killpg, os.kill):
                    with contextlib.suppress(ProcessLookupError, PermissionError):  # not a group yet, or a zombie
                        kill(pid, signal.SIGKILL)
                self._killed.append(pid)

    def _await_exit(self, pid: int) -> None:
        """Let a session that closed its connection end by itself, so that its exit code is its own."""
        if pid in self._sessions and hasattr(os, "waitid"):
            for _ in range(50):
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    return
                time.sleep(0.001)

    def _reap(self) -> dict[int, int]:
        """Remove what killed sessions left: zombies, directories, detached processes. Returns exit codes."""
        codes = {}
        while self._killed:
            pid = self._killed.pop()
            codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            shutil.rmtree(self._sessions.pop(pid), ignore_errors=True)
        self._end_strays()
        return codes

    def _end_strays(self) -> None:
        """Kill processes that a session detached from itself; the system made them our children."""
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        if self._libc is None or not children.exists():
            return
        while strays := [pid for pid in map(int, children.read_text().split()) if pid not in self._sessions]:
            for pid in strays:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _preload(name: str) -> int:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"sandbox: preloading {name} failed: {error!r}", file=sys.stderr)
        return -1
    gc.collect()
    gc.freeze()  # a collection in a session would copy the pages of everything shared
    return 0


def _serve_single(scratch: str) -> None:
    """One session on stdin and stdout; ends with the host."""
    source, sink = os.dup(0), os.dup(1)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_HOST_CHECK_S)
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    session.serve(source, sink, scratch)
    os.chdir(Path(scratch).parent)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


def _main() -> None:
    if sys.argv[1] == "--single":
        _serve_single(sys.argv[2])
        return
    host = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # through `finally`: sessions and files go too
    gc.freeze()
    _Server(host, sys.argv[2]).run()


if __name__ == "__main__":
    _main()
