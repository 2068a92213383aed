"""A child process that answers questions, one JSON line each, with a hard bound on the work.

The bound is on CPU time, so that a busy machine turns no answer into a time-out; on the clock a question may take
`WALL` times as long.

The child is an ordinary program started with `subprocess` (never a fork of this process), once, at the first
question, and reused. It answers in a fork of itself, which a question that outlives its bound costs its life; the next
question finds a fresh one within milliseconds. No signals and no event loop are used here, so any thread may ask;
questions queue for the one child, and neither queueing nor starting the child counts against the bound. After
`os.fork` the new process gets a child of its own; a child ends with its host. `JsonWorkers` are several for questions
that come at once.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import LifoQueue
from typing import Any, Literal

START_LIMIT_S = 120.0
WALL = 8.0
_END_LIMIT_S = 2.0
_GRACE_S = 1.0 if hasattr(os, "fork") else 0.0  # the child itself stops at the bound where it can fork
_CACHED = 4096
_CHILD = Path(__file__).with_name("json_worker_child.py")


class WorkerUnavailableError(RuntimeError):
    """The child cannot be started on this machine."""


class WorkLimitError(RuntimeError):
    """The question was not answered within its bound, or the child died of it twice.

    Attributes:
        cause: "work" where the bound on CPU time was reached; "clock" where that on the clock was, since the machine
            had too much else to do; "death".
    """

    def __init__(self, message: str, cause: Literal["work", "clock", "death"]) -> None:
        super().__init__(message)
        self.cause = cause

    @property
    def timed_out(self) -> bool:
        """Whether it was a bound on time."""
        return self.cause != "death"


class _ChildDiedError(Exception):
    """The child ended before its reply and before the bound."""


@dataclass(frozen=True)
class Reply:
    """What the child said, and how many seconds of CPU time it took; 0 for a remembered reply."""

    content: dict[str, Any]
    work_s: float


class JsonWorker:
    """One child process, started lazily. Thread-safe.

    Args:
        program: a module's file, or the folder of a package that has a module `worker`. The module has `prepare()`,
            which imports and caches before any clock runs, and `answer(question)`, which returns the reply, raises
            nothing, and is a function of the question alone: replies are remembered. It is imported without the
            packages around it, so that the child starts quickly; it runs with this interpreter, and with hash
            randomisation off.
    """

    def __init__(self, program: Path) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._known: OrderedDict[str, Reply] = OrderedDict()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._abandon)

    @property
    def pid(self) -> int | None:
        """The child's process id, or None where none runs."""
        process = self._process
        return None if process is None else process.pid

    def ask(self, question: Mapping[str, Any], limit_s: float) -> Reply:
        """The child's reply, after at most `limit_s` seconds of CPU time (`WALL` times that on the clock).

        Raises:
            WorkerUnavailableError: the child cannot be started.
            WorkLimitError: there was no reply.
        """
        request = json.dumps(question)
        with self._lock:
            if request in self._known:
                self._known.move_to_end(request)
                return self._known[request]
            try:
                reply = self._ask(request, limit_s)
            except _ChildDiedError:
                # Something else may have ended it: the question is asked once more.
                try:
                    reply = self._ask(request, limit_s)
                except _ChildDiedError as error:
                    raise WorkLimitError(f"the worker died of it: {error}", "death") from error
            self._known[request] = replace(reply, work_s=0.0)
            if len(self._known) > _CACHED:
                self._known.popitem(last=False)
            return reply

    def close(self) -> None:
        """End the child. Idempotent; a later question starts another."""
        with self._lock:
            self._end()

    def _abandon(self) -> None:
        """Drop the child without ending it: for a forked process, where it still belongs to the parent."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        self._buffer = b""
        if process is not None:
            # Our copies of the pipes are closed, so that the child still ends with its own host; and Popen
            # is told that there is nothing here to wait for.
            _close_pipes(process)
            process.returncode = 0

    def _ask(self, request: str, limit_s: float) -> Reply:
        if self._process is None or self._process.poll() is not None:
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None
        wall_s = limit_s * WALL
        deadline = time.monotonic() + wall_s + _GRACE_S
        try:
            process.stdin.write(f"{limit_s!r} {wall_s!r} {request}\n".encode())
        except OSError as error:
            self._kill()
            raise _ChildDiedError(str(error)) from error
        line = self._read_line(deadline)
        if line is None:
            late = time.monotonic() >= deadline
            self._kill()
            if not late:
                raise _ChildDiedError(f"exit status {process.returncode}")
            line = b"overdue"
        if line in (b"late", b"overdue"):
            raise WorkLimitError(f"no result within {limit_s:g} s", "work" if line == b"late" else "clock")
        if line.startswith(b"died"):
            raise _ChildDiedError(line.decode())
        seconds, _, content = line.partition(b" ")
        return Reply(json.loads(content), float(seconds))

    def _start(self) -> None:
        self._kill()
        # The order of a set of names must not show in a reply.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", str(_CHILD), str(self._program)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=environment,
            )
        except OSError as error:
            raise WorkerUnavailableError(f"cannot start the worker of {self._program}: {error}") from error
        if self._read_line(time.monotonic() + START_LIMIT_S) != b"ready":
            self._kill()
            raise WorkerUnavailableError(
                f"the worker of {self._program} did not start; check that its imports work in {sys.executable}"
            )

    def _read_line(self, deadline: float) -> bytes | None:
        """The child's next line, or None when the deadline passed or the child ended first."""
        process = self._process
        assert process is not None and process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    return None
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _end(self) -> None:
        """Let an idle child end itself and its fork; kill it if it does not."""
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            try:
                process.wait(_END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        self._buffer = b""
        if process is not None:
            process.kill()
            process.wait()
            _close_pipes(process)


class JsonWorkers:
    """As many children as there are processors, at most `MOST`, each started when all others are at work. Thread-safe.

    Args:
        program: see `JsonWorker`.
    """

    MOST = 8

    def __init__(self, program: Path) -> None:
        self._workers = [JsonWorker(program) for _ in range(min(self.MOST, os.cpu_count() or 1))]
        self._all_are_free()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._all_are_free)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the children that run."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    def ask(self, question: Mapping[str, Any], limit_s: float) -> Reply:
        """`JsonWorker.ask` of one that is free; the question waits for one. What it raises, too, says that."""
        worker = self._free.get()  # the one that was at work last, so that no more are started than it takes
        try:
            return worker.ask(question, limit_s)
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """End the children. Idempotent; a later question starts another."""
        for worker in self._workers:
            worker.close()

    def _all_are_free(self) -> None:
        self._free: LifoQueue[JsonWorker] = LifoQueue()
        for worker in self._workers:
            self._free.put(worker)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
