"""What the protocols share that write bare code: such a call names no tool and no argument, so both are fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elpo_envs.protocols.base import ParsedCall, ParsedTurn, TurnProtocol
from elpo_envs.tasks.base import ExpertTurn, ToolCall


@dataclass(frozen=True)
class CodeTool:
    """The one tool that a protocol of bare code calls.

    Attributes:
        name: the tool's name; not empty.
        argument: the name of its only argument, which takes the code; not empty.

    Raises:
        ValueError: either is empty.
    """

    name: str
    argument: str

    def __post_init__(self) -> None:
        for field, value in (("tool", self.name), ("argument", self.argument)):
            if not value:
                raise ValueError(
                    f"{field}={value!r} must be a name, such as {'python' if field == 'tool' else 'code'!r}"
                )

    def call(self, code: str) -> ParsedCall:
        """The call that runs `code`."""
        return ParsedCall(self.name, {self.argument: code})

    def code(self, call: ToolCall, protocol: str) -> str:
        """The code of a call. Raises ValueError, naming `protocol`, where the call is not of this form."""
        can = f"the {protocol} protocol can only call {self.name} with the argument {self.argument}"
        if call.name != self.name:
            raise ValueError(f"{can}; this turn calls {call.name}")
        if set(call.arguments) != {self.argument}:
            given = ", ".join(map(str, call.arguments)) or "none"
            raise ValueError(f"{can}; this turn gives the arguments: {given}")
        code = call.arguments[self.argument]
        if not isinstance(code, str) or not code.strip():
            raise ValueError(f"{can}, which must be a text that is not blank; this turn gives {code!r}")
        return code

    def describe(self, tools: Sequence[Mapping[str, Any]], protocol: str) -> str:
        """What the tool does, in its own words, and that it is the only one; "" for no tools.

        Raises:
            ValueError: this tool is not among `tools`, or it needs another argument.
        """
        if not tools:
            return ""
        functions = {t["function"]["name"]: t["function"] for t in tools}
        can = f"the {protocol} protocol can only call {self.name} with the argument {self.argument}"
        function = functions.get(self.name)
        if function is None:
            raise ValueError(f"{can}; the tools are: {', '.join(functions)}")
        needed = [a for a in function.get("parameters", {}).get("required", ()) if a != self.argument]
        if needed:
            raise ValueError(f"{can}; the tool needs {', '.join(needed)}, too")
        about = f"You can call the tool {self.name}. {function.get('description', '')}".rstrip()
        return f"{about} No other tool can be called." if len(functions) > 1 else about


def said(protocol: TurnProtocol, turn: ExpertTurn, raw: str, why_not: str) -> str:
    """`raw`, after making sure that it reads as `turn`. Raises ValueError with the reason `why_not` if not."""
    calls = tuple(ParsedCall(c.name, dict(c.arguments)) for c in turn.tool_calls)
    if protocol.parse(raw) != ParsedTurn(turn.content, calls):
        raise ValueError(f"the {protocol.name} protocol cannot say this turn: {why_not}")
    return raw


def without_line_break(text: str) -> str:
    """`text` without the line break that sets a call off from the content before it."""
    return text.removesuffix("\n")


def unindent(code: str, width: int) -> str:
    """Every line without its first `width` spaces and tabs, or those of them that it has."""
    if not width:
        return code
    lines = code.split("\n")
    return "\n".join(line[min(width, len(line) - len(line.lstrip(" \t"))) :] for line in lines)
