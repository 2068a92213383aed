"""The environments' Gymnasium ids."""

from __future__ import annotations

import gymnasium as gym

MATH_ID = "elpo/Math-v0"
_ENTRY_POINTS = {MATH_ID: "elpo_envs.math_env:MathEnv"}


def env_ids() -> tuple[str, ...]:
    """The Gymnasium ids that this package registers."""
    return tuple(_ENTRY_POINTS)


def register_all() -> None:
    """Register every id of this package once; a second call changes nothing.

    Entry points are strings and keyword arguments JSON values, so that `env.spec.to_json()` round-trips.
    `max_episode_steps` stays None because Gymnasium would keep it from the constructor: the environments
    count their own turns (`max_turns`).
    """
    for env_id, entry_point in _ENTRY_POINTS.items():
        if env_id not in gym.registry:
            gym.register(id=env_id, entry_point=entry_point, max_episode_steps=None)
