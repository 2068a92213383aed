"""Entropies where an engine gives the most probable tokens only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def top_k_entropies(logprobs: NDArray[np.floating]) -> NDArray[np.float32]:
    """Entropy in nats of the k most probable tokens, all other tokens counted as one.

    A lower bound of the whole distribution's entropy. What it lacks is r * H(others), with r the probability of all
    other tokens and H(others) their own entropy, at most the logarithm of their number; so nothing where r = 0.

    Args:
        logprobs: (T, k), log-probabilities of the k most probable tokens at each position; minus infinity where there
            are fewer.
    Returns:
        (T,) float32.
    """
    logp = logprobs.astype(np.float64)
    p = np.exp(logp)
    # The floor only turns 0 * -inf into 0.
    listed = -(p * np.maximum(logp, np.finfo(np.float64).min)).sum(axis=1)
    others = np.clip(1.0 - p.sum(axis=1), 0.0, 1.0)
    # float32 log-probabilities of all there is add up to 1 within 1e-6 or so.
    others = np.where(others < 1e-6, 0.0, others)
    entropies = listed - others * np.log(np.where(others > 0.0, others, 1.0))
    return np.asarray(entropies, dtype=np.float32)
