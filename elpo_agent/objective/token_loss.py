"""The loss of a batch: the clipped surrogate with the terms that `LossOptions` adds, weighted row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from elpo_agent.objective.base import TokenBatch
from elpo_agent.objective.importance import importance_weights
from elpo_agent.objective.kl import kl_estimate
from elpo_agent.objective.options import LossOptions
from elpo_agent.objective.surrogate import clip_statistics, clipped_surrogate, log_ratio, sequence_mean


def weighted_loss(
    logprobs: Tensor,
    batch: TokenBatch,
    options: LossOptions,
    *,
    usual_low: float,
    entropies: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Sum over rows i and their agent tokens t of weights_i * (w_it * surrogate_it + kl_coef * kl_it - entropy_coef *
    H_it), with w the truncated importance weights; a term whose option is off is absent.

    Args:
        logprobs: (B, T) under the current parameters; at least float32 is computed in, and float64 stays.
        batch: the rows. Where `weights` is None, a row counts by the mean over its agent tokens.
        usual_low: see `clip_statistics`.
        entropies: (B, T), nats.
    Returns:
        The loss, and `clip_statistics` with the means over agent tokens of what is on: dual_clipped (share with A < 0
        and rho above the dual clip), importance_mean, importance_max, importance_capped, kl, entropy.

    Raises:
        ValueError: a term is on, and the tensor that it needs is missing.
    """
    terms = (logprobs, batch.old_logprobs, batch.advantages, batch.mask, batch.eps_low, batch.eps_high)
    losses = clipped_surrogate(*terms, dual_clip=options.dual_clip, gradient_above=options.gradient_above)
    figures = clip_statistics(*terms, usual_low=usual_low)
    agent = batch.mask.bool()
    tokens = max(figures["tokens"], 1.0)
    if options.dual_clip is not None:
        figures["dual_clipped"] = _dual_clipped(logprobs, batch, options.dual_clip) / tokens
    if options.importance_cap is not None:
        engine = _given(batch.engine_logprobs, "engine_logprobs", f"importance_cap={options.importance_cap}")
        weights, share = importance_weights(batch.old_logprobs, engine, batch.mask, options.importance_cap)
        losses = losses * weights
        figures |= share
    if options.kl_coef > 0.0:
        reference = _given(batch.reference_logprobs, "reference_logprobs", f"kl_coef={options.kl_coef}")
        kl = kl_estimate(logprobs, reference, batch.mask, options.kl)
        losses = losses + options.kl_coef * kl
        figures["kl"] = float(kl.detach().sum()) / tokens
    if options.entropy_coef > 0.0:
        entropy = torch.where(agent, _given(entropies, "entropies", f"entropy_coef={options.entropy_coef}"), 0.0)
        losses = losses - options.entropy_coef * entropy.to(losses.dtype)
        figures["entropy"] = float(entropy.detach().sum()) / tokens
    if batch.weights is None:
        return sequence_mean(losses, batch.mask).sum(), figures
    return (losses.sum(dim=1) * batch.weights.to(losses.dtype)).sum(), figures


def _dual_clipped(logprobs: Tensor, batch: TokenBatch, bound: float) -> float:
    """Agent tokens whose loss the dual clip bounds."""
    with torch.no_grad():
        ratio = log_ratio(logprobs, batch.old_logprobs, batch.mask).exp()
        return float((batch.mask.bool() & (batch.advantages < 0) & (ratio > bound)).sum())


def _given(values: Tensor | None, name: str, option: str) -> Tensor:
    if values is None:
        raise ValueError(f"{option} needs {name}, and none are given")
    return values
