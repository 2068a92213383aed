"""OpenAI messages as turns: the raw turn is the JSON text of an assistant message with `tool_calls`, read strictly.

A message is {"role": "assistant", "content": TEXT or null, "tool_calls": [CALL, ...]}, and a call is
{"id": TEXT, "type": "function", "function": {"name": TEXT, "arguments": JSON TEXT}}. A list of calls alone is read,
too. Fields that APIs put beside these (`refusal`, `annotations`, `index`, ...) are ignored; in `function`, where what
is ignored would be an argument lost, they are not. Text that is no JSON object is content without calls, unless it
begins like a message: a message cut short is a broken call, not an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from elpo_envs.protocols.base import MalformedCall, ParsedCall, ParsedTurn
from elpo_envs.protocols.strict_json import RefusedJSONError, kind, quote, read_value, skip_space, write
from elpo_envs.tasks.base import ExpertTurn

_MEANT = re.compile(
    r"[ \t\r\n]*+(?:\[[ \t\r\n]*+)?\{[ \t\r\n]*+"
    r"(?P<quote>[\"'])(?:role|content|tool_calls?|function_call|id|type|index|function|name|arguments)(?P=quote)"
)
_SHAPE = '{"role": "assistant", "content": ..., "tool_calls": [...]}'
_TOOLS = """# Tools

You can call these functions:
{tools}

To call some, reply with nothing but one JSON object of this form, an OpenAI assistant message:
{{"role": "assistant", "content": <text or null>, "tool_calls": [<call>, ...]}}
Each call is
{{"id": "call_1", "type": "function", "function": {{"name": <function name>, "arguments": <arguments>}}}}
where the arguments are a JSON object written as a string, and every id of a message differs.
A message without "tool_calls" counts as the final answer."""


class OpenAI:
    """Calls as OpenAI `tool_calls`. The ids of calls are checked and not kept: results come in the calls' order."""

    name = "openai"
    taught_by_templates = True

    def parse(self, text: str) -> ParsedTurn:
        """Read the message; a broken call does not hide those after it, a broken message is one broken call."""
        if not text.startswith(("{", "["), skip_space(text)):
            return ParsedTurn(text)
        try:
            value, end = read_value(text)
        except RefusedJSONError as error:
            return _broken(error.sentence("the message")) if _MEANT.match(text) else ParsedTurn(text)
        after = skip_space(text, end)
        if after < len(text):
            message = f"unexpected text after the JSON of the message, at character {after + 1}"
            return _broken(message) if _MEANT.match(text) else ParsedTurn(text)
        if isinstance(value, dict):
            return _read_message(value)
        if value and isinstance(value[0], dict):
            return ParsedTurn("", _read_calls(value))
        return ParsedTurn(text)

    def render(self, turn: ExpertTurn) -> str:
        """The message as JSON on one line; ids are `call_1`, `call_2`, ... in every turn.

        Raises:
            ValueError: a name is empty, or arguments are no JSON values.
        """
        calls: list[dict[str, Any]] = []
        for number, call in enumerate(turn.tool_calls, 1):
            if not call.name:
                raise ValueError("the openai protocol cannot say this turn: it calls a tool without a name")
            function = {"name": call.name, "arguments": write(dict(call.arguments), "the arguments of a tool call")}
            calls.append({"id": f"call_{number}", "type": "function", "function": function})
        message: dict[str, Any] = {"role": "assistant", "content": turn.content}
        if calls:
            message.update(content=turn.content or None, tool_calls=calls)
        return write(message, "a message")

    def describe(self, tools: Sequence[Mapping[str, Any]]) -> str:
        """The schemas, one a line, and the form of a message, for models that are not behind such an API."""
        schemas = "\n".join(write(dict(t), "a tool's schema") for t in tools)
        return _TOOLS.format(tools=schemas) if tools else ""


def _broken(message: str) -> ParsedTurn:
    return ParsedTurn("", (MalformedCall(None, message),))


def _read_message(message: Mapping[str, Any]) -> ParsedTurn:
    if "role" not in message:
        return _broken(f'the message has no "role" field; write {_SHAPE}')
    if message["role"] != "assistant":
        return _broken(f'"role" must be "assistant", not {_shown(message["role"])}')
    if message.get("function_call") is not None:
        return _broken('"function_call" is not read; write calls as a list in "tool_calls"')
    if "content" not in message and message.get("tool_calls") is None:
        return _broken('the message has neither "content" nor "tool_calls"')
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        return _broken(f'"content" must be a string or null, not {kind(content)}')
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        return _broken(f'"tool_calls" must be a list, not {kind(calls)}')
    return ParsedTurn(content or "", _read_calls(calls or ()))


def _read_calls(calls: Sequence[Any]) -> tuple[ParsedCall | MalformedCall, ...]:
    seen: set[str] = set()
    return tuple(_read_call(call, seen) for call in calls)


def _read_call(call: Any, seen: set[str]) -> ParsedCall | MalformedCall:
    """One call; its id joins `seen`, those of the calls before it."""
    if not isinstance(call, dict):
        return MalformedCall(None, f"a tool call must be a JSON object, not {kind(call)}")
    function = call.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    known = name if isinstance(name, str) and name else None
    complaint = _check_frame(call, seen)
    if complaint is not None:
        return MalformedCall(known, complaint)
    assert isinstance(function, dict)
    for field in ("name", "arguments"):
        if field not in function:
            return MalformedCall(known, f'"function" has no "{field}" field')
    if known is None:
        return MalformedCall(None, f'"name" must be the name of a tool, not {_shown(name)}')
    extra = next((k for k in function if k not in ("name", "arguments")), None)
    if extra is not None:
        message = f'"function" has an unexpected field {quote(extra)}; it takes "name" and "arguments" only'
        return MalformedCall(known, message)
    return _read_arguments(known, function["arguments"])


def _check_frame(call: Mapping[str, Any], seen: set[str]) -> str | None:
    """What is wrong with a call apart from its function, or None; its id joins `seen`."""
    for field in ("id", "type", "function"):
        if field not in call:
            return f'the tool call has no "{field}" field'
    identity = call["id"]
    if not isinstance(identity, str) or not identity:
        return f'"id" must be a text of your choice, not {_shown(identity)}'
    if identity in seen:
        return f'the "id" {quote(identity)} belongs to an earlier tool call of this message; give each its own'
    seen.add(identity)
    if call["type"] != "function":
        return f'"type" must be "function", not {_shown(call["type"])}'
    if not isinstance(call["function"], dict):
        return f'"function" must be a JSON object, not {kind(call["function"])}'
    return None


def _read_arguments(name: str, text: Any) -> ParsedCall | MalformedCall:
    if not isinstance(text, str):
        message = f'"arguments" must be a string that holds a JSON object, not {kind(text)} itself'
        return MalformedCall(name, message)
    try:
        value, end = read_value(text)
    except RefusedJSONError as error:
        return MalformedCall(name, error.sentence('"arguments"'))
    after = skip_space(text, end)
    if after < len(text):
        return MalformedCall(name, f'unexpected text after the JSON object in "arguments", at character {after + 1}')
    if not isinstance(value, dict):
        return MalformedCall(name, f'"arguments" must hold a JSON object, not {kind(value)}')
    return ParsedCall(name, value)


def _shown(value: Any) -> str:
    """A value where another was wanted: texts as they are, the rest by kind."""
    if not isinstance(value, str):
        return kind(value)
    return quote(value) if value else "an empty string"
