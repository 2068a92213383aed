"""What any clipped objective can take beside its bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from elpo_agent.objective.base import Aggregation

KLEstimator = Literal["k1", "k2", "k3"]
"""Estimators of KL(policy || reference) per token, with d = l_ref - l: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - 1 - d."""


@dataclass(frozen=True)
class LossOptions:
    """Terms of the loss that algorithms share.

    Attributes:
        aggregation: see `Aggregation`.
        length: the constant of the aggregation "constant", in tokens; >= 1, None for the others.
        dual_clip: c > 1: where A < 0 the token loss is at most -c A (PPO's dual clip); None for no such bound.
        kl_coef: weight of the KL term towards the reference policy in the loss; >= 0, 0 needs no reference.
        kl: its estimator.
        importance_cap: truncated importance sampling against engine mismatch: the surrogate is multiplied by
            min(pi_learner_old / pi_engine, cap), and ratios taken against the learner's own old log-probabilities;
            None trusts the engine's.
        entropy_coef: weight of the policy's mean entropy, which is maximised; >= 0.
        gradient_above: AEPO's: where A > 0 and the ratio is above 1 + eps_high the value is clipped, but the gradient
            stays, with the coefficient 1 + eps_high in place of the ratio.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    aggregation: Aggregation = "seq-mean-token-mean"
    length: int | None = None
    dual_clip: float | None = None
    kl_coef: float = 0.0
    kl: KLEstimator = "k3"
    importance_cap: float | None = None
    entropy_coef: float = 0.0
    gradient_above: bool = False

    def __post_init__(self) -> None:
        if self.aggregation not in get_args(Aggregation):
            raise ValueError(f"aggregation={self.aggregation!r} is unknown; choose {', '.join(get_args(Aggregation))}")
        if (self.aggregation == "constant") != (self.length is not None):
            raise ValueError(f"length={self.length} with aggregation={self.aggregation!r}: 'constant' alone needs it")
        if self.length is not None and self.length < 1:
            raise ValueError(f"length={self.length} cannot divide a sum of token losses; give at least 1")
        if self.dual_clip is not None and not (math.isfinite(self.dual_clip) and self.dual_clip > 1.0):
            raise ValueError(f"dual_clip={self.dual_clip} must be a finite number above 1, or None")
        if self.importance_cap is not None and not (math.isfinite(self.importance_cap) and self.importance_cap > 0.0):
            raise ValueError(f"importance_cap={self.importance_cap} must be a finite number above 0, or None")
        if self.kl not in get_args(KLEstimator):
            raise ValueError(f"kl={self.kl!r} is unknown; choose {', '.join(get_args(KLEstimator))}")
        for name in ("kl_coef", "entropy_coef"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"{name}={value} must be a finite number of at least 0")

    @property
    def ratios_only(self) -> bool:
        """Whether tokens without advantage add nothing to the gradient."""
        return self.kl_coef == 0.0 and self.entropy_coef == 0.0


def row_weights(options: LossOptions, lengths: Sequence[int]) -> list[float]:
    """What each token loss of a trajectory counts in a mini-batch's loss.

    Args:
        lengths: agent tokens of every trajectory of the mini-batch; one without any gets 0.
    """
    count, total = len(lengths), sum(lengths)
    match options.aggregation:
        case "seq-mean-token-mean":
            return [1.0 / (count * n) if n else 0.0 for n in lengths]
        case "token-mean":
            return [1.0 / total if n else 0.0 for n in lengths]
        case "seq-mean-token-sum":
            return [1.0 / count if n else 0.0 for n in lengths]
        case "constant":
            assert options.length is not None
            return [1.0 / (count * options.length) if n else 0.0 for n in lengths]
