"""What every wrapper is put through: Gymnasium's checker, and snapshots of it at every turn."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.utils.env_checker import check_env

from elpo_envs import Snapshot, fork, restore, snapshot

Wrap = Callable[[gym.Env[Any, str]], gym.Env[Any, str]]


def as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def played(env: gym.Env[Any, str], actions: Sequence[str]) -> list[str]:
    """What each step gives, as JSON; stops where the episode ends."""
    seen = []
    for action in actions:
        step = env.step(action)
        seen.append(as_text(step))
        if step[2] or step[3]:
            break
    return seen


def check_without_warnings(env: gym.Env[Any, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # It says so of every wrapped environment.
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(env)
    env.close()


def check_snapshots_at_every_turn(make: Callable[[], gym.Env[Any, str]], actions: Sequence[str]) -> None:
    """From every prefix, five branches go on as the original does, which a branch does not disturb."""
    env, other = make(), make()
    env.reset(seed=3)
    expected = played(env, actions)
    assert len(expected) == len(actions), "the last action is to end the episode"
    obs, _ = env.reset(seed=3)
    for n in range(len(actions) + 1):
        snap = snapshot(env)
        for taken in (snap, snap, Snapshot.from_bytes(snap.to_bytes())):
            restored, _ = restore(other, taken)
            assert as_text(restored) == as_text(obs)
            assert restored in other.observation_space
            assert played(other, actions[n:]) == expected[n:]
        for branch in fork(env, 2):
            assert played(branch, actions[n:]) == expected[n:]
            branch.close()
        if n < len(actions):
            obs, *rest = env.step(actions[n])
            assert as_text((obs, *rest)) == expected[n]
    env.close()
    other.close()
