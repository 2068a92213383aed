"""The checks: each plays a subject and raises `NonConformanceError`, saying what was seen and what was expected."""

from __future__ import annotations

import contextlib
import copy
import math
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from elpo_envs.conformance.nasty import NASTY_TURNS
from elpo_envs.conformance.subject import Env, Step, Subject, play, take

_SHOWN = 300


class NonConformanceError(AssertionError):
    """An environment does not keep the conventions."""


def require(holds: object, complaint: str) -> None:
    """Raise NonConformanceError with `complaint` unless `holds`."""
    if not holds:
        raise NonConformanceError(complaint)


def check_gymnasium(subject: Subject) -> None:
    """Gymnasium's own `check_env` passes without a warning."""
    with closing(subject.make()) as env, warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*WARN:")  # how Gymnasium's own begin
        try:
            check_env(env.unwrapped, skip_render_check=True)
        except Exception as error:
            raise NonConformanceError(f"gymnasium's check_env: {type(error).__name__}: {error}") from error


def check_every_step(subject: Subject) -> None:
    """Spaces, types and flags are right at every step of whole episodes, not at the first one only."""
    with closing(subject.make()) as env:
        for seed in subject.seeds:
            first = subject.reset(env, seed)
            _check_observation(env, first, "reset")
            for index, step in enumerate(play(env, subject.script(env)), start=1):
                _check_step(env, step, f"step {index} of seed {seed}")


def check_seeding(subject: Subject) -> None:
    """Equal seeds and turns give equal episodes, in any instance; seeds matter; nothing but the seed does."""
    with closing(subject.make()) as one, closing(subject.make()) as other:
        for seed in subject.seeds:
            first = _episode(subject, one, seed)
            subject.reset(other, seed + 1)  # what was played before must not matter
            require(
                _episode(subject, other, seed) == first,
                f"two episodes with seed {seed} and the same turns differ; keep clocks and ids out of info",
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
    """Whatever a model writes is answered by an observation; nothing raises."""
    with closing(subject.make()) as env:
        for index, turn in enumerate(NASTY_TURNS):
            subject.reset(env, index)
            with _no_exception(f"the turn {turn[:60]!r}"):
                step = take(env, turn)
            _check_step(env, step, f"the step after {turn[:60]!r}")


def check_budgets(subject: Subject) -> None:
    """Every episode ends, and stepping one that is over raises."""
    with closing(subject.make()) as env:
        subject.reset(env, 0)
        for _ in range(subject.longest):
            step = take(env, "Let me think about that.")
            if step.over:
                break
        else:
            raise NonConformanceError(f"the episode was not over after {subject.longest} turns that do nothing")
        _check_step(env, step, "the last step")
        try:
            env.step("Once more.")
        except Exception:
            return
        raise NonConformanceError("step() after the end of an episode did not raise, so that such a bug goes unseen")


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
    """A snapshot at every prefix goes on as the original did: twice, elsewhere, after the original was closed."""
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
        original.close()
        with closing(subject.make()) as other:
            for index, snapshot in reversed(list(enumerate(frozen[:-1]))):
                for _ in range(2):
                    subject.restore(other, snapshot)
                    rest = play(other, script[index:])
                    _require_same(rest, seen[index:], f"restored after {index} turns of seed {seed}")


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
    """`close` may be called twice, and before the first reset."""
    for begun in (False, True):
        env = subject.make()
        if begun:
            subject.reset(env, 0)
        with _no_exception("close()"):
            env.close()
            env.close()


def check_spec(subject: Subject) -> None:
    """The registration round-trips through JSON, so that an experiment can be written down."""
    with closing(subject.make()) as env:
        if env.spec is None:
            return
        with _no_exception("spec.to_json()"):
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
    "close": check_close,
    "spec": check_spec,
}
NEED_SNAPSHOTS = frozenset({"snapshots", "snapshots_in_wrappers"})


def _episode(subject: Subject, env: Env, seed: int) -> list[str]:
    first = subject.reset(env, seed)
    return [first.text(), *(step.text() for step in play(env, subject.script(env)))]


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
    require(not (step.terminated and step.truncated), f"{when}: terminated and truncated are both true")


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


@contextlib.contextmanager
def _no_exception(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise NonConformanceError(f"{what} raised {type(error).__name__}: {error}") from error


def _global_generators() -> dict[str, object]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    states: dict[str, object] = {"random": random.getstate(), "numpy": (kind, np.asarray(keys).tobytes(), *rest)}
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = bytes(torch.get_rng_state().numpy())
    return states
