"""The plans of programming tasks: see the bug, try the program, submit it; or run a program and read its output."""

from __future__ import annotations

from elpo_envs.tasks.base import ExpertTurn, Task
from elpo_envs.tasks.plans import Holds, Made, Plan, PlanStep, Shown, known_task
from elpo_envs.tasks.programs.exercise import Exercise
from elpo_envs.tasks.programs.questions import call_text
from elpo_envs.tasks.programs.source import ProgramSource


def plan(task: Task) -> Plan:
    """The plan of a task of `ProgramSource`. Raises KeyError for a task that no such source has.

    The trial of a program is done while the interpreter's function gives every example and hidden case its result.
    """
    source = ProgramSource.from_id(task.task_id)
    known = known_task(source, task)
    _, drawn = source.draw(known.index)
    *trials, final = known.expert
    calls = [turn.tool_calls[0] for turn in trials]
    if not isinstance(drawn, Exercise):
        step = PlanStep(0, calls[0], (), (Shown(("python",), drawn.answer),))
        return Plan((step,), (0,), (final,))
    cases = (*drawn.shown, *drawn.hidden)
    works = Holds(tuple((call_text(drawn.draft, case.args), case.expected) for case in cases))
    sights = [PlanStep(i, call, (), (Made(call),)) for i, call in enumerate(calls[:-1])]
    trial = PlanStep(len(sights), calls[-1], tuple(range(len(sights))), (works,))
    fenced = ExpertTurn(f"```python\n{drawn.program.rstrip()}\n```")
    return Plan((*sights, trial), (len(sights),), (final, fenced))
