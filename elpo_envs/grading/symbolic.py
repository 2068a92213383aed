"""The last resort of the grader: symbolic comparison in a child process, with a hard bound on the work.

The child is an ordinary program started with `subprocess` (never a fork of this process), once, at the first
question, and reused. A question that outlives its bound costs the child its life; the next question starts
another. No signals and no event loop are used here, so any thread may ask; questions queue for the one child,
and neither queueing nor starting the child counts against the bound. After `os.fork` the new process gets a
child of its own.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Kind = Literal["value", "equation"]

START_LIMIT_S = 120.0
_CACHED = 4096


class SymbolicUnavailableError(RuntimeError):
    """The symbolic stage cannot run on this machine (its packages are missing or the process cannot
    start)."""


@dataclass(frozen=True)
class Verdict:
    """Outcome of one comparison.

    Attributes:
        equal: None when a side could not be read or the bound was reached.
        timed_out: the bound was reached, or the worker died of this question.
        note: why `equal` is None.
        work_s: seconds the worker spent; 0 for a remembered outcome.
    """

    equal: bool | None
    timed_out: bool = False
    note: str = ""
    work_s: float = 0.0


class SymbolicWorker:
    """One child process, started lazily. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._known: OrderedDict[tuple[Kind, str, str], Verdict] = OrderedDict()

    def compare(self, a: str, b: str, kind: Kind, limit_s: float) -> Verdict:
        """Whether `a` and `b` (normalised LaTeX) are equal; at most `limit_s` seconds of work.

        Raises SymbolicUnavailableError where the child cannot be started, and for nothing else.
        """
        key = (kind, a, b)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            verdict = self._ask(a, b, kind, limit_s)
            if not verdict.timed_out:
                self._known[key] = replace(verdict, work_s=0.0)
                if len(self._known) > _CACHED:
                    self._known.popitem(last=False)
            return verdict

    def close(self) -> None:
        """End the child. Idempotent; a later question starts another."""
        with self._lock:
            self._kill()

    def abandon(self) -> None:
        """Drop the child without ending it: for a forked process, where it still belongs to the parent."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        self._buffer = b""
        if process is not None:
            # Our copies of the pipes are closed, so that the child still ends with its own host; and Popen
            # is told that there is nothing here to wait for.
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.returncode = 0

    def _ask(self, a: str, b: str, kind: Kind, limit_s: float) -> Verdict:
        if self._process is None or self._process.poll() is not None:
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None
        started = time.monotonic()
        request = json.dumps({"a": a, "b": b, "kind": kind, "limit_s": limit_s})
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            self._kill()
            return Verdict(None, timed_out=True, note=f"the symbolic worker died: {error}")
        line = self._read_line(limit_s)
        if line is None:
            died = process.poll()
            self._kill()
            note = f"no decision in {limit_s:g} s" if died is None else f"the symbolic worker died ({died})"
            return Verdict(None, True, note, limit_s)
        reply = json.loads(line)
        return Verdict(reply["equal"], False, reply["note"], time.monotonic() - started)

    def _start(self) -> None:
        self._kill()
        command = [sys.executable, "-I", str(Path(__file__).with_name("worker.py"))]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )
        except OSError as error:
            raise SymbolicUnavailableError(f"cannot start the symbolic grading worker {command}: {error}") from error
        if self._read_line(START_LIMIT_S) != b"ready":
            self._kill()
            raise SymbolicUnavailableError(
                "the symbolic grading worker did not start; check that `import latex2sympy2_extended` works "
                f"in {sys.executable} (it comes with math-verify)"
            )

    def _read_line(self, limit_s: float) -> bytes | None:
        """The child's next line, or None when `limit_s` passed or the child ended first."""
        process = self._process
        assert process is not None and process.stdout is not None
        deadline = time.monotonic() + limit_s
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
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


_WORKER = SymbolicWorker()
atexit.register(_WORKER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WORKER.abandon)


def compare_symbolically(a: str, b: str, kind: Kind, limit_s: float) -> Verdict:
    """`SymbolicWorker.compare` on this process's own worker."""
    return _WORKER.compare(a, b, kind, limit_s)
