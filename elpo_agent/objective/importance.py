"""Truncated importance weights between the policy that sampled and the learner's own old policy."""

from __future__ import annotations

import torch
from torch import Tensor

from elpo_agent.objective.surrogate import log_ratio


def importance_weights(
    old_logprobs: Tensor, engine_logprobs: Tensor, mask: Tensor, cap: float
) -> tuple[Tensor, dict[str, float]]:
    """min(exp(l_old - l_engine), cap) per token, (B, T), without gradient, and statistics; 1 where `mask` is 0.

    l_old - l_engine is cut to [-20, 20] first. Truncation bounds the variance at the price of a bias towards 0
    (Ionides, "Truncated importance sampling", 2008).

    Returns:
        The weights, and over the agent tokens importance_mean (of the weights), importance_max (before the cap) and
        importance_capped (share above it).
    """
    with torch.no_grad():
        ratio = log_ratio(old_logprobs, engine_logprobs, mask).exp()
        weights = ratio.clamp(max=cap)
        agent = mask.bool()
        of_tokens = ratio[agent]
        n = max(of_tokens.numel(), 1)
        figures = {
            "importance_mean": float(weights[agent].sum()) / n,
            "importance_max": float(of_tokens.max()) if of_tokens.numel() else 0.0,
            "importance_capped": float((of_tokens > cap).sum()) / n,
        }
    return torch.where(agent, weights, 1.0), figures
