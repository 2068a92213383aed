"""Handing in the final answer by a tool call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from elpo_envs.tools.base import BaseTool, ToolResult

_MAX_CHARS = 65_536


class SubmitTool(BaseTool):
    """`submit(answer)`: a call that is not an error is the episode's final answer, and ends it.

    The tool only checks the call; the environment, which recognises it by `terminal`, grades it.

    Args:
        argument: the argument's name: "answer" for text, "code" for a program.
        description: what the model is told to give; by default one that fits the argument.
        max_chars: longest answer in characters; >= 1.

    Raises:
        ValueError: the argument's name is no identifier, or `max_chars` is less than 1.
    """

    name = "submit"
    terminal: ClassVar[bool] = True

    def __init__(
        self, argument: str = "answer", description: str | None = None, *, max_chars: int = _MAX_CHARS
    ) -> None:
        if not argument.isidentifier():
            raise ValueError(f"argument={argument!r} must be an identifier, such as 'answer' or 'code'")
        if max_chars < 1:
            raise ValueError(f"max_chars={max_chars!r} must be at least 1")
        what = "the complete program" if argument == "code" else "the final answer"
        self.argument = argument
        self.description = f"Submit {what}. This ends the task; there is one submission only."
        self._max_chars = max_chars
        # A number is a likely way to write an answer, but never a program.
        kinds: Any = "string" if argument == "code" else ["string", "number"]
        self.parameters = {
            "type": "object",
            "properties": {
                argument: {"type": kinds, "description": description or f"{what[0].upper()}{what[1:]}, nothing else."}
            },
            "required": [argument],
            "additionalProperties": False,
        }

    def submitted(self, arguments: Mapping[str, Any]) -> str:
        """The text handed in by a call whose arguments satisfy the schema."""
        return str(arguments[self.argument])

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        text = self.submitted(arguments)
        if not text.strip():
            return ToolResult(f"Error: {self.argument} is empty; nothing was submitted", "error")
        if len(text) > self._max_chars:
            complaint = f"{self.argument} has {len(text)} characters, more than {self._max_chars}"
            return ToolResult(f"Error: {complaint}; nothing was submitted", "error")
        return ToolResult("Submitted.")
