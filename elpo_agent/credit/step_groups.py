"""GiGPO: advantages among trajectories, and among steps that answer the same observation.

Source: Feng et al., arXiv 2505.10978, equations 3-8, and the authors' `gigpo/core_gigpo.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, get_args

import numpy as np

from elpo_agent.credit.advantages import check_scale, exact_mean, standardized
from elpo_agent.credit.base import LeafCredit, ReferenceLogprobs, valid_returns
from elpo_agent.credit.rewards import MALFORMED
from elpo_agent.tree import RolloutTree

Norm = Literal["mean_norm", "mean_std_norm"]
"""What a group's differences from the mean are divided by: nothing, or the sample standard deviation + eps."""


def discounted_returns(rewards: Sequence[float], gamma: float) -> list[float]:
    """R_t = sum over k of gamma^k r_{t+k}, one for each step of a trajectory."""
    out: list[float] = []
    later = 0.0
    for reward in reversed(rewards):
        later = reward + gamma * later
        out.append(later)
    return out[::-1]


@dataclass(frozen=True)
class StepGroupCredit:
    """A = A_E + omega A_S, the episode's and the step's relative advantage.

    Episode group: the prompt's trajectories, each counted once. Step group: steps of the prompt with the same anchor
    observation, which is what precedes the step: the prompt, or the feedback on the turn before, token for token. The
    prompt is one for all trajectories; later anchors are often singletons in tool use, and then A_S = 0. With
    `similarity` a step joins the prompt's first group whose first anchor is that alike, which depends on their order.

    An invalid action is a turn with a malformed or unknown call, or with neither call nor answer. As in the authors'
    code its penalty is subtracted from the own step's episode reward and discounted return, and reaches no other step;
    a trajectory enters the episode group's statistics with the reward of its first step. Where these are all equal the
    standard deviation counts as 1: the authors divide by eps, which makes -1e5 of a penalty of 0.1.

    Attributes:
        gamma: discount of the step returns, in [0, 1].
        omega: weight of the step level; >= 0.
        norm: see `Norm`.
        invalid_penalty: what an invalid action costs; >= 0.
        eps: added to standard deviations; >= 0.
        similarity: least `difflib` ratio of two anchors' tokens, in (0, 1); the authors use 0.95, of characters. None
            for equal anchors.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    gamma: float = 0.95
    omega: float = 1.0
    norm: Norm = "mean_norm"
    invalid_penalty: float = 0.1
    eps: float = 1e-6
    similarity: float | None = None

    def __post_init__(self) -> None:
        check_scale(1, self.eps)
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma={self.gamma} is no discount; give a number from 0 to 1")
        if self.norm not in get_args(Norm):
            raise ValueError(f"norm={self.norm!r} is unknown; choose {', '.join(get_args(Norm))}")
        if self.similarity is not None and not 0.0 < self.similarity < 1.0:
            raise ValueError(
                f"similarity={self.similarity} is no ratio between 0 and 1; None groups equal anchors only"
            )
        for name in ("omega", "invalid_penalty"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"{name}={value} must be a finite number of at least 0")

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """See `BatchCredit`."""
        return [self._tree(tree) for tree in trees]

    def _tree(self, tree: RolloutTree) -> list[LeafCredit]:
        returns = valid_returns(tree)
        paths = {leaf: tree.path(leaf) for leaf in returns}
        level = self._step_level(tree, paths)
        first = [value - self._penalty(tree, paths[leaf][0]) for leaf, value in returns.items()]
        mean, std = _statistics(first)
        scale = std + self.eps if self.norm == "mean_std_norm" else 1.0
        return [
            LeafCredit(
                leaf,
                np.repeat(
                    [
                        (returns[leaf] - self._penalty(tree, node) - mean) / scale + self.omega * level[leaf, node]
                        for node in path
                    ],
                    tree.token_counts(path),
                ),
            )
            for leaf, path in paths.items()
        ]

    def _step_level(self, tree: RolloutTree, paths: Mapping[int, Sequence[int]]) -> dict[tuple[int, int], float]:
        """A_S of every (leaf, node on its path)."""
        values: dict[tuple[int, int], float] = {}
        groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for leaf, path in paths.items():
            rewards = [_step_reward(tree, node) for node in path[:-1]] + [tree.outcome(leaf).reward]
            for node, value in zip(path, discounted_returns(rewards, self.gamma), strict=True):
                values[leaf, node] = value - self._penalty(tree, node)
                groups.setdefault(self._key(groups, _anchor(tree, node)), []).append((leaf, node))
        level: dict[tuple[int, int], float] = {}
        for members in groups.values():
            group = [values[member] for member in members]
            level.update(zip(members, self._relative(group), strict=True))
        return level

    def _key(self, groups: Iterable[tuple[int, ...]], anchor: tuple[int, ...]) -> tuple[int, ...]:
        """The anchor of the group that a step after `anchor` belongs to."""
        if self.similarity is not None:
            for known in groups:
                if SequenceMatcher(None, anchor, known).ratio() >= self.similarity:
                    return known
        return anchor

    def _relative(self, values: list[float]) -> list[float]:
        if self.norm == "mean_std_norm":
            return standardized(values, 1, self.eps)
        mean = exact_mean(values)
        return [value - mean for value in values]

    def _penalty(self, tree: RolloutTree, node: int) -> float:
        step = tree.nodes[node].step
        return self.invalid_penalty if step is not None and not MALFORMED.isdisjoint(step.kinds) else 0.0


def _statistics(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, 1 for equal values; a single value has no statistics: 0 and 1."""
    if len(values) < 2:
        return 0.0, 1.0
    mean = exact_mean(values)
    if not any(standardized(list(values), 1, 0.0)):
        return mean, 1.0
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _step_reward(tree: RolloutTree, node: int) -> float:
    step = tree.nodes[node].step
    return 0.0 if step is None else step.reward


def _anchor(tree: RolloutTree, node: int) -> tuple[int, ...]:
    """What the step at `node` answers: the prompt, or the feedback on the turn before."""
    before = tree.nodes[tree.nodes[node].parent].step
    return tree.prompt_ids if before is None else before.feedback_ids
