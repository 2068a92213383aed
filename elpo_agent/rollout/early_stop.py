"""Early stop: a prompt whose first rollouts all succeed has nothing to teach; its budget is for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elpo_agent.rollout.base import Allowance, Expander, RolloutStrategy, SearchResult
from elpo_agent.rollout.draw import Draw
from elpo_agent.tree import RolloutTree


@dataclass(frozen=True)
class EarlyStop:
    """Any strategy, ended before it begins where the first `after` full rollouts all succeed.

    The first `after` are drawn at once. If one fails, the inner strategy goes on and gets them first when it asks for
    full rollouts; they were charged already. Rollouts that infrastructure failed say nothing: others are drawn in their
    place. What is left unspent goes to other prompts with `Selection(hand_on=True)`.

    Attributes:
        inner: the strategy.
        after: how many must succeed; >= 1.

    Raises:
        ValueError: `after` is below 1.
    """

    inner: RolloutStrategy
    after: int = 3

    def __post_init__(self) -> None:
        if self.after < 1:
            raise ValueError(f"after={self.after} stops every prompt before it began; give at least 1")

    @property
    def n_total(self) -> int:
        """The inner strategy's."""
        return self.inner.n_total

    @property
    def branches(self) -> bool:
        """Whether the inner strategy ever continues from a step."""
        return bool(getattr(self.inner, "branches", True))

    async def grow(self, expander: Expander) -> SearchResult:
        """Try the prompt, and leave it to the inner strategy unless it is too easy."""
        draw, tree = Draw(expander, self.n_total), expander.tree
        first: list[int] = []
        successes = 0
        while draw.left and successes < self.after:
            leaves = await draw.sample(0, self.after - successes)
            first += leaves
            outcomes = [outcome for outcome in map(tree.outcome, leaves) if outcome.valid]
            successes += sum(outcome.success for outcome in outcomes)
            if not all(outcome.success for outcome in outcomes):
                return await self.inner.grow(_Served(expander, draw, first))
        if successes < self.after:  # the budget is spent
            return await self.inner.grow(_Served(expander, draw, first))
        return SearchResult()


class _Served:
    """An expander that hands out `waiting` full rollouts before it has new ones made, through `draw`."""

    def __init__(self, expander: Expander, draw: Draw, waiting: Sequence[int]) -> None:
        self._expander = expander
        self._draw = draw
        self._waiting = list(waiting)

    @property
    def tree(self) -> RolloutTree:
        return self._expander.tree

    @property
    def seed(self) -> int:
        return self._expander.seed

    @property
    def budget(self) -> Allowance:
        return self

    @property
    def left(self) -> int:
        """Rollouts that may still be asked for, those that wait to be handed out included."""
        return self._draw.left + len(self._waiting)

    async def expand(self, node: int, n: int) -> list[int]:
        """See `Expander.expand`."""
        (leaves,) = await self.expand_each([(node, n)])
        return leaves

    async def expand_each(self, requests: Sequence[tuple[int, int]]) -> list[list[int]]:
        """See `SideBySide.expand_each`."""
        served: list[list[int]] = []
        for node, n in requests:
            count = n if node == 0 else 0
            served.append(self._waiting[:count])
            del self._waiting[:count]
        missing = [(node, n - len(own)) for (node, n), own in zip(requests, served, strict=True)]
        made = await self._draw.sample_each(missing)
        return [own + new for own, new in zip(served, made, strict=True)]
