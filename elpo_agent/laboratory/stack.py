"""Several worlds of one family as one, so that many runs go on side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elpo_envs.exact import World


def stack_worlds(worlds: Sequence[World]) -> World:
    """One world that holds all of them: prompt p of world r is its prompt r * P + p.

    Context c of world r is its context r * C + c, so that `World.n_contexts` is R * C and the repairs stand behind all
    contexts, as in every world. `features` and `start_logits` are stacked alike; `special`, `seed` and `init` are
    those of the first.

    Raises:
        ValueError: there is none, or they are of different families.
    """
    if not worlds:
        raise ValueError("worlds is empty; give at least one")
    first = worlds[0]
    if any(world.family != first.family for world in worlds):
        names = sorted({world.family.name for world in worlds})
        raise ValueError(f"worlds of the families {', '.join(names)} cannot be stacked; give worlds of one family")
    n = first.n_contexts

    def rows(name: str) -> np.ndarray:
        arrays = [getattr(world, name) for world in worlds]
        return np.concatenate([a[:n] for a in arrays] + [a[n:] for a in arrays])

    return World(
        family=first.family,
        seed=first.seed,
        contexts=np.concatenate([world.contexts + r * n for r, world in enumerate(worlds)]),
        kinds=rows("kinds"),
        good=rows("good"),
        special=first.special,
        features=rows("features"),
        start_logits=rows("start_logits"),
        init=first.init,
    )
