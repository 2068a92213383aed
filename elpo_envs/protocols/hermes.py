"""The Hermes tool-call format: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, read strictly."""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from elpo_envs.protocols.base import MalformedCall, ParsedCall, ParsedTurn
from elpo_envs.protocols.strict_json import RefusedJSONError, kind, quote, read_value, skip_space, write
from elpo_envs.tasks.base import ExpertTurn

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
_TAG = re.compile(r"</?tool_call>")
_TOOLS = """# Tools

You can call the functions whose signatures stand between <tools> and </tools>:
<tools>
{tools}
</tools>

To call one, write a JSON object with its name and arguments between <tool_call> and </tool_call>:
<tool_call>
{{"name": <function name>, "arguments": <arguments as a JSON object>}}
</tool_call>
Results come back between <tool_response> and </tool_response>."""


class Hermes:
    """Hermes calls. Messages never repeat a tag, which a tokenizer would read as a special token."""

    name = "hermes"
    taught_by_templates = True

    def parse(self, text: str) -> ParsedTurn:
        """Read every block in order; a broken one does not hide those after it."""
        if "tool_call>" not in text:
            return ParsedTurn(text)
        tags = [m.start() for m in _TAG.finditer(text)]
        if not tags:
            return ParsedTurn(text)
        calls: list[ParsedCall | MalformedCall] = []
        position = tags[0]
        while (i := bisect.bisect_left(tags, position)) < len(tags):
            if text.startswith(CLOSE, tags[i]):
                calls.append(MalformedCall(None, "a closing tool_call tag has no opening tag before it"))
                position = tags[i] + len(CLOSE)
            else:
                call, position = _read_block(text, tags[i] + len(OPEN), tags)
                calls.append(call)
        return ParsedTurn(text[: tags[0]], tuple(calls))

    def render(self, turn: ExpertTurn) -> str:
        """Content, then one block a call, each on lines of its own.

        Reading it gives the calls back, and the content with the line break that follows it.

        Raises:
            ValueError: the content holds a tag, a name is empty, or arguments are no JSON values.
        """
        if _TAG.search(turn.content):
            raise ValueError("the hermes protocol cannot say this turn: its content holds a tool_call tag")
        parts = [turn.content] if turn.content else []
        for call in turn.tool_calls:
            if not call.name:
                raise ValueError("the hermes protocol cannot say this turn: it calls a tool without a name")
            body = write({"name": call.name, "arguments": dict(call.arguments)}, "a tool call")
            parts.append(f"{OPEN}\n{body}\n{CLOSE}")
        return "\n".join(parts)

    def describe(self, tools: Sequence[Mapping[str, Any]]) -> str:
        """The usual text for models whose chat template has none of its own: the schemas, and how to call."""
        schemas = "\n".join(write(dict(t), "a tool's schema") for t in tools)
        return _TOOLS.format(tools=schemas) if tools else ""


def _read_block(text: str, start: int, tags: Sequence[int]) -> tuple[ParsedCall | MalformedCall, int]:
    """The call in the block whose body begins at `start`, and where to read on.

    JSON is decoded before the closing tag is looked for, so code that prints a tag stays one call.
    """
    try:
        value, end = _decode(text, start, tags)
    except RefusedJSONError as error:
        return _broken(text, start, start, tags, error.sentence("the tool call"))
    after = skip_space(text, end)
    if not text.startswith(CLOSE, after):
        message = f"unexpected text after the JSON object of the tool call, at character {after - start + 1}"
        return _broken(text, start, after, tags, message)
    return _check_fields(value), after + len(CLOSE)


def _decode(text: str, start: int, tags: Sequence[int]) -> tuple[Any, int]:
    """The JSON value at `start` and the index behind it.

    Only what stands before the next tag is read, and more where that ends inside a string: an error costs a
    pass over all the text given, which for each of many broken blocks would be the whole turn.
    """
    first = bisect.bisect_left(tags, start)
    n_tags = 0
    while True:
        end = tags[first + n_tags] if first + n_tags < len(tags) else len(text)
        try:
            value, used = read_value(text[start:end])
        except RefusedJSONError as error:
            if not error.unterminated or end == len(text):
                raise
            n_tags = 2 * n_tags + 1
        else:
            return value, start + used


def _broken(text: str, start: int, after: int, tags: Sequence[int], message: str) -> tuple[MalformedCall, int]:
    """A malformed block: it ends at its closing tag, or is unclosed if another opens (or none) before."""
    i = bisect.bisect_left(tags, after)
    if i == len(tags):
        return MalformedCall(None, "the tool call is never closed: its closing tag is missing"), len(text)
    if not text.startswith(CLOSE, tags[i]):
        return MalformedCall(None, "the tool call is not closed before the next one opens"), tags[i]
    if not text[start : tags[i]].strip():
        message = "the tool call is empty"
    return MalformedCall(None, message), tags[i] + len(CLOSE)


def _check_fields(value: Any) -> ParsedCall | MalformedCall:
    if not isinstance(value, dict):
        return MalformedCall(None, f"the tool call must be a JSON object, not {kind(value)}")
    name = value.get("name")
    known = name if isinstance(name, str) and name else None
    for field in ("name", "arguments"):
        if field not in value:
            return MalformedCall(known, f'the tool call has no "{field}" field')
    if known is None:
        what = "an empty string" if name == "" else kind(name)
        return MalformedCall(None, f'"name" must be the name of a tool, not {what}')
    extra = next((k for k in value if k not in ("name", "arguments")), None)
    if extra is not None:
        return MalformedCall(
            known,
            f'the tool call has an unexpected field {quote(extra)}; it takes "name" and "arguments" only',
        )
    arguments = value["arguments"]
    if not isinstance(arguments, dict):
        return MalformedCall(known, f'"arguments" must be a JSON object, not {kind(arguments)}')
    return ParsedCall(known, arguments)
