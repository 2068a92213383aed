"""The host's side of the `fork` backend: the zygote it started, and the session processes in it.

A `Process` is released when nothing refers to it any more. All sessions together are bounded: beyond `Cap`, the
processes that were used longest ago are ended, first those that wait for a call; whoever needs them again rebuilds
them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elpo_envs.sandbox.base import SandboxError
from elpo_envs.sandbox.fork.process import Pinned, Process, SessionSettings
from elpo_envs.sandbox.fork.wire import MAX_PACKET, TEMPLATE, pack, pair, unpack
from elpo_envs.sandbox.launch import command, environment

_PROGRAM = Path(__file__).with_name("zygote.py")
_START_S = 120.0
_ANSWER_S = 30.0
_END_S = 10.0
_MANY = 8
_PROCESSES = 800  # at about 3 MiB each, page tables included: a large search and its trainer stay below 4 GiB
_UNMEASURED = 2  # processes whose memory is not counted anew yet, since that takes as long as a short call
_MUCH_MEMORY = 32 << 20

_ids = itertools.count(TEMPLATE + 1)  # of all pools, so that a process of one is never taken for one of another


@dataclass(frozen=True)
class Cap:
    """What all sessions of a host may hold together.

    Attributes:
        processes: frozen and waiting processes.
        memory_mb: memory that they have to themselves, in MiB, by estimate.

    What calls under way need is never ended, even if that is more.

    Raises:
        ValueError: a bound is not a whole number of at least 1.
    """

    processes: int
    memory_mb: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Cap.{name} must be a whole number of at least 1, not {value!r}")

    @staticmethod
    def default() -> Cap:
        """A quarter of the machine's memory; 800 processes, or fewer where few descriptors may be open."""
        import resource

        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        processes = _PROCESSES if descriptors == resource.RLIM_INFINITY else min(_PROCESSES, descriptors // 2)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Cap(processes, max(512, memory // 4 >> 20))


@dataclass(frozen=True)
class Jail:
    """What confines the sessions of a zygote: layers in force, and those that are not, with the reason."""

    active: tuple[str, ...]
    missing: dict[str, str]
    isolated: bool


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        exit_code: negative for a signal; None if it never ran.
        why: what the supervisor knows of it, or "".
        no_room: whether it never ran because the system had no room for it.
    """

    exit_code: int | None
    why: str
    no_room: bool


class _Reference(weakref.ref[Process]):
    """What a pool has of a process: when nothing else refers to it any more, the pool lets it go."""

    __slots__ = ("connection", "number", "pool")

    def __new__(cls, process: Process, pool: Pool, connection: socket.socket) -> _Reference:
        return super().__new__(cls, process, _let_go)

    def __init__(self, process: Process, pool: Pool, connection: socket.socket) -> None:
        super().__init__(process, _let_go)  # type: ignore[call-arg]
        self.number, self.pool, self.connection = process.id, pool, connection


def _let_go(reference: _Reference) -> None:
    reference.pool._discard(reference.number, reference.connection)


class Pool:
    """A zygote and the sessions forked from it. Safe to use from several threads and the garbage collector.

    Args:
        preload: modules that sessions are to find imported; those that are not installed are left out.
        disabled: layers of the jail to leave out, for tests.
        cap: bounds on all sessions together; None for `Cap.default()`.

    Raises:
        SandboxError: the zygote could not be started.
    """

    def __init__(
        self, preload: tuple[str, ...] = (), disabled: frozenset[str] = frozenset(), cap: Cap | None = None
    ) -> None:
        self.owner = os.getpid()
        self.cap = Cap.default() if cap is None else cap
        self._lock = threading.Lock()
        self._broken = False
        self._condemned: deque[int] = deque()
        self._living: dict[int, _Reference] = {}  # least recently used first
        self._waiting: dict[int, _Reference] = {}  # those of them that hold no state yet
        self._memory: dict[int, int] = {}  # bytes of processes that hold a state
        self._unmeasured: dict[int, _Reference] = {}  # those whose memory has changed since, longest ago first
        self._root = str(Path(tempfile.mkdtemp(prefix="elpo-sandbox-")).resolve())
        self._socket, theirs = pair()
        options = json.dumps({"preload": list(preload), "disabled": sorted(disabled)})
        try:
            self._zygote = subprocess.Popen(
                command(_PROGRAM, str(theirs.fileno()), self._root, options),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            self._socket.close()
            shutil.rmtree(self._root, ignore_errors=True)
            raise SandboxError(f"the sandbox's zygote could not be started: {error}") from error
        finally:
            theirs.close()
        try:
            report = self._receive(_START_S)["ready"]
        except (OSError, ValueError, KeyError) as error:
            self.shut_down()
            raise SandboxError(f"the sandbox's zygote did not start: {error!r}") from error
        self.jail = Jail(tuple(report["active"]), dict(report["missing"]), bool(report["isolated"]))
        self.counts_forks = "fork_grants" in self.jail.active  # so that one may be ordered before its time
        self.preloaded: tuple[str, ...] = tuple(report["preloaded"])

    def alive(self) -> bool:
        """Whether this process owns it and it still runs."""
        return self.usable() and self._zygote.poll() is None

    def usable(self) -> bool:
        """`alive`, but for a zygote that died without anybody having noticed: its next use says so."""
        return not self._broken and self.owner == os.getpid()

    def fork(self, parent: Process | None, settings: SessionSettings) -> Process:
        """Order a fork of `parent`, whose session has `settings`, or of the template for None. It freezes `parent`.

        It comes to be while the caller goes on, once `parent` is frozen; where it does not, the first exchange
        with it says so.

        Raises:
            SandboxError: the zygote or the process to fork is gone, or this process may open no more descriptors.
        """
        if parent is not None and not self.owns(parent):
            raise SandboxError("the process to fork is gone")
        if parent is not None:
            parent.freeze()
        with Pinned(parent):
            self._make_room()
            ours, theirs = self._connection()
        number = next(_ids)
        message: dict[str, Any] = {"fork": number, "of": TEMPLATE, "bounds": [settings.cpu_s, settings.memory_mb]}
        if parent is not None:
            message.update(of=parent.id, bounds=None)
        with theirs:
            try:
                with self._lock:
                    message["drop"] = self._take_condemned()
                    socket.send_fds(self._socket, [pack(message)], [theirs.fileno()])
            except OSError as error:
                ours.close()
                self._break()
                raise SandboxError("the sandbox's zygote has died") from error
        process = Process(number, ours, settings, parent)
        self._living[number] = self._waiting[number] = _Reference(process, self, ours)
        return process

    def _connection(self) -> tuple[socket.socket, socket.socket]:
        try:
            return socket.socketpair()
        except OSError:
            self.relieve()  # every process that waits for a call has a descriptor here
        try:
            return socket.socketpair()
        except OSError as error:
            raise SandboxError(f"no connection to a session could be made: {error.strerror}") from error

    def owns(self, process: Process) -> bool:
        """Whether `process` is one of this pool's that was not ended."""
        known = self._living.get(process.id)
        return not self._broken and known is not None and known() is process

    def touch(self, process: Process) -> None:
        """Note that `process` was used just now."""
        with contextlib.suppress(KeyError):
            self._living[process.id] = self._living.pop(process.id)

    def keep(self, process: Process) -> None:
        """Note that `process` holds a state now, and for its memory to be counted before one of the next forks."""
        self._waiting.pop(process.id, None)
        self.touch(process)
        if (reference := self._living.get(process.id)) is not None:
            self._unmeasured[process.id] = self._unmeasured.pop(process.id, reference)

    def end(self, process: Process) -> Ending:
        """End a process, unless it has ended by itself.

        Raises:
            SandboxError: the zygote is gone.
        """
        process.retire()
        try:
            with self._lock:
                self._socket.send(pack({"status": process.id, "drop": self._take_condemned()}))
                reply = self._receive(_ANSWER_S)
        except (OSError, ValueError) as error:
            self._break()
            raise SandboxError("the sandbox's zygote has died") from error
        except BaseException:
            self._break()
            raise
        return Ending(reply["ended"], str(reply["why"]), bool(reply["no_room"]))

    def drop(self, process: Process) -> None:
        """End `process`, whoever still refers to it, without waiting."""
        self._retire(process)
        self.flush()

    def relieve(self) -> None:
        """End the half of the processes that was used longest ago: the system had no room for another one."""
        for _ in range(len(self._living) // 2):
            self._end_oldest()
        self.flush()

    def processes(self) -> int:
        """How many processes are alive, or about to be, as far as the host knows."""
        return len(self._living)

    def shut_down(self) -> None:
        """End the zygote and with it all of its sessions."""
        self._broken = True
        for reference in list(self._living.values()):
            if (process := reference()) is not None:
                process.retire()
        self._living.clear()
        self._waiting.clear()
        self._socket.close()
        try:
            self._zygote.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._zygote.terminate()
            self._zygote.wait()
        shutil.rmtree(self._root, ignore_errors=True)

    def forget(self) -> None:
        """In a forked child: let go of the parent's zygote without touching it."""
        self._broken = True
        self._socket.close()
        self._zygote.returncode = 0  # keeps `Popen.__del__` from waiting for a process that is not our child

    # --- the cap --------------------------------------------------------------------------------------------

    def _make_room(self) -> None:
        """End what was used longest ago until one more process fits."""
        for number in list(self._unmeasured)[:-_UNMEASURED]:
            reference = self._unmeasured.pop(number, None)
            if reference is not None and (process := reference()) is not None and process.alive:
                self._memory[number] = process.measure()
        while len(self._living) >= self.cap.processes:
            if not self._end_oldest():
                return
        while self._private_mb() > self.cap.memory_mb:
            if not self._end_first(known for known in list(self._living.values()) if known.number in self._memory):
                return

    def _end_oldest(self) -> bool:
        """End what was used longest ago; False if all are at work.

        Those that wait for a call go first: such a one is soon forked again, but a state must be rebuilt.
        """
        return self._end_first((*self._waiting.values(), *self._living.values()))

    def _end_first(self, candidates: Iterable[_Reference]) -> bool:
        for reference in candidates:
            if (victim := reference()) is not None and not victim.pins:
                self._retire(victim)
                return True
        return False

    def _retire(self, process: Process) -> None:
        process.retire()
        self._discard(process.id, None)

    def _private_mb(self) -> float:
        return sum(list(self._memory.values())) / 2**20

    # --- messages -------------------------------------------------------------------------------------------

    def _discard(self, number: int, connection: socket.socket | None) -> None:
        """Let a process go without waiting; may be called by the garbage collector at any moment.

        The next message says so, or this one if much has come together.
        """
        if connection is not None:
            connection.close()
        memory = self._memory.pop(number, 0)
        self._waiting.pop(number, None)
        self._unmeasured.pop(number, None)
        if self._living.pop(number, None) is not None and self.owner == os.getpid():
            self._condemned.append(number)
            if memory > _MUCH_MEMORY or len(self._condemned) > _MANY:
                self.flush()

    def flush(self) -> None:
        """End what is condemned, unless a message is under way, which does that."""
        while self._condemned and self._lock.acquire(blocking=False):
            try:
                if numbers := self._take_condemned():
                    self._socket.send(pack({"drop": numbers}))
            except OSError:
                self._condemned.clear()  # the zygote is dead, and its sessions died with it
            finally:
                self._lock.release()

    def _take_condemned(self) -> list[int]:
        return [self._condemned.popleft() for _ in range(min(len(self._condemned), 1000))]

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        self._socket.settimeout(timeout_s)
        try:
            packet = self._socket.recv(MAX_PACKET)
        finally:
            self._socket.settimeout(None)
        if not packet:
            raise ConnectionResetError("it ended")
        return unpack(packet)

    def _break(self) -> None:
        """Give the zygote up: an answer that comes late would be taken for that to the next question."""
        self._broken = True
        self._zygote.terminate()
