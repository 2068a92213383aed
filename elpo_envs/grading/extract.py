r"""Finding the final answer in an assistant turn. Tool calls and tool output are never read."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)", re.DOTALL)
_OUTPUT = re.compile(r"<tool_response>.*?(?:</tool_response>|\Z)|```output\b.*?(?:```|\Z)", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BARE_BOX = re.compile(r"[ ]+([^\s{}$\\.,;]+(?:[.,][^\s{}$\\.,;]+)*)")
_MAX_BOXES = 64


def without_tool_text(text: str) -> str:
    """`text` with every tool call and every tool output removed.

    A block that is opened and never closed extends to the end of the text, so a turn that was cut in the
    middle of one does not leak its contents. Output is removed first: what it quotes cannot open or close a
    call.
    """
    if "<tool_" not in text and "```output" not in text:
        return text
    return _CALL.sub(" ", _OUTPUT.sub(" ", text))


@dataclass(frozen=True)
class Box:
    """One `\\boxed{...}`: what is in it, stripped, and where it stands in the text (`end` is exclusive)."""

    content: str
    start: int
    end: int


def extract_boxed(text: str) -> list[str]:
    r"""The contents of every outermost `\boxed{...}` or `\fbox{...}` in `text`, in order, stripped.

    Braces are balanced and escaped braces (`\{`, `\}`) are content. `\boxed 5` gives the word that follows. A
    box whose brace is never closed is ignored. At most 64 boxes are read. Takes time linear in the length of
    `text`.
    """
    boxes = find_boxes(text)
    return [box.content for box in boxes[:_MAX_BOXES]] if boxes else []


def find_boxes(text: str) -> list[Box]:
    """The boxes of `extract_boxed`, with their places; all of them, however many."""
    if "boxed" not in text and "fbox" not in text:
        return []
    closing = _closing_braces(text)
    found: list[Box] = []
    at = 0
    while match := _BOX.search(text, at):
        start, at = match.span()
        brace = at
        while brace < len(text) and text[brace].isspace():
            brace += 1
        if brace < len(text) and text[brace] == "{":
            # Inside a box that is never closed a later box may still be whole, so only step over the brace.
            end = closing.get(brace)
            at = brace + 1
            if end is not None:
                at = end + 1
                found.append(Box(text[brace + 1 : end].strip(), start, at))
        elif bare := _BARE_BOX.match(text, at):
            at = bare.end()
            found.append(Box(bare.group(1), start, at))
    return found


def _closing_braces(text: str) -> dict[int, int]:
    """Index of each opening brace that is closed -> index of the brace that closes it; one pass."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1  # the next character is escaped
        elif char == "{":
            opened.append(at)
        elif char == "}" and opened:
            closing[opened.pop()] = at
        at += 1
    return closing
