"""How many tool calls an episode may make as training goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StagedToolCalls:
    """`calls[0]` in the first of equal shares of the run, `calls[-1]` in the last.

    Attributes:
        calls: at least one number; each >= 0.

    Raises:
        ValueError: `calls` is empty or holds something else than such numbers.
    """

    calls: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.calls or not all(isinstance(n, int) and n >= 0 for n in self.calls):
            raise ValueError(f"tool_calls={list(self.calls)} is no schedule; give whole numbers of at least 0")

    def __call__(self, done: float) -> int:
        """The cap at the share `done` of the run, in [0, 1]."""
        return self.calls[min(int(done * len(self.calls)), len(self.calls) - 1)]
