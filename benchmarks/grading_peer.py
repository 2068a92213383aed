"""A running `grading_program`: one grader in a process of its own."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.grading_pairs import Pair

_PROGRAM = Path(__file__).with_name("grading_program.py")
_ROOT = Path(__file__).parents[1]
_START_LIMIT_S = 180.0
_LIMIT_S = 1200.0


@dataclass(frozen=True)
class Graded:
    """Seconds for all pairs, and for each; true, false or the error of each; whether it had to be ended."""

    seconds: float
    times: tuple[float, ...]
    verdicts: tuple[bool | str, ...]
    ended: bool = False


class Grader:
    """A context in which the process runs; it is started again where it had to be ended.

    Raises:
        RuntimeError: it does not start, or died of an ordinary pair; its own words stand on stderr.
    """

    def __init__(self, name: str, python: Path) -> None:
        self._command = [str(python), str(_PROGRAM), name]
        self._process: subprocess.Popen[bytes] | None = None
        self.version = ""

    def __enter__(self) -> Grader:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    @staticmethod
    def version_of(name: str, python: Path) -> str:
        with Grader(name, python) as grader:
            return grader.version

    def grade(self, pairs: Sequence[Pair], threads: int) -> Graded:
        """All pairs in one request."""
        answer = self._ask(pairs, threads, _LIMIT_S)
        if answer is None:
            raise RuntimeError(f"{self._command[-1]} did not answer")
        return Graded(answer["seconds"], tuple(answer["times"]), tuple(answer["verdicts"]))

    def grade_one(self, pair: Pair, threads: int, limit_s: float) -> Graded:
        """One pair; a process that takes longer than the limit, or dies, is replaced."""
        if self._process is None:
            self._start()
        started = time.perf_counter()
        answer = self._ask([pair], threads, limit_s)
        seconds = time.perf_counter() - started
        if answer is None:
            self._end()
            return Graded(seconds, (seconds,), ("ended",), ended=True)
        return Graded(answer["seconds"], tuple(answer["times"]), tuple(answer["verdicts"]))

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )
        ready = self._read(_START_LIMIT_S)
        if ready is None:
            self._end()
            raise RuntimeError(f"{' '.join(self._command)} did not start")
        self.version = ready["version"] or "this checkout"

    def _ask(self, pairs: Sequence[Pair], threads: int, limit_s: float) -> dict[str, Any] | None:
        assert self._process is not None and self._process.stdin is not None
        request = json.dumps({"pairs": [[pair.answer, pair.gold] for pair in pairs], "threads": threads}).encode()
        request += b"\n"
        while request:  # an unbuffered pipe takes what fits
            request = request[self._process.stdin.write(request) or 0 :]
        return self._read(limit_s)

    def _read(self, limit_s: float) -> dict[str, Any] | None:
        """The next line, or None where the limit passed or the process ended."""
        assert self._process is not None and self._process.stdout is not None
        deadline = time.monotonic() + limit_s
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                chunk = os.read(self._process.stdout.fileno(), 1 << 20)
                if not chunk:
                    return None
                line += chunk
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
