"""The plan of a word problem: one calculation a turn, each on the variables of those before it."""

from __future__ import annotations

import re

from elpo_envs.tasks.base import Task
from elpo_envs.tasks.generated.source import GeneratedSource
from elpo_envs.tasks.plans import Holds, Plan, PlanStep, known_task

_NAME = re.compile(r"[a-z]+")


def plan(task: Task) -> Plan:
    """The plan of a task of `GeneratedSource`. Raises KeyError for a task that no such source has."""
    source = GeneratedSource.from_id(task.task_id)
    known = known_task(source, task)
    problem = source.problem(known.index)
    *calculations, final = known.expert
    position = {step.variable: i for i, step in enumerate(problem.steps)}
    steps = tuple(
        PlanStep(
            turn=i,
            call=turn.tool_calls[0],
            needs=tuple(position[name] for name in sorted(set(_NAME.findall(step.expr))) if name in position),
            evidence=(Holds(((step.variable, step.value),)),),
        )
        for i, (step, turn) in enumerate(zip(problem.steps, calculations, strict=True))
    )
    return Plan(steps, (len(steps) - 1,), (final,))
