"""The exact first irrecoverable step of rollouts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from elpo_envs.exact.dynamics import Rollouts
from elpo_envs.exact.values import Floats, optimal_values, prefix_values
from elpo_envs.exact.world import GOOD, World


def first_irrecoverable(values: Floats, rollouts: Rollouts, threshold: float = 0.0) -> NDArray[np.int64]:
    """The smallest m whose prefix of m steps succeeds with a probability of at most `threshold`: int64 (B,).

    It is from 0, where the rollout began so, to the rollout's length, and -1 where there is none. Step m, counted from
    1, is the first irrecoverable one. With the threshold 0 every failure has one and no success has; with a higher one
    a success may have gone through a prefix that was nearly lost.

    Args:
        values: (P, K + 1, S + 1, 2); those of a policy for what is irrecoverable under it, or `optimal_values` for
            what no policy can recover.
        threshold: in [0, 1).

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0.0 <= threshold < 1.0:
        raise ValueError(f"threshold={threshold!r} must be at least 0 and less than 1")
    lost = prefix_values(values, rollouts.prompts, rollouts.states) <= threshold
    return np.where(lost.any(axis=1), lost.argmax(axis=1), -1)


def first_unsolvable(world: World, rollouts: Rollouts) -> NDArray[np.int64]:
    """The smallest m after which no policy at all could still succeed: int64 (B,), -1 where there is none."""
    return first_irrecoverable(optimal_values(world), rollouts)


def first_error(world: World, rollouts: Rollouts) -> NDArray[np.int64]:
    """The first step, from 1, whose action is not the good one: int64 (B,), 0 where all are."""
    wrong = (rollouts.rows >= 0) & (world.kinds[rollouts.rows, rollouts.actions] != GOOD)
    if wrong.shape[1] == 0:
        return np.zeros(len(wrong), dtype=np.int64)
    return np.where(wrong.any(axis=1), wrong.argmax(axis=1) + 1, 0)
