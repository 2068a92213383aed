"""An endless, seeded source of physics and chemistry questions, and traces with a mistake in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np

from elpo_envs.grading.choice import choice_order
from elpo_envs.tasks.base import ExpertTurn, Task
from elpo_envs.tasks.generated.source import split_of
from elpo_envs.tasks.science.families import FAMILIES
from elpo_envs.tasks.science.move import Pitfall
from elpo_envs.tasks.science.problem import (
    MAX_STEPS,
    MIN_STEPS,
    N_OPTIONS,
    ScienceProblem,
    draw_distractors,
    draw_problem,
    significant,
)
from elpo_envs.tasks.science.traces import solution

KINDS = ("choice", "number")
LETTERS = "ABCD"
TOLERANCE = 0.01
MAX_INDEX = 2**31 - 1
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class _Item:
    """A question and its options in the order they are shown; no options where it asks for a number."""

    problem: ScienceProblem
    options: tuple[str, ...]


class ScienceSource:
    r"""Questions of `min_steps` to `max_steps` dependent steps, a pure function of (split, seed, index).

    Each needs values from the reference tables (`metadata["lookups"]` names the passages) and calculation with them.
    The answer is a number to 4 significant figures, accepted within 1%, or the letter of one of four options, of which
    the wrong ones are results of typical mistakes.

    Args:
        split: "train", "validation" or "test"; no question occurs in two of them, whatever the seeds.
        min_steps, max_steps: the difficulty knob, 2 to 8 dependent steps.
        families: names from `FAMILIES`; all of them by default. Their order and repetitions do not matter.
        kinds: "choice", "number" or both.
        seed: another seed gives another endless sequence.

    Raises:
        ValueError: an unknown split, family or kind, a negative seed, or a step range outside 2..8.
    """

    name = "science"

    def __init__(
        self,
        split: str = "train",
        *,
        min_steps: int = 2,
        max_steps: int = 4,
        families: Sequence[str] | None = None,
        kinds: Sequence[str] = KINDS,
        seed: int = 0,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split={split!r} is unknown; choose one of {', '.join(SPLITS)}")
        if not MIN_STEPS <= min_steps <= max_steps <= MAX_STEPS:
            raise ValueError(
                f"min_steps={min_steps}, max_steps={max_steps} must satisfy "
                f"{MIN_STEPS} <= min_steps <= max_steps <= {MAX_STEPS}"
            )
        if seed < 0:
            raise ValueError(f"seed={seed} must be 0 or larger")
        self.split = split
        self.min_steps = min_steps
        self.max_steps = max_steps
        self.families = _chosen("families", FAMILIES if families is None else families, tuple(FAMILIES))
        self.kinds = _chosen("kinds", kinds, KINDS)
        self.seed = seed

    @property
    def size(self) -> int | None:
        return None

    @property
    def prefix(self) -> str:
        """What the ids of this source's tasks begin with; it says everything that the tasks depend on."""
        return _prefix(self.split, self.seed, self.min_steps, self.max_steps, self.families, self.kinds)

    @classmethod
    def from_id(cls, task_id: str) -> Self:
        """The source that has the task of this id. Raises KeyError naming the id where there is none."""
        try:
            name, split, options, _ = task_id.split("/")
            seed, low, high, kinds, *families = options.split("-")
            source = cls(
                split,
                min_steps=int(low),
                max_steps=int(high),
                families=families[0].split("+") if families else None,
                kinds=kinds.split("+"),
                seed=int(seed),
            )
        except ValueError as error:
            raise KeyError(f"task_id={task_id!r} is not of a generated science task") from error
        if name != cls.name or not task_id.startswith(source.prefix + "/"):
            raise KeyError(f"task_id={task_id!r} is not of a generated science task")
        return source

    def problem(self, index: int) -> ScienceProblem:
        """The question behind task `index`, with its steps, values and pitfalls."""
        return self._item(index).problem

    def _item(self, index: int) -> _Item:
        if not 0 <= index <= MAX_INDEX:
            raise IndexError(f"index={index} is outside 0..{MAX_INDEX}")
        return _draw_item(self.split, self.seed, index, self.min_steps, self.max_steps, self.families, self.kinds)

    def _id(self, index: int) -> str:
        return f"{self.prefix}/{index}"

    def get(self, index: int) -> Task:
        item = self._item(index)
        problem, options = item.problem, item.options
        unit = problem.kind.unit
        metadata = {
            "family": problem.family,
            "steps": len(problem.steps),
            "lookups": list(problem.lookups),
            "pitfalls": [why for _, why in problem.mistakes],
        }
        if options:
            choices = [f"{option} {unit}" for option in options]
            lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=True)]
            question = "\n".join([problem.question, *lines])
            metadata |= {"kind": "choice", "choices": choices}
        else:
            question = f"{problem.question} Give 4 significant figures."
            metadata |= {"kind": "number", "unit": unit, "tolerance": TOLERANCE}
        return Task(
            task_id=self._id(index),
            index=index,
            split=self.split,
            question=question,
            answer=_answer(problem.value, options),
            expert=_expert(item),
            metadata=metadata,
        )

    def by_id(self, task_id: str) -> Task:
        prefix, _, index = task_id.rpartition("/")
        position = int(index) if index.isascii() and index.isdigit() and len(index) <= len(str(MAX_INDEX)) else -1
        if prefix != self.prefix or index != str(position) or not 0 <= position <= MAX_INDEX:
            raise KeyError(f"task_id={task_id!r} is not of this source; its ids look like {self._id(0)!r}")
        return self.get(position)

    def corrupted(self, index: int, step: int) -> tuple[ExpertTurn, ...] | None:
        """See `corrupt`."""
        item = self._item(index)
        mistake, _ = _pitfalls(item, step)[0]
        trace = _carried_through(item, step, mistake)
        return None if trace is None or (item.options and trace[-1] == _expert(item)[-1]) else trace

    def corruptions(self, task: Task, step: int) -> list[tuple[ExpertTurn, ...]]:
        """The expert's trace with each mistake that calculation `step` invites, carried through to the final answer.

        Mistakes that lead to the same final answer in the end are among them; those that make a later calculation
        impossible are not. The first one is that of `corrupt`. Raises as `corrupt` does.
        """
        if self.by_id(task.task_id).index != task.index:
            raise KeyError(f"task_id={task.task_id!r} is not that of the task at index={task.index}")
        item = self._item(task.index)
        traces = [_carried_through(item, step, template) for template, _ in _pitfalls(item, step)]
        return [trace for trace in traces if trace is not None]


