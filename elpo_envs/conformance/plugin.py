"""The pytest plug-in: `pytest -p elpo_envs.conformance.plugin --pyargs elpo_envs.conformance --tir-env ID`."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import pytest

from elpo_envs.conformance.subject import Subject


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tool-integrated reasoning environments")
    group.addoption("--tir-env", action="append", default=[], metavar="ID", help="a Gymnasium id to check; repeatable")
    group.addoption("--tir-kwargs", default="{}", metavar="JSON", help="arguments of gymnasium.make as a JSON object")
    group.addoption("--tir-no-snapshots", action="store_true", help="the environments have no snapshots")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "conformance_subject" in metafunc.fixturenames:
        config = metafunc.config
        ids = config.getoption("--tir-env")
        if not ids:
            raise pytest.UsageError("say which environment to check: --tir-env my_envs:my/Env-v0")
        try:
            arguments = dict(json.loads(config.getoption("--tir-kwargs")))
        except (ValueError, TypeError) as error:
            raise pytest.UsageError(f"--tir-kwargs must be a JSON object: {error}") from error
        subjects = [_subject(env_id, arguments, config.getoption("--tir-no-snapshots")) for env_id in ids]
        metafunc.parametrize("conformance_subject", subjects, ids=ids)


def _subject(env_id: str, arguments: dict[str, object], without_snapshots: bool) -> Subject:
    def make() -> gym.Env[object, object]:
        made: gym.Env[object, object] = gym.make(env_id, **arguments)  # type: ignore[arg-type]
        return made

    def make_vector(num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        return gym.make_vec(env_id, num_envs=num_envs, **arguments)  # type: ignore[arg-type]

    if without_snapshots:
        return Subject(make, snapshot=None, restore=None, make_vector=make_vector)
    return Subject(make, make_vector=make_vector)
