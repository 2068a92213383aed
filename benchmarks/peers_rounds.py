"""What the programs of `peers` have in common: one update for every line on standard input, and its figures as JSON.

A program's arguments come as a JSON file. It prints `{"version": ...}` once it is ready and waits; every line that
it reads lets its trainer go on until the next update is done. The end of its input ends it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO


class Rounds:
    """Holds a trainer up between updates; the clock runs while it is not held up.

    Args:
        replies: where answers go; standard output itself should not be written to by anybody else.
    """

    def __init__(self, replies: TextIO) -> None:
        self._replies = replies
        self._began = self._cpu = 0.0

    @property
    def seconds(self) -> float:
        """Since the present update began."""
        return time.perf_counter() - self._began

    def ready(self, version: str) -> None:
        """Say so, and wait until the first update is asked for."""
        self._answer({"version": version})
        self._wait()

    def done(self, figures: dict[str, float]) -> None:
        """Answer with an update's figures, "seconds" and this process's "cpu_seconds"; wait for the next request."""
        self._answer({"seconds": self.seconds, "cpu_seconds": time.process_time() - self._cpu, **figures})
        self._wait()

    def _answer(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=self._replies, flush=True)

    def _wait(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit(0)
        self._began, self._cpu = time.perf_counter(), time.process_time()


def arguments() -> dict[str, Any]:
    """The program's arguments."""
    read: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return read
