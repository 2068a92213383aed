"""A world: the prompts, what every action does, and the linear policy's features and start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elpo_envs.exact.families import Family

GOOD, HARMLESS, REPAIRABLE, FATAL = range(4)
KIND_NAMES = ("good", "harmless", "repairable", "fatal")


@dataclass(frozen=True, eq=False)
class World:
    """One world; all its arrays are read-only.

    An agent in context c is at row c of the policy, and in the repair that belongs to context c at row C + c. In a
    repair row the good action repairs and every other one is "repairable": the repair is still to be done.

    Attributes:
        family: what it is an example of.
        seed: what it was drawn from.
        contexts: int64 (P, K); the contexts of every prompt in their order, each in [0, C).
        kinds: int8 (2C, A); what every action does: GOOD, HARMLESS, REPAIRABLE or FATAL.
        good: int64 (2C,); the one good action of every row.
        special: int64 (traps,); the contexts on which the policy starts nearly uniform.
        features: float64 (2C, d); entries N(0, 1) / sqrt(d).
        start_logits: float64 (2C, A); 0 but for the good action.
        init: the mean of the good actions' start logits, special contexts not counted.
    """

    family: Family
    seed: int
    contexts: NDArray[np.int64]
    kinds: NDArray[np.int8]
    good: NDArray[np.int64]
    special: NDArray[np.int64]
    features: NDArray[np.float64]
    start_logits: NDArray[np.float64]
    init: float

    def __post_init__(self) -> None:
        for array in (self.contexts, self.kinds, self.good, self.special, self.features, self.start_logits):
            array.setflags(write=False)

    @property
    def n_prompts(self) -> int:
        """P."""
        return int(self.contexts.shape[0])

    @property
    def steps(self) -> int:
        """K: contexts of a prompt."""
        return int(self.contexts.shape[1])

    @property
    def n_contexts(self) -> int:
        """C: contexts of the world, those of repairs not counted."""
        return self.n_rows // 2

    @property
    def n_rows(self) -> int:
        """2C: rows of the policy."""
        return int(self.kinds.shape[0])

    @property
    def n_actions(self) -> int:
        """A."""
        return int(self.kinds.shape[1])

    @property
    def spare(self) -> int:
        """S: steps that a rollout can spend on repairs."""
        return self.family.spare_steps

    def logits(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The logits (2C, A) of the linear policy with these weights (d, A): start + features @ weights."""
        return self.start_logits + self.features @ weights


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of the same shape, over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
