"""The clipped surrogate with per-token bounds (ELPO equations 1, 2 and 12), as pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """clamp(l - l_old, -20, 20) on agent tokens and 0 elsewhere, in at least float32. Shapes (B, T).

    What stands at masked places, NaN and infinity included, reaches neither the value nor the gradient.
    """
    if not logprobs.shape == old_logprobs.shape == mask.shape:
        raise ValueError(
            f"logprobs {tuple(logprobs.shape)}, old_logprobs {tuple(old_logprobs.shape)} and mask "
            f"{tuple(mask.shape)} differ in shape; give (B, T) for each"
        )
    agent = mask.bool()
    dtype = torch.promote_types(torch.promote_types(logprobs.dtype, old_logprobs.dtype), torch.float32)
    new = torch.where(agent, logprobs, 0.0).to(dtype)
    old = torch.where(agent, old_logprobs, 0.0).to(dtype)
    return (new - old).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    eps_low: Tensor,
    eps_high: Tensor,
    *,
    dual_clip: float | None = None,
    gradient_above: bool = False,
) -> Tensor:
    """Per-token loss -min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A), (B, T); 0 where `mask` is 0.

    rho = exp(clamp(l - l_old, -20, 20)). All tensors are (B, T); the bounds may differ from token to token.
    The gradient is -rho A where the clip is not active and 0 where it is.

    Args:
        dual_clip: c > 1; where A < 0 the loss is at most -c A, and without gradient there (Ye et al., arXiv
            1912.09729, equation 5).
        gradient_above: where A > 0 and rho > 1 + eps_high the value stays, with the gradient -(1 + eps_high) A in
            place of 0 (AEPO: the bound is (1 + eps_high) rho / sg(rho)).
    """
    agent = mask.bool()
    ratio = log_ratio(logprobs, old_logprobs, mask).exp()
    a = torch.where(agent, advantages, 0.0).to(ratio.dtype)
    low = 1.0 - torch.where(agent, eps_low, 0.0).to(ratio.dtype)
    high = 1.0 + torch.where(agent, eps_high, 0.0).to(ratio.dtype)
    clipped = torch.clamp(ratio, min=low, max=high)
    if gradient_above:
        clipped = torch.where(ratio > high, high * (ratio / ratio.detach()), clipped)
    value = torch.minimum(ratio * a, clipped * a)
    if dual_clip is not None:
        value = torch.where(a < 0, torch.maximum(value, dual_clip * a), value)
    return -torch.where(agent, value, 0.0)


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over each row's agent tokens, (B,); 0 for a row without any. `values` is 0 where `mask` is."""
    weights = mask.to(values.dtype)
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def clip_statistics(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    eps_low: Tensor,
    eps_high: Tensor,
    usual_low: float,
) -> dict[str, float]:
    """Means over the agent tokens; to be averaged over batches with "tokens" as the weight.

    Returns:
        tokens: number of agent tokens.
        ratio_mean: mean importance ratio.
        clip_low: share of tokens with A < 0 and rho < 1 - eps_low, which the lower bound clips.
        clip_high: share of tokens with A > 0 and rho > 1 + eps_high, which the upper bound clips.
        approx_kl: the estimator rho - 1 - log rho of KL(old || new); >= 0.
        relaxed: share of tokens whose eps_low exceeds `usual_low`.
    """
    with torch.no_grad():
        agent = mask.bool()
        d = log_ratio(logprobs, old_logprobs, mask)[agent]
        ratio, a = d.exp(), advantages[agent]
        low, high = eps_low[agent].to(d.dtype), eps_high[agent].to(d.dtype)
        n = int(agent.sum())
        sums = torch.stack(
            [
                ratio.sum(),
                ((a < 0) & (ratio < 1.0 - low)).sum().to(d.dtype),
                ((a > 0) & (ratio > 1.0 + high)).sum().to(d.dtype),
                (torch.expm1(d) - d).sum(),
                (low > usual_low + 1e-6).sum().to(d.dtype),
            ]
        )
        names = ("ratio_mean", "clip_low", "clip_high", "approx_kl", "relaxed")
        means = (sums / max(n, 1)).tolist()
    return {"tokens": float(n), **dict(zip(names, means, strict=True))}
