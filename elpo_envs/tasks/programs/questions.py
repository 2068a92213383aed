"""The questions' texts."""

from __future__ import annotations

from typing import Any

from elpo_envs.tasks.programs.draft import Draft
from elpo_envs.tasks.programs.exercise import Case, Exercise


def call_text(draft: Draft, args: tuple[Any, ...]) -> str:
    """The call as Python text."""
    return f"{draft.entry_point}({', '.join(map(repr, args))})"


def writing_question(exercise: Exercise) -> str:
    """The task to write the function, with its examples."""
    draft = exercise.draft
    examples = [_example(draft, case) for case in exercise.shown]
    return "\n\n".join([f"Write the Python function `{draft.signature}`. {draft.rules}", "\n".join(examples)])


def repair_question(exercise: Exercise) -> str:
    """The task to repair the faulty program, with the example that fails. Raises ValueError without a fault."""
    draft, fault = exercise.draft, exercise.fault
    if fault is None:
        raise ValueError("exercise.fault=None leaves nothing to repair; make the exercise with make_repair")
    how, value = fault.outcome
    failing = exercise.shown[0]
    wrong = f"returns {value!r}" if how == "value" else f"raises {value}"
    return "\n\n".join(
        [
            f"This Python program has one bug. Repair the function `{draft.signature}` and give the whole program.",
            f"```python\n{fault.program}```",
            f"What it should do: {draft.rules}",
            f"{call_text(draft, failing.args)} {wrong}, but should return {failing.expected!r}.\n"
            + "\n".join(_example(draft, case) for case in exercise.shown[1:]),
        ]
    )


def output_question(program: str) -> str:
    """The task to say what the program prints."""
    asked = "What does this Python program print? Answer with exactly the line that it prints."
    return f"{asked}\n\n```python\n{program}\n```"


def _example(draft: Draft, case: Case) -> str:
    return f"{call_text(draft, case.args)} should return {case.expected!r}."
