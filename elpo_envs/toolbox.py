"""The tools that an environment offers: their schemas, what one call gives, and their states together."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from elpo_envs.episode import CallRecord
from elpo_envs.protocols import MalformedCall, ParsedCall
from elpo_envs.tools.arguments import ArgumentCheck, compile_check
from elpo_envs.tools.base import Tool, ToolResult

_MAX_NAME = 64


class Toolbox:
    """Tools by name, owned by one environment.

    Raises:
        ValueError: two tools have one name, or a schema is invalid.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        names = [tool.name for tool in tools]
        if len(set(names)) < len(names):
            raise ValueError(f"tools={names} has a name twice; give every tool a name of its own")
        self._tools: dict[str, Tool] = {tool.name: tool for tool in tools}
        self._checks: dict[str, ArgumentCheck] = {tool.name: compile_check(tool.name, tool.schema) for tool in tools}

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """The OpenAI function schema of every tool by its name, as copies."""
        return {name: copy.deepcopy(dict(tool.schema)) for name, tool in self._tools.items()}

    def is_terminal(self, call: ParsedCall) -> bool:
        """Whether a successful call of this tool hands in the final answer."""
        return bool(getattr(self._tools.get(call.name), "terminal", False))

    def accepts(self, call: ParsedCall) -> bool:
        """Whether there is such a tool and the arguments fit its schema."""
        return call.name in self._tools and self._checks[call.name](call.arguments) is None

    def open(self, task_id: str) -> None:
        """Begin an episode. Seeds come from the task alone: the same task and actions give the same outputs."""
        for name, tool in self._tools.items():
            tool.open(_derive_seed(f"{task_id}/{name}"))

    def answer(self, call: ParsedCall | MalformedCall) -> CallRecord:
        """Run one call; whatever is wrong with it becomes the record's kind and text.

        A call that failed for reasons that are not the model's is made once more: see `BaseTool.retry`.
        """
        name = (call.name or "error")[:_MAX_NAME]
        if isinstance(call, MalformedCall):
            return CallRecord(name, None, "malformed_call", f"Error: {call.message}")
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            shown = json.dumps(name, ensure_ascii=False)
            text = f"Error: there is no tool {shown}; the available tools are: {known}"
            return CallRecord(name, arguments, "unknown_tool", text)
        complaint = self._checks[call.name](call.arguments)
        if complaint is not None:
            return CallRecord(name, arguments, "invalid_arguments", f"Error: {complaint}")
        result = tool.call(call.arguments)
        if result.kind == "sandbox_failure":
            result = _retry_of(tool)(call.arguments)
        return CallRecord(name, arguments, result.kind, result.text)

    def freeze(self) -> dict[str, Any]:
        """Every tool's state by its name."""
        return {name: _own(tool.snapshot()) for name, tool in self._tools.items()}

    def thaw(self, states: Mapping[str, Any], reseed: int | None) -> None:
        """Put every tool in its state; with `reseed`, each draws fresh randomness of its own from then on."""
        for name, tool in self._tools.items():
            tool.restore(_own(states[name]), None if reseed is None else _derive_seed(f"{reseed}/{name}"))

    def rest(self) -> None:
        """Let go of what tools hold of an episode that is over; only those that have a `rest` hold anything large."""
        for tool in self._tools.values():
            if (rest := getattr(tool, "rest", None)) is not None:
                rest()

    def close(self) -> None:
        """Release every tool. Idempotent."""
        for tool in self._tools.values():
            tool.close()


def _retry_of(tool: Tool) -> Callable[[Mapping[str, Any]], ToolResult]:
    """How a call is made once more: by the tool's own `retry`, which it need not have."""
    retry: Callable[[Mapping[str, Any]], ToolResult] = getattr(tool, "retry", tool.call)
    return retry


def _own(state: Any) -> Any:
    """A tool's state that the tool cannot change any more; state objects are values already."""
    return copy.deepcopy(state) if isinstance(state, (dict, list)) else state


def _derive_seed(text: str) -> int:
    """A seed in [0, 2**32) that depends on `text` alone, whatever the process."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big")
