"""The conformance kit: a good environment passes every check, and each fault is found by the check it belongs to."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from elpo_envs.conformance import CHECKS, NonConformanceError, Subject, conformance_tests
from elpo_envs.spaces import UnicodeText

SECRETS = ("red", "green", "blue", "black", "white")


class GuessEnv(gym.Env[str, str]):
    """Guess a colour; a hint costs a turn. Small, and right in everything that the kit looks at."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self) -> None:
        self.observation_space = UnicodeText(1000)
        self.action_space = UnicodeText(200_000)
        self.turns = 0
        self.over = True
        self.hints: list[str] = []

    def info(self) -> dict[str, Any]:
        return {"turns": self.turns, "hints": list(self.hints)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.secret = SECRETS[int(self.np_random.integers(len(SECRETS)))]
        self.turns, self.over, self.hints = 0, False, []
        return f"A colour of {len(self.secret)} letters. Hint {self.secret[0]}?", self.info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self.over:
            raise ResetNeeded("the episode is over")
        self.turns += 1
        right = action == self.secret
        if action == "hint":
            self.hints.append(f"{self.secret[: self.turns]} {self.np_random.integers(100)}")
        terminated, truncated = right, not right and self.turns >= 5
        self.over = terminated or truncated
        return " ".join(self.hints), float(right), terminated, truncated, self.info()


def turns(env: gym.Env[Any, Any]) -> Sequence[str]:
    return ["hint", "hint", getattr(env.unwrapped, "secret", "")]


def freeze(env: gym.Env[Any, Any]) -> Any:
    wrapped = getattr(env, "_elapsed_steps", None)
    base: Any = env.unwrapped
    return base.secret, base.turns, base.over, list(base.hints), base.np_random.bit_generator.state, wrapped


def thaw(env: gym.Env[Any, Any], state: Any) -> None:
    base: Any = env.unwrapped
    if isinstance(env, gym.wrappers.TimeLimit):
        env._elapsed_steps = state[5]
    base.secret, base.turns, base.over, hints, bits, _ = state
    base.hints = list(hints)
    generator = np.random.PCG64()
    generator.state = bits
    base.np_random = np.random.Generator(generator)


def subject(make: Callable[[], Any] = GuessEnv, **changes: Any) -> Subject:
    return Subject(make, **({"turns": turns, "snapshot": freeze, "restore": thaw} | changes))


@pytest.mark.parametrize("name", list(CHECKS))
def test_a_good_environment_passes(name: str) -> None:
    CHECKS[name](subject())


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_good_vector_environment_passes_in_every_mode(mode: AutoresetMode) -> None:
    CHECKS["vectors"](subject(make_vector=lambda n: SyncVectorEnv([GuessEnv] * n, autoreset_mode=mode)))


TestGuess = conformance_tests(subject())
TestWithoutSnapshots = conformance_tests(subject(snapshot=None, restore=None))


# --- faults -----------------------------------------------------------------------------------------------------------


class BothFlags(GuessEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, _, info = super().step(action)
        return obs, reward, terminated, terminated, info


class TooLong(GuessEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        _, *rest = super().step(action)
        return ("x" * 2000, *rest)  # type: ignore[return-value]


class NotANumber(GuessEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float("nan"), terminated, truncated, info


class Clock(GuessEnv):
    def info(self) -> dict[str, Any]:
        return super().info() | {"time": time.perf_counter_ns()}


class Remembers(GuessEnv):
    episodes = 0

    def reset(self, **arguments: Any) -> tuple[str, dict[str, Any]]:
        self.episodes += 1
        return super().reset(**arguments)

    def info(self) -> dict[str, Any]:
        return super().info() | {"episodes": self.episodes}


class OneTaskOnly(GuessEnv):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        return super().reset(seed=None if seed is None else 3, options=options)


class SeedsEverybody(GuessEnv):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        random.seed(seed)
        return super().reset(seed=seed, options=options)


class DrawsFromNumpy(GuessEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        np.random.random()
        return super().step(action)


class Encodes(GuessEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        action.encode()
        return super().step(action)


class Endless(GuessEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, _, info = super().step(action)
        self.over = terminated
        return obs, reward, terminated, False, info


class GoesOn(GuessEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.over = False
        return super().step(action)


class Shares(GuessEnv):
    def __init__(self) -> None:
        super().__init__()
        self.known = {"colours": list(SECRETS)}

    def info(self) -> dict[str, Any]:
        return super().info() | {"known": self.known}


class ClosesOnce(GuessEnv):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class UnseededAnew(GuessEnv):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        if seed is None:
            seed = time.perf_counter_ns() % 2**32
        return super().reset(seed=seed, options=options)


class HintsAreFree(GuessEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action == "hint" and not self.over:
            self.turns -= 1
        return super().step(action)


class EncodesLater(GuessEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self.turns:
            action.encode()
        return super().step(action)


class ClosesAll(GuessEnv):
    open_ones = 0

    def reset(self, **arguments: Any) -> tuple[str, dict[str, Any]]:
        self.generation = ClosesAll.open_ones
        return super().reset(**arguments)

    def info(self) -> dict[str, Any]:
        return super().info() | {"open": self.generation == ClosesAll.open_ones}

    def close(self) -> None:
        ClosesAll.open_ones += 1


class ListOfRewards(GuessEnv):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        return (
            (obs, [reward], terminated, truncated, info)
            if self.turns > 1
            else (obs, reward, terminated, truncated, info)
        )  # type: ignore[return-value]


class OneSeedForAll(SyncVectorEnv):
    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=None if seed is None else [seed] * self.num_envs, options=options)


class TurnsAround(SyncVectorEnv):
    def step(self, actions: Any) -> Any:
        return super().step(tuple(reversed(actions)))


class NoRewards(SyncVectorEnv):
    def step(self, actions: Any) -> Any:
        obs, rewards, *rest = super().step(actions)
        return obs, rewards * 0, *rest


class LosesInfo(SyncVectorEnv):
    def step(self, actions: Any) -> Any:
        *rest, info = super().step(actions)
        del info["turns"]
        return *rest, info


class NeverResets(SyncVectorEnv):
    """Says that it resets at the next step, and goes on with the episode that is over."""

    def step(self, actions: Any) -> Any:
        obs, rewards, terminations, truncations, info = super().step(actions)
        self._autoreset_envs[:] = False
        return obs, rewards, terminations, truncations, info


def vectors_of(kind: type[SyncVectorEnv], env: Callable[[], Any] = GuessEnv) -> Subject:
    return subject(env, make_vector=lambda n: kind([env] * n))


def forgets(position: int, value: Any) -> Callable[[Any], Any]:
    """`freeze` that loses one part of the state."""

    def snapshot(env: gym.Env[Any, Any]) -> Any:
        state = list(freeze(env))
        state[position] = value
        return tuple(state)

    return snapshot


def keeps_the_list(env: gym.Env[Any, Any]) -> Any:
    """`freeze` whose snapshot changes when the environment goes on."""
    state = list(freeze(env))
    state[3] = getattr(env.unwrapped, "hints", [])
    return tuple(state)


FRESH = np.random.default_rng(99).bit_generator.state

FAULTS: list[tuple[str, Subject, str]] = [
    ("every_step", subject(BothFlags), "terminated and truncated are both true"),
    ("every_step", subject(lambda: TimeLimit(BothFlags(), 9)), "terminated and truncated are both true"),
    ("every_step", subject(TooLong), "is not in the observation space"),
    ("every_step", subject(NotANumber), "is not a finite number"),
    ("gymnasium", subject(TooLong), "check_env"),
    ("gymnasium", subject(Clock), "check_env"),
    ("seeding", subject(Clock), "keep clocks and ids out of info"),
    ("seeding", subject(Remembers), "differ"),
    ("seeding", subject(OneTaskOnly), "one and the same first observation"),
    ("seeding", subject(UnseededAnew), "resets without a seed"),
    ("every_step", subject(ListOfRewards), r"step 2 of seed 0: the reward \[0.0\] is not"),
    ("nasty_turns", subject(EncodesLater), "UnicodeEncodeError"),
    ("budgets", subject(HintsAreFree, longest=50), "not over after 50 times 'hint'"),
    ("close", subject(ClosesAll), "closing one environment changed another"),
    ("snapshots", subject(snapshot=forgets(2, False)), "can be stepped all the same"),
    (
        "snapshots",
        subject(turns=lambda env: ["red", "red"], snapshot=forgets(4, FRESH)),
        "the next reset gives another",
    ),
    ("vectors", vectors_of(OneSeedForAll), "environment 1 shows"),
    ("vectors", vectors_of(TurnsAround), "of seed 0"),
    ("vectors", vectors_of(NoRewards), "reward is"),
    ("vectors", vectors_of(LosesInfo), "lacks 'turns'"),
    ("vectors", vectors_of(NeverResets), "the vector environment: ResetNeeded"),
    ("vectors", vectors_of(SyncVectorEnv, TooLong), "not in the vector's observation space"),
    ("global_generators", subject(SeedsEverybody), "global generator of random"),
    ("global_generators", subject(DrawsFromNumpy), "global generator of numpy"),
    ("nasty_turns", subject(Encodes), "UnicodeEncodeError"),
    ("budgets", subject(Endless, longest=50), "was not over after 50 times"),
    ("budgets", subject(GoesOn), "did not raise"),
    ("infos", subject(Shares), "changing an info changed"),
    ("close", subject(ClosesOnce), "closed already"),
    ("snapshots", subject(snapshot=forgets(1, 0)), "step 1 gave"),
    ("snapshots", subject(snapshot=forgets(3, [])), "step 1 gave"),
    ("snapshots", subject(snapshot=forgets(4, FRESH)), "the next reset gives another"),
    ("snapshots", subject(snapshot=keeps_the_list), "gave"),
    ("snapshots_in_wrappers", subject(snapshot=forgets(5, 0)), "under a TimeLimit of 3"),
]


@pytest.mark.parametrize(
    ("name", "faulty", "complaint"), FAULTS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(FAULTS)]
)
def test_a_fault_is_found(name: str, faulty: Subject, complaint: str) -> None:
    with pytest.raises(NonConformanceError, match=complaint):
        CHECKS[name](faulty)


# --- the plug-in ------------------------------------------------------------------------------------------------------


def run_plugin(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "elpo_envs.conformance.plugin", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "--pyargs", "elpo_envs.conformance", *arguments], capture_output=True, text=True, timeout=200
    )


def test_the_plugin_checks_an_id() -> None:
    done = run_plugin("--tir-env", "elpo_envs:elpo/Math-v0", "--tir-kwargs", '{"sandbox": "replay"}')
    assert done.returncode == 0, done.stdout
    assert f"{len(CHECKS)} passed" in done.stdout


def test_the_plugin_says_what_is_missing() -> None:
    done = run_plugin()
    assert done.returncode != 0
    assert "--tir-env my_envs:my/Env-v0" in done.stdout + done.stderr
    done = run_plugin("--tir-env", "elpo_envs:elpo/Math-v0", "--tir-kwargs", "[1]")
    assert "must be a JSON object" in done.stdout + done.stderr
