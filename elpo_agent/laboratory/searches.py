"""Searches for the first irrecoverable step on trajectories where it is known, apart from any learning."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np

from elpo_agent.rollout.base import Budget, RolloutStrategy, SearchResult
from elpo_agent.tree import Outcome, RolloutTree, Step

_SUCCESS = Outcome(reward=1.0, success=True)
_FAILURE = Outcome(reward=0.0, success=False)
_TOKEN = np.zeros(1, dtype=np.float32)


class KnownFailure:
    """An `Expander` whose full rollouts all fail, each lost at the same step; suffixes succeed by chance.

    A suffix from a prefix of m steps succeeds with probability `recovery` where m < `lost_at`, else never. Entropies
    are all equal, so that the number of suffixes is the middle of its range.

    Args:
        steps: K, the tool steps of a full rollout, which one more step ends; >= 1.
        lost_at: t, the first irrecoverable step, 1 to K + 1.
        recovery: in [0, 1].
        budget: of completed rollouts.
        seed: fixes every outcome.
    """

    def __init__(self, steps: int, lost_at: int, recovery: float, budget: Budget, seed: int) -> None:
        self.tree = RolloutTree("known", ())
        self.budget = budget
        self.seed = seed
        self._steps, self._lost_at, self._recovery = steps, lost_at, recovery
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5E]))

    async def expand(self, node: int, n: int) -> list[int]:
        """See `Expander.expand`."""
        return [self._complete(node) for _ in range(self.budget.take(n))]

    def _complete(self, node: int) -> int:
        depth = self.tree.nodes[node].depth
        lucky = 0 < depth < self._lost_at and self._rng.random() < self._recovery
        for _ in range(depth, self._steps):
            node = self.tree.add(node, Step((0,), _TOKEN, _TOKEN, tool_calls=1))
        return self.tree.add(node, Step((0,), _TOKEN, _TOKEN), outcome=_SUCCESS if lucky else _FAILURE)


@dataclass(frozen=True)
class SearchAccuracy:
    """What a search found in many failures.

    Attributes:
        exact: share in which it named the step.
        distance: mean |named - true|, in steps.
        probes: mean number of suffixes it took.
    """

    exact: float
    distance: float
    probes: float


def search_accuracy(strategy: RolloutStrategy, steps: int, recovery: float, failures: int, seed: int) -> SearchAccuracy:
    """Let `strategy` search `failures` trajectories, lost at a step that is uniform over 1 to K + 1.

    Only its first search counts, with one rollout for the reference and the rest of `strategy.n_total` for probes.

    Raises:
        ValueError: the strategy localizes nothing.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5A]))
    off, probes = [], []
    for i in range(failures):
        lost_at = int(rng.integers(1, steps + 2))
        expander = KnownFailure(steps, lost_at, recovery, Budget(strategy.n_total), int(rng.integers(2**31)) + i)
        result = finish(strategy.grow(expander))
        if not result.localizations or result.localizations[0].critical_step is None:
            raise ValueError(f"strategy={strategy!r} searched for nothing; give one that localizes")
        first = result.localizations[0]
        assert first.critical_step is not None
        off.append(abs(first.critical_step - lost_at))
        probes.append(sum(len(anchor.probes) for anchor in first.anchors))
    return SearchAccuracy(float(np.mean(np.array(off) == 0)), float(np.mean(off)), float(np.mean(probes)))


def finish(growing: Coroutine[Any, Any, SearchResult]) -> SearchResult:
    """The result of a strategy whose expander never waits for anything."""
    try:
        growing.send(None)
    except StopIteration as stop:
        result: SearchResult = stop.value
        return result
    raise RuntimeError("the strategy waits for something other than its expander")
