"""A run's folder: its lock, its logs (metrics.jsonl, trees.jsonl, TensorBoard) and its results."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from torch.utils.tensorboard import SummaryWriter


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
        self._metrics: IO[bytes] | None = None
        self._trees: IO[bytes] | None = None
        self._board: SummaryWriter | None = None

    def open_logs(self, *, metrics_bytes: int, trees_bytes: int, update: int) -> None:
        """Open the logs for appending, cut back to the given lengths (what a checkpoint had seen)."""
        self._metrics = _open_at(self.metrics_path, metrics_bytes)
        self._trees = _open_at(self.trees_path, trees_bytes)
        self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=update)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and its numbers to TensorBoard, under `record["update"]`."""
        assert self._metrics is not None and self._board is not None, "open_logs first"
        self._metrics.write(json.dumps(record).encode() + b"\n")
        self._metrics.flush()
        kind = record.get("kind", "train")
        for name, value in record.items():
            if isinstance(value, (int, float)) and name != "update":
                self._board.add_scalar(f"{kind}/{name}", value, record["update"])

    def log_tree(self, tree: Mapping[str, Any]) -> None:
        """Append one rollout tree to trees.jsonl."""
        assert self._trees is not None, "open_logs first"
        self._trees.write(json.dumps(tree).encode() + b"\n")

    def sync(self) -> tuple[int, int]:
        """Force the logs to disk; returns their lengths in bytes (metrics, trees)."""
        assert self._metrics is not None and self._trees is not None and self._board is not None, "open_logs first"
        for file in (self._metrics, self._trees):
            file.flush()
            os.fsync(file.fileno())
        self._board.flush()
        return self._metrics.tell(), self._trees.tell()

    def close(self) -> None:
        """Close the logs and give up the lock. Idempotent."""
        for file in (self._metrics, self._trees, self._lock):
            if file is not None:
                file.close()
        if self._board is not None:
            self._board.close()
        self._metrics = self._trees = self._board = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_at(path: Path, size: int) -> IO[bytes]:
    file = path.open("ab")
    file.truncate(size)
    file.seek(size)
    return file
