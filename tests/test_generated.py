"""The word-problem generator: exact answers, a working difficulty knob, splits that never meet."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elpo_envs
from elpo_envs.tasks.generated import FAMILIES, GeneratedSource, MistakeRates, student_trace
from elpo_envs.tasks.generated.problem import LARGEST
from elpo_envs.tasks.generated.source import split_of


def run_expert(source: GeneratedSource, index: int) -> object:
    """The value of the expert's last step, by plain execution of its code."""
    scope: dict[str, object] = {}
    value: object = None
    for turn in source.get(index).expert[:-1]:
        statement, expression = turn.tool_calls[0].arguments["code"].split("\n")
        exec(statement, scope)
        value = eval(expression, scope)
    return value


def test_there_are_at_least_eight_families() -> None:
    assert len(FAMILIES) >= 8


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [2, 3, 5, 8, 12])
def test_every_family_at_every_difficulty_is_exact(family: str, steps: int) -> None:
    source = GeneratedSource("train", min_steps=steps, max_steps=steps, families=[family])
    for index in range(8):
        task = source.get(index)
        assert task.metadata["family"] == family
        assert task.metadata["steps"] == steps
        assert len(task.expert) == steps + 1
        assert Fraction(str(run_expert(source, index))) == Fraction(task.answer)
        assert 1 <= Fraction(task.answer) <= LARGEST


def test_each_step_depends_on_the_one_before() -> None:
    source = GeneratedSource("train", min_steps=6, max_steps=6)
    for index in range(50):
        steps = source.problem(index).steps
        for before, step in pairwise(steps):
            assert before.variable in step.expr


def test_pitfalls_lead_to_another_value() -> None:
    source = GeneratedSource("train", min_steps=4, max_steps=4)
    seen = 0
    for index in range(100):
        scope: dict[str, object] = {}
        for step in source.problem(index).steps:
            if step.pitfall is not None:
                seen += 1
                assert Fraction(str(eval(step.pitfall, dict(scope)))) != step.value
            exec(f"{step.variable} = {step.expr}", scope)
    assert seen > 50


@given(st.integers(0, 2**31 - 1), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_task_is_a_pure_function_of_its_index(index: int, seed: int) -> None:
    a = GeneratedSource("validation", min_steps=2, max_steps=6, seed=seed)
    b = GeneratedSource("validation", min_steps=2, max_steps=6, seed=seed)
    assert a.get(index) == b.get(index)
    assert a.by_id(a.get(index).task_id) == a.get(index)


def test_splits_never_overlap_whatever_the_seed() -> None:
    questions: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        questions[split] = {
            GeneratedSource(split, min_steps=2, max_steps=2, seed=seed).get(i).question
            for seed in range(2)
            for i in range(300)
        }
        assert all(split_of(q) == split for q in questions[split])
    assert not questions["train"] & questions["validation"]
    assert not questions["train"] & questions["test"]
    assert not questions["validation"] & questions["test"]


def test_generation_leaves_the_global_generator_alone() -> None:
    state = np.random.get_state()[1].tolist()
    GeneratedSource("train", min_steps=12, max_steps=12).get(0)
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"split": "dev"}, "split='dev'"),
        ({"min_steps": 1}, "min_steps=1"),
        ({"max_steps": 13}, "max_steps=13"),
        ({"min_steps": 5, "max_steps": 4}, "min_steps=5"),
        ({"families": ["trains"]}, "trains"),
        ({"families": []}, "families"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named.replace("[", "\\[")):
        GeneratedSource(**kwargs)  # type: ignore[arg-type]


def test_index_out_of_range_and_foreign_ids_are_refused() -> None:
    source = GeneratedSource("train")
    with pytest.raises(IndexError, match="-1"):
        source.get(-1)
    with pytest.raises(KeyError, match="gsm8k/train/3"):
        source.by_id("gsm8k/train/3")


def test_the_expert_scores_full_marks_in_the_environment() -> None:
    env: gym.Env[str, str] = gym.make("elpo/Math-v0", dataset_options={"min_steps": 2, "max_steps": 12})
    for index in range(30):
        env.reset(options={"index": index})
        for turn in env.unwrapped.expert_turns():  # type: ignore[attr-defined]
            _, reward, terminated, _, info = env.step(turn)
        assert terminated
        assert reward == 1.0, info["messages"]
        assert info["n_tool_errors"] == 0
    env.close()


def test_students_err_as_often_as_they_are_told_to() -> None:
    source = GeneratedSource("train", min_steps=4, max_steps=4)
    rng = np.random.default_rng(0)
    perfect = MistakeRates(pitfall=0, slip=0, name_error=0, second_thought=0)
    assert all(student_trace(source.problem(i), perfect, rng)[1] for i in range(50))
    hopeless = MistakeRates(pitfall=1, slip=0, name_error=0, second_thought=0)
    for i in range(50):
        problem = source.problem(i)
        _, right = student_trace(problem, hopeless, rng)
        assert right == all(step.pitfall is None for step in problem.steps)
    usual = np.mean([student_trace(source.problem(i), MistakeRates(), rng)[1] for i in range(1000)])
    assert 0.3 < usual < 0.5


def test_the_package_exports_what_scripts_rely_on() -> None:
    assert {"snapshot", "restore", "fork", "Snapshot", "grading"} <= set(elpo_envs.__all__)
