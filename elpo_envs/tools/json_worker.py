"""A child process that answers questions, one JSON line each, with a hard bound on the work.

The child is an ordinary program started with `subprocess` (never a fork of this process), once, at the first
question, and reused. A question that outlives its bound costs the child its life; the next question starts
another. No signals and no event loop are used here, so any thread may ask; questions queue for the one child,
and neither queueing nor starting the child counts against the bound. After `os.fork` the new process gets a
child of its own; a child ends with its host.
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
from pathlib import Path
from typing import Any

START_LIMIT_S = 120.0
_CACHED = 4096
_BOOT = """
import importlib, importlib.util, pathlib, sys
folder = pathlib.Path(sys.argv[1])
spec = importlib.util.spec_from_file_location(
    folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
)
package = importlib.util.module_from_spec(spec)
sys.modules[folder.name] = package
spec.loader.exec_module(package)
importlib.import_module(folder.name + ".worker").main()
"""


class WorkerUnavailableError(RuntimeError):
    """The child cannot be started on this machine."""


class WorkLimitError(RuntimeError):
    """The question was not answered within its bound, or the child died of it twice.

    Attributes:
        timed_out: whether it was the bound on the time.
    """

    def __init__(self, message: str, timed_out: bool) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class _ChildDiedError(Exception):
    """The child ended before its reply and before the bound."""


class JsonWorker:
    """One child process, started lazily. Thread-safe.

    The child prints "ready" once it can answer, then reads one JSON object a line (a question, with "limit_s"
    added to it) and prints one a line. It must be a function of the question alone: replies are remembered.

    Args:
        package: folder of a package whose module `worker` has the child's `main()`. It is imported by its last
            name alone, without the packages around it, so that the child starts quickly; it runs with this
            interpreter, and with hash randomisation off.
    """

    def __init__(self, package: Path) -> None:
        self._package = package
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._abandon)

    @property
    def pid(self) -> int | None:
        """The child's process id, or None where none runs."""
        process = self._process
        return None if process is None else process.pid

    def ask(self, question: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """The child's reply, after at most `limit_s` seconds of work.

        Raises:
            WorkerUnavailableError: the child cannot be started.
            WorkLimitError: there was no reply.
        """
        request = json.dumps({**question, "limit_s": limit_s})
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
                    raise WorkLimitError(f"the worker died of it: {error}", timed_out=False) from error
            self._known[request] = reply
            if len(self._known) > _CACHED:
                self._known.popitem(last=False)
            return reply

    def close(self) -> None:
        """End the child. Idempotent; a later question starts another."""
        with self._lock:
            self._kill()

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

    def _ask(self, request: str, limit_s: float) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None
        deadline = time.monotonic() + limit_s
        try:
            process.stdin.write(request.encode() + b"\n")
        except OSError as error:
            self._kill()
            raise _ChildDiedError(str(error)) from error
        line = self._read_line(deadline)
        if line is None:
            late = time.monotonic() >= deadline
            self._kill()
            if late:
                raise WorkLimitError(f"no result within {limit_s:g} s", timed_out=True)
            raise _ChildDiedError(f"exit status {process.returncode}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _start(self) -> None:
        self._kill()
        # The order of a set of names must not show in a reply.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-c", _BOOT, str(self._package)]
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
            raise WorkerUnavailableError(f"cannot start the worker of {self._package}: {error}") from error
        if self._read_line(time.monotonic() + START_LIMIT_S) != b"ready":
            self._kill()
            raise WorkerUnavailableError(
                f"the worker of {self._package} did not start; check that its imports work in {sys.executable}"
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

    def _kill(self) -> None:
        process, self._process = self._process, None
        self._buffer = b""
        if process is not None:
            process.kill()
            process.wait()
            _close_pipes(process)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
