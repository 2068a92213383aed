"""The budget as strategies see it: never more than N_total, and never an endless wait for nothing."""

from __future__ import annotations

from elpo_agent.rollout.base import Expander


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


def check_n_total(n_total: int) -> None:
    """Raise ValueError unless `n_total` >= 1."""
    if n_total < 1:
        raise ValueError(f"n_total={n_total} leaves nothing to roll out; give at least 1")
