"""A scripted expander: grows a tree from a script instead of a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from elpo_agent.rollout.base import Budget, RolloutStrategy, SearchResult
from elpo_agent.tree import Outcome, RolloutTree, Step


@dataclass(frozen=True)
class Script:
    """One continuation: the mean entropy of each of its turns, and how it ends."""

    entropies: tuple[float, ...]
    outcome: Outcome


# (tree, node to continue from, how many rollouts were made before) -> the continuation
Writer = Callable[[RolloutTree, int, int], Script]


def step(entropy: float, tokens: int = 2, feedback: tuple[int, ...] = ()) -> Step:
    """A turn of `tokens` tokens whose entropies average to `entropy`."""
    spread = np.linspace(-0.01, 0.01, tokens) if tokens > 1 else np.zeros(1)
    return Step(
        ids=tuple(range(1, tokens + 1)),
        logprobs=np.full(tokens, -0.5, dtype=np.float32),
        entropies=(entropy + spread).astype(np.float32),
        feedback_ids=feedback,
    )


class ScriptedExpander:
    """Implements `Expander`. Records every request as (node, asked for, granted).

    `silent_after`: returns nothing, and leaves the budget alone, once that many rollouts were made.
    """

    def __init__(self, writer: Writer, total: int, silent_after: int | None = None, seed: int = 0) -> None:
        self.tree = RolloutTree(task_id="scripted", prompt_ids=(1,))
        self.budget = Budget(total)
        self.seed = seed
        self.requests: list[tuple[int, int, int]] = []
        self._writer = writer
        self._silent_after = silent_after

    async def expand(self, node: int, n: int) -> list[int]:
        assert n >= 1, "a strategy asked for no rollouts"
        await asyncio.sleep(0)
        if self._silent_after is not None:
            n = min(n, self._silent_after - len(self.tree.leaves))
        granted = self.budget.take(n)
        self.requests.append((node, n, granted))
        return [self._complete(node) for _ in range(granted)]

    def _complete(self, node: int) -> int:
        script = self._writer(self.tree, node, len(self.tree.leaves))
        *inner, last = script.entropies
        for entropy in inner:
            node = self.tree.add(node, step(entropy, feedback=(9,)))
        return self.tree.add(node, step(last), outcome=script.outcome)


def grow(
    strategy: RolloutStrategy,
    writer: Writer,
    *,
    total: int | None = None,
    silent_after: int | None = None,
    seed: int = 0,
) -> tuple[ScriptedExpander, SearchResult]:
    """Run a strategy against a script."""
    expander = ScriptedExpander(writer, strategy.n_total if total is None else total, silent_after, seed)
    return expander, asyncio.run(strategy.grow(expander))


def lost(reward: float = 0.0) -> Outcome:
    return Outcome(reward=reward, success=False)


def won(reward: float = 1.0) -> Outcome:
    return Outcome(reward=reward, success=True)


def broken() -> Outcome:
    """Infrastructure failure, with a reward that would show if it leaked."""
    return Outcome(reward=-1e6, success=False, valid=False)


def tree_of(parents: Sequence[int], outcomes: dict[int, Outcome]) -> RolloutTree:
    """A tree with the given parents (the root's -1 first) and outcomes."""
    tree = RolloutTree(task_id="built", prompt_ids=(1,))
    for i, parent in enumerate(parents[1:], start=1):
        tree.add(parent, step(0.5), outcome=outcomes.get(i))
    return tree
