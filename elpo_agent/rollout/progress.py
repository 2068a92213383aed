"""What a run did so far, and what a finished tree took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from elpo_agent.tree import RolloutTree


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        prompts, prompts_total: prompts whose trees are finished, and all of them.
        rollouts, successes: completed trajectories, and how many of them succeeded.
        generated_tokens: in completed trajectories; shared steps count once.
    """

    prompts: int = 0
    prompts_total: int = 0
    rollouts: int = 0
    successes: int = 0
    generated_tokens: int = 0


@dataclass(frozen=True)
class TreeMetrics:
    """Sums over one tree; every node counts once, however many trajectories share it."""

    rollouts: int
    turns: int
    generated_tokens: int
    tool_calls: int
    tool_errors: int


def tree_metrics(tree: RolloutTree) -> TreeMetrics:
    """What it took to grow `tree`."""
    steps = [node.step for node in tree.nodes if node.step is not None]
    return TreeMetrics(
        rollouts=len(tree.leaves),
        turns=len(steps),
        generated_tokens=sum(len(s.ids) for s in steps),
        tool_calls=sum(s.tool_calls for s in steps),
        tool_errors=sum(s.tool_errors for s in steps),
    )


class Watch:
    """Adds up what happens during a run, and tells `tell` after every change."""

    def __init__(self, prompts_total: int, tell: Callable[[Progress], None] | None) -> None:
        self._now = Progress(prompts_total=prompts_total)
        self._tell = tell

    def rollouts(self, n: int, successes: int, tokens: int) -> None:
        """`n` more trajectories were completed."""
        now = self._now
        self._set(
            replace(
                now,
                rollouts=now.rollouts + n,
                successes=now.successes + successes,
                generated_tokens=now.generated_tokens + tokens,
            )
        )

    def prompt_done(self) -> None:
        """One more prompt's tree is finished."""
        self._set(replace(self._now, prompts=self._now.prompts + 1))

    def _set(self, progress: Progress) -> None:
        self._now = progress
        if self._tell is not None:
            self._tell(progress)
