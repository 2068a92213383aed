"""Worlds drawn from a seed, with a start policy of a given success."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from elpo_envs.exact.families import Family
from elpo_envs.exact.values import mean_success
from elpo_envs.exact.world import FATAL, GOOD, HARMLESS, REPAIRABLE, World, softmax

_CONTEXTS, _KINDS, _LOGITS, _FEATURES = range(4)  # streams of random numbers that do not depend on one another
_LOWEST, _HIGHEST = -30.0, 60.0
_HALVINGS = 100


def build_world(family: Family, seed: int = 0) -> World:
    """The world of that family and seed; equal ones are equal in every process.

    Contexts, kinds, start logits and features come from streams of their own, so that families which differ in
    one of them alone share the others. The mean start logit of the good actions is found by bisection, such that
    the mean success over the prompts is the family's `start_success`.

    Args:
        seed: >= 0.

    Raises:
        ValueError: the seed is negative, or no start logits give the family's start success.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed={seed!r} must be an integer of at least 0")
    contexts = _draw_contexts(family, _stream(seed, _CONTEXTS))
    kinds, good = _draw_kinds(family, _stream(seed, _KINDS))
    n_rows, dim = kinds.shape[0], family.feature_dim
    features = _stream(seed, _FEATURES).standard_normal((n_rows, dim)) / np.sqrt(dim)
    offsets = _stream(seed, _LOGITS).standard_normal((n_rows,))
    world = World(
        family=family,
        seed=seed,
        contexts=contexts,
        kinds=kinds,
        good=good,
        special=np.arange(family.traps),
        features=features,
        start_logits=np.zeros(kinds.shape),
        init=0.0,
    )
    init = _solve_init(world, offsets)
    return replace(world, start_logits=_start_logits(world, offsets, init), init=init)


def _stream(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, number]))


def _draw_contexts(family: Family, rng: np.random.Generator) -> NDArray[np.int64]:
    n, steps = family.n_prompts, family.steps
    if not family.shared:
        return np.arange(n * steps).reshape(n, steps)
    ordinary = np.arange(family.traps, family.n_contexts)
    contexts = np.stack([rng.permutation(ordinary)[:steps] for _ in range(n)])
    if family.traps:
        places = rng.integers(max(1, steps // 4), size=n)
        contexts[np.arange(n), places] = rng.integers(family.traps, size=n)
    return contexts


def _draw_kinds(family: Family, rng: np.random.Generator) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    shape = (family.total_contexts, family.n_actions)
    luck = rng.random(shape)
    kinds = np.full(shape, HARMLESS, dtype=np.int8)
    kinds[luck < family.fatal + family.repairable] = REPAIRABLE
    kinds[luck < family.fatal] = FATAL
    kinds = np.concatenate([kinds, np.full(shape, REPAIRABLE, dtype=np.int8)])
    good = rng.integers(family.n_actions, size=len(kinds))
    kinds[np.arange(len(kinds)), good] = GOOD
    return kinds, good


def _start_logits(world: World, offsets: NDArray[np.float64], init: float) -> NDArray[np.float64]:
    wanted = init + offsets
    wanted[world.special] = world.family.trap_logit
    logits = np.zeros(world.kinds.shape)
    logits[np.arange(len(logits)), world.good] = wanted
    return logits


def _solve_init(world: World, offsets: NDArray[np.float64]) -> float:
    target = world.family.start_success

    def excess(init: float) -> float:
        return mean_success(world, softmax(_start_logits(world, offsets, init))) - target

    low, high = _LOWEST, _HIGHEST
    if not excess(low) <= 0.0 <= excess(high):
        raise ValueError(
            f"start_success={target!r} of family {world.family.name!r} cannot be reached: as the good actions become "
            f"likelier, the success goes from {excess(low) + target:.4g} to {excess(high) + target:.4g}"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if excess(middle) < 0.0 else (low, middle)
    return high
