"""Independent sampling: all rollouts start from the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from elpo_agent.rollout.base import Expander, SearchResult
from elpo_agent.rollout.draw import Draw, check_n_total


@dataclass(frozen=True)
class IndependentSampling:
    """`n_total` full rollouts per prompt (GRPO and its kin).

    Attributes:
        n_total: completed rollouts per prompt; >= 1.
        branches: tells the runner that no snapshots are needed.
    """

    n_total: int = 16
    branches: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_n_total(self.n_total)

    async def grow(self, expander: Expander) -> SearchResult:
        """Sample until the budget is spent, or the expander gives nothing more."""
        draw = Draw(expander, self.n_total)
        while draw.left:
            await draw.sample(0, draw.left)
        return SearchResult()
