r"""`elpo/Math-v0`: solve a mathematics problem with a Python tool and answer in `\boxed{}`."""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar

from elpo_envs.env import Verdict
from elpo_envs.grading import extract_boxed, grade_response
from elpo_envs.grading.extract import without_tool_text
from elpo_envs.task_env import TaskEnv
from elpo_envs.tasks.base import Task

DEFAULT_SYSTEM_PROMPT = (
    "Solve the problem step by step. Use the python tool for every calculation. Give the final answer in \\boxed{}."
)


class MathEnv(TaskEnv):
    r"""One mathematics problem per episode, with a stateful Python interpreter.

    A turn with tool calls runs them; a turn without any that has a `\boxed{...}` ends the episode with the
    reward 1.0 if it is right and 0.0 if not; a turn with neither is told so. For the arguments see `TaskEnv`.
    """

    domain: ClassVar[str] = "math"
    default_prompt: ClassVar[str] = DEFAULT_SYSTEM_PROMPT
    no_action_text: ClassVar[str] = (
        "Error: neither a tool call nor \\boxed{} was found. Call a tool, or give the final answer in \\boxed{}."
    )

    def judge(self, task: Task, text: str) -> Verdict | None:
        r"""Grade the `\boxed{...}` of the turn; an empty one is no answer. Tool output is not read.

        Raises SymbolicUnavailableError where the grader cannot run on this machine.
        """
        boxed = [box for box in extract_boxed(without_tool_text(text)) if box]
        if not boxed:
            return None
        grade = grade_response(text, task.answer)
        return Verdict(boxed[-1], grade.correct, asdict(grade), failed=grade.failed_infrastructure)
