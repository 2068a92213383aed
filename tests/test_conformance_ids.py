"""The conformance kit on every registered id: plain, in every stack of wrappers, and vectorised.

Quick: each id plain and in one stack each, with the checks that see most. `pytest -m slow` runs the whole product.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from _every_id import ENDS_EARLY, STACKS, arguments_of, turns

import elpo_envs
from elpo_envs import wrappers
from elpo_envs.conformance import CHECKS, Subject
from elpo_envs.conformance.subject import play
from elpo_envs.vector import ConversationVectorEnv
from elpo_envs.wrapper_states import stack_of

IDS = elpo_envs.env_ids()
QUICK_PLAIN = ("gymnasium", "every_step", "vectors", "spec")
QUICK_WRAPPED = ("gymnasium", "every_step", "snapshots")
MODES = ("vector_entry_point", "sync")

pytestmark = pytest.mark.filterwarnings("error")


def made(env_id: str, folder: Path, stack: str | None = None) -> Callable[[], gym.Env[Any, Any]]:
    arguments = arguments_of(env_id, folder)

    def make() -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any] = gym.make(env_id, **arguments)
        return env if stack is None else STACKS[stack](env, folder)

    return make


def plain(env_id: str, folder: Path, mode: str = MODES[0], seeds: tuple[int, ...] = (0,)) -> Subject:
    arguments = arguments_of(env_id, folder)

    def make_vector(num_envs: int) -> Any:
        return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode=mode, **arguments)

    return Subject(made(env_id, folder), turns=turns, seeds=seeds, make_vector=make_vector)


def wrapped(env_id: str, folder: Path, stack: str, mode: str = MODES[0]) -> Subject:
    make = made(env_id, folder, stack)
    if mode == "sync":
        return Subject(make, turns=turns, seeds=(0,))
    return Subject(make, turns=turns, seeds=(0,), make_vector=lambda n: ConversationVectorEnv(make, n))


@pytest.mark.parametrize("env_id", IDS)
def test_an_id_conforms(env_id: str, tmp_path: Path) -> None:
    for name in QUICK_PLAIN:
        CHECKS[name](plain(env_id, tmp_path))


@pytest.mark.parametrize("env_id", IDS)
def test_the_turns_end_in_the_right_answer(env_id: str, tmp_path: Path) -> None:
    env = made(env_id, tmp_path)()
    base: Any = env.unwrapped
    env.reset(seed=0)
    steps = play(env, turns(env))
    kinds = [step.info["error_kind"] for step in steps]
    assert kinds.count("malformed_call") == kinds.count("no_action") == 1
    assert "error" in kinds
    assert steps[-1].terminated
    if base.task.answer or not os.environ.get("ELPO_DATA"):  # LiveCodeBench publishes no solutions
        assert steps[-1].reward == 1.0
    env.close()


@pytest.mark.parametrize(("place", "env_id"), list(enumerate(IDS)), ids=IDS)
def test_an_id_conforms_in_wrappers(place: int, env_id: str, tmp_path: Path) -> None:
    stack = list(STACKS)[place % len(STACKS)]
    for name in QUICK_WRAPPED:
        CHECKS[name](wrapped(env_id, tmp_path, stack))


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_is_vectorised(stack: str, tmp_path: Path) -> None:
    for mode in MODES:
        CHECKS["vectors"](wrapped("elpo/Math-v0", tmp_path, stack, mode))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", IDS)
def test_every_check_of_every_id(env_id: str, mode: str, tmp_path: Path) -> None:
    for name in CHECKS if mode == MODES[0] else ("vectors",):
        CHECKS[name](plain(env_id, tmp_path, mode, seeds=(0, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("env_id", IDS)
def test_every_check_of_every_id_in_every_stack(env_id: str, stack: str, tmp_path: Path) -> None:
    for name in CHECKS:
        if not (name == "budgets" and stack in ENDS_EARLY):
            CHECKS[name](wrapped(env_id, tmp_path, stack))
    CHECKS["vectors"](wrapped(env_id, tmp_path, stack, "sync"))


def test_the_stacks_have_every_wrapper(tmp_path: Path) -> None:
    shipped = {
        value
        for value in vars(wrappers).values()
        if isinstance(value, type) and issubclass(value, gym.Wrapper) and value is not wrappers.ShapedReward
    }
    envs = [made("elpo/Math-v0", tmp_path, stack)() for stack in STACKS]
    used = {type(wrapper) for env in envs for wrapper in stack_of(env)}
    for env in envs:
        env.close()
    assert shipped <= used
    gymnasiums = {"TimeLimit", "RecordEpisodeStatistics", "OrderEnforcing", "PassiveEnvChecker"}
    assert gymnasiums <= {wrapper.__name__ for wrapper in used}
