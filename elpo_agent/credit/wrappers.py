"""Credit rules around others: they change rewards before, or advantages after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from elpo_agent.credit.advantages import exact_mean
from elpo_agent.credit.base import (
    BatchCredit,
    Credit,
    FloatArray,
    LeafCredit,
    ReferenceLogprobs,
    leaf_credits,
)
from elpo_agent.credit.rewards import RewardRule, amount_of, check_amounts
from elpo_agent.credit.rewards import rewarded as _rewarded
from elpo_agent.tree import RolloutTree

AnyCredit: TypeAlias = Credit | BatchCredit


class _Around:
    """What rules around an `inner` one share."""

    inner: AnyCredit

    @property
    def needs_reference(self) -> bool:
        """Whether the rule inside wants the reference policy's log-probabilities."""
        return bool(getattr(self.inner, "needs_reference", False))


@dataclass(frozen=True)
class Rewarded(_Around):
    """`inner` on trees whose rewards `rules` have changed, one rule after the other."""

    rules: tuple[RewardRule, ...]
    inner: AnyCredit

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """See `BatchCredit`."""
        return leaf_credits(self.inner, [_rewarded(tree, self.rules) for tree in trees], reference)


@dataclass(frozen=True)
class EntropyScaled(_Around):
    """AEPO's: A (1 + coef z_H), with z_H the z-score of a token's entropy among all agent tokens of the update.

    The authors take the entropy of the current policy in each forward pass; here it is the one at sampling time, which
    is the same before the first step. Sample standard deviation; where it is 0, every z_H is. A token of a step that
    several trajectories share counts once in each.

    Attributes:
        coef: 0.2 in the authors' code; >= 0.
    """

    inner: AnyCredit
    coef: float = 0.2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.coef) and self.coef >= 0.0):
            raise ValueError(f"entropy_scale={self.coef} must be a finite number of at least 0")

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """See `BatchCredit`."""
        credited = leaf_credits(self.inner, trees, reference)
        entropies = [
            [_entropies(tree, given.leaf) for given in leaves] for tree, leaves in zip(trees, credited, strict=True)
        ]
        every = [leaf for leaves in entropies for leaf in leaves]
        flat = np.concatenate(every) if every else np.zeros(0)
        mean = float(flat.mean()) if flat.size else 0.0
        std = float(flat.std(ddof=1)) if flat.size > 1 and flat.min() < flat.max() else 1.0
        return [
            [
                replace(given, advantages=given.advantages * (1.0 + self.coef * (own - mean) / std))
                for given, own in zip(leaves, each, strict=True)
            ]
            for leaves, each in zip(credited, entropies, strict=True)
        ]


@dataclass(frozen=True)
class PositivesWeighted(_Around):
    """Advantages above 0 times `weight`: emphasis on what went well. It changes the objective: watch the entropy.

    Attributes:
        weight: > 0; 1 changes nothing.
    """

    inner: AnyCredit
    weight: float = 1.6

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0.0):
            raise ValueError(f"positive_weight={self.weight} must be a finite number above 0; 1 changes nothing")

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """See `BatchCredit`."""
        return [
            [replace(given, advantages=self._weighted(given.advantages)) for given in leaves]
            for leaves in leaf_credits(self.inner, trees, reference)
        ]

    def _weighted(self, advantages: FloatArray) -> FloatArray:
        return np.where(advantages > 0.0, advantages * self.weight, advantages)


@dataclass(frozen=True)
class TurnAdvantages(_Around):
    """A + f - mean f on each turn, with f what its own tool feedback is worth: nothing that came before or after it.

    `TurnRewards` pays the whole trajectory for a turn, so that its advantage is spread over all turns, and only where
    trajectories of a prompt differ. Here a turn answers for itself, also where all of the prompt's trajectories failed.
    The mean is that of all turns of the prompt's trajectories, a shared one counted once in each. It changes the
    objective: a policy may learn to call fewer tools.

    Attributes:
        amounts: by kind, see `TurnRewards`; in units of advantages, so about -1 to 1.

    Raises:
        ValueError: an unknown kind, or an amount that is no finite number.
    """

    inner: AnyCredit
    amounts: Mapping[str, float]

    def __post_init__(self) -> None:
        check_amounts("turn_advantages", self.amounts)

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """See `BatchCredit`."""
        return [
            self._added(tree, leaves)
            for tree, leaves in zip(trees, leaf_credits(self.inner, trees, reference), strict=True)
        ]

    def _added(self, tree: RolloutTree, leaves: list[LeafCredit]) -> list[LeafCredit]:
        paths = [tree.path(given.leaf) for given in leaves]
        own = [[amount_of(self.amounts, tree.feedback_kinds(node)) for node in path] for path in paths]
        every = [amount for amounts in own for amount in amounts]
        mean = exact_mean(every) if every else 0.0
        return [
            replace(given, advantages=given.advantages + np.repeat(np.array(amounts) - mean, tree.token_counts(path)))
            for given, path, amounts in zip(leaves, paths, own, strict=True)
        ]


@dataclass(frozen=True)
class WithoutVoidTurns(_Around):
    """SimpleTIR's filter (Xue et al., arXiv 2509.02479): trajectories with a turn that holds neither a call nor an
    answer are not trained on. Their rewards stay in their groups' statistics, as in the authors' code."""

    inner: AnyCredit

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """See `BatchCredit`."""
        return [
            [given for given in leaves if not has_void_turn(tree, given.leaf)]
            for tree, leaves in zip(trees, leaf_credits(self.inner, trees, reference), strict=True)
        ]


def has_void_turn(tree: RolloutTree, leaf: int) -> bool:
    """Whether a turn on the path to `leaf` held neither a tool call nor an answer."""
    return any("no_action" in tree.feedback_kinds(node) for node in tree.path(leaf))


def with_rule(credit: AnyCredit, rule: RewardRule) -> AnyCredit:
    """`credit` with one more reward rule, applied after those that it has, however deep they are."""
    if isinstance(credit, Rewarded):
        return replace(credit, rules=(*credit.rules, rule))
    if isinstance(credit, EntropyScaled | PositivesWeighted | TurnAdvantages | WithoutVoidTurns):
        return replace(credit, inner=with_rule(credit.inner, rule))
    return Rewarded((rule,), credit)


def _entropies(tree: RolloutTree, leaf: int) -> FloatArray:
    steps = [tree.nodes[i].step for i in tree.path(leaf)]
    return np.concatenate([np.asarray(step.entropies, dtype=np.float64) for step in steps if step is not None])
