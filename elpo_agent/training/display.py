"""Where progress is shown; training knows nothing about terminals."""

from __future__ import annotations

from typing import Protocol


class Display(Protocol):
    """Shows the phases of long work, one after the other."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """A new phase of `total` units begins, `done` of them already behind it."""

    def advance(self, done: int, figures: dict[str, float]) -> None:
        """`done` units of the phase are finished; `figures` are the latest."""

    def note(self, text: str) -> None:
        """One line for the log."""
