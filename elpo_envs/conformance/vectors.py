"""The check of vector environments: each of their environments does what a single one does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate

from elpo_envs.conformance.subject import Env, Step, Subject, take
from elpo_envs.conformance.verdict import gymnasium_content, no_exception, require

_N_ENVS = 2
_ROUNDS = 10
_PLAIN = (str, bool, int, float, type(None))
_TIMED_BY_WRAPPERS = "episode"
_SHOWN = 300


def check_vectors(subject: Subject) -> None:
    """A vector environment gives at every step, over the ends of episodes, what single environments give."""
    with ExitStack() as stack:
        with gymnasium_content("making the vector environment"):
            vector = subject.vector(_N_ENVS)
        stack.callback(vector.close)
        singles = [stack.enter_context(closing(subject.make())) for _ in range(_N_ENVS)]
        _check_form(vector, singles[0])
        for seed in subject.seeds:
            with gymnasium_content("the vector environment"):
                _compare(subject, vector, singles, seed)
        with no_exception("the vector environment's close()"):
            vector.close()
            vector.close()


def _check_form(vector: VectorEnv[Any, Any, Any], single: Env) -> None:
    require(vector.num_envs == _N_ENVS, f"num_envs is {vector.num_envs}, where {_N_ENVS} were asked for")
    for name in ("observation_space", "action_space"):
        own, batched = getattr(single, name), getattr(vector, f"single_{name}")
        require(own == batched, f"single_{name} is {batched}, a single environment's {own}")
    mode = vector.metadata.get("autoreset_mode")
    require(isinstance(mode, AutoresetMode), f"metadata['autoreset_mode'] is {mode!r}, not an AutoresetMode")


def _compare(subject: Subject, vector: VectorEnv[Any, Any, Any], singles: list[Env], seed: int) -> None:
    """Play the singles' scripts in both, a turn each at a time, and the next episode where one has ended."""
    mode = vector.metadata["autoreset_mode"]
    observations, infos = vector.reset(seed=seed)
    steps = [subject.reset(env, seed + i) for i, env in enumerate(singles)]
    scripts = [subject.script(env) for env in singles]
    _check_batch(vector, observations, infos, steps, "reset")
    for number in range(1, _ROUNDS + 1):
        when = f"step {number} of seed {seed}"
        over = [step.over for step in steps]
        if any(over) and mode is AutoresetMode.DISABLED:
            begun = [_begun(env) if ended else None for env, ended in zip(singles, over, strict=True)]
            observations, infos = vector.reset(options={"reset_mask": np.array(over)})
            _check_batch(vector, observations, infos, begun, f"reset before {when}")
            scripts = [
                subject.script(env) if e else script for env, e, script in zip(singles, over, scripts, strict=True)
            ]
            over = [False] * len(over)
        actions = tuple(script.pop(0) if script else "Let me think about that." for script in scripts)
        observations, *flags, infos = vector.step(actions)
        steps = [_begun(env) if e else take(env, action) for env, e, action in zip(singles, over, actions, strict=True)]
        _check_flags(flags, steps, when)
        if mode is AutoresetMode.SAME_STEP:
            over = [step.over for step in steps]
            steps = [_begun(env) if e else step for env, e, step in zip(singles, over, steps, strict=True)]
        _check_batch(vector, observations, infos, steps, when)
        scripts = [subject.script(env) if e else script for env, e, script in zip(singles, over, scripts, strict=True)]


def _begun(env: Env) -> Step:
    observation, info = env.reset()
    return Step(observation, info)


def _check_batch(
    vector: VectorEnv[Any, Any, Any], observations: Any, infos: Any, steps: Sequence[Step | None], when: str
) -> None:
    """The batch is in its space and has the single environments' observations and plain entries of their infos."""
    space = vector.observation_space
    require(space.contains(observations), f"{when}: the observations are not in the vector's observation space")
    require(isinstance(infos, dict), f"{when}: the vector's info is a {type(infos).__name__}, not a dict")
    for i, (observation, step) in enumerate(zip(iterate(space, observations), steps, strict=True)):
        if step is None:
            continue
        where = f"{when}: environment {i}"
        expected, given = _text(step.observation), _text(observation)
        require(given == expected, f"{where} shows {given[:_SHOWN]}, a single one {expected[:_SHOWN]}")
        for key, value in step.info.items():
            if key == _TIMED_BY_WRAPPERS or not isinstance(value, _PLAIN):
                continue
            require(key in infos, f"{where}: the vector's info lacks {key!r}")
            require(infos[key][i] == value, f"{where}: info[{key!r}] is {infos[key][i]!r}, a single one's {value!r}")


def _check_flags(batches: Sequence[Any], steps: list[Step], when: str) -> None:
    for name, batch in zip(("reward", "terminated", "truncated"), batches, strict=True):
        shape = getattr(batch, "shape", None)
        require(shape == (len(steps),), f"{when}: the batch of {name} has the shape {shape}, not ({len(steps)},)")
        expected = [getattr(step, name) or 0 for step in steps]  # a reset has none of the three
        require(list(batch) == expected, f"{when}: {name} is {list(batch)}, of single environments {expected}")


def _text(observation: Any) -> str:
    return json.dumps(observation, sort_keys=True, default=repr)
