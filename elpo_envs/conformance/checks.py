"""The checks: each plays a subject and raises `NonConformanceError`, saying what was seen and what was expected."""

from __future__ import annotations

import copy
import math
import random
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from elpo_envs.conformance.nasty import NASTY_TURNS
from elpo_envs.conformance.subject import Env, Step, Subject, play, take
from elpo_envs.conformance.vectors import check_vectors
from elpo_envs.conformance.verdict import NonConformanceError, gymnasium_content, no_exception, require

_SHOWN = 300


def check_gymnasium(subject: Subject) -> None:
    """Gymnasium's own `check_env` passes without a warning, on the base environment and in its wrappers."""
    with closing(subject.make()) as env, gymnasium_content("gymnasium's check_env"):
        check_env(env.unwrapped, skip_render_check=True)
        if env is not env.unwrapped:
            check_env(env, skip_render_check=True)


def check_every_step(subject: Subject) -> None:
    """Spaces, types and flags are right at every step of whole episodes, not at the first one only, without a warning
    of Gymnasium's."""
    with closing(subject.make()) as env, gymnasium_content("gymnasium"):
        for seed in subject.seeds:
            first = subject.reset(env, seed)
            _check_observation(env, first, "reset")
            for index, step in enumerate(play(env, subject.script(env)), start=1):
                _check_step(env, step, f"step {index} of seed {seed}")


def check_seeding(subject: Subject) -> None:
    """Equal seeds and turns give equal episodes, in any instance, and so the next ones; nothing but seeds matters."""
    with closing(subject.make()) as one, closing(subject.make()) as other:
        for seed in subject.seeds:
            first = _episode(subject, one, seed)
            subject.reset(other, seed + 1)  # what was played before must not matter
            require(
                _episode(subject, other, seed) == first,
                f"two episodes with seed {seed} and the same turns differ; keep clocks and ids out of info",
            )
            require(
                _next(one) == _next(other),
                f"resets without a seed, after equal episodes with seed {seed}, differ; draw from np_random",
            )
        seen = {subject.reset(one, seed).text() for seed in range(20)}
        require(len(seen) > 1, "20 seeds gave one and the same first observation")


def check_global_generators(subject: Subject) -> None:
    """No global random generator is touched, of `random`, numpy or, if it is imported, torch."""
    before = _global_generators()
    with closing(subject.make()) as env:
        for seed in subject.seeds:
            _episode(subject, env, seed)
    changed = [name for name, state in _global_generators().items() if before.get(name, state) != state]
    require(not changed, f"an episode changed the global generator of {', '.join(changed)}")


def check_nasty_turns(subject: Subject) -> None:
    """Whatever a model writes is answered by an observation; nothing raises, at the start of an episode or later."""
    with closing(subject.make()) as env:
        for index, turn in enumerate(NASTY_TURNS):
            subject.reset(env, index)
            _take_nasty(env, turn)
        over = True
        for index, turn in enumerate(NASTY_TURNS):
            if over:
                subject.reset(env, index)
            over = _take_nasty(env, turn).over


def _take_nasty(env: Env, turn: str) -> Step:
    with no_exception(f"the turn {turn[:60]!r}"):
        step = take(env, turn)
    _check_step(env, step, f"the step after {turn[:60]!r}")
    return step


def check_budgets(subject: Subject) -> None:
    """Every episode ends, whether nothing is done in it or one thing again and again; one that is over cannot go on."""
    with closing(subject.make()) as env:
        subject.reset(env, 0)
        for turn in ("Let me think about that.", subject.script(env)[0]):
            subject.reset(env, 0)
            for _ in range(subject.longest):
                step = take(env, turn)
                if step.over:
                    break
            else:
                raise NonConformanceError(f"the episode was not over after {subject.longest} times {turn[:60]!r}")
            _check_step(env, step, "the last step")
            require(_refuses(env), "step() after the end of an episode did not raise, so that such a bug goes unseen")


def check_infos(subject: Subject) -> None:
    """What a caller does to an `info` changes no other one, and no state."""
    with closing(subject.make()) as env:
        first = subject.reset(env, 0)
        seen = copy.deepcopy(first.info)
        script = subject.script(env)
        _spoil(first.info)
        step = take(env, script[0])
        spoilt, expected = step.info, copy.deepcopy(step.info)
        _spoil(spoilt)
        again = subject.reset(env, 0)
        require(again.info == seen, "changing an info changed what a later reset gives")
        require(take(env, script[0]).info == expected, "changing an info changed what a later step gives")


def check_snapshots(subject: Subject) -> None:
    """A snapshot at every prefix goes on as the original did: twice, elsewhere, after the original was closed.

    It ends as the original did, and the next episode is the same, too.
    """
    assert subject.snapshot is not None and subject.restore is not None
    for seed in subject.seeds:
        original = subject.make()
        subject.reset(original, seed)
        script = subject.script(original)
        frozen, seen = [subject.snapshot(original)], []
        for action in script:
            seen.append(take(original, action))
            frozen.append(subject.snapshot(original))
            if seen[-1].over:
                break
        refuses = seen[-1].over and _refuses(original)
        following = _next(original)
        original.close()
        with closing(subject.make()) as other:
            for index, snapshot in reversed(list(enumerate(frozen))):
                when = f"restored after {index} turns of seed {seed}"
                for _ in range(2):
                    subject.restore(other, snapshot)
                    _require_same(play(other, script[index : len(seen)]), seen[index:], when)
                require(
                    not refuses or _refuses(other), f"{when}: the episode was over, and can be stepped all the same"
                )
                require(_next(other) == following, f"{when}: the next reset gives another episode than the original's")


