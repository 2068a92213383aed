"""Tagged code as calls: `<python>code</python>` runs the code.

The format has no way to quote a tag, so these rules decide what is one:

- The first closing tag ends the code, even one in a string: a program that needs the tag must build it from parts.
- An opening tag within the code is code, unless it begins a line: then the block before it was never closed.
- Tags are lower-case and have no attributes; anything else is text.
- Code may begin on the tag's line or below it. Spaces and one line break (LF or CRLF) next to the tags are not code,
  and lines of a block whose opening tag is indented lose as much indentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from elpo_envs.protocols.base import MalformedCall, ParsedCall, ParsedTurn
from elpo_envs.protocols.code_tool import CodeTool, said, unindent, without_line_break
from elpo_envs.tasks.base import ExpertTurn

OPEN = "<python>"
CLOSE = "</python>"
# The first group stands only where the tag begins its line.
_TAG = re.compile(r"(^[ \t]*+)?(</?python>)", re.MULTILINE)
_FIRST_LINE_BREAK = re.compile(r"[ \t]*\r?\n")
_HOW_TO = """To run code, write it between tags like this:
<python>
<code>
</python>
Several blocks run in their order. What they print comes back in the next message. The first closing tag ends the code,
even inside a string. A turn without such a block counts as the final answer."""


class PythonTags:
    """Calls of one tool by `<python>` tags. Messages never repeat a tag, which may be a special token.

    Args:
        tool: the name of the tool that blocks call.
        argument: the name of its argument that takes the code.

    Raises:
        ValueError: either is empty.
    """

    name = "python_tags"
    taught_by_templates = False

    def __init__(self, tool: str = "python", argument: str = "code") -> None:
        self._tool = CodeTool(tool, argument)

    def parse(self, text: str) -> ParsedTurn:
        """Read every block in order; a broken one does not hide those after it."""
        calls: list[ParsedCall | MalformedCall] = []
        first: int | None = None
        opening: re.Match[str] | None = None
        for tag in _TAG.finditer(text):
            if first is None:
                first = tag.start(2)
            if tag[2] == CLOSE:
                calls.append(self._read_block(text, opening, tag))
                opening = None
            elif opening is None:
                opening = tag
            elif tag[1] is not None:
                calls.append(self._malformed("the python block is not closed before the next one opens"))
                opening = tag
        if opening is not None:
            calls.append(self._malformed("the python block is never closed: its closing tag is missing"))
        return ParsedTurn(text) if first is None else ParsedTurn(without_line_break(text[:first]), tuple(calls))

    def render(self, turn: ExpertTurn) -> str:
        """Content, then one block a call, each on lines of its own.

        Raises:
            ValueError: it calls another tool, gives other arguments or blank code, or a text in it holds a tag that
                would be read as one.
        """
        parts = [turn.content] if turn.content else []
        for call in turn.tool_calls:
            parts.append(f"{OPEN}\n{self._tool.code(call, self.name)}\n{CLOSE}")
        why_not = "its content or code holds a python tag, or code ends with a carriage return"
        return said(self, turn, "\n".join(parts), why_not)

    def describe(self, tools: Sequence[Mapping[str, Any]]) -> str:
        """The tool, and how to write a block; other tools are left out, since no block can call them."""
        about = self._tool.describe(tools, self.name)
        return f"{about}\n{_HOW_TO}" if about else ""

    def _read_block(
        self, text: str, opening: re.Match[str] | None, closing: re.Match[str]
    ) -> ParsedCall | MalformedCall:
        if opening is None:
            message = "a closing python tag has no opening tag before it; the first one ends the code, even in a string"
            return self._malformed(message)
        code = _trim(text[opening.end() : closing.start(2)])
        if not code.strip():
            return self._malformed("the python block is empty")
        return self._tool.call(unindent(code, len(opening[1] or "")))

    def _malformed(self, message: str) -> MalformedCall:
        return MalformedCall(self._tool.name, message)


def _trim(body: str) -> str:
    """What stands between two tags without the white space and the one line break next to each."""
    line_break = _FIRST_LINE_BREAK.match(body)
    code = body[line_break.end() :] if line_break else body.lstrip(" \t")
    above, newline, last = code.rpartition("\n")
    if newline and not last.strip(" \t"):
        return above.removesuffix("\r")
    return code.rstrip(" \t")
