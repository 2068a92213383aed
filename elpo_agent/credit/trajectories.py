"""One advantage per trajectory, on each of its tokens; in a shared step trajectories keep their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from elpo_agent.credit.advantages import check_scale, exact_mean, group_relative, standardized
from elpo_agent.credit.base import FloatArray, LeafCredit, ReferenceLogprobs, broadcast, valid_returns
from elpo_agent.tree import RolloutTree


def leave_one_out(rewards: ArrayLike) -> FloatArray:
    """RLOO's advantages: R_i minus the mean of the others (Ahmadian et al., arXiv 2402.14740).

    Args:
        rewards: finite, (n,).

    Returns:
        float64 (n,). Equal rewards give exactly 0. A group of one has no others: its baseline counts as 0.
    """
    values = np.asarray(rewards, dtype=np.float64)
    n = values.size
    if n < 2:
        return values.copy()
    return np.asarray((values - exact_mean(values.tolist())) * (n / (n - 1)), dtype=np.float64)


@dataclass(frozen=True)
class TrajectoryCredit:
    """GRPO's z-score of a trajectory among all of the prompt's, on each row as it is (ARPO's "soft" estimate).

    `GroupRelativeCredit` differs in shared steps: it gives them the mean over the trajectories below (ARPO's "hard"
    one). In a loss whose tokens count alike in every row both give the same gradient as long as ratios are not clipped.

    Attributes:
        ddof: 1 for the sample standard deviation, 0 for the population's.
        eps: added to the standard deviation; >= 0.
    """

    ddof: int = 1
    eps: float = 1e-6

    def __post_init__(self) -> None:
        check_scale(self.ddof, self.eps)

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """See `BatchCredit`."""
        return [_by_leaf(tree, lambda r: group_relative(r, self.ddof, self.eps)) for tree in trees]


@dataclass(frozen=True)
class LeaveOneOutCredit:
    """RLOO: a trajectory's return minus the mean of the prompt's others."""

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """See `BatchCredit`."""
        return [_by_leaf(tree, leave_one_out) for tree in trees]


@dataclass(frozen=True)
class TreeGroupCredit:
    """Tree-GRPO: the z-score among all leaves of the prompt plus the one among the leaves of the own tree.

    Which tree a leaf belongs to is `RolloutTree.groups`; without it there is one tree, and both terms are equal. Leaves
    that the strategy dropped enter neither. A leaf alone in its tree has no rivals there: that term is 0.
    Source: `adv_estimator=tree` of the authors' code (AMAP-ML/Tree-GRPO).

    Attributes:
        ddof: 1 for sample standard deviations, 0 for the population's.
        eps: added to the standard deviations; >= 0.
    """

    ddof: int = 1
    eps: float = 1e-6

    def __post_init__(self) -> None:
        check_scale(self.ddof, self.eps)

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """See `BatchCredit`."""
        return [self._tree(tree) for tree in trees]

    def _tree(self, tree: RolloutTree) -> list[LeafCredit]:
        returns = valid_returns(tree)
        if not returns:
            return []
        values = list(returns.values())
        total = dict(zip(returns, group_relative(values, self.ddof, self.eps).tolist(), strict=True))
        members: dict[int, list[int]] = {}
        for leaf in returns:
            members.setdefault(tree.groups.get(leaf, 0), []).append(leaf)
        for leaves in members.values():
            scores = standardized([returns[leaf] for leaf in leaves], self.ddof, self.eps)
            for leaf, score in zip(leaves, scores, strict=True):
                total[leaf] += score
        return broadcast(tree, total)


def _by_leaf(tree: RolloutTree, scores: Callable[[ArrayLike], FloatArray]) -> list[LeafCredit]:
    returns = valid_returns(tree)
    if not returns:
        return []
    return broadcast(tree, dict(zip(returns, scores(list(returns.values())).tolist(), strict=True)))
