"""A run's folder: its lock, its logs (metrics.jsonl, trees.jsonl) and its results."""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from elpo_agent.interrupts import uninterrupted
from elpo_agent.runs.checkpoint import naming_full_disk
from elpo_agent.runs.trackers import Tracker


class RunFolderError(RuntimeError):
    """The folder cannot be used: it holds another run, another process writes to it, or there is nothing to resume."""


class RunFolder:
    """Exclusive use of one run's folder.

    Args:
        path: the folder; made if missing.

    Raises:
        RunFolderError: another process is writing to it.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics_path = path / "metrics.jsonl"
        self.trees_path = path / "trees.jsonl"
        self._lock: IO[str] = (path / ".lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise RunFolderError(
                f"output={path} is being written by another process; choose another --output or wait for it"
            ) from error
        self._metrics: io.FileIO | None = None
        self._trees: io.FileIO | None = None
        self._trackers: Sequence[Tracker] = ()

    def open_logs(self, *, metrics_bytes: int, trees_bytes: int, trackers: Sequence[Tracker] = ()) -> list[str]:
        """Open the logs for appending, cut back to the given lengths (what a checkpoint had seen). `trackers` get a
        copy of every record and are closed with the folder.

        Returns:
            A sentence for each log that is shorter than that, because somebody cut or removed it.
        """
        wanted = {self.metrics_path: metrics_bytes, self.trees_path: trees_bytes}
        self._metrics = _open_at(self.metrics_path, metrics_bytes)
        self._trees = _open_at(self.trees_path, trees_bytes)
        self._trackers = trackers
        return [
            f"{path.name} lacks its last {missing} bytes of before the checkpoint; the run goes on, with a gap there"
            for path, length in zip(wanted, self.lengths, strict=True)
            if (missing := wanted[path] - length) > 0
        ]

    @property
    def lengths(self) -> tuple[int, int]:
        """Of the logs, in bytes (metrics, trees)."""
        assert self._metrics is not None and self._trees is not None, "open_logs first"
        return self._metrics.tell(), self._trees.tell()

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and give its numbers to the trackers, under `record["update"]`."""
        assert self._metrics is not None, "open_logs first"
        figures = {n: v for n, v in record.items() if isinstance(v, (int, float)) and n != "update"}
        with uninterrupted(), naming_full_disk(self.path):
            _append(self._metrics, record)
            for tracker in self._trackers:
                tracker.log(str(record.get("kind", "train")), int(record["update"]), figures)

    def log_tree(self, tree: Mapping[str, Any]) -> None:
        """Append one rollout tree to trees.jsonl."""
        assert self._trees is not None, "open_logs first"
        with uninterrupted(), naming_full_disk(self.path):
            _append(self._trees, tree)

    def sync(self) -> None:
        """Force the logs to disk."""
        assert self._metrics is not None and self._trees is not None, "open_logs first"
        with uninterrupted(), naming_full_disk(self.path):
            for file in (self._metrics, self._trees):
                os.fsync(file.fileno())
            for tracker in self._trackers:
                tracker.flush()

    def close(self) -> None:
        """Close the logs and give up the lock, whatever fails on the way. Idempotent."""
        with uninterrupted(), ExitStack() as stack:
            stack.callback(self._lock.close)
            for file in (self._metrics, self._trees):
                if file is not None:
                    stack.callback(file.close)
            for tracker in self._trackers:
                stack.callback(tracker.close)
            self._metrics = self._trees = None
            self._trackers = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OSError:
            if not isinstance(error, OSError):
                raise  # else a full disk is reported once, as what it first stopped


def _open_at(path: Path, size: int) -> io.FileIO:
    # Without a buffer: what was logged is in the file, and closing it has nothing left to fail at.
    file = io.FileIO(path, "a+")
    if file.seek(0, io.SEEK_END) < size:
        size = path.read_bytes().rfind(b"\n") + 1  # whole lines only
    file.truncate(size)
    file.seek(size)
    return file


def _append(file: io.FileIO, record: Mapping[str, Any]) -> None:
    line = memoryview(json.dumps(record).encode() + b"\n")
    while line:
        line = line[file.write(line) :]
