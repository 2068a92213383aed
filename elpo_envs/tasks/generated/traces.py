"""Solutions of generated problems as assistant turns: the expert's, and a student's with realistic mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elpo_envs.tasks.base import ExpertTurn, ToolCall
from elpo_envs.tasks.generated.problem import VARIABLES, Problem, ProblemStep


def _call(variable: str, expr: str) -> ExpertTurn:
    return ExpertTurn("", (ToolCall("python", {"code": f"{variable} = {expr}\n{variable}"}),))


def expert_trace(problem: Problem) -> tuple[ExpertTurn, ...]:
    """One tool call a step, then the boxed answer."""
    calls = tuple(_call(s.variable, s.expr) for s in problem.steps)
    return (*calls, ExpertTurn(f"\\boxed{{{problem.answer}}}"))


@dataclass(frozen=True)
class MistakeRates:
    """How a student goes wrong, each a probability per step.

    Attributes:
        pitfall: taking the tempting wrong expression where the sentence has one; above 0.5 the mistake is
            systematic, so that greedy decoding of a model trained on such traces repeats it.
        slip: a wrong operator on a plain sentence.
        name_error: naming a variable that does not exist yet; the error is seen and mended in the next turn.
        second_thought: after a wrong step, doing it again rightly before going on.
    """

    pitfall: float = 0.75
    slip: float = 0.02
    name_error: float = 0.02
    second_thought: float = 0.12


def student_trace(
    problem: Problem, rates: MistakeRates, rng: np.random.Generator
) -> tuple[tuple[ExpertTurn, ...], bool]:
    """A trace with mistakes, and whether its steps end up right. The last turn is left to be boxed by the
    caller from the last tool result, since a student believes what the tool says."""
    turns: list[ExpertTurn] = []
    right = True
    for i, step in enumerate(problem.steps):
        if rng.random() < rates.name_error and i > 0:
            undefined = VARIABLES[i + 1] if i + 1 < len(VARIABLES) else "total"
            turns.append(_call(step.variable, step.expr.replace(VARIABLES[i - 1], undefined, 1)))
        wrong = _mistake(step, rates, rng)
        turns.append(_call(step.variable, step.expr if wrong is None else wrong))
        if wrong is not None:
            if rng.random() < rates.second_thought:
                turns.append(_call(step.variable, step.expr))
            else:
                right = False
    return tuple(turns), right


def _mistake(step: ProblemStep, rates: MistakeRates, rng: np.random.Generator) -> str | None:
    if step.pitfall is not None:
        return step.pitfall if rng.random() < rates.pitfall else None
    if rng.random() < rates.slip:
        swapped = step.expr.replace(" + ", " - ", 1) if " + " in step.expr else step.expr.replace(" - ", " + ", 1)
        return swapped if swapped != step.expr else None
    return None
