"""What is tested: how to make it, what to say to it, and how to freeze it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

import elpo_envs

Env = gym.Env[Any, Any]

_TIMED_BY_WRAPPERS = ("episode",)  # `RecordEpisodeStatistics` adds the time


@dataclass(frozen=True)
class Step:
    """What one `reset` or `step` gave; `reward`, `terminated` and `truncated` are None for a reset."""

    observation: Any
    info: dict[str, Any]
    reward: Any = None
    terminated: Any = None
    truncated: Any = None

    @property
    def over(self) -> bool:
        return bool(self.terminated or self.truncated)

    def text(self) -> str:
        """Everything in it as one text, for comparison; values that JSON lacks are shown by `repr`."""
        info = {key: value for key, value in self.info.items() if key not in _TIMED_BY_WRAPPERS}
        parts = [self.observation, self.reward, self.terminated, self.truncated, info]
        return json.dumps(parts, sort_keys=True, default=repr)


@dataclass(frozen=True)
class Subject:
    """An environment under test.

    Attributes:
        make: makes a new one; called many times.
        turns: plausible turns for the episode that was just reset, which should call tools and end it. By default
            those of the environment's own `expert_turns()`, followed by samples of the action space.
        snapshot, restore: freeze an environment, and make another one continue from there; None for an environment
            that has no snapshots, whose tests are then skipped. By default this package's.
        seeds: episodes that are played.
        longest: steps after which an episode must be over, whatever is said.
        make_vector: makes a vector environment of so many of these; by default Gymnasium's `SyncVectorEnv` over `make`.
    """

    make: Callable[[], Env]
    turns: Callable[[Env], Sequence[Any]] | None = None
    snapshot: Callable[[Env], Any] | None = elpo_envs.snapshot
    restore: Callable[[Env, Any], Any] | None = elpo_envs.restore
    seeds: Sequence[int] = field(default=(0, 1, 2))
    longest: int = 1000
    make_vector: Callable[[int], gym.vector.VectorEnv[Any, Any, Any]] | None = None

    def vector(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """A new vector environment."""
        if self.make_vector is not None:
            return self.make_vector(num_envs)
        return gym.vector.SyncVectorEnv([self.make] * num_envs)

    def reset(self, env: Env, seed: int) -> Step:
        observation, info = env.reset(seed=seed)
        return Step(observation, info)

    def script(self, env: Env) -> list[Any]:
        """What to say in the episode that `env` has just begun."""
        if self.turns is not None:
            return list(self.turns(env))
        own = getattr(env.unwrapped, "expert_turns", None)
        env.action_space.seed(0)
        return [*(own() if callable(own) else ()), *(env.action_space.sample() for _ in range(3))]


def take(env: Env, action: Any) -> Step:
    """One step."""
    observation, reward, terminated, truncated, info = env.step(action)
    return Step(observation, info, reward, terminated, truncated)


def play(env: Env, actions: Iterable[Any]) -> list[Step]:
    """Steps until the episode or the actions end."""
    steps = []
    for action in actions:
        steps.append(take(env, action))
        if steps[-1].over:
            break
    return steps
