"""Advantages as pure functions on arrays: group-relative, and hierarchical over a tree.

Source: ELPO (Liang et al., arXiv 2602.09598), equations 6-10 and Figure 4; GRPO (Shao et al., arXiv
2402.03300).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from elpo_agent.credit.base import FloatArray, NodeCredit
from elpo_agent.tree import children_of

# Values this close, relative to their size, differ by rounding only and count as equal.
_ROUNDING = 1e-12
_LARGEST = 1e300


def group_relative(rewards: ArrayLike, ddof: int = 1, eps: float = 1e-6) -> FloatArray:
    """GRPO's advantages: (R - mean) / (std + eps) over one group.

    Args:
        rewards: finite, (n,).
        ddof: 1 for the sample standard deviation (GRPO), 0 for the population's (ELPO).
        eps: added to the standard deviation; >= 0.

    Returns:
        float64 (n,). Equal rewards give exactly 0. A group of one has no statistics: its mean counts as 0 and
        its standard deviation as 1, so its advantage is R / (1 + eps).

    Raises:
        ValueError: a reward is not finite, or `ddof` or `eps` is out of range.
    """
    check_scale(ddof, eps)
    values = np.asarray(rewards, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"rewards has shape {values.shape}; give one reward per trajectory, shape (n,)")
    for i, r in enumerate(values.tolist()):
        _check_reward(f"rewards[{i}]", r)
    if values.size == 1:
        return values / (1.0 + eps)
    return np.array(standardized(values.tolist(), ddof, eps), dtype=np.float64)


def hierarchical(
    parent: ArrayLike,
    leaf_reward: Mapping[int, float],
    lambda_tree: float = 0.5,
    *,
    eps: float = 1e-6,
    ddof: int = 0,
) -> NodeCredit:
    """ELPO's hierarchical advantages (equations 6-10), in time linear in the number of nodes.

    Reward: a leaf's own; an inner node's is the mean over its direct children. Branch level: the z-score of
    the reward among siblings (the root's children are siblings too); an only child inherits its parent's.
    Trajectory
    level: the z-score of a leaf's reward among all leaves; an inner node's is the mean over the leaves below.
    Advantage: lambda_tree * branch + (1 - lambda_tree) * trajectory.

    Args:
        parent: integers (n,); `parent[0] == -1` is the root and `0 <= parent[i] < i`.
        leaf_reward: terminal reward of every childless node, and of no other; finite.
        lambda_tree: weight of the branch level, in [0, 1].
        eps: added to standard deviations; >= 0.
        ddof: 0 for population standard deviations (the paper), 1 for sample ones.

    Returns:
        float64 (n,) each. The root has no siblings: its branch value is 0. Equal siblings get exactly 0.

    Raises:
        ValueError: the tree is malformed, a leaf lacks a reward, an inner node has one, a reward is not
            finite, or a coefficient is out of range.
    """
    check_scale(ddof, eps)
    check_weight("lambda_tree", lambda_tree)
    children = children_of(parent)
    rewards = leaf_values(children, leaf_reward)
    reward = children_mean(children, rewards)
    branch = [0.0] * len(children)
    for i, group in enumerate(children):  # parents come first, so an inherited value is final
        if len(group) == 1:
            branch[group[0]] = branch[i]
        elif group:
            for c, z in zip(group, standardized([reward[c] for c in group], ddof, eps), strict=True):
                branch[c] = z
    z_leaf = standardized(list(rewards.values()), ddof, eps)
    trajectory = leaves_mean(children, dict(zip(rewards, z_leaf, strict=True)))
    a_b, a_t = np.array(branch, dtype=np.float64), np.array(trajectory, dtype=np.float64)
    return NodeCredit(
        reward=np.array(reward, dtype=np.float64),
        branch=a_b,
        trajectory=a_t,
        advantage=lambda_tree * a_b + (1.0 - lambda_tree) * a_t,
    )


def children_mean(children: Sequence[Sequence[int]], leaf_value: Mapping[int, float]) -> list[float]:
    """Bottom-up mean over direct children (equation 6); leaves keep their own value."""
    value = [0.0] * len(children)
    for leaf, v in leaf_value.items():
        value[leaf] = v
    for i in range(len(children) - 1, -1, -1):
        group = children[i]
        if len(group) == 1:
            value[i] = value[group[0]]
        elif group:
            value[i] = exact_mean([value[c] for c in group])
    return value


def leaves_mean(children: Sequence[Sequence[int]], leaf_value: Mapping[int, float]) -> list[float]:
    """Mean over all leaves below each node (equation 9); leaves keep their own value."""
    total = [0.0] * len(children)
    count = [0] * len(children)
    for leaf, v in leaf_value.items():
        total[leaf], count[leaf] = v, 1
    for i in range(len(children) - 1, -1, -1):
        for c in children[i]:
            total[i] += total[c]
            count[i] += count[c]
    return [t / c for t, c in zip(total, count, strict=True)]


def check_scale(ddof: int, eps: float) -> None:
    """Raise ValueError unless `ddof` is 0 or 1 and `eps` is finite and >= 0."""
    if ddof not in (0, 1):
        raise ValueError(f"ddof={ddof} is not a standard deviation known here; give 0 (population) or 1 (sample)")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps={eps} must be finite and not negative; the usual value is 1e-6")


def check_weight(name: str, value: float) -> None:
    """Raise ValueError unless `value` is in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value} is not a weight; give a number from 0 to 1")


def leaf_values(children: Sequence[Sequence[int]], leaf_reward: Mapping[int, float]) -> dict[int, float]:
    """The rewards in index order, checked against the tree."""
    n = len(children)
    if n == 1:
        raise ValueError("parent holds the root alone; a tree needs at least one trajectory")
    for i in leaf_reward:
        if not 0 <= i < n:
            raise ValueError(f"leaf_reward names node {i}, but the nodes are 0 to {n - 1}")
        if children[i]:
            raise ValueError(
                f"leaf_reward names node {i}, which has children; rewards belong to leaves, "
                "an inner node's is the mean over its children"
            )
    values: dict[int, float] = {}
    for i, group in enumerate(children):
        if group:
            continue
        if i not in leaf_reward:
            raise ValueError(f"leaf_reward lacks node {i}, which has no children; give every leaf a reward")
        values[i] = float(leaf_reward[i])
        _check_reward(f"leaf_reward[{i}]", values[i])
    return values


def _check_reward(field: str, value: float) -> None:
    if not abs(value) <= _LARGEST:  # NaN too
        raise ValueError(f"{field}={value} cannot enter a mean; give a finite reward of at most 1e300 in size")


def exact_mean(values: Sequence[float]) -> float:
    """Mean independent of order, and exact where all values are equal."""
    return values[0] if min(values) == max(values) else math.fsum(values) / len(values)


def standardized(values: list[float], ddof: int, eps: float) -> list[float]:
    """(v - mean) / (std + eps); exactly 0 for values that are equal up to rounding, or for fewer than 2."""
    if not values:
        return []
    low, high = min(values), max(values)
    spread = high - low
    if spread <= _ROUNDING * max(abs(low), abs(high)):
        return [0.0] * len(values)
    mean = math.fsum(values) / len(values)
    # In units of the spread: squares of tiny or huge differences neither vanish nor overflow.
    unit = [(v - mean) / spread for v in values]
    std = math.sqrt(math.fsum(u * u for u in unit) / (len(values) - ddof))
    return [u / (std + eps / spread) for u in unit]
