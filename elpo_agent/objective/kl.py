"""Estimators of the KL divergence from the policy to a reference, token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from elpo_agent.objective.options import KLEstimator
from elpo_agent.objective.surrogate import log_ratio


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, estimator: KLEstimator) -> Tensor:
    """KL(policy || reference) per token, (B, T), from samples of the policy; 0 where `mask` is 0.

    With d = clamp(l_ref - l, -20, 20): k1 = -d, k2 = d^2 / 2, k3 = exp(d) - 1 - d (Schulman, "Approximating KL
    divergence", 2020). The gradient goes through l: 1, -d and 1 - exp(d). On average over the policy's own samples
    k2's is the divergence's gradient, k3's that of the reverse divergence, and k1's is 0: k1 is meant for rewards.

    Args:
        logprobs, reference_logprobs: (B, T), of the same tokens.
        mask: (B, T), 1 on agent tokens; what stands elsewhere does not matter.
    """
    d = log_ratio(reference_logprobs, logprobs, mask)
    match estimator:
        case "k1":
            return -d
        case "k2":
            return d.square() / 2.0
        case "k3":
            return torch.expm1(d) - d
