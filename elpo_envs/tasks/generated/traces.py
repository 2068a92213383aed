"""Solutions of generated problems as assistant turns: the expert's, and a student's with realistic mistakes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from elpo_envs.tasks.base import ExpertTurn, ToolCall
from elpo_envs.tasks.generated.problem import VARIABLES, Problem, ProblemStep

_CONFUSED = ((" + ", " - "), (" - ", " + "), (" * ", " + "), (" // ", " * "))


def _call(variable: str, expr: str) -> ExpertTurn:
    return ExpertTurn("", (ToolCall("python", {"code": f"{variable} = {expr}\n{variable}"}),))


def expert_trace(problem: Problem) -> tuple[ExpertTurn, ...]:
    """One tool call a step, then the boxed answer."""
    calls = tuple(_call(s.variable, s.expr) for s in problem.steps)
    return (*calls, ExpertTurn(f"\\boxed{{{problem.answer}}}"))


def wrong_expressions(step: ProblemStep) -> tuple[str, ...]:
    """The step's pitfall, if it has one, and its expression with one operator mistaken for another."""
    swapped = (
        step.expr[: found.start()] + wrong + step.expr[found.end() :]
        for right, wrong in _CONFUSED
        for found in re.finditer(re.escape(right), step.expr)
    )
    wrong = dict.fromkeys([*([] if step.pitfall is None else [step.pitfall]), *swapped])
    return tuple(expr for expr in wrong if expr != step.expr)


def corruptions(problem: Problem, step: int) -> list[tuple[ExpertTurn, ...]]:
    """The expert's trace with each of the `wrong_expressions` of a step, carried through to the boxed answer.

    Those that lead to the same answer in the end are among them.

    Args:
        step: the step that goes wrong, from 0.

    Raises:
        IndexError: there is no such step.
    """
    if not 0 <= step < len(problem.steps):
        raise IndexError(f"step={step} is outside 0..{len(problem.steps) - 1}")
    return [_with_expression(problem, step, wrong) for wrong in wrong_expressions(problem.steps[step])]


def _with_expression(problem: Problem, step: int, wrong: str) -> tuple[ExpertTurn, ...]:
    scope: dict[str, object] = {"__builtins__": {}}
    turns = []
    for i, s in enumerate(problem.steps):
        expr = wrong if i == step else s.expr
        scope[s.variable] = eval(expr, scope)
        turns.append(_call(s.variable, expr))
    return (*turns, ExpertTurn(f"\\boxed{{{scope[problem.steps[-1].variable]}}}"))


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
