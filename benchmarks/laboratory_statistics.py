"""Learning curves as numbers, and paired differences between algorithms with their intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


def mean_while_spending(success: Floats, cost: NDArray[np.int64], budget: float) -> Floats:
    """Mean exact success while the first `budget` units are spent: float64 (R,).

    The policy that is sampled from counts for what sampling from it costs; where a run spent less, its last policy
    stands for the rest.

    Args:
        success: (R, U + 1); before the first update and after each.
        cost: (R, U); what each update's rollouts cost: rollouts, or generated steps.
    """
    ends = np.minimum(np.cumsum(cost, axis=1), budget)
    starts = np.concatenate([np.zeros((len(ends), 1)), ends[:, :-1]], axis=1)
    rest = budget - ends[:, -1]
    return np.asarray(((success[:, :-1] * (ends - starts)).sum(axis=1) + success[:, -1] * rest) / budget)


@dataclass(frozen=True)
class Difference:
    """A mean over paired seeds with its 95% interval (Student's t).

    Attributes:
        mean: over the seeds.
        half_width: of the interval; infinite for a single seed.
    """

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Floats) -> Difference:
        """Of paired differences (n,), n >= 1."""
        n = len(values)
        if n == 1:
            return cls(float(values[0]), math.inf)
        quantile = float(stats.t.ppf(0.975, n - 1))
        return cls(float(values.mean()), quantile * float(values.std(ddof=1)) / math.sqrt(n))

    @property
    def verdict(self) -> str:
        """ "win" or "loss" where the interval lies above or below 0, else "tie"."""
        if self.mean - self.half_width > 0.0:
            return "win"
        return "loss" if self.mean + self.half_width < 0.0 else "tie"
