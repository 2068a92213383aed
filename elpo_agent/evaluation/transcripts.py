"""The messages behind a tree's trajectories, as the environment had them: a tree itself keeps tokens only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym

from elpo_agent.tree import RolloutTree

Message = dict[str, Any]


class Transcripts:
    """Listens to the environments it makes.

    Args:
        make_env: makes one environment whose `info["messages"]` is the conversation so far.
    """

    def __init__(self, make_env: Callable[[], gym.Env[str, str]]) -> None:
        self._make_env = make_env
        # Per task, conversations by what the assistant said: equal turns get equal feedback.
        self._heard: dict[str, dict[tuple[str, ...], Sequence[Message]]] = {}

    def make_env(self) -> gym.Env[str, str]:
        """A new environment that is listened to."""
        return _Listener(self._make_env(), self._hear)

    def take(self, tree: RolloutTree) -> list[list[Message]]:
        """The conversation of every leaf of a finished tree, in completion order; it is forgotten afterwards."""
        heard = self._heard.pop(tree.task_id, {})
        out = []
        for leaf in tree.leaves:
            said = tuple(step.text for i in tree.path(leaf) if (step := tree.nodes[i].step) is not None)
            messages = heard.get(said)
            if messages is None:  # the environment failed at the last turn
                messages = [*heard.get(said[:-1], ()), {"role": "assistant", "content": said[-1]}]
            out.append(list(messages))
        return out

    def _hear(self, info: dict[str, Any]) -> None:
        messages = info["messages"]
        said = tuple(m["content"] for m in messages if m["role"] == "assistant")
        self._heard.setdefault(str(info["task_id"]), {})[said] = messages


class _Listener(gym.Wrapper[str, str, str, str]):
    def __init__(self, env: gym.Env[str, str], hear: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(env)
        self._hear = hear

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._hear(info)
        return observation, info

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._hear(info)
        return observation, reward, terminated, truncated, info
