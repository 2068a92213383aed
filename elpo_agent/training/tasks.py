"""Which tasks an update trains on: a pure function of (seed, update), so that resuming needs no cursor."""

from __future__ import annotations

import numpy as np


def update_indices(update: int, prompts: int, size: int | None, seed: int) -> list[int]:
    """Task indices of one update.

    Args:
        update: from 0.
        prompts: how many.
        size: tasks in the source, or None for an endless one.
        seed: of the run.

    Returns:
        Endless sources are read without repetition, from a place that depends on the seed; finite ones epoch by
        epoch, each epoch in a shuffled order of its own.
    """
    start = update * prompts
    if size is None:
        offset = int(np.random.default_rng([seed, 1]).integers(2**30))
        return [offset + start + i for i in range(prompts)]
    orders: dict[int, np.ndarray] = {}
    out = []
    for position in range(start, start + prompts):
        epoch, place = divmod(position, size)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, 2, epoch]).permutation(size)
        out.append(int(orders[epoch][place]))
    return out