def check_snapshots_in_wrappers(subject: Subject) -> None:
    """A snapshot holds what wrappers keep: the step count of `TimeLimit`."""
    assert subject.snapshot is not None and subject.restore is not None
    limit = 3
    with closing(gym.wrappers.TimeLimit(subject.make(), limit)) as env:
        subject.reset(env, 0)
        step = take(env, "Hm.")
        if step.over:
            return
        snapshot = subject.snapshot(env)
        for _ in range(2):
            subject.restore(env, snapshot)
            steps = play(env, ["Hm."] * limit)
            require(
                len(steps) <= limit - 1,
                f"{1 + len(steps)} steps were taken under a TimeLimit of {limit} after a restore",
            )


def check_close(subject: Subject) -> None:
    """`close` may be called twice, before the first reset or at any time, and closes no other environment."""
    with closing(subject.make()) as other:
        subject.reset(other, 0)
        script = subject.script(other)
        expected = [step.text() for step in play(other, script)]
        subject.reset(other, 0)
        for n_turns in (None, 0, 1):
            env = subject.make()
            if n_turns is not None:
                subject.reset(env, 0)
                play(env, script[:n_turns])
            with no_exception("close()"):
                env.close()
                env.close()
        require(
            [step.text() for step in play(other, script)] == expected, "closing one environment changed another one"
        )


def check_spec(subject: Subject) -> None:
    """The registration round-trips through JSON, so that an experiment can be written down."""
    with closing(subject.make()) as env:
        if env.spec is None:
            return
        with no_exception("spec.to_json()"):
            read = type(env.spec).from_json(env.spec.to_json())
        require(read.id == env.spec.id, f"the id {env.spec.id!r} came back as {read.id!r}")
        require(read.kwargs == env.spec.kwargs, f"the arguments {env.spec.kwargs!r} came back as {read.kwargs!r}")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "gymnasium": check_gymnasium,
    "every_step": check_every_step,
    "seeding": check_seeding,
    "global_generators": check_global_generators,
    "nasty_turns": check_nasty_turns,
    "budgets": check_budgets,
    "infos": check_infos,
    "snapshots": check_snapshots,
    "snapshots_in_wrappers": check_snapshots_in_wrappers,
    "vectors": check_vectors,
    "close": check_close,
    "spec": check_spec,
}
NEED_SNAPSHOTS = frozenset({"snapshots", "snapshots_in_wrappers"})


def _episode(subject: Subject, env: Env, seed: int) -> list[str]:
    first = subject.reset(env, seed)
    return [first.text(), *(step.text() for step in play(env, subject.script(env)))]


def _next(env: Env) -> str:
    """What a reset without a seed gives."""
    observation, info = env.reset()
    return Step(observation, info).text()


def _refuses(env: Env) -> bool:
    """Whether a step now raises."""
    try:
        env.step("Once more.")
    except Exception:  # which one is the environment's own affair
        return True
    return False


def _check_observation(env: Env, step: Step, when: str) -> None:
    shown = repr(step.observation)[:_SHOWN]
    require(env.observation_space.contains(step.observation), f"{when}: {shown} is not in the observation space")
    require(isinstance(step.info, dict), f"{when}: info is a {type(step.info).__name__}, not a dict")


def _check_step(env: Env, step: Step, when: str) -> None:
    _check_observation(env, step, when)
    number = isinstance(step.reward, (int, float, np.integer, np.floating)) and not isinstance(step.reward, bool)
    require(number and math.isfinite(step.reward), f"{when}: the reward {step.reward!r} is not a finite number")
    for name in ("terminated", "truncated"):
        value = getattr(step, name)
        require(isinstance(value, (bool, np.bool_)), f"{when}: {name} is {value!r}, not a bool")
    both = step.terminated and step.truncated
    require(not both or _at_time_limit(env), f"{when}: terminated and truncated are both true")


def _at_time_limit(env: Env) -> bool:
    """Whether a `TimeLimit` truncates here: Gymnasium's does so at an episode's last step, too."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit) and (env._elapsed_steps or 0) >= env._max_episode_steps:
            return True
        env = env.env
    return False


def _require_same(steps: list[Step], expected: list[Step], when: str) -> None:
    require(len(steps) == len(expected), f"{when}: {len(steps)} steps followed, not {len(expected)}")
    for index, (step, other) in enumerate(zip(steps, expected, strict=True), start=1):
        require(
            step.text() == other.text(),
            f"{when}: step {index} gave {step.text()[:_SHOWN]}, where the original gave {other.text()[:_SHOWN]}",
        )


def _spoil(info: dict[str, Any]) -> None:
    for value in info.values():
        if isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    item.clear()
            value.clear()
        elif isinstance(value, dict):
            value.clear()
    info.clear()


def _global_generators() -> dict[str, object]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    states: dict[str, object] = {"random": random.getstate(), "numpy": (kind, np.asarray(keys).tobytes(), *rest)}
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = bytes(torch.get_rng_state().numpy())
    return states
