"""The model behind a generated task: what its expert does, what each step rests on, and how to tell that it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from elpo_envs.tasks.base import ExpertTurn, Task, TaskSource, ToolCall


def known_task(source: TaskSource, task: Task) -> Task:
    """The task of that id as `source` has it. Raises KeyError where that is another one, or none."""
    known = source.by_id(task.task_id)
    if (known.question, known.answer) != (task.question, task.answer):
        raise KeyError(f"task_id={task.task_id!r} has another question or answer in {source.name!r}")
    return known


@dataclass(frozen=True)
class Holds:
    """The interpreter gives each expression its value now: what is overwritten counts no more.

    Attributes:
        results: (Python expression, value): JSON values, compared as Python does, with tuples as lists; or a
            `Fraction`, compared exactly with an int or a float.
        relative: how far from its value a number may be; 0.0 for exact.
    """

    results: tuple[tuple[str, Any], ...]
    relative: float = 0.0


@dataclass(frozen=True)
class Shown:
    """A result of one of the tools had this line, perhaps after a number in brackets."""

    tools: tuple[str, ...]
    line: str


@dataclass(frozen=True)
class Made:
    """This very call was made and answered."""

    call: ToolCall


Evidence = Holds | Shown | Made


@dataclass(frozen=True)
class PlanStep:
    """One tool call of the expert.

    Attributes:
        turn: which of the expert's turns it belongs to; calls of one turn are made together.
        needs: the steps, from 0, whose results it reads; all of them come earlier.
        evidence: any one of these shows that the step is done.
    """

    turn: int
    call: ToolCall
    needs: tuple[int, ...]
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Plan:
    """How a task's expert solves it.

    Attributes:
        steps: its tool calls in their order.
        needs: the steps that the final turn rests on.
        answers: turns that give the right answer; the first is the expert's own.
    """

    steps: tuple[PlanStep, ...]
    needs: tuple[int, ...]
    answers: tuple[ExpertTurn, ...]

    def remaining(self, is_done: Callable[[PlanStep], bool]) -> tuple[ExpertTurn, ...]:
        """The fewest of the expert's turns that still lead to the answer, the final one included.

        A step that is not done must be made where the final turn, or another step to be made, needs it; nothing else
        must be. So these are at once the fewest turns, the fewest calls and the fewest characters.

        Args:
            is_done: asked at most once about a step, later steps first.
        """
        to_make: set[int] = set()
        asked: set[int] = set()
        stack = list(self.needs)
        while stack:
            i = stack.pop()
            if i in asked:
                continue
            asked.add(i)
            if not is_done(self.steps[i]):
                to_make.add(i)
                stack.extend(self.steps[i].needs)
        turns: dict[int, list[ToolCall]] = {}
        for i in sorted(to_make):
            turns.setdefault(self.steps[i].turn, []).append(self.steps[i].call)
        return (*(ExpertTurn("", tuple(calls)) for calls in turns.values()), self.answers[0])
