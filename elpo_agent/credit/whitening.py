"""REINFORCE++: returns of single tokens, whitened over all agent tokens of the update.

Source: Hu et al., arXiv 2501.03262, and OpenRLHF's estimators `reinforce` and `reinforce_baseline`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from elpo_agent.credit.advantages import exact_mean
from elpo_agent.credit.base import FloatArray, LeafCredit, ReferenceLogprobs, valid_returns
from elpo_agent.tree import RolloutTree

_LEAST_VARIANCE = 1e-8


def whiten(values: FloatArray, unbiased: bool = False) -> FloatArray:
    """(v - mean) / sqrt(max(var, 1e-8)) with the population variance.

    Args:
        values: finite, (n,).
        unbiased: verl's flavour instead: the sample variance, and sqrt(var + 1e-8).

    Returns:
        float64 (n,). Equal values give exactly 0, and so does a single one.
    """
    if values.size < 2 or values.min() == values.max():
        return np.zeros(values.size)
    centred = values - values.mean()
    if unbiased:
        return np.asarray(centred / math.sqrt(float(values.var(ddof=1)) + _LEAST_VARIANCE))
    return np.asarray(centred / math.sqrt(max(float(values.var()), _LEAST_VARIANCE)))


def returns_to_go(token_rewards: Sequence[FloatArray], step_rewards: Sequence[float]) -> list[FloatArray]:
    """Undiscounted sum of what a token and all later ones of its trajectory get; tool tokens stand for nothing.

    Args:
        token_rewards: for each step (T,), what its tokens get themselves.
        step_rewards: what each step gets at its end.

    Returns:
        float64 (T,) for each step.
    """
    out: list[FloatArray] = []
    later = 0.0
    for tokens, at_end in zip(reversed(token_rewards), reversed(step_rewards), strict=True):
        later += at_end
        step = np.cumsum(tokens[::-1])[::-1] + later
        later = float(step[0]) if step.size else later
        out.append(step)
    return out[::-1]


@dataclass(frozen=True)
class WhitenedCredit:
    """Returns-to-go (gamma 1) with a KL penalty in the reward, whitened over all agent tokens of the update.

    The reward of a step comes at its last token, the outcome's at the trajectory's. A token of a step that several
    trajectories share counts once in each.

    Attributes:
        kl_coef: beta >= 0; each token gets -beta (l_old - l_ref), the k1 estimate, of its sampling-time and reference
            log-probabilities. 0 needs no reference.
        group_baseline: subtract the mean return of the prompt's trajectories first (`reinforce_baseline`). One alone
            then has an advantage of 0 before whitening.
        unbiased: see `whiten`.

    Raises:
        ValueError: `kl_coef` is out of range.
    """

    kl_coef: float = 0.01
    group_baseline: bool = False
    unbiased: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.kl_coef) and self.kl_coef >= 0.0):
            raise ValueError(f"kl_coef={self.kl_coef} must be a finite number of at least 0; OpenRLHF uses 0.01")

    @property
    def needs_reference(self) -> bool:
        """Whether `assign_batch` wants the reference policy's log-probabilities."""
        return self.kl_coef > 0.0

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """See `BatchCredit`.

        Raises:
            ValueError: a return is not finite, or `reference` is missing though `kl_coef` asks for it.
        """
        if self.needs_reference and reference is None:
            raise ValueError(f"kl_coef={self.kl_coef} needs the reference policy's log-probabilities; set it to 0")
        raw = [self._raw(tree, reference if self.needs_reference else None) for tree in trees]
        every = [leaf.advantages for leaves in raw for leaf in leaves]
        flat = whiten(np.concatenate(every) if every else np.zeros(0), self.unbiased)
        parts = iter(np.split(flat, np.cumsum([values.size for values in every])[:-1]) if every else [])
        return [[replace(leaf, advantages=next(parts)) for leaf in leaves] for leaves in raw]

    def _raw(self, tree: RolloutTree, reference: ReferenceLogprobs | None) -> list[LeafCredit]:
        """Returns-to-go before whitening."""
        returns = valid_returns(tree)
        baseline = exact_mean(list(returns.values())) if self.group_baseline and returns else 0.0
        out: list[LeafCredit] = []
        for leaf in returns:
            steps = [step for node in tree.path(leaf) if (step := tree.nodes[node].step) is not None]
            rewards = [step.reward for step in steps[:-1]] + [tree.outcome(leaf).reward - baseline]
            tokens = [np.zeros(len(step.ids)) for step in steps]
            if reference is not None:
                for penalty, step, expected in zip(tokens, steps, reference(tree, leaf), strict=True):
                    penalty -= self.kl_coef * (step.logprobs.astype(np.float64) - expected)
            out.append(LeafCredit(leaf, np.concatenate(returns_to_go(tokens, rewards))))
        return out
