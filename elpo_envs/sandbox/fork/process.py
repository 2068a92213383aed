"""The host's handle on one process of a session."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from elpo_envs.sandbox.fork.waiting import Conversation, Wait
from elpo_envs.sandbox.fork.wire import READY
from elpo_envs.sandbox.frames import LENGTH

MAX_REPLY_BYTES = 4 << 20
_PART = 1 << 16
_BIRTH_S = 15.0
_CREDENTIALS = struct.Struct("3i")
_CREDENTIALS_SPACE = socket.CMSG_SPACE(_CREDENTIALS.size)
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ProcessLostError(Exception):
    """A process ended, or wrote something that is no reply."""


class NotBornError(ProcessLostError):
    """A process was never there, or ended before it could have a request."""


class NeverBornError(NotBornError):
    """A process was not born within `_BIRTH_S`: whoever was to fork did not."""


@dataclass(frozen=True)
class SessionSettings:
    """What a session is started with, and keeps in all its processes.

    Attributes:
        cpu_s: seconds of CPU time for one call.
        memory_mb: address space, in MiB.
        output_chars: characters of text from one call.
        allowed_imports: what the language layer lets code import; None for no such layer.
    """

    cpu_s: int
    memory_mb: int
    output_chars: int
    allowed_imports: tuple[str, ...] | None


@dataclass
class _Size:
    """Pages in memory of a process, once frozen; 0 before it was measured. Outlives the process."""

    resident: int = 0


class Process:
    """A process of a session, which serves requests until it is frozen; made by `Pool.fork`.

    Attributes:
        id: its number in the pool.
        settings: those of its session.
        alive: False once it was ended by the host, whoever still refers to it.
        awaited: whether its first request came before it was born.
        frozen: whether it holds a state for good, and serves no further request.
        served: how many requests it has served, and
        served_s: seconds of wall-clock time that they have taken.
        pins: by how many it is being used; a process with a pin is not ended to make room.
    """

    def __init__(
        self, number: int, connection: socket.socket, settings: SessionSettings, parent: Process | None
    ) -> None:
        self.id = number
        self.settings = settings
        self.alive = True
        self.pins = 0
        self.awaited = False
        self.frozen = False
        self.served = 0
        self.served_s = 0.0
        self._born = self._busy = False
        self._pid = 0
        self._size = _Size()
        self._parent_size = None if parent is None else parent._size
        self._connection = connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        connection.setblocking(False)

    def retire(self) -> None:
        """Note that the process is to be used no more. Its end is the pool's affair."""
        self.alive = False
        self._connection.close()

    def freeze(self) -> None:
        """Let the process hold for good the state that it has when its request, if it has one, is served."""
        self.frozen = True
        if self._born and not self._busy:
            self._connection.close()

    def is_quiet(self) -> bool:
        """Whether it still waits for a request, and has said nothing since the last one."""
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def exchange(
        self, payload: bytes, timeout_s: float, meanwhile: Callable[[], None] | None = None
    ) -> Conversation[bytes]:
        """Send the request and return the reply, both without their length.

        Waiting for the process's birth does not count as time. `meanwhile` is called while it works.

        Raises:
            TimeoutError: `timeout_s` of wall-clock time went by.
            ProcessLostError: there was no reply.
        """
        request = LENGTH.pack(len(payload)) + payload
        with Pinned(self):
            self._busy = True
            unsent = self._send_some(request)  # what is there at its birth, the process need not wait for
            if not self._born:
                self._pid = yield from self._await_birth()
                self._born = True
            start = time.monotonic()
            deadline = start + timeout_s
            if unsent:
                yield from self._send(unsent, deadline)
            if meanwhile is not None:
                meanwhile()
            reply = yield from self._receive(deadline)
            self.served += 1
            self.served_s += time.monotonic() - start
            self._busy = False
        if self.frozen:
            self._connection.close()
        return reply

    def _wait(self, writing: bool, deadline: float) -> Wait:
        if not self.alive:
            raise ProcessLostError("it was given up")
        return Wait(self._connection.fileno(), writing, deadline)

    def _await_birth(self) -> Conversation[int]:
        """The process's first byte, which the kernel marks with its id as this process sees it."""
        deadline = time.monotonic() + _BIRTH_S
        while True:
            try:
                # No room for descriptors, so that none can be planted here.
                ready, ancillary, _, _ = self._connection.recvmsg(1, _CREDENTIALS_SPACE)
                break
            except BlockingIOError:
                self.awaited = True
                if not (yield self._wait(False, deadline)):
                    raise NeverBornError("it was not born in time") from None
            except OSError:
                if not self.alive:
                    raise ProcessLostError("it was given up") from None
                ready, ancillary = b"", []
                break
        if ready != READY:
            raise NotBornError("it was not born")
        return int(_CREDENTIALS.unpack(ancillary[0][2])[0]) if ancillary else 0

    def _send_some(self, data: bytes | memoryview) -> memoryview:
        """Send as much of `data` as goes without waiting; returns the rest."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._connection.send(view) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise ProcessLostError("it closed its connection") from error
        return view

    def _send(self, data: memoryview, deadline: float) -> Conversation[None]:
        while data := self._send_some(data):
            if not (yield self._wait(True, deadline)):
                raise TimeoutError

    def _receive(self, deadline: float) -> Conversation[bytes]:
        data, end = bytearray(), LENGTH.size
        while len(data) < end:
            try:
                part = self._connection.recv(_PART)
            except BlockingIOError:
                if not (yield self._wait(False, deadline)):
                    raise TimeoutError from None
                continue
            except OSError:  # also of our own end, if the pool was given up meanwhile
                part = b""
            if not part:
                raise ProcessLostError("it closed its connection")
            data += part
            if len(data) >= LENGTH.size:
                end = LENGTH.size + LENGTH.unpack_from(data)[0]
                if end > LENGTH.size + MAX_REPLY_BYTES or len(data) > end:
                    raise ProcessLostError("it wrote an unreadable reply")
        return bytes(data[LENGTH.size :])

    def measure(self) -> int:
        """Estimate the memory, in bytes, that it does not share with the process it was forked from, once frozen.

        Pages that faulted in since the fork count what was overwritten; growth counts huge pages. The larger of the
        two; 0 where /proc does not show them.
        """
        try:
            descriptor = os.open(f"/proc/{self._pid}/stat", os.O_RDONLY)
            try:
                fields = os.read(descriptor, 1024).rpartition(b")")[2].split()
            finally:
                os.close(descriptor)
            faults, self._size.resident = int(fields[7]), int(fields[21])
        except (OSError, ValueError, IndexError):
            return 0
        before = self._parent_size
        grown = 0 if before is None or not before.resident else self._size.resident - before.resident
        return max(faults, grown) * _PAGE


class Pinned:
    """While this context lasts, `process`, if there is one, is not ended to make room for others."""

    def __init__(self, process: Process | None) -> None:
        self._process = process

    def __enter__(self) -> None:
        if self._process is not None:
            self._process.pins += 1

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.pins -= 1
