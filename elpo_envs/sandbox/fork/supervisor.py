"""The supervisor of all session processes of a host: it lets nodes fork, kills, reaps and keeps scratch directories.

It is the parent of every one of them and trusts none: process ids come from the kernel (`SCM_CREDENTIALS`), a node
may fork once for each order the host gave, and whatever else arrives from a process is ignored or ends it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import select
import signal
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ..jail import ForkGrants
from .scratch import FULL, ScratchRoot, is_full
from .wire import MAX_PACKET, OPEN_FILES, TEMPLATE, pack, pair, unpack

_WATCH_S = 0.1
_HOST_CHECK_S = 1.0
_BIRTH_S = 10.0
_MAX_WHY = 200
_FORKS_CPU_S = 60  # for the forks that a frozen process makes
_CREDENTIALS = struct.Struct("3i")


@dataclass(eq=False)
class _Process:
    """A process of a session, from the order to fork it until the host drops it."""

    id: int
    parent: int
    control: socket.socket | None
    scratch: str | None
    bounds: list[int] | None
    pid: int = 0  # 0 until it said hello
    group: int = 0  # process group of its session
    forked_at: float = math.inf  # `time.monotonic` when it was allowed
    orders: deque[_Process] = field(default_factory=deque)  # forks it may still ask for
    forks_pending: int = 0
    frozen: bool = False
    dropped: bool = False
    ended: int | None = None  # the exit code, negative for a signal
    why: str = ""  # why there is or was no process
    no_room: bool = False  # because the system had no room for it


class Supervisor:
    """Serves one host until its end of `host` is closed or `parent` is gone.

    Args:
        host: connection to the host.
        template: connection to the template, process `template_pid`.
        listener: seccomp's notification descriptor, or None where forks need no grant.
        scratch: where scratch directories are made.
        bounded: whether processes get bounds on CPU time and memory; False for tests.
    """

    def __init__(
        self,
        host: socket.socket,
        template: socket.socket,
        template_pid: int,
        listener: int | None,
        scratch: ScratchRoot,
        bounded: bool = True,
    ) -> None:
        self._host = host
        self._scratch = scratch
        self._bounded = bounded
        self._parent = os.getppid()
        first = _Process(TEMPLATE, TEMPLATE, template, None, None, pid=template_pid)
        self._processes = {TEMPLATE: first}
        self._by_pid = {template_pid: first}
        self._starting: dict[int, _Process] = {}  # control descriptor -> a process that has not said hello
        self._grants = None if listener is None else ForkGrants(listener)
        self._watched: set[int] = set()  # ids of processes that are not known to be frozen
        self._next_watch = 0.0
        self._room = (0, 0)  # free blocks and inodes at the last look
        self._poll = select.epoll()
        self._poll.register(host, select.EPOLLIN)
        if listener is not None:
            self._poll.register(listener, select.EPOLLIN)
        wake, self._child_ended = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = wake
        self._poll.register(wake, select.EPOLLIN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._child_ended, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve; returns when the host is gone, or when the template has ended."""
        host, listener = self._host.fileno(), self._grants.fileno() if self._grants else -1
        while True:
            events = self._poll.poll(_WATCH_S if self._watched else _HOST_CHECK_S)
            for descriptor, _ in events:
                if descriptor == host:
                    if not self._serve_host():
                        return
                elif descriptor == listener:
                    self._answer_fork()
                elif descriptor == self._wake:
                    self._reap()
                elif descriptor in self._starting:
                    self._greet(self._starting[descriptor])
            if self._processes[TEMPLATE].ended is not None or os.getppid() != self._parent:
                return
            if (self._watched or self._starting) and time.monotonic() >= self._next_watch:
                self._next_watch = time.monotonic() + _WATCH_S
                self._end_changelings()
                self._watch()

    # --- the host's requests --------------------------------------------------------------------------------

    def _serve_host(self) -> bool:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._host, MAX_PACKET, 1)
        except ConnectionResetError:
            return False
        if not packet:
            return False
        message = unpack(packet)
        for number in message.get("drop", ()):
            self._drop(number)
        if "fork" in message:
            self._order_fork(message, descriptors[0])
        elif "status" in message:
            self._tell_status(message["status"])
        return True

    def _order_fork(self, message: dict[str, Any], request: int) -> None:
        """Tell a process to fork. It may still be busy with its call, and then does it afterwards."""
        number, parent = message["fork"], self._processes.get(message["of"])
        process = _Process(number, message["of"], None, None, message["bounds"])
        self._processes[number] = process
        try:
            if parent is not None and not parent.pid:
                self._greet(parent)
            if parent is None or parent.control is None or not parent.pid:
                raise OSError(errno.ESRCH, "the process to fork has ended")
            process.group, process.bounds = parent.group, process.bounds or parent.bounds
            process.scratch = self._scratch.name()
            source = None if parent.scratch is None else self._scratch.frozen_name(parent.scratch)
            if self._grants is None:
                self._greet(parent)
                self._prepare_fork(process, parent)
            process.control, theirs = pair()
            process.control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            process.control.setblocking(False)
            with theirs:
                wait = parent.id == TEMPLATE
                order = {"fork": number, "scratch": process.scratch, "from": source, "wait": wait}
                socket.send_fds(parent.control, [pack(order)], [request, theirs.fileno()], socket.MSG_DONTWAIT)
        except OSError as error:
            process.why = error.strerror or str(error)
            self._abandon(process)
            return
        finally:
            os.close(request)
        parent.orders.append(process)
        parent.forks_pending += 1
        self._starting[process.control.fileno()] = process
        self._poll.register(process.control, select.EPOLLIN)

    def _prepare_fork(self, process: _Process, parent: _Process) -> None:
        """Freeze the parent's scratch directory and give the child a copy; raises OSError."""
        if parent.scratch is not None and not parent.frozen:
            parent.frozen = True
            self._watched.discard(parent.id)
            parent.scratch = self._scratch.freeze(parent.scratch)
            if parent.bounds is not None and self._bounded:  # a fork costs it CPU time, too
                _bound_cpu(parent.pid, parent.bounds[0] + _FORKS_CPU_S)
        assert process.scratch is not None
        self._scratch.make(process.scratch, parent.scratch)
        process.forked_at = time.monotonic()

    def _abandon(self, process: _Process) -> None:
        """There will be no process for this order."""
        self._close_control(process)
        if process.scratch is not None:
            self._scratch.remove(process.scratch)
            process.scratch = None

    def _drop(self, number: int) -> None:
        process = self._processes.get(number)
        if process is None or number == TEMPLATE:
            return
        process.dropped = True
        parent = self._processes.get(process.parent)
        if parent is not None and process in parent.orders:  # not forked yet, and not to be
            if self._grants is None:
                parent.orders.remove(process)
            # Else its place is kept: the parent has been told, and will ask for this fork before it asks for the next.
            self._abandon(process)
            self._fork_settled(parent)
        self._release(process)

    def _release(self, process: _Process) -> None:
        """Kill a dropped process once it owes no fork; forget it once it has ended."""
        if process.pid and process.ended is None:
            if not process.forks_pending:
                self._kill(process)
        elif process.control is None or process.control.fileno() not in self._starting:
            del self._processes[process.id]

    def _kill(self, process: _Process) -> None:
        if process.pid and process.ended is None:  # the number of one that has ended may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def _tell_status(self, number: int) -> None:
        """Let a process that closed its connection end by itself, so that its exit code is its own."""
        process = self._processes.get(number)
        if process is None:
            reply: dict[str, Any] = {"ended": None, "why": "there is no such process", "no_room": False}
        else:
            for _ in range(20):
                if not process.pid or process.ended is not None:
                    break
                time.sleep(0.001)
                self._reap()
            if process.pid and process.ended is None:
                self._kill(process)
                reply = {"ended": -int(signal.SIGKILL), "why": process.why, "no_room": False}
            else:
                reply = {"ended": process.ended, "why": process.why, "no_room": process.no_room}
        self._host.send(pack(reply))

    # --- births ---------------------------------------------------------------------------------------------

    def _answer_fork(self) -> None:
        """A process asks the kernel for a fork: allow it if the host ordered one."""
        assert self._grants is not None
        request = self._grants.receive()
        if request is None:
            return
        notification, pid = request
        if pid not in self._by_pid:
            self._greet_all()
        parent = self._by_pid.get(pid)
        if parent is None or not parent.orders:
            self._grants.deny(notification, errno.EPERM)
            return
        child = parent.orders.popleft()
        if child.dropped:
            self._grants.deny(notification, errno.ECANCELED)
            return
        try:
            self._prepare_fork(child, parent)
        except OSError as error:
            child.no_room = error.errno != errno.EDQUOT
            self._grants.deny(notification, error.errno or errno.ENOSPC)
        else:
            self._grants.allow(notification)

    def _greet_all(self) -> None:
        for process in list(self._starting.values()):
            self._greet(process)

    def _greet(self, process: _Process) -> None:
        """Read the first words on a new process's connection: its own, or its parent's that could not fork."""
        control = process.control
        if control is None or control.fileno() not in self._starting:
            return
        try:
            packet, ancillary, _, _ = control.recvmsg(MAX_PACKET, socket.CMSG_SPACE(_CREDENTIALS.size))
            message = unpack(packet) if packet else {"failed": "it, or its parent, ended"}
        except BlockingIOError:
            return
        except (OSError, ValueError):
            packet, message, ancillary = b"?", {"failed": "it was born wrong"}, []
        del self._starting[control.fileno()]
        self._poll.unregister(control)
        parent = self._processes.get(process.parent)
        pids = [_CREDENTIALS.unpack(data)[0] for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS]
        if "hello" in message and pids and pids[0] not in self._by_pid:
            process.pid = pids[0]
            self._by_pid[process.pid] = process
            self._watched.add(process.id)
            self._admit(process)
        else:
            failed = message.get("failed")
            process.why = failed[:_MAX_WHY] if isinstance(failed, str) else "it was born wrong"
            process.no_room = process.no_room or (bool(packet) and not _room_for_a_process())
            if parent is not None and "failed" not in message:
                self._kill(parent)  # it speaks for its child
            self._abandon(process)
        if parent is not None:
            if process in parent.orders:
                parent.orders.remove(process)
            self._fork_settled(parent)
        if process.dropped:
            self._release(process)

    def _fork_settled(self, parent: _Process) -> None:
        """One fork that a process owed was made, or never will be."""
        parent.forks_pending -= 1
        if parent.dropped and parent.id in self._processes:
            self._release(parent)

    def _admit(self, process: _Process) -> None:
        """Bound a process; the first one of a session waits for that, and its forks inherit the other limits."""
        if process.bounds is None or process.control is None:
            return
        cpu_s, memory_mb = process.bounds
        try:
            if self._bounded:
                _bound_cpu(process.pid, cpu_s)
            if not process.group:
                os.setpgid(process.pid, process.pid)
                process.group = process.pid
                memory = memory_mb << 20 if self._bounded else resource.RLIM_INFINITY
                resource.prlimit(process.pid, resource.RLIMIT_AS, (memory, memory))
                if self._bounded:
                    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
                process.control.send(pack({"go": True}))
        except OSError as error:
            process.why = f"it could not be bounded: {error.strerror}"
            self._kill(process)

    # --- deaths ---------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid not in self._by_pid:
                self._greet_all()  # it may have ended with its greeting unread
            process = self._by_pid.pop(pid, None)
            if process is not None:
                process.ended = os.waitstatus_to_exitcode(status)
                self._bury(process)

    def _bury(self, process: _Process) -> None:
        """Remove what an ended process leaves."""
        self._watched.discard(process.id)
        self._close_control(process)
        if process.scratch is not None:
            self._scratch.remove(process.scratch)
            process.scratch = None
        if process.dropped:
            self._processes.pop(process.id, None)

    def _close_control(self, process: _Process) -> None:
        if process.control is not None:
            self._starting.pop(process.control.fileno(), None)
            process.control.close()
            process.control = None

    def _watch(self) -> None:
        """End every process that may be running and has filled its scratch directory."""
        try:
            room = os.statvfs(self._scratch.live)
        except OSError:
            return  # somebody removed it; whoever writes will notice
        if (room.f_bfree, room.f_ffree) == self._room:
            return  # nothing was written anywhere
        self._room = (room.f_bfree, room.f_ffree)
        self._scratch.sweep({process.scratch for process in self._processes.values() if process.scratch is not None})
        for number in list(self._watched):
            process = self._processes.get(number)
            if process is None or process.scratch is None:
                self._watched.discard(number)
                continue
            if is_full(process.scratch):
                process.why = FULL
                self._kill(process)

    def _end_changelings(self) -> None:
        """End the session of a process that was forked, as ordered, and then did not say who it is."""
        for process in list(self._starting.values()):
            if time.monotonic() - process.forked_at > _BIRTH_S and process.group:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.group, signal.SIGKILL)


def _room_for_a_process() -> bool:
    """Whether a fork works at all. A session's word for that it does not could be meant to harm the others."""
    try:
        child = os.fork()
    except OSError:
        return False
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return True


def _bound_cpu(pid: int, seconds: int) -> None:
    """Let SIGXCPU end a process after `seconds` of CPU time, and SIGKILL where it does not heed that."""
    hard = resource.prlimit(pid, resource.RLIMIT_CPU)[1]
    last = seconds + _FORKS_CPU_S if hard == resource.RLIM_INFINITY else hard
    resource.prlimit(pid, resource.RLIMIT_CPU, (min(seconds, last), last))
