"""Every registered id: its spec, one episode, and the conformance kit on the three domains and three protocols."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import elpo_envs
from elpo_envs.conformance import CHECKS, Subject
from elpo_envs.registration import _ENTRIES

DOMAINS = ("elpo/Math-v0", "elpo/ScienceQA-v0", "elpo/CodeExec-v0")
BENCHMARKS = tuple(env_id for env_id, entry in _ENTRIES.items() if entry.arguments)
LACKING = {"elpo/GPQA-Diamond-v0": "may not be stored in plain text", "elpo/ARC-Easy-v0": "is not in the data folder"}
LACKING["elpo/MATH-v0"] = "only has its training split in the data folder"


def make(env_id: str, **arguments: Any) -> Callable[[], gym.Env[Any, Any]]:
    return lambda: gym.make(env_id, **arguments)


@pytest.mark.parametrize("env_id", elpo_envs.env_ids())
def test_the_spec_round_trips(env_id: str) -> None:
    spec = gym.spec(env_id)
    read = type(spec).from_json(spec.to_json())
    assert (read.id, read.kwargs, read.entry_point, read.vector_entry_point) == (
        env_id,
        spec.kwargs,
        spec.entry_point,
        spec.vector_entry_point,
    )
    assert spec.max_episode_steps is None


@pytest.mark.parametrize("name", list(CHECKS))
@pytest.mark.parametrize("env_id", DOMAINS[1:])
def test_a_domain_conforms(env_id: str, name: str) -> None:
    CHECKS[name](Subject(make(env_id), seeds=(0, 1)))


@pytest.mark.parametrize("name", ["every_step", "seeding", "nasty_turns", "snapshots"])
@pytest.mark.parametrize(
    ("env_id", "protocol"),
    [
        ("elpo/Math-v0", "fences"),
        ("elpo/Math-v0", "python_tags"),
        ("elpo/CodeExec-v0", "python_tags"),
        ("elpo/CodeExec-v0", "openai"),
        ("elpo/ScienceQA-v0", "openai"),
    ],
)
def test_a_protocol_conforms(env_id: str, protocol: str, name: str) -> None:
    CHECKS[name](Subject(make(env_id, protocol=protocol), seeds=(0,)))


@pytest.mark.parametrize("env_id", DOMAINS)
def test_expert_traces_score_one(env_id: str) -> None:
    env = gym.make(env_id)
    base: Any = env.unwrapped
    for index in range(12):
        env.reset(options={"index": index})
        for turn in base.expert_turns():
            _, reward, terminated, truncated, info = env.step(turn)
        assert (reward, terminated, truncated, info["error_kind"]) == (1.0, True, False, None), info["task_id"]
    env.close()


@pytest.mark.parametrize("env_id", BENCHMARKS)
def test_a_benchmark_begins(env_id: str) -> None:
    if not os.environ.get("ELPO_DATA"):
        pytest.skip("ELPO_DATA is not set: a folder with the benchmarks' files")
    if env_id in LACKING:
        pytest.skip(f"{env_id} {LACKING[env_id]}")
    env = gym.make(env_id)
    question, info = env.reset(seed=3)
    assert question and info["split"] == "test" and info["messages"][-1]["content"] == question
    again, other = env.reset(options={"task_id": info["task_id"]})
    assert (again, other["index"]) == (question, info["index"])
    _, reward, *_ = env.step("I do not know.")
    assert reward == 0.0
    env.close()


def test_a_benchmark_is_read_from_a_path_and_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"

    def solved(total: int) -> tuple[str, float]:
        row = {
            "question": f"What is 1 + {total - 1}?",
            "answer": f"It is <<1+{total - 1}={total}>>{total}.\n#### {total}",
        }
        path.write_text(json.dumps(row) + "\n")
        os.utime(path, ns=(total * 10**9, total * 10**9))
        env = gym.make("elpo/GSM8K-v0", dataset_options={"path": str(path)})
        question, _ = env.reset(seed=0)
        reward = env.step(f"\\boxed{{{total}}}")[1]
        env.close()
        return question, float(reward)

    assert solved(3) == ("What is 1 + 2?", 1.0)
    assert solved(8) == ("What is 1 + 7?", 1.0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        gym.make("elpo/GSM8K-v0", dataset_options={"path": str(tmp_path / "nowhere")}).reset(seed=0)


@pytest.mark.parametrize(
    ("env_id", "arguments", "message"),
    [
        ("elpo/Math-v0", {"dataset": "arc_challenge", "split": "test"}, "is of the domain science"),
        ("elpo/ScienceQA-v0", {"dataset": "gsm8k"}, "is of the domain math"),
        ("elpo/CodeExec-v0", {"dataset": "rows.jsonl"}, "is unknown; choose generated, humaneval"),
        ("elpo/CodeExec-v0", {"protocol": "fences"}, "choose hermes, openai or python_tags"),
        ("elpo/CodeExec-v0", {"grading_limits": {"total": 3}}, "do not fit CodeLimits"),
        ("elpo/CodeExec-v0", {"grading_limits": {"total_s": -3}}, "CodeLimits.total_s must be a positive"),
        ("elpo/ScienceQA-v0", {"corpus": "no-such-file.jsonl"}, "no-such-file.jsonl"),
        ("elpo/HumanEval-v0", {"split": "train"}, "split='train' of humaneval does not exist; choose test"),
        ("elpo/MBPP-v0", {"dataset_options": {"shots": 3}}, "'shots' of mbpp is unknown; choose"),
    ],
)
def test_wrong_arguments(env_id: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        gym.make(env_id, **arguments)


@pytest.mark.parametrize("env_id", DOMAINS)
def test_vectorised(env_id: str) -> None:
    vector = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point")
    single = gym.make(env_id)
    observations, _ = vector.reset(seed=5)
    assert observations[0] == single.reset(seed=5)[0]
    assert observations[1] == single.reset(seed=6)[0]
    rewards = vector.step(("\\boxed{0}", "hm"))[1]
    assert list(rewards) == [0.0, 0.0]
    vector.close()
    single.close()
