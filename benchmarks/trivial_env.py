"""The smallest text environment that Gymnasium allows: a limit for steps without tools."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium import spaces

from elpo_envs.math_env import MathEnv
from elpo_envs.spaces import PRINTABLE

TURN = "I will think about the question before I calculate anything."
"""An action that calls no tool and answers nothing."""


class Trivial(gym.Env[str, str]):
    """Texts in and out, and nothing else; truncated after `max_turns`.

    Args:
        max_turns: steps of an episode.
        sampled: whether an observation is drawn from its space, or is a constant of the same length.
    """

    def __init__(self, max_turns: int, sampled: bool) -> None:
        self.action_space = spaces.Text(len(TURN), charset=PRINTABLE)
        length = len(MathEnv.no_action_text)
        self.observation_space = spaces.Text(length, min_length=length, charset=PRINTABLE)
        self._max_turns, self._sampled = max_turns, sampled
        self._turn = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._turn = 0
        return MathEnv.no_action_text, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._turn += 1
        text = self.observation_space.sample() if self._sampled else MathEnv.no_action_text
        return text, 0.0, False, self._turn >= self._max_turns, {}
