"""An environment whose episodes are words, a codec and a policy of letters, and a runner over the three."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from elpo_agent.policy import SampledTurn, SampleRequest
from elpo_agent.rollout.base import SearchResult
from elpo_agent.rollout.runner import Runner, TaskRef
from elpo_agent.rollout.serialization import tree_to_json
from elpo_agent.tree import RolloutTree
from elpo_envs.episode import EnvState
from elpo_envs.sandbox import SandboxError

STOP = 0


TOOLS = [{"type": "function", "function": {"name": "python"}}]


class WordEnv(gym.Env[str, str]):
    """An episode is a word, one letter a turn: t and e are tool calls (fine, failing), a and b right and
    wrong answers, ! a broken sandbox, ? a bug, z a slow tool. The feedback spells the word so far."""

    action_space = spaces.Text(10)
    observation_space = spaces.Text(100)
    max_turns = 6
    jitter = 0.0

    def __init__(self) -> None:
        self.task, self.word, self.closed = -1, "", 0

    @property
    def tools(self) -> list[dict[str, Any]]:
        return TOOLS

    @property
    def contract(self) -> dict[str, Any]:
        return {"environment": "WordEnv"}

    def freeze(self) -> EnvState:
        return EnvState((self.task, self.word), {}, None)  # type: ignore[arg-type]

    def thaw(self, state: EnvState, reseed: int | None = None) -> tuple[str, dict[str, Any]]:
        assert reseed is None
        self.task, self.word = state.episode  # type: ignore[misc]
        return "", self._info()

    def clone(self) -> WordEnv:
        return type(self)()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        assert options is not None
        self.task, self.word = options.get("index", 77), ""
        return "", self._info()

    def _info(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"task {self.task}"}]
        for i, letter in enumerate(self.word):
            messages.append({"role": "assistant", "content": letter})
            if letter not in "ab":
                messages.append({"role": "tool", "content": f"{self.task}:{self.word[: i + 1]}"})
        last = self.word[-1:]
        calls = [{"kind": "error" if last == "e" else "ok"}] if last and last not in "ab" else []
        return {
            "task_id": f"word/{self.task}",
            "messages": messages,
            "tool_calls": calls,
            "is_correct": last == "a",
            "answer": last if last in ("a", "b") else None,
        }

    def step(self, action: str) -> Any:
        time.sleep(random.random() * self.jitter)
        if action == "!":
            raise SandboxError("the sandbox died")
        if action == "?":
            raise TypeError("a bug")
        if action == "z":
            time.sleep(0.3)
        self.word += action
        over = action in "ab"
        truncated = not over and len(self.word) >= self.max_turns
        return "", -1.1 if action == "b" else float(action == "a"), over, truncated, self._info()

    def close(self) -> None:
        self.closed += 1


class CharCodec:
    """One token a character; 0 ends a turn."""

    stop_ids = (STOP,)

    def prompt_ids(self, messages: Any, tools: Any) -> tuple[int, ...]:
        assert tools == TOOLS
        return tuple(map(ord, messages[0]["content"]))

    def feedback_ids(self, messages_new: Any, tools: Any, *, closed: bool) -> tuple[int, ...]:
        text = "".join(f"<{m['content']}>" for m in messages_new)
        return (() if closed else (STOP,)) + tuple(map(ord, text))

    def turn_text(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in ids if i != STOP)


@dataclass
class ScriptedPolicy:
    """A letter a turn: drawn from `letters` with the sample's seed, or chosen by (prefix, sample)."""

    letters: str = "tteab"
    choose: Callable[[str, int], str] | None = None
    batches: list[list[SampleRequest]] = field(default_factory=list)
    entropy_kind: Any = "full"
    resets: int = 0

    def reset_cache(self) -> None:
        self.resets += 1

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        self.batches.append(list(requests))
        return [[self._turn(r, j) for j in range(r.n)] for r in requests]

    def _turn(self, request: SampleRequest, j: int) -> SampledTurn:
        rng = np.random.default_rng([request.seed, j])
        letter = str(rng.choice(list(self.letters)))
        if self.choose is not None:
            letter = self.choose("".join(map(chr, request.prefix_ids)), j)
        ids = (ord(letter), STOP) if letter != "l" else (ord("t"),)
        values = rng.random((2, len(ids)), dtype=np.float32)
        return SampledTurn(ids, -values[0], values[1], "stop" if ids[-1] == STOP else "length")


def runner_of(policy: Any, make_env: Callable[[], Any] = WordEnv, **kwargs: Any) -> Runner:
    defaults = {"max_new_tokens": 4, "temperature": 1.0, "max_context": 10_000}
    return Runner(policy, CharCodec(), make_env, **(defaults | kwargs))


def tasks_of(n: int) -> list[TaskRef]:
    return [TaskRef(index=i) for i in range(n)]


def logs(results: Sequence[tuple[RolloutTree, SearchResult]]) -> list[str]:
    return [json.dumps(tree_to_json(tree, result)) for tree, result in results]


def check_tree(tree: RolloutTree) -> None:
    """Every prefix is what the environment would have shown for the path's own word."""
    task = tree.task_id.split("/")[1]
    for node in tree.nodes[1:]:
        assert node.step is not None
        word = "".join(tree.nodes[i].step.text for i in tree.path(node.index))  # type: ignore[union-attr]
        expected = f"task {task}"
        for i, letter in enumerate(word[:-1]):
            expected += f"{letter}\0<{task}:{word[: i + 1]}>"
        assert "".join(map(chr, tree.prefix_ids(node.parent))) == expected
        assert (node.outcome is not None) == (not node.children)
        if node.outcome is not None:
            assert node.step.feedback_ids == ()
            assert node.outcome.success == (word[-1] == "a")
            assert node.outcome.truncated == (word[-1] not in "ab")
            assert node.outcome.reward == {"a": 1.0, "b": -1.1}.get(word[-1], 0.0)
