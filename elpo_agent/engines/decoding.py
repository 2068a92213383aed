"""One decoding step's arithmetic: next-token statistics and inverse-CDF draws, row by row."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def uniforms(seed: int, sample: int, n: int) -> NDArray[np.float64]:
    """The `n` uniforms in [0, 1) behind sample `sample` of a request: a function of (seed, sample) alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, sample]))).random(n)


def draw(logits: Tensor, temperature: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sample one token a row by inverse CDF.

    Args:
        logits: (B, V), any float type.
        temperature: (B,) float32; 0 takes the argmax and reports statistics at temperature 1.
        u: (B,) float64 in [0, 1).
    Returns:
        ids (B,) int64; their log-probabilities (B,) float32; entropies in nats of the whole distribution (B,)
        float32, both after temperature.
    """
    greedy = temperature == 0
    scale = torch.where(greedy, torch.ones_like(temperature), temperature)
    logp = torch.log_softmax(logits.float() / scale[:, None], dim=-1)
    p = logp.exp()
    # The floor only turns 0 * -inf (tokens the model forbids) into 0.
    entropy = -(p * logp.clamp_min(torch.finfo(torch.float32).min)).sum(-1)
    cdf = p.double().cumsum(-1)
    total = cdf[:, -1]
    # Below the total even after rounding, so that the search ends on a token of positive probability.
    target = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    # NaN leads past the end; it shows in the log-probability.
    ids = torch.searchsorted(cdf, target[:, None], right=True)[:, 0].clamp_max(logits.shape[-1] - 1)
    ids = torch.where(greedy, logits.argmax(-1), ids)
    return ids, logp.gather(-1, ids[:, None])[:, 0], entropy
