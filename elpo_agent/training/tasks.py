"""Which tasks are trained on, in which order: a pure function of the seed and of how many came before."""

from __future__ import annotations

import numpy as np


def update_indices(update: int, prompts: int, size: int | None, seed: int) -> list[int]:
    """Task indices of update `update` (from 0), where every update takes `prompts`; see `task_indices`."""
    return task_indices(update * prompts, prompts, size, seed)


def task_indices(start: int, count: int, size: int | None, seed: int) -> list[int]:
    """Indices of the next tasks of a run.

    Args:
        start: how many it took before.
        count: how many.
        size: tasks in the source, or None for an endless one.
        seed: of the run.

    Returns:
        Endless sources are read without repetition, from a place that depends on the seed; finite ones epoch by
        epoch, each epoch in a shuffled order of its own.
    """
    if size is None:
        offset = int(np.random.default_rng([seed, 1]).integers(2**30))
        return [offset + start + i for i in range(count)]
    orders: dict[int, np.ndarray] = {}
    out = []
    for position in range(start, start + count):
        epoch, place = divmod(position, size)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, 2, epoch]).permutation(size)
        out.append(int(orders[epoch][place]))
    return out
