"""Expert traces and their single-step corruptions, played through the registered environments."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import gymnasium as gym

from elpo_envs import Snapshot, restore, snapshot
from elpo_envs.grading import extract_boxed
from elpo_envs.tasks.base import ExpertTurn, Task
from elpo_envs.tasks.generated import FAMILIES as STORIES
from elpo_envs.tasks.programs import FUNCTION_FAMILIES, KINDS, PRINTING_FAMILIES
from elpo_envs.tasks.science import FAMILIES as SCIENCE
from elpo_envs.tasks.science.problem import significant


@dataclass(frozen=True)
class Generator:
    """The endless tasks of a domain, at every difficulty.

    Attributes:
        groups: the (exercise or kind, family) pairs that a run over 1,000 tasks must meet.
        steps: the difficulties that it must meet.
    """

    env_id: str
    groups: frozenset[tuple[str, str]]
    steps: range

    def make(self) -> gym.Env[str, str]:
        """A new environment over all families and difficulties."""
        options = {"min_steps": self.steps[0], "max_steps": self.steps[-1]}
        return gym.make(self.env_id, dataset_options=options)


GENERATORS = {
    "math": Generator("elpo/Math-v0", frozenset(("math", name) for name in STORIES), range(2, 13)),
    "science": Generator(
        "elpo/ScienceQA-v0", frozenset((kind, name) for kind in ("choice", "number") for name in SCIENCE), range(2, 9)
    ),
    "programs": Generator(
        "elpo/CodeExec-v0",
        frozenset(
            (kind, name) for kind in KINDS for name in (PRINTING_FAMILIES if kind == "output" else FUNCTION_FAMILIES)
        ),
        range(2, 9),
    ),
}


@dataclass
class Tally:
    """What was played, and what it scored.

    Attributes:
        traces: expert traces, all of which scored 1.0.
        corruptions: corrupted traces; `changed`: those with another final answer, which were played and all scored 0.0;
            `same`: those with the same answer, which were not played.
        turns: assistant turns taken in all.
    """

    traces: int = 0
    corruptions: int = 0
    changed: int = 0
    same: int = 0
    turns: int = 0

    def figures(self) -> str:
        """The counts as JSON."""
        return json.dumps(asdict(self))


def group_of(task: Task) -> tuple[tuple[str, str], int]:
    """((exercise or kind, family), steps) of a task."""
    about = task.metadata
    return (about.get("exercise", about.get("kind", "math")), about["family"]), about["steps"]


def play_tasks(generator: Generator, indices: range, *, branch: bool, mistakes: int | None = None) -> Tally:
    """Play each task's expert and its corruptions; raise AssertionError where a score is wrong.

    Args:
        branch: a corrupted trace goes on from a snapshot of the expert's, taken before the wrong turn; otherwise it
            begins at the reset.
        mistakes: play so many mistakes of each step that change the answer; None for all.
    """
    tally = Tally()
    env = generator.make()
    base: Any = env.unwrapped
    try:
        for index in indices:
            env.reset(options={"index": index})
            task = base.task
            about = task.metadata
            frozen = [snapshot(env)] if branch else []
            outcome = _play(env, task.expert, frozen if branch else None)
            _check(task, task.expert, outcome, right=True)
            tally.traces += 1
            tally.turns += len(task.expert)
            for step in range(about["steps"]):
                _play_corruptions(env, task, step, frozen, tally, mistakes)
    finally:
        env.close()
    return tally


def _play_corruptions(
    env: gym.Env[str, str], task: Task, step: int, frozen: Sequence[Snapshot], tally: Tally, mistakes: int | None
) -> None:
    base: Any = env.unwrapped
    played = 0
    for trace in base.task_source.corruptions(task, step):
        if played == mistakes:
            return
        assert trace != task.expert
        tally.corruptions += 1
        if not changes_the_answer(task, trace):
            tally.same += 1
            continue
        first = next(i for i, turn in enumerate(trace) if turn != task.expert[i]) if frozen else 0
        if frozen:
            restore(env, frozen[first])
        else:
            env.reset(options={"index": task.index})
        _check(task, trace, _play(env, trace[first:]), right=False)
        played += 1
        tally.changed += 1
        tally.turns += len(trace) - first


@dataclass(frozen=True)
class _Outcome:
    """How an episode ended, and the last tool result before it did."""

    reward: float
    terminated: bool
    info: dict[str, Any]
    shown: str


def _play(env: gym.Env[str, str], turns: Sequence[ExpertTurn], frozen: list[Snapshot] | None = None) -> _Outcome:
    """Say the turns in the environment's own protocol; `frozen` collects a snapshot after each but the last."""
    base: Any = env.unwrapped
    shown = ""
    for number, turn in enumerate(turns, start=1):
        obs, reward, terminated, truncated, info = env.step(base.protocol.render(turn))
        over = terminated or truncated
        assert over == (number == len(turns)), (info["task_id"], number, info["messages"][-1])
        if not over:
            shown = obs
            if frozen is not None:
                frozen.append(snapshot(env))
    return _Outcome(float(reward), terminated, info, shown)


def _check(task: Task, trace: Sequence[ExpertTurn], outcome: _Outcome, *, right: bool) -> None:
    info = outcome.info
    told = (task.task_id, answer_of(trace), task.answer, info["grade"], info["messages"][1:])
    assert (outcome.terminated, info["valid"], info["error_kind"]) == (True, True, None), told
    assert (outcome.reward, info["is_correct"]) == (float(right), right), told
    kind = task.metadata.get("kind", "math")
    if right:
        assert info["n_tool_errors"] == 0, told
    if outcome.shown and info["n_tool_errors"] == 0:  # what is boxed is what the tool printed last
        if kind == "math":
            assert Fraction(outcome.shown) == Fraction(answer_of(trace)), told
        elif kind == "number":
            assert significant(float(outcome.shown)) == answer_of(trace).split()[0], told
        elif kind == "output":
            assert outcome.shown.rstrip() == answer_of(trace), told


def answer_of(trace: Sequence[ExpertTurn]) -> str:
    """What the last turn boxes or hands in."""
    last = trace[-1]
    if last.tool_calls:
        return str(last.tool_calls[0].arguments["code"])
    (boxed,) = extract_boxed(last.content)
    return boxed


def changes_the_answer(task: Task, trace: Sequence[ExpertTurn]) -> bool:
    """Whether the trace ends in another answer than the task's, found without the graders."""
    given, kind = answer_of(trace), task.metadata.get("kind", "math")
    if kind == "math":
        return Fraction(given) != Fraction(task.answer)
    if kind == "number":
        right = float(task.answer)
        return abs(float(given.split()[0]) - right) > task.metadata["tolerance"] * abs(right)
    if kind == "program":
        return not passes(given, task.metadata["tests"])
    return given.rstrip() != task.answer.rstrip()


def passes(program: str, tests: dict[str, Any]) -> bool:
    """Whether a generator's own program gives every expected value, type and all; an exception is a failure."""
    scope: dict[str, Any] = {}
    exec(program, scope)
    for case in tests["cases"]:
        try:
            value = scope[tests["entry_point"]](*copy.deepcopy(case["args"]))
            given = json.dumps(value, sort_keys=True)
        except Exception:
            return False
        if given != json.dumps(case["expected"], sort_keys=True):
            return False
    return True
