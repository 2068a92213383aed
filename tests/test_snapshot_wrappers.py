"""Snapshots of wrapped environments: the state and the arguments of wrappers."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from _episodes import call
from _playing import Env, make, play
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import NormalizeReward, RecordEpisodeStatistics, TimeLimit, TransformReward

from elpo_envs import Snapshot, fork, restore, snapshot
from elpo_envs.math_env import MathEnv


class Bonus(gym.Wrapper[str, str, str, str]):
    """Says itself what its state is."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.rng = np.random.default_rng(0)
        self.total = 0.0

    def step(self, action: str) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.total += 0.5
        return obs, float(reward) + self.total, terminated, truncated, info

    def snapshot_state(self) -> Any:
        return {"total": self.total}

    def restore_state(self, state: Any) -> None:
        self.total = state["total"]


class Plain(gym.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Knows nothing of snapshots; its attributes are plain values."""

    def __init__(self, env: Env, scale: float) -> None:
        RecordConstructorArgs.__init__(self, scale=scale)
        super().__init__(env)
        self.scale, self.steps, self.trail = scale, 0, ([], {"last": ("", 0)})

    def step(self, action: str) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        self.trail[0].append(self.steps)
        self.trail[1]["last"] = (action[:3], self.steps)
        return obs, float(reward) + self.scale * self.steps + len(self.trail[0]), terminated, truncated, info


class Numbered(gym.ObservationWrapper[str, str, str]):
    """An observation wrapper that counts what it has shown."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.shown = 0

    def observation(self, observation: str) -> str:
        self.shown += 1
        return f"{len(observation)}: {observation}"


def wrapped() -> Env:
    inner: Env = TimeLimit(Bonus(make(max_episode_steps=50)), 4)
    return TransformReward(Numbered(Plain(RecordEpisodeStatistics(inner), 0.25)), float)


@pytest.mark.parametrize("durable", [False, True])
def test_wrappers_continue_where_they_were(durable: bool) -> None:
    env, other = wrapped(), wrapped()
    env.reset(seed=1)
    env.step("hm")
    obs, *_, info = env.step(call("x = 1\nx"))
    snap = snapshot(env)
    if durable:
        snap = Snapshot.from_bytes(snap.to_bytes())
    shown = env.env.shown
    actions = [call("x + 1"), "hm", "hm"]
    expected = play(env, actions)
    for _ in range(3):
        assert restore(other, snap) == (obs, info)
        assert other.env.shown == shown
        assert play(other, actions) == expected
        assert json.loads(expected)[-1][3] and len(json.loads(expected)) == 2  # TimeLimit ended it at step 4
    statistics = other.get_wrapper_attr("length_queue")
    assert list(statistics) == [4, 4, 4]


def test_a_wrapper_in_a_fork() -> None:
    env: Env = Plain(TimeLimit(make(), 3), 2.0)
    env.reset(seed=1)
    env.step("hm")
    (branch,) = fork(env, 1)
    assert play(branch, ["a", "b"]) == play(env, ["a", "b"])

    class Secretive(gym.Wrapper[str, str, str, str]):
        def __init__(self, env: Env, factor: float = 1.0) -> None:
            super().__init__(env)

    with pytest.raises(TypeError, match=r"Secretive cannot be built again .*RecordConstructorArgs"):
        fork(Secretive(env), 1)


def test_unknown_state_in_a_wrapper_is_not_ignored() -> None:
    env = NormalizeReward(make())
    env.reset(seed=1)
    with pytest.raises(TypeError, match=r"NormalizeReward keeps something in '\w+' that a snapshot"):
        snapshot(env)


def test_the_guards_of_gymnasium_need_not_match() -> None:
    env = make(disable_env_checker=True)
    env.reset(seed=1)
    snap = snapshot(env)
    for other in (make(), env.unwrapped, MathEnv()):
        restore(other, snap)
        assert other.step(call("1"))[0] == "1"
        assert other.step(call("2"))[0] == "2"
