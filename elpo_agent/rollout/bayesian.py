"""Bayesian bisection: where a trajectory became irrecoverable, from probes that may fail by chance.

A binary search takes an anchor for irrecoverable as soon as its few probes fail. Here failures are weighed: the belief
about the first irrecoverable step is updated by Bayes' rule after every anchor, and the next anchor is the one whose
outcome tells most about it (noisy bisection; Horstein 1963, Jedynak, Frazier and Sznitman 2012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

Recovery = float | tuple[float, float]
"""How often a suffix from a prefix that can be recovered succeeds: a known probability, or a Beta prior's (a, b)."""

# Anchors whose information differs by less are equal but for rounding; the earliest of them is taken.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class BayesianSearch:
    """How a trajectory is searched.

    Attributes:
        recovery: the probability p in (0, 1) with which a suffix from a recoverable prefix succeeds, or (a, b), both
            above 0, of a Beta prior over it. One p for all recoverable prefixes of the trajectory. The default expects
            a quarter: at p from 0.1 to 0.8 it localizes better than a uniform prior, or as well.
        certainty: the search ends once one step is the first irrecoverable one with at least this probability;
            in (0, 1].
        max_probes: suffixes per search at most; None for what the budget has left.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    recovery: Recovery = (1.0, 3.0)
    certainty: float = 0.9
    max_probes: int | None = None

    def __post_init__(self) -> None:
        check_recovery(self.recovery)
        if not 0.0 < self.certainty <= 1.0:
            raise ValueError(f"certainty={self.certainty} is no probability to stop at; give one in (0, 1]")
        if self.max_probes is not None and self.max_probes < 1:
            raise ValueError(f"max_probes={self.max_probes} makes no probe; give at least 1, or None for no limit")


@dataclass(frozen=True)
class StepBelief:
    """What probes say about the first irrecoverable step t of a trajectory with K candidates.

    t is one of 1..K + 1 (K + 1: the final answer step), all equally likely beforehand. A probe from anchor m succeeds
    with probability p where m < t, and never where m >= t; p is known or has a Beta prior, over which sums are exact.

    Attributes:
        successes, failures: of the probes from each anchor 1..K, at m - 1.
        recovery: see `BayesianSearch`.

    Raises:
        ValueError: the counts are of different lengths, or `recovery` is out of range.
    """

    successes: tuple[int, ...]
    failures: tuple[int, ...]
    recovery: Recovery = (1.0, 3.0)

    def __post_init__(self) -> None:
        check_recovery(self.recovery)
        if len(self.successes) != len(self.failures):
            raise ValueError(f"successes={self.successes} and failures={self.failures} are not of the same anchors")

    @classmethod
    def before(cls, k: int, recovery: Recovery = (1.0, 3.0)) -> StepBelief:
        """The belief about a trajectory of `k` >= 0 candidates before any probe."""
        return cls((0,) * k, (0,) * k, recovery)

    def after(self, m: int, successes: int, failures: int) -> StepBelief:
        """The belief after so many more probes from anchor `m` in 1..K."""
        if not 1 <= m <= len(self.successes):
            raise ValueError(f"m={m} is no anchor; give 1 to {len(self.successes)}")
        return replace(
            self,
            successes=_raised(self.successes, m - 1, successes),
            failures=_raised(self.failures, m - 1, failures),
        )

    def probabilities(self) -> FloatArray:
        """P(t | probes) for t = 1..K + 1, float64 (K + 1,)."""
        return self._probabilities.copy()

    @cached_property
    def _probabilities(self) -> FloatArray:
        total, failed = sum(self.successes), self._failed_before()
        earliest = max((m for m, s in enumerate(self.successes, start=1) if s), default=0) + 1
        if isinstance(self.recovery, tuple):
            a, b = self.recovery
            # log B(a + S, b + F) without what is the same for all t.
            logs = np.array([math.lgamma(b + f) - math.lgamma(a + b + total + f) for f in failed])
        else:
            logs = np.array(failed) * math.log1p(-self.recovery)
        logs[: earliest - 1] = -np.inf
        weights = np.exp(logs - logs.max())
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    def information(self) -> FloatArray:
        """Mutual information in nats between t and the outcome of one more probe from anchor 1..K, float64 (K,)."""
        belief = self._probabilities
        total, failed = sum(self.successes), np.array(self._failed_before(), dtype=np.float64)
        if isinstance(self.recovery, tuple):
            a, b = self.recovery
            chance = (a + total) / (a + b + total + failed)
        else:
            chance = np.full(failed.shape, self.recovery)
        # Sums over t > m for m = 1..K.
        success = _sum_after(belief * chance)
        known = _sum_after(belief * _binary_entropy(chance))
        return _binary_entropy(np.clip(success, 0.0, 1.0)) - known

    def best_anchor(self) -> int:
        """The anchor in 1..K whose probe tells most about t; the earliest of equal ones."""
        information = self.information()
        return int(np.flatnonzero(information >= information.max() - _ROUNDING)[0]) + 1

    def likeliest(self) -> tuple[int, float]:
        """The likeliest t, and its probability; the earliest of equal ones."""
        belief = self._probabilities
        t = int(np.flatnonzero(belief >= belief.max() - _ROUNDING)[0]) + 1
        return t, float(belief[t - 1])

    def _failed_before(self) -> list[int]:
        """For t = 1..K + 1, the failures from anchors that are recoverable if t is the step."""
        before = [0]
        for f in self.failures:
            before.append(before[-1] + f)
        return before


def as_recovery(given: float | Sequence[float]) -> Recovery:
    """A recovery as configuration files give it: a number, or a list of two. Raises ValueError for others."""
    if isinstance(given, (int, float)):
        return float(given)
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise ValueError(f"recovery={given!r} must be a probability, or the two parameters of a Beta prior")
    a, b = given
    return float(a), float(b)


def check_recovery(recovery: Recovery) -> None:
    """Raise ValueError unless `recovery` is a probability in (0, 1), or two finite numbers above 0."""
    if isinstance(recovery, tuple):
        if len(recovery) != 2 or not all(math.isfinite(x) and x > 0.0 for x in recovery):
            raise ValueError(f"recovery={recovery} is no Beta prior; give two finite numbers above 0")
    elif not 0.0 < recovery < 1.0:
        raise ValueError(f"recovery={recovery} must be a probability in (0, 1), or the (a, b) of a Beta prior")


def _raised(counts: tuple[int, ...], i: int, by: int) -> tuple[int, ...]:
    return (*counts[:i], counts[i] + by, *counts[i + 1 :])


def _sum_after(values: FloatArray) -> FloatArray:
    """(K + 1,) -> (K,): at m - 1 the sum over t > m, that is values[m:]."""
    return np.asarray(np.cumsum(values[::-1])[::-1][1:], dtype=np.float64)


def _binary_entropy(p: FloatArray) -> FloatArray:
    """Entropy in nats of a yes-or-no outcome of probability p; 0 at both ends."""
    inner = np.clip(p, 1e-300, 1.0)
    other = np.clip(1.0 - p, 1e-300, 1.0)
    return np.asarray(-(p * np.log(inner) + (1.0 - p) * np.log(other)), dtype=np.float64)
