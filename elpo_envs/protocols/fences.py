"""Fenced code blocks as calls: a block that opens with three backticks and `python` runs what is in it.

Blocks are those of CommonMark: a fence is a line that begins with three or more backticks or tildes; the closing one
has the same character, is at least as long, is indented by at most three columns more, and has nothing behind it.
`python`, `py` and `python3`, in any case, make a block a call; blocks of other languages are text, whatever is in
them, and so is code within a line. What is decided beyond that:

- A fence may be indented by any amount, since it may stand in a list item; the lines of the block lose as much
  indentation as the fence has.
- Code that has a fence of three backticks at the start of a line, in a string say, needs a longer fence around it.
- Nothing may follow the language on its line: code written there would be lost.
- A Python block in which a fence names a language was never closed, like one that lasts to the end of the turn. In a
  block of another language such a fence is text.
- Lines end with LF or CRLF. The code keeps its own line breaks, except the one before the closing fence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elpo_envs.protocols.base import MalformedCall, ParsedCall, ParsedTurn
from elpo_envs.protocols.code_tool import CodeTool, said, unindent, without_line_break
from elpo_envs.tasks.base import ExpertTurn

LANGUAGES = frozenset({"python", "py", "python3"})
_FENCE_LINE = re.compile(r"^([ \t]*+)(`{3,}+|~{3,}+)([^\n]*+)\n?", re.MULTILINE)
_MAX_MORE_INDENT = 3
_HOW_TO = """To run code, write it in a fenced block like this:
```python
<code>
```
Several blocks run in their order. What they print comes back in the next message. Code with a line that begins with
three backticks needs a longer fence. A turn without such a block counts as the final answer."""


@dataclass(frozen=True)
class _Fence:
    """A line that may open or close a block: where it starts and ends, and what it says."""

    start: int
    end: int
    indent: int
    mark: str
    info: str

    @property
    def is_python(self) -> bool:
        return bool(self.info) and self.info.split(maxsplit=1)[0].lower() in LANGUAGES

    def matches(self, opening: _Fence) -> bool:
        """Whether it would end the block that `opening` began, if it were bare."""
        return self.mark.startswith(opening.mark) and self.indent <= opening.indent + _MAX_MORE_INDENT


class Fences:
    """Calls of one tool by fenced Python blocks.

    Args:
        tool: the name of the tool that blocks call.
        argument: the name of its argument that takes the code.

    Raises:
        ValueError: either is empty.
    """

    name = "fences"
    taught_by_templates = False

    def __init__(self, tool: str = "python", argument: str = "code") -> None:
        self._tool = CodeTool(tool, argument)

    def parse(self, text: str) -> ParsedTurn:
        """Read every Python block in order; a broken one does not hide those after it."""
        blocks = [(o, c) for o, c in _blocks(text) if o.is_python]
        if not blocks:
            return ParsedTurn(text)
        calls = tuple(self._read_block(text, opening, closing) for opening, closing in blocks)
        return ParsedTurn(without_line_break(text[: blocks[0][0].start]), calls)

    def render(self, turn: ExpertTurn) -> str:
        """Content, then one block a call, each on lines of its own, with fences longer than any in the code.

        Raises:
            ValueError: it calls another tool, gives other arguments or blank code, or its content holds a fence that
                would be read as a call.
        """
        parts = [turn.content] if turn.content else []
        for call in turn.tool_calls:
            code = self._tool.code(call, self.name)
            longest = max((len(f.mark) for f in _fences(code) if f.mark[0] == "`"), default=2)
            fence = "`" * max(3, longest + 1)
            parts.append(f"{fence}python\n{code}\n{fence}")
        why_not = "its content holds a fence, or code ends with a carriage return"
        return said(self, turn, "\n".join(parts), why_not)

    def describe(self, tools: Sequence[Mapping[str, Any]]) -> str:
        """The tool, and how to write a block; other tools are left out, since no block can call them."""
        about = self._tool.describe(tools, self.name)
        return f"{about}\n{_HOW_TO}" if about else ""

    def _read_block(self, text: str, opening: _Fence, closing: _Fence | None) -> ParsedCall | MalformedCall:
        if closing is None or closing.info:
            when = "before the end of the turn" if closing is None else "before the next one opens"
            return self._malformed(f"the python block is not closed {when}: end it with a line of the same fence alone")
        if len(opening.info.split(maxsplit=1)) > 1:
            return self._malformed(
                "the line that opens a python block must end after the language; write the code below it"
            )
        code = text[opening.end : closing.start].removesuffix("\n").removesuffix("\r")
        if not code.strip():
            return self._malformed("the python block is empty")
        return self._tool.call(unindent(code, opening.indent))

    def _malformed(self, message: str) -> MalformedCall:
        return MalformedCall(self._tool.name, message)


def _blocks(text: str) -> Iterator[tuple[_Fence, _Fence | None]]:
    """Every block's opening fence with the one that ends it: its closing fence, the next block's opening, or none."""
    opening: _Fence | None = None
    for fence in _fences(text):
        if opening is None:
            opening = fence
        elif fence.matches(opening) and (not fence.info or opening.is_python):
            yield opening, fence
            opening = fence if fence.info else None
    if opening is not None:
        yield opening, None


def _fences(text: str) -> Iterator[_Fence]:
    """Every line of `text` that could open or close a block."""
    for match in _FENCE_LINE.finditer(text):
        indent, mark, info = match.groups()
        if mark[0] == "`" and "`" in info:
            continue  # code within a line
        yield _Fence(match.start(), match.end(), len(indent), mark, info.strip())
