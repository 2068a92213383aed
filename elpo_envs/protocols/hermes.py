"""The Hermes tool-call format: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, read strictly."""

from __future__ import annotations

import bisect
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from elpo_envs.protocols.base import MalformedCall, ParsedCall, ParsedTurn
from elpo_envs.tasks.base import ExpertTurn

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
_TAG = re.compile(r"</?tool_call>")
_JSON_STARTS = frozenset('{["-0123456789tfnNI')
_JSON_SPACE = re.compile(r"[ \t\r\n]*")
_JSON_TYPES = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}


class _RefusedError(ValueError):
    """JSON that Python would read and the protocol refuses."""


def _no_constant(text: str) -> NoReturn:
    raise _RefusedError(f"{text} is not a JSON value")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    obj = dict(pairs)
    if len(obj) < len(pairs):
        counts = Counter(k for k, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise _RefusedError(f"the key {_quote(twice)} occurs twice in one object")
    return obj


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_duplicates)


class Hermes:
    """Hermes calls. Messages never repeat a tag, which a tokenizer would read as a special token."""

    name = "hermes"

    def parse(self, text: str) -> ParsedTurn:
        """Read every block in order; a broken one does not hide those after it."""
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
        """Content, then one block a call, each on lines of its own."""
        parts = [turn.content] if turn.content else []
        for call in turn.tool_calls:
            body = {"name": call.name, "arguments": dict(call.arguments)}
            parts.append(f"{OPEN}\n{json.dumps(body, ensure_ascii=False)}\n{CLOSE}")
        return "\n".join(parts)


def _read_block(text: str, start: int, tags: Sequence[int]) -> tuple[ParsedCall | MalformedCall, int]:
    """The call in the block whose body begins at `start`, and where to read on.

    JSON is decoded before the closing tag is looked for, so code that prints a tag stays one call.
    """
    body = _skip_space(text, start)
    if body < len(text) and text[body] not in _JSON_STARTS:
        # The decoder would say the same, after counting the lines of the whole turn.
        return _broken(text, start, start, tags, _json_message(text, start, body, "Expecting value"))
    try:
        value, end = _DECODER.raw_decode(text, body)
    except json.JSONDecodeError as error:
        return _broken(text, start, start, tags, _json_message(text, start, error.pos, error.msg))
    except _RefusedError as error:
        return _broken(text, start, start, tags, f"invalid JSON in the tool call: {error}")
    except RecursionError:
        return _broken(text, start, start, tags, "invalid JSON in the tool call: it is nested too deeply")
    except ValueError:  # int() refuses numbers of thousands of digits
        return _broken(text, start, start, tags, "invalid JSON in the tool call: a number is too long")
    after = _skip_space(text, end)
    if not text.startswith(CLOSE, after):
        message = f"unexpected text after the JSON object of the tool call, at character {after - start + 1}"
        return _broken(text, start, after, tags, message)
    return _check_fields(value), after + len(CLOSE)


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


def _json_message(text: str, start: int, position: int, reason: str) -> str:
    before = text[start:position]
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    return f"invalid JSON in the tool call at line {line}, column {column}: {reason}"


def _check_fields(value: Any) -> ParsedCall | MalformedCall:
    if not isinstance(value, dict):
        return MalformedCall(None, f"the tool call must be a JSON object, not {_kind(value)}")
    name = value.get("name")
    known = name if isinstance(name, str) and name else None
    for field in ("name", "arguments"):
        if field not in value:
            return MalformedCall(known, f'the tool call has no "{field}" field')
    if known is None:
        what = "an empty string" if name == "" else _kind(name)
        return MalformedCall(None, f'"name" must be the name of a tool, not {what}')
    extra = next((k for k in value if k not in ("name", "arguments")), None)
    if extra is not None:
        return MalformedCall(
            known,
            f'the tool call has an unexpected field {_quote(extra)}; it takes "name" and "arguments" only',
        )
    arguments = value["arguments"]
    if not isinstance(arguments, dict):
        return MalformedCall(known, f'"arguments" must be a JSON object, not {_kind(arguments)}')
    return ParsedCall(known, arguments)


def _skip_space(text: str, start: int) -> int:
    match = _JSON_SPACE.match(text, start)
    return match.end() if match else start


def _kind(value: Any) -> str:
    return _JSON_TYPES.get(type(value), "a number")


def _quote(text: str) -> str:
    """A key of the model's as shown back to it: short, and never a tag."""
    shown = _TAG.sub("tool_call", text)
    return json.dumps(shown if len(shown) <= 40 else shown[:40] + "...", ensure_ascii=False)
