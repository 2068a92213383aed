"""Credit on trees whose probes start where the value of a prefix changes most (`elpo_plus`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from elpo_agent.credit.advantages import (
    check_scale,
    check_weight,
    children_mean,
    exact_mean,
    leaf_values,
    leaves_mean,
)
from elpo_agent.credit.base import NodeCredit
from elpo_agent.credit.rules import ValidPart
from elpo_agent.tree import RolloutTree, children_of


def value_gap(
    parent: ArrayLike, leaf_reward: Mapping[int, float], lambda_tree: float = 0.5, *, eps: float = 1e-6
) -> NodeCredit:
    """Differences of values in units of the group's standard deviation sigma, the population's over all leaves.

    Branch level: (r(c) - sibling mean) k / (k - 1) / (sigma + eps) for k siblings, which is the difference to the mean
    of the others; an only child inherits its parent's. r is a leaf's own reward, and of an inner node the mean over its
    children. Trajectory level: (mean reward of the leaves below - mean of all) / (sigma + eps).
    Advantage: lambda_tree * branch + (1 - lambda_tree) * trajectory. Unlike ELPO's, siblings that differ little stay
    close, whatever their number.

    Args:
        parent: integers (n,); `parent[0] == -1` is the root and `0 <= parent[i] < i`.
        leaf_reward: of every childless node, and of no other; finite.
        lambda_tree: weight of the branch level, in [0, 1].
        eps: added to sigma; >= 0.

    Returns:
        float64 (n,) each; all advantages are 0 where all rewards are equal.

    Raises:
        ValueError: the tree is malformed, or a coefficient is out of range.
    """
    check_scale(0, eps)
    check_weight("lambda_tree", lambda_tree)
    children = children_of(parent)
    rewards = leaf_values(children, leaf_reward)
    reward = children_mean(children, rewards)
    below = leaves_mean(children, rewards)
    values = list(rewards.values())
    branch, trajectory = [0.0] * len(children), [0.0] * len(children)
    if min(values) < max(values):
        mean = math.fsum(values) / len(values)
        scale = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values)) + eps
        for i, group in enumerate(children):  # parents come first, so an inherited value is final
            k = len(group)
            centre = exact_mean([reward[c] for c in group]) if k else 0.0
            for c in group:
                branch[c] = branch[i] if k == 1 else (reward[c] - centre) * k / (k - 1) / scale
        trajectory = [(value - mean) / scale for value in below]
    a_b, a_t = np.array(branch, dtype=np.float64), np.array(trajectory, dtype=np.float64)
    return NodeCredit(
        reward=np.array(reward, dtype=np.float64),
        branch=a_b,
        trajectory=a_t,
        advantage=lambda_tree * a_b + (1.0 - lambda_tree) * a_t,
    )


@dataclass(frozen=True)
class ValueGapCredit:
    """`value_gap` over the valid part of a tree; a shared step counts once in every trajectory through it.

    Attributes:
        lambda_tree: weight of the branch level in [0, 1].
        eps: added to the standard deviation; >= 0.
    """

    lambda_tree: float = 0.5
    eps: float = 1e-6

    def __post_init__(self) -> None:
        check_scale(0, self.eps)
        check_weight("lambda_tree", self.lambda_tree)

    def assign(self, tree: RolloutTree) -> NodeCredit:
        """Advantages of every node; those without a valid leaf below them get 0."""
        part = ValidPart.of(tree)
        return part.spread(
            value_gap(part.parent, part.rewards, self.lambda_tree, eps=self.eps) if part.rewards else None
        )
