"""The budget as strategies see it: never more than N_total, and never an endless wait for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from elpo_agent.rollout.base import Expander, SideBySide


class Draw:
    """Samples through an expander until N_total rollouts are spent.

    Args:
        expander: grows the tree and owns the prompt's budget.
        n_total: the strategy's own limit; the smaller of it and what the expander's budget has left counts.
    """

    def __init__(self, expander: Expander, n_total: int) -> None:
        self._expander = expander
        self._left = min(n_total, expander.budget.left)

    @property
    def left(self) -> int:
        """Rollouts that may still be asked for; 0 once the expander has given none."""
        return max(0, min(self._left, self._expander.budget.left))

    async def sample(self, node: int, n: int) -> list[int]:
        """Up to `n` new leaves from `node`; fewer, or none, when the budget runs out."""
        n = min(n, self.left)
        if n <= 0:
            return []
        leaves = await self._expander.expand(node, n)
        self._left = self._left - len(leaves) if leaves else 0
        return leaves

    async def sample_each(self, requests: Sequence[tuple[int, int]]) -> list[list[int]]:
        """`sample(node, n)` for each of `requests`, all under way at once where the expander can do that.

        The budget goes to the earlier requests first, and nodes are numbered as if they had been made in turn.
        """
        left, granted = self.left, []
        for node, n in requests:
            granted.append((node, max(0, min(n, left))))
            left -= granted[-1][1]
        asked = [(node, n) for node, n in granted if n]
        answers = iter(await expand_each(self._expander, asked))
        leaves = [next(answers) if n else [] for _, n in granted]
        refused = any(n and not new for (_, n), new in zip(granted, leaves, strict=True))
        self._left = 0 if refused else self._left - sum(map(len, leaves))
        return leaves


async def expand_each(expander: Expander, requests: Sequence[tuple[int, int]]) -> list[list[int]]:
    """`expander.expand(node, n)` for each of `requests`, at once where it can do that."""
    if hasattr(expander, "expand_each"):  # a protocol's isinstance would take longer than the expansion of a toy
        return await cast(SideBySide, expander).expand_each(requests)
    return [await expander.expand(node, n) for node, n in requests]


def check_n_total(n_total: int) -> None:
    """Raise ValueError unless `n_total` >= 1."""
    if n_total < 1:
        raise ValueError(f"n_total={n_total} leaves nothing to roll out; give at least 1")
