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
        part = ValidPart.of(tree)
        if not part.rewards:
            return part.spread(None)
        return part.spread(hierarchical(part.parent, part.rewards, self.lambda_tree, eps=self.eps, ddof=self.ddof))


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
        part = ValidPart.of(tree)
        if not part.rewards:
            return part.spread(None)
        children = children_of(part.parent)
        scores = group_relative(list(part.rewards.values()), self.ddof, self.eps)
        advantage = np.array(leaves_mean(children, dict(zip(part.rewards, scores.tolist(), strict=True))))
        credit = NodeCredit(
            reward=np.array(children_mean(children, part.rewards)),
            branch=np.zeros_like(advantage),
            trajectory=advantage,
            advantage=advantage.copy(),
        )
        return part.spread(credit)


@dataclass(frozen=True, eq=False)
class ValidPart:
    """A tree without leaves that are invalid or were dropped, with each chain of only children as one node.

    The rules here give all nodes of a chain the same, so they need not be asked for each.

    Attributes:
        place: int64 (n_nodes,); where each node of the tree went, -1 for those below which no leaf stays.
        parent: int64 (k,); of the nodes that there are now. The root is one by itself.
        rewards: return of each remaining leaf, by its new index; {} where none is left.
    """

    place: NDArray[np.int64]
    parent: NDArray[np.int64]
    rewards: dict[int, float]

    @classmethod
    def of(cls, tree: RolloutTree) -> ValidPart:
        """Raises ValueError where a valid leaf's return is not finite."""
        returns = valid_returns(tree)
        leaves = np.array(list(returns), dtype=np.int64)
        parents = tree.parents()
        above = np.maximum(parents, 0)  # the root stands above itself, so that walks up end there
        kept = np.zeros(len(above), dtype=np.bool_)
        kept[leaves] = True
        kept[:1] = bool(returns)
        up = above
        while up.any():  # by 1, 2, 4, ... generations
            kept[up[kept]] = True
            up = up[up]
        siblings = np.bincount(above[1:][kept[1:]], minlength=len(above))[above]
        first = (siblings > 1) | (above == 0)
        head = np.where(first, np.arange(len(above)), above)
        while not first[head].all():
            head = head[head]
        heads = np.flatnonzero(first & kept)
        number = np.zeros(len(above), dtype=np.int64)
        number[heads] = np.arange(len(heads))
        place = np.where(kept, number[head], -1)
        parent = place[parents[heads]]
        parent[:1] = -1
        return cls(place, parent, dict(zip(place[leaves].tolist(), returns.values(), strict=True)))

    def spread(self, credit: NodeCredit | None) -> NodeCredit:
        """`credit` of these nodes for all nodes of the tree; 0 for those that went nowhere."""

        def full(values: FloatArray | None) -> FloatArray:
            return np.zeros(len(self.place)) if values is None else np.append(values, 0.0)[self.place]

        if credit is None:
            return NodeCredit(full(None), full(None), full(None), full(None))
        return NodeCredit(full(credit.reward), full(credit.branch), full(credit.trajectory), full(credit.advantage))
