"""The Hermes protocol: what is read, what is refused and why, and that nothing a model writes raises."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elpo_envs.protocols import Hermes, MalformedCall, ParsedCall, get_protocol
from elpo_envs.tasks import ExpertTurn, ToolCall

HERMES = Hermes()
GOOD = '{"name": "python", "arguments": {"code": "1"}}'


def block(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


MALFORMED = [
    # (turn, part of the message, name that could be read)
    ("<tool_call>" + GOOD, "never closed", None),
    ("<tool_call>", "never closed", None),
    ('<tool_call>{"name": "python", "argu', "never closed", None),
    ("<tool_call>" + GOOD + "\n<tool_call", "never closed", None),
    (GOOD + "</tool_call>", "no opening tag", None),
    (block(""), "empty", None),
    (block("\n \n"), "empty", None),
    (block("print(1)"), "line 1, column 1: Expecting value", None),
    (block('{"name": "python" "arguments": {}}'), "line 1, column 19: Expecting ',' delimiter", None),
    (block('\n{"name": "python",\n "arguments": {"code": }}'), "line 3, column 24", None),
    (block('{"name": "python", "arguments": {"code": "a\nb"}}'), "Invalid control character", None),
    (block("{'name': 'python', 'arguments': {}}"), "Expecting property name", None),
    (block('{"name": "python", "arguments": {"x": NaN}}'), "NaN is not a JSON value", None),
    (block('{"name": "python", "arguments": {"x": -Infinity}}'), "-Infinity is not a JSON value", None),
    (block('{"name": "python", "arguments": {"a": 1, "a": 2}}'), '"a" occurs twice', None),
    (block('{"name": "python", "name": "other", "arguments": {}}'), '"name" occurs twice', None),
    (block('{"name": "python", "arguments": {"x": ' + "9" * 5000 + "}}"), "too long", None),
    (block('{"name": "python", "arguments": ' + "[" * 100_000), "too deeply", None),
    (block(GOOD + " 1"), "unexpected text after", None),
    (block(GOOD + GOOD), "unexpected text after the JSON object of the tool call, at character 47", None),
    (block("[" + GOOD + "]"), "must be a JSON object, not a list", None),
    (block('"python"'), "must be a JSON object, not a string", None),
    (block("3"), "must be a JSON object, not a number", None),
    (block("null"), "must be a JSON object, not null", None),
    (block("{}"), 'no "name" field', None),
    (block('{"arguments": {}}'), 'no "name" field', None),
    (block('{"name": "python"}'), 'no "arguments" field', "python"),
    (block('{"name": "python", "parameters": {}}'), 'no "arguments" field', "python"),
    (block('{"name": 7, "arguments": {}}'), '"name" must be the name of a tool, not a number', None),
    (block('{"name": "", "arguments": {}}'), "not an empty string", None),
    (block('{"name": true, "arguments": {}}'), "not a boolean", None),
    (
        block('{"name": "python", "arguments": "{}"}'),
        '"arguments" must be a JSON object, not a string',
        "python",
    ),
    (block('{"name": "python", "arguments": null}'), "not null", "python"),
    (block('{"name": "python", "arguments": [1]}'), "not a list", "python"),
    (block('{"name": "python", "arguments": {}, "id": 1}'), 'unexpected field "id"', "python"),
]


@pytest.mark.parametrize(("turn", "message", "name"), MALFORMED)
def test_malformed_calls_say_what_was_wrong(turn: str, message: str, name: str | None) -> None:
    (call,) = HERMES.parse(turn).calls
    assert isinstance(call, MalformedCall)
    assert message in call.message
    assert call.name == name
    # A tag in a message would be tokenized as a special token when it is shown to the model.
    assert "tool_call>" not in call.message
    assert len(call.message) < 300


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (GOOD, "1"),
        (f"\n{GOOD}\n", "1"),
        (f" \t\r\n {GOOD}  ", "1"),
        ('{"arguments": {"code": "1"}, "name": "python"}', "1"),
        (r'{"name": "python", "arguments": {"code": "a\nb\u00e9é"}}', "a\nbéé"),
        ('{"name": "python", "arguments": {"code": "print(\'</tool_call>\')"}}', "print('</tool_call>')"),
        ('{"name": "python", "arguments": {"code": "<tool_call>"}}', "<tool_call>"),
    ],
)
def test_well_formed_calls(body: str, code: str) -> None:
    turn = HERMES.parse(f"first I think{block(body)}")
    assert turn.content == "first I think"
    assert turn.calls == (ParsedCall("python", {"code": code}),)


def test_text_without_a_call_is_content() -> None:
    for text in ("", "plain", "tool_call", "< tool_call>", GOOD, "<TOOL_CALL>" + GOOD + "</TOOL_CALL>"):
        assert HERMES.parse(text).content == text
        assert HERMES.parse(text).calls == ()


def test_a_broken_block_does_not_hide_the_next() -> None:
    text = block("oops") + "between" + block(GOOD) + "<tool_call>" + GOOD + block(GOOD) + "</tool_call>"
    kinds = [type(c) for c in HERMES.parse(text).calls]
    assert kinds == [MalformedCall, ParsedCall, MalformedCall, ParsedCall, MalformedCall]


def test_render_is_exact() -> None:
    call = ToolCall("python", {"code": 'print("é")\n'})
    body = '<tool_call>\n{"name": "python", "arguments": {"code": "print(\\"é\\")\\n"}}\n</tool_call>'
    assert HERMES.render(ExpertTurn("", (call,))) == body
    assert HERMES.render(ExpertTurn("think", (call, call))) == f"think\n{body}\n{body}"
    assert HERMES.render(ExpertTurn("\\boxed{3}")) == "\\boxed{3}"
    assert HERMES.render(ExpertTurn()) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CALLS = st.builds(ToolCall, st.text(min_size=1), st.dictionaries(st.text(), JSON, max_size=4))


@given(st.text(st.characters(exclude_characters="<")), st.lists(CALLS, min_size=1, max_size=4))
def test_render_then_parse_gives_the_calls_back(content: str, calls: list[ToolCall]) -> None:
    turn = HERMES.parse(HERMES.render(ExpertTurn(content, tuple(calls))))
    assert turn.calls == tuple(ParsedCall(c.name, c.arguments) for c in calls)
    assert turn.content == (content + "\n" if content else "")


FRAGMENTS = [
    "<tool_call>",
    "</tool_call>",
    GOOD,
    "{",
    "}",
    '"',
    "\\",
    "\n",
    " ",
    "[",
    '{"name":',
    "é",
    "\ud800",
]


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=30).map("".join))
def test_parsing_never_raises_and_finds_every_tag(text: str) -> None:
    turn = HERMES.parse(text)
    assert bool(turn.calls) == ("<tool_call>" in text or "</tool_call>" in text)
    assert text.startswith(turn.content)
    for call in turn.calls:
        if isinstance(call, ParsedCall):
            json.dumps(call.arguments)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 20_000,
        "</tool_call>" * 20_000,
        "<tool_call>{</tool_call>" * 10_000,
        '<tool_call>{"a": "' * 10_000,
        "<tool_call>{" + ", ".join(f'"k{i}": 1' for i in range(20_000)) + ', "k1": 2}</tool_call>',
    ],
)
def test_hostile_turns_take_little_time(text: str) -> None:
    start = time.perf_counter()
    HERMES.parse(text)
    assert time.perf_counter() - start < 5.0


def test_an_unknown_protocol_names_the_choices() -> None:
    assert get_protocol("hermes").name == "hermes"
    with pytest.raises(ValueError, match="protocol='xml' is unknown; choose one of hermes"):
        get_protocol("xml")
