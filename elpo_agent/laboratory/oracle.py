"""What learning would be like if the exact advantage of every action were known: the room that is left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from elpo_agent.algorithms import Algorithm
from elpo_agent.credit.base import LeafCredit, ReferenceLogprobs, valid_leaves
from elpo_agent.laboratory.tree import ExactTree
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.independent import IndependentSampling
from elpo_agent.tree import RolloutTree
from elpo_envs.exact import World, prefix_values, state_values

Floats = NDArray[np.float64]


class OracleCredit:
    """Q - V of every action taken, from dynamic programming, scaled to a standard deviation of 1 over the update.

    With a noisy tool Q is that of what happened, luck included: V after the step less V before it.
    """

    def __init__(self) -> None:
        self._values: Floats | None = None
        self._spare = 0

    def observe(self, world: World, probabilities: Floats) -> None:
        """Be told the policy that the next trees are sampled from."""
        self._values, self._spare = state_values(world, probabilities), world.spare

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """Advantages of every leaf; see `BatchCredit`. Raises ValueError for trees of another laboratory."""
        by_node = [self._gains(tree) for tree in trees]
        every = np.concatenate([gains[1:] for gains in by_node] or [np.zeros(0)])
        scale = float(every.std()) or 1.0
        return [
            [LeafCredit(leaf, gains[tree.path(leaf)] / scale) for leaf in valid_leaves(tree)]
            for tree, gains in zip(trees, by_node, strict=True)
        ]

    def _gains(self, tree: RolloutTree) -> Floats:
        if self._values is None or not isinstance(tree, ExactTree):
            raise ValueError("exact advantages are known of rollouts of the exact laboratory only")
        after = prefix_values(self._values, np.full(tree.size - 1, tree.prompt), tree.states())
        worth = np.concatenate([[self._values[tree.prompt, 0, self._spare, 0]], after])
        gains = np.zeros(tree.size)
        gains[1:] = worth[1:] - worth[tree.parents()[1:]]
        return gains


def oracle(*, n_total: int = 16, eps_low: float = 0.2, eps_high: float = 0.315) -> Algorithm:
    """Independent rollouts with exact advantages; only in the exact laboratory.

    Args:
        n_total: rollouts per prompt; >= 1.
        eps_low, eps_high: clip range.
    """
    return Algorithm("oracle", IndependentSampling(n_total), OracleCredit(), ClippedObjective(eps_low, eps_high))
