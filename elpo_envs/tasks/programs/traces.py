"""Solutions of generated programs as assistant turns."""

from __future__ import annotations

from elpo_envs.tasks.base import ExpertTurn, ToolCall
from elpo_envs.tasks.programs.exercise import Exercise
from elpo_envs.tasks.programs.questions import call_text


def python_turn(code: str) -> ExpertTurn:
    """A turn that runs code."""
    return ExpertTurn("", (ToolCall("python", {"code": code}),))


def submitting_trace(exercise: Exercise, program: str) -> tuple[ExpertTurn, ...]:
    """In a repair, see the first example fail; try `program` on the examples shown; submit it."""
    turns = [] if exercise.fault is None else [python_turn(_trial(exercise, exercise.fault.program, shown=1))]
    turns.append(python_turn(_trial(exercise, program, shown=len(exercise.shown))))
    return (*turns, ExpertTurn("", (ToolCall("submit", {"code": program}),)))


def output_trace(program: str, answer: str) -> tuple[ExpertTurn, ...]:
    """Run the program, then box what it printed."""
    return (python_turn(program), ExpertTurn(f"\\boxed{{{answer}}}"))


def _trial(exercise: Exercise, program: str, shown: int) -> str:
    calls = [f"print({call_text(exercise.draft, case.args)})" for case in exercise.shown[:shown]]
    return "\n".join([program, *calls])
