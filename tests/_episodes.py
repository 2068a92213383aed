"""What the environment's episodes are tried with: one known question, a failing tool, turns that call tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from elpo_envs.math_env import MathEnv
from elpo_envs.tasks import ExpertTurn, Task
from elpo_envs.tools import BaseTool, ToolResult


def call(code: str, name: str = "python") -> str:
    body = json.dumps({"name": name, "arguments": {"code": code}}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


class OneTask:
    """A source of copies of one question, so that tests choose the gold answer."""

    name = "one"
    split = "test"

    def __init__(self, answer: str = "5", question: str = "What is 2 + 3?", size: int | None = 4) -> None:
        self.answer, self.question, self.size = answer, question, size

    def get(self, index: int) -> Task:
        if not 0 <= index < (self.size or 2**31):
            raise IndexError(f"index={index} is outside 0..{self.size}")
        return Task(f"one/test/{index}", index, "test", self.question, self.answer, (ExpertTurn("\\boxed{5}"),))

    def by_id(self, task_id: str) -> Task:
        if not task_id.startswith("one/test/"):
            raise KeyError(f"task_id={task_id!r} is unknown")
        return self.get(int(task_id.rsplit("/", 1)[1]))


class Flaky(BaseTool):
    """Fails for reasons that are not the model's."""

    name = "flaky"
    description = "Fails."
    parameters: Mapping[str, Any] = {"type": "object"}

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        return ToolResult("the machine is on fire", "sandbox_failure")


def small(**arguments: Any) -> MathEnv:
    return MathEnv(task_source=OneTask(), **arguments)
