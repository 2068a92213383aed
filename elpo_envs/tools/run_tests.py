"""Trying a program on the public tests of a code task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from elpo_envs.grading.code import CodeGrader
from elpo_envs.tools.base import BaseTool, ToolResult

_SHOWN = 400


class RunTestsTool(BaseTool):
    """`run_tests(code)`: which of the task's public tests a program passes, and what the failed ones are.

    The hidden tests, by which the answer is graded, are not run and not known to it.

    Args:
        grader: runs the tests; shared with whoever else grades, and closed by its owner.
    """

    name = "run_tests"
    description = "Run a complete program on the public tests of the task and say which of them it passes."
    parameters: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "type": "object",
        "properties": {"code": {"type": "string", "description": "The complete program, as it would be submitted."}},
        "required": ["code"],
        "additionalProperties": False,
    }

    def __init__(self, grader: CodeGrader) -> None:
        self._grader = grader
        self.tests: Mapping[str, Any] | None = None
        """The public tests of the current task, in the forms that `elpo_envs.grading.code` grades; None for none."""

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        if self.tests is None:
            return ToolResult("Error: this task has no public tests; try the program with the python tool.", "error")
        grade = self._grader.grade(str(arguments["code"]), self.tests, stop_at_first_failure=False)
        if grade.failed_infrastructure:
            return ToolResult(f"The tests could not be run: {grade.note}", "sandbox_failure")
        lines = [f"{grade.n_passed} of {grade.n_tests} public tests passed"]
        for number, outcome in enumerate(grade.outcomes, start=1):
            if outcome.outcome != "passed":
                lines.append(f"test {number}: {outcome.outcome}. {outcome.note}".rstrip(". ") + ".")
                lines.append(f"  {_shown(self.tests, number - 1)}")
        return ToolResult("\n".join(lines), "ok")


def _shown(tests: Mapping[str, Any], index: int) -> str:
    """A public test as a line of text."""
    cases = tests.get("cases") or tests.get("asserts")
    case = cases[index] if cases else tests.get("code", "")
    if isinstance(case, str):
        return _cut(case)
    if "args" in case:
        call = ", ".join(map(repr, case["args"]))
        return _cut(f"{tests['entry_point']}({call}) should give {case['expected']!r}")
    return _cut(f"input {json.dumps(case['input'])} should give {json.dumps(case['output'])}")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
