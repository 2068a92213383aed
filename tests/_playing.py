"""An environment that is played, a tool with state, and everything that playing gives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from _episodes import call

from elpo_envs import Snapshot, snapshot
from elpo_envs.tools import BaseTool, ToolResult

Env = gym.Env[str, str]


def make(**arguments: Any) -> Env:
    made: Env = gym.make("elpo/Math-v0", **arguments)
    return made


def play(env: Env, actions: Sequence[str]) -> bytes:
    """Everything that stepping through `actions` gives, as bytes; stops where the episode ends."""
    seen: list[Any] = []
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(action)
        info.pop("episode", None)  # RecordEpisodeStatistics adds a time
        seen.append([obs, reward, terminated, truncated, info])
        if terminated or truncated:
            break
    return json.dumps(seen, ensure_ascii=False).encode("utf-8", "surrogatepass")


class Counter(BaseTool):
    """A tool with state, in the fewest lines."""

    name = "count"
    description = "Count calls."
    parameters: Mapping[str, Any] = {"type": "object"}

    def open(self, seed: int) -> None:
        self.seen: list[int] = [seed % 7]

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        self.seen.append(len(self.seen))
        return ToolResult(str(self.seen))

    def snapshot(self) -> Any:
        return self.seen

    def restore(self, state: Any, reseed: int | None = None) -> None:
        self.seen = state if reseed is None else [reseed % 7]


COUNT = '<tool_call>{"name": "count", "arguments": {}}</tool_call>'


def played() -> Snapshot:
    env = make(extra_tools=(Counter,))
    env.reset(options={"index": 3})
    env.step("\ud83d\ude00 😀 é\x00")
    env.step(call("x = 'é'\nx") + COUNT)
    return snapshot(env)
