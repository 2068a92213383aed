"""Every generator's expert scores 1 in the environment, and 0 where one of its steps goes wrong and the answer with it.

`pytest -m slow -rP tests/test_expert_traces.py` plays 1,000 tasks a generator and prints the counts.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from _trace_play import GENERATORS, Tally, group_of, play_tasks

from elpo_envs.tasks.generated import GeneratedSource
from elpo_envs.tasks.programs import ProgramSource
from elpo_envs.tasks.programs.draft import Draft
from elpo_envs.tasks.programs.exercise import Exercise, fails, wrong_programs
from elpo_envs.tasks.programs.running import load, outcome
from elpo_envs.tasks.science import ScienceSource, corrupt

N_TASKS = 1000
PART = 25
SOURCES: dict[str, Any] = {"math": GeneratedSource, "science": ScienceSource, "programs": ProgramSource}


@pytest.mark.parametrize("name", GENERATORS)
def test_experts_score_one(name: str) -> None:
    tally = play_tasks(GENERATORS[name], range(20), branch=False, mistakes=0)
    assert (tally.traces, tally.corruptions) == (20, 0)


@pytest.mark.parametrize("name", GENERATORS)
def test_corruptions_score_zero(name: str) -> None:
    check(play_tasks(GENERATORS[name], range(20, 25), branch=True, mistakes=1), 5)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_corruption_from_the_reset(name: str) -> None:
    check(play_tasks(GENERATORS[name], range(25, 26), branch=False), 1)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, N_TASKS, PART))
@pytest.mark.parametrize("name", GENERATORS)
def test_a_thousand_experts_score_one_and_their_corruptions_zero(name: str, first: int) -> None:
    tally = play_tasks(GENERATORS[name], range(first, first + PART), branch=True)
    check(tally, PART)
    print(f"{name} {first}: {tally.figures()}")


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATORS)
def test_a_thousand_tasks_are_of_every_family_and_difficulty(name: str) -> None:
    generator = GENERATORS[name]
    env = generator.make()
    base: Any = env.unwrapped
    met = Counter(group_of(base.task_source.get(index)) for index in range(N_TASKS))
    assert {group for group, _ in met} == generator.groups
    assert {steps for _, steps in met} == set(generator.steps)
    env.close()


def check(tally: Tally, traces: int) -> None:
    """The counts are those of a run that played something."""
    assert tally.traces == traces
    assert tally.corruptions == tally.changed + tally.same
    assert tally.changed >= 2 * traces
    assert tally.same < 0.4 * tally.corruptions


# --- the corruptions themselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_a_corruption_is_wrong_from_one_turn_on(name: str) -> None:
    source = SOURCES[name]("train", min_steps=2, max_steps=6)
    for index in range(12):
        task = source.get(index)
        for step in range(task.metadata["steps"]):
            traces = source.corruptions(task, step)
            assert traces == source.corruptions(task, step)
            assert len({repr(trace) for trace in traces}) == len(traces)
            for trace in traces:
                differing = [i for i, (a, b) in enumerate(zip(trace, task.expert, strict=True)) if a != b]
                wrong = [i for i in differing if i < len(trace) - 1]
                if name == "programs":  # the whole program is in one turn, and in the submission
                    assert wrong == [len(trace) - 2]
                else:
                    assert wrong == [step + (name == "science")]


@pytest.mark.parametrize("name", SOURCES)
def test_corruptions_need_a_task_of_the_source_and_a_step(name: str) -> None:
    source = SOURCES[name]("train")
    task = source.get(3)
    with pytest.raises(IndexError, match="step=9"):
        source.corruptions(task, 9)
    with pytest.raises(IndexError, match="step=-1"):
        source.corruptions(task, -1)
    with pytest.raises(KeyError, match="/test/"):
        source.corruptions(SOURCES[name]("test").get(3), 0)
    for index in ("03", "\u00b2", "\u0663", "9" * 5000, "-1", ""):
        with pytest.raises(KeyError, match="task_id"):
            source.by_id(task.task_id.rpartition("/")[0] + "/" + index)


def test_the_usual_mistake_is_one_of_the_corruptions() -> None:
    science, programs = ScienceSource(), ProgramSource()
    for index in range(20):
        task = science.get(index)
        for step in range(task.metadata["steps"]):
            usual = corrupt(task, step)
            assert usual is None or usual == science.corruptions(task, step)[0]
        task = programs.get(index)
        for step in range(task.metadata["steps"]):
            usual = programs.corrupt(task, step)
            assert usual is None or usual in programs.corruptions(task, step)


def differing_inputs(draft: Draft, right: str, wrong: str, rng: random.Random, n: int) -> int:
    """On how many of `n` random inputs the wrong program gives another outcome."""
    functions = [load(program, draft.entry_point) for program in (right, wrong)]
    seconds = [s.operation.n for s in draft.steps if s.takes_k]
    found = 0
    for _ in range(n):
        args = (draft.family.draw(rng), *(rng.choice(choices) for choices in seconds))
        first, second = (outcome(function, args) for function in functions)
        found += first != second
    return found


def survivors(indices: range, n_inputs: int) -> tuple[int, int, list[tuple[int, int, int]]]:
    """Wrong programs, how many pass the hidden tests, and (task, step, differing inputs) of those that are wrong."""
    source = ProgramSource("train", min_steps=2, max_steps=8, kinds=["write", "repair"])
    made = passed = 0
    wrong = []
    for index in indices:
        _, drawn = source.draw(index)
        assert isinstance(drawn, Exercise)
        for step in range(len(drawn.draft.steps)):
            for _, program in wrong_programs(drawn.draft, step):
                made += 1
                if not fails(program, drawn.draft.entry_point, drawn.hidden):
                    passed += 1
                    rng = random.Random(index)
                    n = differing_inputs(drawn.draft, drawn.program, program, rng, n_inputs)
                    wrong += [(index, step, n)] if n else []
    return made, passed, wrong


def test_a_mistake_that_passes_the_hidden_tests_changes_nothing() -> None:
    made, passed, wrong = survivors(range(40), 200)
    assert made > 400 and passed > 10
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, N_TASKS, 100))
def test_few_mistakes_pass_the_hidden_tests_of_a_thousand_tasks(first: int) -> None:
    made, passed, wrong = survivors(range(first, first + 100), 600)
    print(f"{made} wrong programs, {passed} pass, of which {len(wrong)} differ on some of 600 inputs: {wrong}")
    assert len(wrong) <= 0.002 * made
    assert all(n <= 12 for _, _, n in wrong)
