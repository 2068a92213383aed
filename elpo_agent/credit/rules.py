"""Credit rules on rollout trees. Leaves lost to infrastructure failure enter no statistic and get 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elpo_agent.credit.advantages import (
    check_scale,
    check_weight,
    children_mean,
    group_relative,
    hierarchical,
    leaves_mean,
)
from elpo_agent.credit.base import FloatArray, NodeCredit, valid_returns
from elpo_agent.tree import RolloutTree, children_of


@dataclass(frozen=True)
class HierarchicalCredit:
    """ELPO's hierarchical advantages (equations 6-10).

    Attributes:
        lambda_tree: weight of the branch level in [0, 1]; the trajectory level has the rest. 0 is the paper's
            ablation without branch level.
        eps: added to standard deviations; >= 0.
        ddof: 0 for population standard deviations (the paper, after Figure 4), 1 for sample ones.
    """

    lambda_tree: float = 0.5
    eps: float = 1e-6
    ddof: int = 0

    def __post_init__(self) -> None:
        check_scale(self.ddof, self.eps)
        check_weight("lambda_tree", self.lambda_tree)

    def assign(self, tree: RolloutTree) -> NodeCredit:
        """Advantages over the valid part of `tree`; nodes without a valid leaf below them get 0."""
        kept, parent, rewards = valid_part(tree)
        if not rewards:
            return scatter(len(tree.nodes), kept, None)
        credit = hierarchical(parent, rewards, self.lambda_tree, eps=self.eps, ddof=self.ddof)
        return scatter(len(tree.nodes), kept, credit)


@dataclass(frozen=True)
class GroupRelativeCredit:
    """GRPO: a trajectory's z-score among all trajectories of the prompt, on each of its tokens.

    A step shared by several trajectories gets the mean of theirs (with independent rollouts none is shared).

    Attributes:
        ddof: 1 for the sample standard deviation (GRPO), 0 for the population's.
        eps: added to the standard deviation; >= 0.
    """

    ddof: int = 1
    eps: float = 1e-6

    def __post_init__(self) -> None:
        check_scale(self.ddof, self.eps)

    def assign(self, tree: RolloutTree) -> NodeCredit:
        """Advantages over the valid part of `tree`; nodes without a valid leaf below them get 0."""
        kept, parent, rewards = valid_part(tree)
        if not rewards:
            return scatter(len(tree.nodes), kept, None)
        children = children_of(parent)
        scores = group_relative(list(rewards.values()), self.ddof, self.eps)
        advantage = np.array(leaves_mean(children, dict(zip(rewards, scores.tolist(), strict=True))))
        credit = NodeCredit(
            reward=np.array(children_mean(children, rewards)),
            branch=np.zeros_like(advantage),
            trajectory=advantage,
            advantage=advantage.copy(),
        )
        return scatter(len(tree.nodes), kept, credit)


def valid_part(tree: RolloutTree) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[int, float]]:
    """The tree without leaves that are invalid or were dropped, and without branches that held only such.

    Returns:
        kept: indices in `tree` of the nodes that stay, ascending, (k,).
        parent: their parents in the new numbering, (k,).
        rewards: return of each remaining leaf, by new index.

    Raises:
        ValueError: a valid leaf's return is not finite.
    """
    parents = tree.parents()
    returns = valid_returns(tree)
    keep = np.zeros(len(tree.nodes), dtype=np.bool_)
    for i in returns:
        while i >= 0 and not keep[i]:
            keep[i] = True
            i = int(parents[i])
    kept = np.flatnonzero(keep).astype(np.int64)
    renumbered = np.cumsum(keep) - 1
    parent = np.where(kept > 0, renumbered[parents[kept]], -1).astype(np.int64)
    return kept, parent, {int(renumbered[leaf]): value for leaf, value in returns.items()}


def scatter(n: int, kept: NDArray[np.int64], credit: NodeCredit | None) -> NodeCredit:
    """`credit` of the kept nodes at their places among `n`; 0 elsewhere."""

    def full(values: FloatArray | None) -> FloatArray:
        out = np.zeros(n, dtype=np.float64)
        if values is not None:
            out[kept] = values
        return out

    if credit is None:
        return NodeCredit(full(None), full(None), full(None), full(None))
    return NodeCredit(full(credit.reward), full(credit.branch), full(credit.trajectory), full(credit.advantage))
