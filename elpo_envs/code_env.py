r"""`elpo/CodeExec-v0`: write, repair or read a program, with an interpreter and the task's public tests at hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from elpo_envs.env import Verdict
from elpo_envs.grading import Grade, extract_boxed
from elpo_envs.grading.code import CodeGrader, CodeLimits
from elpo_envs.grading.extract import without_tool_text
from elpo_envs.task_env import TaskEnv
from elpo_envs.tasks.base import ExpertTurn, Task
from elpo_envs.tools import Tool
from elpo_envs.tools.run_tests import RunTestsTool
from elpo_envs.tools.submit import SubmitTool

_OPENING = re.compile(r"^```(?:python|py)[ \t]*\n", re.MULTILINE | re.IGNORECASE)
_CLOSING = re.compile(r"^```[ \t]*$", re.MULTILINE)


class CodeExecEnv(TaskEnv):
    r"""One programming task per episode: a program that hidden tests grade, or the output of a given one.

    Tools: `python`, `run_tests` (the public tests) and `submit(code)`, which ends the episode with the reward 1.0 if
    the program passes every hidden test. A turn without tool calls that holds a ```` ```python ```` block submits its
    last block; where the task asks for an output, the answer is what stands in `\boxed{...}`. For the arguments see
    `TaskEnv`.

    Programs run apart from the tests' expected results and from the verdict: see `elpo_envs.grading.code`.

    Args:
        grading_limits: fields of `elpo_envs.grading.code.CodeLimits`, such as {"total_s": 30}.
        **arguments: see `TaskEnv`.
    """

    domain: ClassVar[str] = "code"
    default_prompt: ClassVar[str] = (
        "Solve the programming task. Try your program with the python and run_tests tools, then hand it in with the "
        "submit tool. Where the task asks for a program's output, give it in \\boxed{}."
    )
    no_action_text: ClassVar[str] = (
        "Error: neither a tool call nor an answer was found. Call a tool, hand the program in with submit, or give the "
        "output that was asked for in \\boxed{}."
    )

    def __init__(
        self,
        dataset: str = "generated",
        split: str = "train",
        max_turns: int = 16,
        protocol: str = "hermes",
        sandbox: str = "auto",
        render_mode: str | None = None,
        *,
        grading_limits: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        try:
            limits = CodeLimits(**dict(grading_limits or {}))
        except TypeError as error:
            raise ValueError(f"grading_limits={dict(grading_limits or {})} do not fit CodeLimits: {error}") from error
        if protocol == "fences":
            raise ValueError(
                "protocol='fences' makes every program a call of the python tool, so none could be handed in; "
                "choose hermes, openai or python_tags"
            )
        isolation = arguments.get("isolation", "preferred")
        self._grader = CodeGrader(limits=limits, sandbox=sandbox, isolation=isolation)
        self._run_tests = RunTestsTool(self._grader)
        self._own = {"grading_limits": dict(grading_limits or {})}
        super().__init__(dataset, split, max_turns, protocol, sandbox, render_mode, **arguments)

    def make_tools(self) -> Sequence[Tool]:
        return (self._run_tests, SubmitTool("code", "The complete program, in Python."))

    def write_turn(self, turn: ExpertTurn) -> str:
        submitted = [str(call.arguments["code"]) for call in turn.tool_calls if call.name == SubmitTool.name]
        if self.protocol.name != "python_tags" or not submitted:
            return super().write_turn(turn)
        # `submit` cannot be called there: the program stands in the turn's text.
        return f"{turn.content}\n```python\n{submitted[-1].rstrip()}\n```".strip()

    def take_up(self, task: Task) -> None:
        self._run_tests.tests = task.metadata.get("public_tests")

    def judge(self, task: Task, text: str) -> Verdict | None:
        """Grade the last program, or the boxed output, in a turn without tool calls."""
        own = without_tool_text(text)
        if task.metadata.get("kind") == "output":
            boxes = [box for box in extract_boxed(own) if box.strip()]
            return _judge_output(boxes, task.answer) if boxes else None
        programs = _programs(own.replace("\r\n", "\n"))
        return self._judge_program(task, programs[-1]) if programs else None

    def judge_submission(self, task: Task, arguments: Mapping[str, Any]) -> Verdict:
        """Grade what was handed in with `submit`."""
        code = str(arguments["code"])
        if task.metadata.get("kind") == "output":
            return _judge_output([code], task.answer)
        return self._judge_program(task, code)

    def close(self) -> None:
        super().close()
        self._grader.close()

    def _judge_program(self, task: Task, program: str) -> Verdict:
        grade = self._grader.grade(program, task.metadata["tests"])
        return Verdict(program, grade.correct, grade.to_json(), failed=grade.failed_infrastructure)


def _programs(text: str) -> list[str]:
    """What stands in each closed block of Python, in order, in time linear in the length of `text`."""
    found: list[str] = []
    at = 0
    while (opening := _OPENING.search(text, at)) and (closing := _CLOSING.search(text, opening.end())):
        found.append(text[opening.end() : closing.start()])
        at = closing.end()
    return found


def _judge_output(answers: Sequence[str], expected: str) -> Verdict:
    """Printed text, compared line by line without the spaces at the ends of lines; several must agree."""
    different = {_lines(answer) for answer in answers}
    if len(different) > 1:
        return Verdict(None, False, asdict(Grade(False, "ambiguous", note="the turn gives several outputs")))
    right = different == {_lines(expected)}
    return Verdict(answers[-1], right, asdict(Grade(right, "output", answer=answers[-1])))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.rstrip() for line in text.strip().splitlines())
