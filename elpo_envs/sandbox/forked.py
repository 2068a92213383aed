"""Sessions forked by a zygote, a small process that this module starts and talks to (see `zygote`).

One zygote serves all sessions of a host process. It is started at the first session, again if it died, and
anew in a process forked from the host.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from typing import Any

from elpo_envs.sandbox.base import SandboxError
from elpo_envs.sandbox.processes import (
    MAX_FRAME_BYTES,
    START_S,
    Reply,
    SessionLostError,
    command,
    decode_reply,
    environment,
)
from elpo_envs.sandbox.session import LENGTH
from elpo_envs.sandbox.zygote import REPLY

can_fork = hasattr(os, "fork") and hasattr(socket, "send_fds") and hasattr(select, "poll")

_PRELOAD_S = 120.0
_END_S = 5.0


class Zygote:
    """The host's handle on its zygote. Safe to use from several threads and from the garbage collector."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._root = str(Path(tempfile.mkdtemp(prefix="elpo-sandbox-")).resolve())
        self._lock = threading.Lock()
        self._broken = False
        self._condemned: deque[int] = deque()
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(START_S)
        try:
            self._process = subprocess.Popen(
                command(str(theirs.fileno()), self._root),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            self._socket.close()
            shutil.rmtree(self._root)
            raise SandboxError(f"the sandbox's zygote process could not be started: {error}") from error
        finally:
            theirs.close()

    def alive(self) -> bool:
        """Whether this process owns it and it still runs."""
        return not self._broken and self.owner == os.getpid() and self._process.poll() is None

    def open(self) -> tuple[int, socket.socket]:
        """Start a session; returns its process id and the connection to it."""
        pid, descriptors = self._request("open", None, START_S)
        if pid <= 0 or len(descriptors) != 1:
            raise SandboxError(f"the sandbox could not fork a session: {os.strerror(int(-pid))}")
        return pid, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=descriptors[0])

    def preload(self, name: str) -> bool:
        """Import module `name` into all later sessions; whether that worked."""
        return self._request("preload", name, _PRELOAD_S)[0] == 0

    def status(self, pid: int) -> int:
        """End session `pid` and return its exit code."""
        return self._request("status", pid, START_S)[0]

    def discard(self, pid: int) -> None:
        """End session `pid` without waiting; may be called by the garbage collector at any moment."""
        if self.owner == os.getpid():
            self._condemned.append(pid)
            self._sweep()

    def shut_down(self) -> None:
        """End the zygote and with it all of its sessions."""
        self._socket.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._root, ignore_errors=True)

    def forget(self) -> None:
        """In a forked child: let go of the parent's zygote without touching it."""
        self._socket.close()
        self._process.returncode = 0  # keeps `Popen.__del__` from waiting for a process that is not our child

    def _request(self, operation: str, argument: Any, timeout_s: float) -> tuple[int, list[int]]:
        try:
            with self._lock:
                self._send_condemned()
                self._socket.settimeout(timeout_s)
                self._send([operation, argument])
                reply, descriptors, _, _ = socket.recv_fds(self._socket, REPLY.size, 1, socket.MSG_WAITALL)
        except OSError as error:
            self._break()
            raise SandboxError(f"the sandbox's zygote process does not answer: {error!r}") from error
        except BaseException:
            self._break()
            raise
        if len(reply) != REPLY.size:
            self._break()
            raise SandboxError("the sandbox's zygote process has died")
        self._sweep()
        return REPLY.unpack(reply)[0], descriptors

    def _break(self) -> None:
        """Give the zygote up: a reply that comes late would be taken for that to the next request."""
        self._broken = True
        self._process.kill()

    def _sweep(self) -> None:
        """End what is condemned, unless a request is under way: its thread sweeps afterwards."""
        while self._condemned and self._lock.acquire(blocking=False):
            try:
                self._send_condemned()
            except OSError:
                self._condemned.clear()  # the zygote is dead, and its sessions died with it
            finally:
                self._lock.release()

    def _send_condemned(self) -> None:
        pids = []
        while self._condemned:
            pids.append(self._condemned.popleft())
        if pids:
            self._send(["discard", pids])

    def _send(self, request: Any) -> None:
        payload = json.dumps(request).encode()
        self._socket.sendall(LENGTH.pack(len(payload)) + payload)


_zygote: Zygote | None = None
_zygote_lock = threading.Lock()
_preloaded: tuple[str, ...] = ()


def preload(*names: str) -> None:
    """Import modules once, in the zygote, so that sessions started from now on have them at no cost.

    Raises:
        ValueError: a module cannot be imported there.
        SandboxError: the zygote could not be started.
    """
    global _preloaded
    if not can_fork:
        return
    zygote = current_zygote()
    for name in names:
        if name not in _preloaded:
            if not zygote.preload(name):
                raise ValueError(f"preload: the sandbox cannot import {name!r}; is it installed for {sys.executable}?")
            _preloaded += (name,)


def current_zygote() -> Zygote:
    """This process's zygote, started if there is none or it died."""
    global _zygote
    with _zygote_lock:
        if _zygote is None or not _zygote.alive():
            if _zygote is not None:
                _zygote.shut_down()
                _zygote = None
            _zygote = Zygote()
            for name in _preloaded:
                _zygote.preload(name)
        return _zygote


def _shut_down() -> None:
    global _zygote
    if _zygote is not None and _zygote.owner == os.getpid():
        _zygote.shut_down()
        _zygote = None


def _after_fork() -> None:
    global _zygote, _zygote_lock
    _zygote_lock = threading.Lock()  # another thread of the parent may have held it
    if _zygote is not None:
        _zygote.forget()
        _zygote = None


atexit.register(_shut_down)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class ForkedSession:
    """A `Session` that is a fork of the zygote; the connection is a Unix socket."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote
        self._pid, self._socket = zygote.open()
        self._owner = os.getpid()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._discard = weakref.finalize(self, _discard_forked, zygote, self._pid, self._socket)

    def usable(self) -> bool:
        # Readable between requests means that the process ended or wrote out of turn.
        return self._owner == os.getpid() and self._discard.alive and not self._poll.poll(0)

    def request(self, request: object, replies: int, timeout_s: float) -> list[Reply]:
        deadline = time.monotonic() + timeout_s
        payload = json.dumps(request).encode()
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(LENGTH.pack(len(payload)) + payload)
        except ConnectionError as error:
            raise SessionLostError("it closed its connection") from error
        return decode_reply(self._receive(deadline), replies)

    def end(self) -> int:
        self._discard.detach()
        with self._socket:  # closed only afterwards: its end would make the session exit
            return self._zygote.status(self._pid)

    def discard(self) -> None:
        self._discard()

    def _receive(self, deadline: float) -> bytes:
        size = LENGTH.unpack(self._receive_exactly(LENGTH.size, deadline))[0]
        if size > MAX_FRAME_BYTES:
            raise SessionLostError("it wrote an unreadable reply")
        return self._receive_exactly(size, deadline)

    def _receive_exactly(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._socket.settimeout(remaining)
            try:
                part = self._socket.recv(size - len(data))
            except ConnectionError:
                part = b""
            if not part:
                raise SessionLostError("it closed its connection")
            data += part
        return bytes(data)


def _discard_forked(zygote: Zygote, pid: int, connection: socket.socket) -> None:
    connection.close()
    zygote.discard(pid)
