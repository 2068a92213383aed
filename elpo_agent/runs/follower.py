"""The run folder as ranks other than the first see it: they read checkpoints and write nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elpo_agent.ranks import Ranks
from elpo_agent.runs.run_folder import RunFolder
from elpo_agent.runs.trackers import Tracker


class FollowerFolder(RunFolder):
    """A `RunFolder` without a lock that writes nowhere."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    def open_logs(self, *, metrics_bytes: int, trees_bytes: int, trackers: Sequence[Tracker] = ()) -> list[str]:
        return []

    @property
    def lengths(self) -> tuple[int, int]:
        return 0, 0

    def log(self, record: Mapping[str, Any]) -> None: ...

    def log_tree(self, tree: Mapping[str, Any]) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


def folder_of(path: Path, ranks: Ranks) -> RunFolder:
    """The run's folder for this rank.

    Raises:
        RunFolderError: another process is writing to it.
    """
    return RunFolder(path) if ranks.leads else FollowerFolder(path)
