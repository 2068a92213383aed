"""The plan of a science question: look everything up, then one calculation a turn."""

from __future__ import annotations

from elpo_envs.tasks.base import Task
from elpo_envs.tasks.plans import Holds, Made, Plan, PlanStep, Shown, known_task
from elpo_envs.tasks.science.source import ScienceSource

_ROUNDING = 1e-9  # the same calculation, written in another order


def plan(task: Task) -> Plan:
    """The plan of a task of `ScienceSource`. Raises KeyError for a task that no such source has.

    A calculation needs the one before it, where its expression reads that, and the passages with its values.
    """
    source = ScienceSource.from_id(task.task_id)
    known = known_task(source, task)
    problem = source.problem(known.index)
    searches, *calculations, final = known.expert
    found = {title: i for i, title in enumerate(problem.lookups)}
    steps = [
        PlanStep(0, call, (), (Shown(("search", "lookup"), title), Made(call)))
        for title, call in zip(problem.lookups, searches.tool_calls, strict=True)
    ]
    for i, (step, turn) in enumerate(zip(problem.steps, calculations, strict=True)):
        needs = [found[title] for title in dict.fromkeys(step.lookups)]
        if "{x}" in step.move.expr:
            needs.append(len(found) + i - 1)
        evidence = (Holds(((step.variable, step.value),), relative=_ROUNDING),)
        steps.append(PlanStep(i + 1, turn.tool_calls[0], tuple(needs), evidence))
    return Plan(tuple(steps), (len(steps) - 1,), (final,))
