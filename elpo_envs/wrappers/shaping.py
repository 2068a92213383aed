"""What all reward wrappers share: a term that is added to the reward and taken back when the episode is void."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs


class ShapedReward(gym.Wrapper[Any, str, Any, str], RecordConstructorArgs, ABC):
    """Adds a term to the reward of every step.

    Terms are computed from `info` and never from the reward, so any number of these wrappers give the same
    rewards in every order. They take the environment's own reward to be 1 for a right answer and 0 otherwise.
    Over an episode that ends with `info["valid"]` False, which says nothing about the model, a wrapper's terms
    sum to zero: what was given before is taken back at the end.

    `info["reward_terms"]` maps the names of the wrappers' classes to the terms of this step; nothing else in
    `info` changes. Arguments are JSON values, and snapshots, forks and restores keep the state.
    """

    def __init__(self, env: gym.Env[Any, str], **arguments: Any) -> None:
        RecordConstructorArgs.__init__(self, **arguments)
        gym.Wrapper.__init__(self, env)
        self._given = 0.0

    @abstractmethod
    def term(self, info: Mapping[str, Any], over: bool) -> float:
        """This step's term; `over` says that the episode ended, and it is valid."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._given = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        term = self.term(info, terminated or truncated) if info["valid"] else -self._given
        self._given += term
        terms = dict(info.get("reward_terms", {}))
        name = type(self).__name__
        terms[name] = terms.get(name, 0.0) + term
        info["reward_terms"] = terms
        return obs, float(reward) + term, terminated, truncated, info

    def snapshot_state(self) -> dict[str, float]:
        """What was given so far in this episode."""
        return {"given": self._given}

    def restore_state(self, state: Mapping[str, float]) -> None:
        """Continue from `snapshot_state`."""
        self._given = state["given"]


def finite(name: str, value: Any, least: float = -math.inf) -> float:
    """`value` as a float. Raises ValueError unless it is a finite number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
        bound = "" if least == -math.inf else f" of at least {least:g}"
        raise ValueError(f"{name}={value!r} must be a finite number{bound}")
    return float(value)
