"""The environments' Gymnasium ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

MATH = "elpo_envs.math_env:MathEnv"
SCIENCE = "elpo_envs.science_env:ScienceQAEnv"
CODE = "elpo_envs.code_env:CodeExecEnv"
CHAIN = "elpo_envs.exact.env:ExactChainEnv"
VECTOR = {
    MATH: "elpo_envs.vector:MathVectorEnv",
    SCIENCE: "elpo_envs.vector:ScienceQAVectorEnv",
    CODE: "elpo_envs.vector:CodeExecVectorEnv",
    CHAIN: "elpo_envs.vector:ExactChainVectorEnv",
}
MATH_ID = "elpo/Math-v0"


@dataclass(frozen=True)
class _Entry:
    """What an id stands for: an environment, and arguments in place of its defaults."""

    entry_point: str
    arguments: dict[str, Any] = field(default_factory=dict)


def _benchmark(entry_point: str, dataset: str, split: str = "test") -> _Entry:
    return _Entry(entry_point, {"dataset": dataset, "split": split})


_ENTRIES = {
    MATH_ID: _Entry(MATH),
    "elpo/ScienceQA-v0": _Entry(SCIENCE),
    "elpo/CodeExec-v0": _Entry(CODE),
    "elpo/GSM8K-v0": _benchmark(MATH, "gsm8k"),
    "elpo/MATH-v0": _benchmark(MATH, "math"),
    "elpo/MATH500-v0": _benchmark(MATH, "math500"),
    "elpo/AIME24-v0": _benchmark(MATH, "aime24"),
    "elpo/AIME25-v0": _benchmark(MATH, "aime25"),
    "elpo/AMC23-v0": _benchmark(MATH, "amc23"),
    "elpo/GPQA-Diamond-v0": _benchmark(SCIENCE, "gpqa_diamond"),
    "elpo/SciBench-v0": _benchmark(SCIENCE, "scibench"),
    "elpo/ARC-Challenge-v0": _benchmark(SCIENCE, "arc_challenge"),
    "elpo/ARC-Easy-v0": _benchmark(SCIENCE, "arc_easy"),
    "elpo/OpenBookQA-v0": _benchmark(SCIENCE, "openbookqa"),
    "elpo/MMLU-STEM-v0": _benchmark(SCIENCE, "mmlu_stem"),
    "elpo/HumanEval-v0": _benchmark(CODE, "humaneval"),
    "elpo/MBPP-v0": _benchmark(CODE, "mbpp"),
    "elpo/MBPP-Sanitized-v0": _benchmark(CODE, "mbpp_sanitized"),
    "elpo/LiveCodeBench-v0": _benchmark(CODE, "livecodebench"),
    "elpo/ExactChain-v0": _Entry(CHAIN),
}


def env_ids() -> tuple[str, ...]:
    """The Gymnasium ids that this package registers."""
    return tuple(_ENTRIES)


def register_all() -> None:
    """Register every id of this package once; a second call changes nothing.

    Entry points are strings and keyword arguments JSON values, so that `env.spec.to_json()` round-trips.
    `max_episode_steps` stays None because Gymnasium would keep it from the constructor: the environments
    count their own turns (`max_turns`).
    """
    for env_id, entry in _ENTRIES.items():
        if env_id not in gym.registry:
            gym.register(
                id=env_id,
                entry_point=entry.entry_point,
                vector_entry_point=VECTOR[entry.entry_point],
                kwargs=dict(entry.arguments),
                max_episode_steps=None,
            )
