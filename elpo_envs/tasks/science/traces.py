"""Solutions of generated science questions as assistant turns."""

from __future__ import annotations

from collections.abc import Mapping

from elpo_envs.tasks.base import ExpertTurn, ToolCall
from elpo_envs.tasks.science.problem import ScienceProblem

PASSAGES = 3


def solution(problem: ScienceProblem, answer: str, wrong: Mapping[int, str] | None = None) -> tuple[ExpertTurn, ...]:
    r"""All searches in one turn, then a calculation a turn, then `answer` in `\boxed{}`.

    Args:
        wrong: templates that take the place of the right expression, by step from 0.
    """
    searches = tuple(ToolCall("search", {"query": title, "k": PASSAGES}) for title in problem.lookups)
    templates = [(wrong or {}).get(i, step.move.expr) for i, step in enumerate(problem.steps)]
    steps = tuple(
        ExpertTurn("", (ToolCall("python", {"code": step.code(template)}),))
        for step, template in zip(problem.steps, templates, strict=True)
    )
    return (ExpertTurn("", searches), *steps, ExpertTurn(f"\\boxed{{{answer}}}"))