def corrupt(task: Task, step: int) -> tuple[ExpertTurn, ...] | None:
    """The expert's trace with a mistake in one calculation, carried through to a wrong final answer.

    In multiple choice, the option nearest to the wrong result is taken; None where that is the right one, which happens
    where no mistake of that step leads to another option.

    Args:
        step: the calculation that goes wrong, 0 to `task.metadata["steps"] - 1`; `task.metadata["pitfalls"][step]`
            says how.

    Raises:
        KeyError: the task is not of a `ScienceSource`.
        IndexError: there is no such step.
    """
    return ScienceSource.from_id(task.task_id).corrupted(task.index, step)


def _pitfalls(item: _Item, step: int) -> list[Pitfall]:
    """The mistakes of that calculation, the one in the task's metadata first."""
    problem = item.problem
    if not 0 <= step < len(problem.steps):
        raise IndexError(f"step={step} is outside 0..{len(problem.steps) - 1}")
    first = problem.mistakes[step]
    return [first, *(pitfall for pitfall in problem.steps[step].pitfalls if pitfall[0] != first[0])]


def _carried_through(item: _Item, step: int, template: str) -> tuple[ExpertTurn, ...] | None:
    """The solution in which that calculation goes by `template`; None where it breaks off."""
    problem, wrong = item.problem, {step: template}
    final = problem.outcome(wrong)
    return None if final is None else solution(problem, _boxed(item, final), wrong)


def _expert(item: _Item) -> tuple[ExpertTurn, ...]:
    return solution(item.problem, _boxed(item, item.problem.value))


def _boxed(item: _Item, value: float) -> str:
    """What the box holds: the letter of the nearest option, or the number with its unit."""
    answer = _answer(value, item.options)
    return answer if item.options else f"{answer} {item.problem.kind.unit}"


def _prefix(
    split: str, seed: int, min_steps: int, max_steps: int, families: tuple[str, ...], kinds: tuple[str, ...]
) -> str:
    named = "" if families == tuple(FAMILIES) else f"-{'+'.join(families)}"
    return f"{ScienceSource.name}/{split}/{seed}-{min_steps}-{max_steps}-{'+'.join(kinds)}{named}"


@lru_cache(maxsize=256)
def _draw_item(
    split: str, seed: int, index: int, min_steps: int, max_steps: int, families: tuple[str, ...], kinds: tuple[str, ...]
) -> _Item:
    """Kept for a while, since a task and the traces about it are asked for one after the other."""
    bits = sum(1 << KINDS.index(kind) for kind in kinds)
    key = [seed, SPLITS.index(split), index, min_steps, max_steps, bits]
    rng = np.random.default_rng(np.random.SeedSequence(key))
    kind = kinds[int(rng.integers(len(kinds)))]
    family = FAMILIES[families[int(rng.integers(len(families)))]]
    n_steps = int(rng.integers(min_steps, max_steps + 1))
    smaller = int(rng.integers(N_OPTIONS))
    task_id = f"{_prefix(split, seed, min_steps, max_steps, families, kinds)}/{index}"
    while True:
        problem = draw_problem(family, n_steps, rng)
        if split_of(problem.question) != split:
            continue
        if kind == "number":
            return _Item(problem, ())
        wrong = draw_distractors(problem, smaller, rng)
        if wrong is not None:
            texts = (significant(problem.value), *wrong)
            options = tuple(texts[i] for i in choice_order(task_id, N_OPTIONS))
            return _Item(_with_wrong_letters(problem, options), options)


def _with_wrong_letters(problem: ScienceProblem, options: tuple[str, ...]) -> ScienceProblem:
    """The problem with mistakes that lead to another option than the right one, where a step has such."""
    right = _answer(problem.value, options)

    def misleads(step: int, pitfall: Pitfall) -> bool:
        final = problem.outcome({step: pitfall[0]})
        return final is not None and _answer(final, options) != right

    mistakes = [
        next((pitfall for pitfall in (mistake, *step.pitfalls) if misleads(i, pitfall)), mistake)
        for i, (step, mistake) in enumerate(zip(problem.steps, problem.mistakes, strict=True))
    ]
    return replace(problem, mistakes=tuple(mistakes))


def _answer(value: float, options: tuple[str, ...]) -> str:
    """The number as text, or the letter of the nearest option, by ratio."""
    if not options:
        return significant(value)
    distances = [abs(math.log(float(option) / value)) for option in options]
    return LETTERS[distances.index(min(distances))]


def _chosen(field: str, given: Iterable[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """The given names without repetition, in the order of `known`."""
    names = tuple(given)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"{field}={list(names)} has unknown or no names; choose from {', '.join(known)}")
    return tuple(name for name in known if name in names)
