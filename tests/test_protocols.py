"""Every protocol: what is read, what is refused and why, that writing and reading agree, and that nothing raises."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elpo_envs.math_env import MathEnv
from elpo_envs.protocols import (
    PROTOCOLS,
    Fences,
    MalformedCall,
    OpenAI,
    ParsedCall,
    ParsedTurn,
    PythonTags,
    TurnProtocol,
    get_protocol,
)
from elpo_envs.protocols.strict_json import RefusedJSONError, read_value
from elpo_envs.tasks import ExpertTurn, ToolCall

FENCES, TAGS, OPENAI = Fences(), PythonTags(), OpenAI()
CODE_PROTOCOLS = [FENCES, TAGS]
HANG_GUARD_S = 10.0
MEBIBYTE = 2**20


def run(code: str) -> ParsedCall:
    return ParsedCall("python", {"code": code})


def asks(code: str) -> ToolCall:
    return ToolCall("python", {"code": code})


def openai_call(arguments: object = '{"code": "1"}', **changes: object) -> dict[str, Any]:
    function = {"name": "python", "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function, **changes}


def message(**fields: object) -> str:
    return json.dumps({"role": "assistant", **fields})


def one_call(arguments: object = '{"code": "1"}', **changes: object) -> str:
    return message(content=None, tool_calls=[openai_call(arguments, **changes)])


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k not in names}


# ---- fences

FENCED = [
    # (turn, content, codes)
    ("```python\nx = 1\n```", "", ["x = 1"]),
    ("I think\n```python\nx = 1\n```\nand so on", "I think", ["x = 1"]),
    ("I think\n\n```py\nx = 1\nx\n```", "I think\n", ["x = 1\nx"]),
    ("```Python3   \nx\n```  \t", "", ["x"]),
    ("``` PYTHON\nx\n```", "", ["x"]),
    ("```python\nx\n```\n```python\ny\n```", "", ["x", "y"]),
    ("```python\nx\n```\nbetween\n```sh\nls\n```\n```python\ny\n```", "", ["x", "y"]),
    ("````python\nx = '''\n```\n'''\n````", "", ["x = '''\n```\n'''"]),
    ("````python\nx = '''\n```python\n```\n'''\n````", "", ["x = '''\n```python\n```\n'''"]),
    ("```python\nx\n``````", "", ["x"]),
    ("~~~python\nx = '''\n```\n'''\n~~~", "", ["x = '''\n```\n'''"]),
    ("```python\n~~~\n```", "", ["~~~"]),
    ("```python\nx = '```'\n```", "", ["x = '```'"]),
    ("```python\nx = '''\n    ```\n'''\n```", "", ["x = '''\n    ```\n'''"]),
    ("```python\n   x\n  ```", "", ["   x"]),
    ("1. so:\n   ```python\n   if x:\n     y\n  z\n\n   ```", "1. so:", ["if x:\n  y\nz\n"]),
    ("1. so:\n\n      ```python\n      x\n      ```", "1. so:\n", ["x"]),
    ("\t```python\n\tx\n\t```", "", ["x"]),
    ("say\r\n```python\r\nx = 1\r\nx\r\n```\r\n", "say\r", ["x = 1\r\nx"]),
    ("```python\nx\n\n```", "", ["x\n"]),
    ("```python\n\nx\n```", "", ["\nx"]),
    ("```python\n# nothing\n```", "", ["# nothing"]),
    # A closing fence within a string closes, and what follows is text.
    ("```python\nx = '''\n```\n'''\n", "", ["x = '''"]),
    ("```markdown\n````python\n```\n```python\nx\n```", "```markdown\n````python\n```", ["x"]),
]


@pytest.mark.parametrize(("turn", "content", "codes"), FENCED)
def test_fenced_python_is_a_call(turn: str, content: str, codes: list[str]) -> None:
    assert FENCES.parse(turn) == ParsedTurn(content, tuple(run(c) for c in codes))


@pytest.mark.parametrize(
    "turn",
    [
        "",
        "\\boxed{3}\n",
        "use `python` and ```python```",
        "```python x```",
        "so ```python\nx\n```",
        "```\nx\n```",
        "```output\n3\n```",
        "```pycon\n>>> 1\n```",
        "```python3.11\nx\n```",
        "```sh\n```python\nx\n```",
        "````md\n```python\nx\n```\n````",
        "~~~text\n```python\nx\n```\n",
        "``python\nx\n``",
        "> ```python\n> x\n> ```",
        "~~python\nx\n~~",
    ],
)
def test_other_fences_and_inline_code_are_text(turn: str) -> None:
    assert FENCES.parse(turn) == ParsedTurn(turn)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ("a\n```python\nx = 1", ["not closed before the end of the turn"]),
        ("a\n```python", ["not closed before the end of the turn"]),
        ("a\n````python\nx\n```", ["not closed before the end of the turn"]),
        ("a\n```python\nx\n~~~", ["not closed before the end of the turn"]),
        ("a\n```python\nx\n``` done", ["not closed before the next one opens"]),
        ("a\n```python\n```", ["empty"]),
        ("a\n```python\n \n\t\n```", ["empty"]),
        ("a\n```python import math\nmath.pi\n```", ["must end after the language"]),
        ('a\n```py title="x"\nx\n```', ["must end after the language"]),
        ("a\n```python\nx\n```python\ny\n```", ["before the next one opens", None]),
        ("a\n```python\n```\n```python\ny\n```", ["empty", None]),
        ("a\n```python\nx\n```output\n3\n```", ["before the next one opens"]),
    ],
)
def test_broken_fences_say_what_was_wrong(turn: str, said: list[str | None]) -> None:
    assert_calls(FENCES, turn, "a", said, tool="python")


# ---- tags

TAGGED = [
    ("<python>x = 1</python>", "", ["x = 1"]),
    ("I think <python>x = 1</python> so", "I think ", ["x = 1"]),
    ("I think\n<python>\nx = 1\nx\n</python>\n", "I think", ["x = 1\nx"]),
    ("<python> x = 1 </python>", "", ["x = 1"]),
    ("<python>  \n  x\n  </python>", "", ["  x"]),
    ("<python>\r\nx\r\ny\r\n</python>", "", ["x\r\ny"]),
    ("<python>\n\nx\n\n</python>", "", ["\nx\n"]),
    ("<python>x</python><python>y</python>", "", ["x", "y"]),
    ("  <python>\n  if x:\n    y\n  </python>", "  ", ["if x:\n  y"]),
    ("<python>print('<python>')</python>", "", ["print('<python>')"]),
    ("<python>\nprint('<python>')\n</python>", "", ["print('<python>')"]),
    ("<python>\n```\n</python>", "", ["```"]),
    ("<python>\nx # </ python> </Python>\n</python>", "", ["x # </ python> </Python>"]),
]


@pytest.mark.parametrize(("turn", "content", "codes"), TAGGED)
def test_tagged_python_is_a_call(turn: str, content: str, codes: list[str]) -> None:
    assert TAGS.parse(turn) == ParsedTurn(content, tuple(run(c) for c in codes))


@pytest.mark.parametrize(
    "turn",
    ["", "\\boxed{3}\n", "python", "< python>x", "<Python>x</Python>", "<python3>x", "<python id='1'>x", "<python"],
)
def test_other_tags_are_text(turn: str) -> None:
    assert TAGS.parse(turn) == ParsedTurn(turn)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ("a\n<python>x = 1", ["never closed"]),
        ("a\n<python>", ["never closed"]),
        ("a\n<python>x</python", ["never closed"]),
        ("a\n</python>", ["no opening tag"]),
        ("a\n<python></python>", ["empty"]),
        ("a\n<python>\n \n</python>", ["empty"]),
        ("a\n<python>\nx\n<python>\ny\n</python>", ["before the next one opens", None]),
        ("a\n<python>\nx\n  <python>y", ["before the next one opens", "never closed"]),
        ("a\n<python>x</python></python>", [None, "no opening tag"]),
        ("a\n<python>print('</python>')</python>", [None, "the first one ends the code, even in a string"]),
        ("a\n</python><python>x</python>", ["no opening tag", None]),
        ("a\n<python></python><python>x</python>", ["empty", None]),
    ],
)
def test_broken_tags_say_what_was_wrong(turn: str, said: list[str | None]) -> None:
    assert_calls(TAGS, turn, "a", said, tool="python")


# ---- OpenAI messages


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (one_call(), ParsedTurn("", (run("1"),))),
        (" \r\n" + one_call() + "\n", ParsedTurn("", (run("1"),))),
        (json.dumps([openai_call()]), ParsedTurn("", (run("1"),))),
        (message(content="a", tool_calls=[openai_call()]), ParsedTurn("a", (run("1"),))),
        (message(tool_calls=[openai_call()]), ParsedTurn("", (run("1"),))),
        (
            message(content="a", tool_calls=[openai_call(), openai_call('{"code": "2"}', id="b", index=1)]),
            ParsedTurn("a", (run("1"), run("2"))),
        ),
        (message(content="a", refusal=None, annotations=[], function_call=None, tool_calls=None), ParsedTurn("a")),
        (message(content="\\boxed{\\frac{1}{2}}"), ParsedTurn("\\boxed{\\frac{1}{2}}")),
        (message(content="a", tool_calls=[]), ParsedTurn("a")),
        (message(content=None), ParsedTurn("")),
        (message(content=""), ParsedTurn("")),
        (one_call("{}"), ParsedTurn("", (ParsedCall("python", {}),))),
        (one_call(' {"x": [1, 2.5, null]} '), ParsedTurn("", (ParsedCall("python", {"x": [1, 2.5, None]}),))),
    ],
)
def test_openai_messages(turn: str, expected: ParsedTurn) -> None:
    assert OPENAI.parse(turn) == expected


@pytest.mark.parametrize(
    "turn",
    [
        "",
        "\\boxed{3}",
        "[1, 2, 3]",
        "[]",
        "[x = 5]",
        "{1, 2}",
        "{\\bf no}",
        '{"a", "b"}',
        "{'a': 1}",
        '{"a": 1} is the dictionary',
        '"text"',
        "3",
        "I call " + one_call(),
        "```json\n" + one_call() + "\n```",
        "[" * 5000,
        "{",
    ],
)
def test_text_that_is_no_message_is_content(turn: str) -> None:
    assert OPENAI.parse(turn) == ParsedTurn(turn)


BROKEN_MESSAGES = [
    # (turn, part of the message, name that could be read)
    (one_call()[:-1], "invalid JSON in the message at line 1, column", None),
    (one_call()[:30], "Unterminated string", None),
    (one_call() + one_call(), "unexpected text after the JSON of the message, at character", None),
    (one_call() + " done", "unexpected text after", None),
    ("{'role': 'assistant'}", "line 1, column 2: Expecting property name", None),
    ('{"role": "assistant", "role": "user", "content": "a"}', '"role" occurs twice', None),
    ('{"role": "assistant", "content": NaN}', "NaN is not a JSON value", None),
    ('{"role": "assistant", "content": "a", "tool_calls": ' + "[" * 10**5, "too deeply", None),
    ("{}", 'no "role" field', None),
    ('{"answer": 3}', 'no "role" field', None),
    (json.dumps(openai_call()), 'no "role" field', None),
    ('{"role": "user", "content": "a"}', '"role" must be "assistant", not "user"', None),
    ('{"role": null, "content": "a"}', '"role" must be "assistant", not null', None),
    ('{"role": "assistant"}', 'neither "content" nor "tool_calls"', None),
    (message(tool_calls=None), 'neither "content" nor "tool_calls"', None),
    (message(content=3), '"content" must be a string or null, not a number', None),
    (message(content=[{"type": "text", "text": "a"}]), "not a list", None),
    (message(content="a", tool_calls={}), '"tool_calls" must be a list, not an object', None),
    (message(content="a", function_call={"name": "f", "arguments": "{}"}), '"function_call" is not read', None),
    ('[{"a": 1}]', 'no "id" field', None),
    (message(tool_calls=["a"]), "must be a JSON object, not a string", None),
    (message(tool_calls=[without(openai_call(), "id")]), 'no "id" field', "python"),
    (message(tool_calls=[without(openai_call(), "type")]), 'no "type" field', "python"),
    (message(tool_calls=[without(openai_call(), "function")]), 'no "function" field', None),
    (message(tool_calls=[{"name": "python", "arguments": "{}"}]), 'no "id" field', None),
    (one_call(id=""), '"id" must be a text of your choice, not an empty string', "python"),
    (one_call(id=1), "not a number", "python"),
    (one_call(type="custom"), '"type" must be "function", not "custom"', "python"),
    (one_call(type=None), '"type" must be "function", not null', "python"),
    (one_call(function="python"), '"function" must be a JSON object, not a string', None),
    (one_call(function={"arguments": "{}"}), '"function" has no "name" field', None),
    (one_call(function={"name": "python"}), '"function" has no "arguments" field', "python"),
    (one_call(function={"name": 3, "arguments": "{}"}), "name of a tool, not a number", None),
    (one_call(function={"name": "", "arguments": "{}"}), "not an empty string", None),
    (one_call(function={"name": "f", "arguments": "{}", "input": 1}), 'unexpected field "input"', "f"),
    (one_call({"code": "1"}), "must be a string that holds a JSON object, not an object itself", "python"),
    (one_call(None), "not null itself", "python"),
    (one_call(""), 'invalid JSON in "arguments" at line 1, column 1: Expecting value', "python"),
    (one_call("print(1)"), "Expecting value", "python"),
    (one_call('{"code": "a\nb"}'), "Invalid control character", "python"),
    (one_call('{\n"code": 1 1}'), "line 2, column 11: Expecting ',' delimiter", "python"),
    (one_call("{} {}"), 'unexpected text after the JSON object in "arguments", at character 4', "python"),
    (one_call("[1]"), '"arguments" must hold a JSON object, not a list', "python"),
    (one_call('"{}"'), "not a string", "python"),
    (one_call('{"x": -Infinity}'), "-Infinity is not a JSON value", "python"),
    (one_call('{"x": 1e999}'), "a number is too large", "python"),
    (one_call('{"a": 1, "a": 2}'), '"a" occurs twice', "python"),
    (one_call('{"x": ' + "9" * 5000 + "}"), "too long", "python"),
    (one_call("[" * 10**5), "too deeply", "python"),
    (one_call('{"<tool_call>": 1, "<tool_call>": 2}'), "tool_call", "python"),
    (one_call('{"<|im_end|>": 1, "<|im_end|>": 2}'), "im_end", "python"),
    (one_call(type="</python>"), "not", "python"),
]


@pytest.mark.parametrize(("turn", "part", "name"), BROKEN_MESSAGES)
def test_broken_openai_messages_say_what_was_wrong(turn: str, part: str, name: str | None) -> None:
    assert_calls(OPENAI, turn, "", [part], tool=name)


def test_a_broken_call_does_not_hide_the_next() -> None:
    calls = [openai_call("{"), openai_call(id="2"), 3, openai_call(id="2"), openai_call(id="3")]
    kinds = [type(c) for c in OPENAI.parse(message(content="a", tool_calls=calls)).calls]
    assert kinds == [MalformedCall, ParsedCall, MalformedCall, MalformedCall, ParsedCall]
    repeated = OPENAI.parse(message(tool_calls=[openai_call(), openai_call()])).calls[1]
    assert isinstance(repeated, MalformedCall)
    assert '"call_1" belongs to an earlier tool call' in repeated.message


# ---- Hermes, beside its own file


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ('{"name": "f", "arguments": {"x": 1e999}}', "a number is too large"),
        ('{"name": "f", "arguments": {"</tool_call>": 1, "</tool_call>": 2}}', "occurs twice"),
        ('{"name": "f", "arguments": {"<tool_call>": 1, "<tool_call>": 2}}', "not closed before the next one opens"),
        ('{"name": "f", "arguments": {}, "</tool_call>": 1}', "unexpected field"),
        ('{"name": "f", "arguments": {}, "<|im_end|>": 1}', "unexpected field"),
        ('{"name": "f", "arguments": {"x": "</tool_call>", "y": oops}}', "Expecting value"),
    ],
)
def test_hermes_refusals(body: str, part: str) -> None:
    call = get_protocol("hermes").parse(f"<tool_call>{body}</tool_call>").calls[0]
    assert isinstance(call, MalformedCall)
    assert part in call.message
    assert_harmless(call.message)


def test_hermes_reads_code_with_any_number_of_tags() -> None:
    hermes = get_protocol("hermes")
    for n in range(12):
        calls = (asks("print('<tool_call></tool_call>')\n" * n), asks("</tool_call>"))
        assert hermes.parse(hermes.render(ExpertTurn("", calls))).calls == tuple(
            ParsedCall(c.name, c.arguments) for c in calls
        )


# ---- writing


def test_rendered_turns_are_exact() -> None:
    turn = ExpertTurn("think", (asks("x = 1\nx"), asks("y")))
    assert FENCES.render(turn) == "think\n```python\nx = 1\nx\n```\n```python\ny\n```"
    assert TAGS.render(turn) == "think\n<python>\nx = 1\nx\n</python>\n<python>\ny\n</python>"
    calls = [openai_call(json.dumps({"code": c}), id=f"call_{i}") for i, c in ((1, "x = 1\nx"), (2, "y"))]
    assert json.loads(OPENAI.render(turn)) == {"role": "assistant", "content": "think", "tool_calls": calls}
    assert json.loads(OPENAI.render(ExpertTurn("", (asks("y"),))))["content"] is None
    answer = ExpertTurn("\\boxed{3}")
    assert FENCES.render(answer) == TAGS.render(answer) == "\\boxed{3}"
    assert json.loads(OPENAI.render(answer)) == {"role": "assistant", "content": "\\boxed{3}"}
    assert "é" in OPENAI.render(ExpertTurn("é"))
    assert FENCES.render(ExpertTurn("", (asks("s = '''\n````\n'''"),))).startswith("`````python\n")
    assert FENCES.render(ExpertTurn("", (asks("s = '''\n~~~\n'''"),))).startswith("```python\n")


@pytest.mark.parametrize("protocol", CODE_PROTOCOLS)
@pytest.mark.parametrize(
    ("call", "why"),
    [
        (
            ToolCall("calculator", {"code": "1"}),
            "can only call python with the argument code; this turn calls calculator",
        ),
        (ToolCall("submit", {"code": "1"}), "this turn calls submit"),
        (ToolCall("python", {}), "this turn gives the arguments: none"),
        (ToolCall("python", {"code": "1", "x": 2}), "this turn gives the arguments: code, x"),
        (ToolCall("python", {"code": 1}), "not blank; this turn gives 1"),
        (ToolCall("python", {"code": ""}), "not blank"),
        (ToolCall("python", {"code": " \n"}), "not blank"),
        (ToolCall("python", {"code": "x\r"}), "carriage return"),
    ],
)
def test_code_protocols_refuse_what_they_cannot_say(protocol: TurnProtocol, call: ToolCall, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as error:
        protocol.render(ExpertTurn("a", (call,)))
    assert f"the {protocol.name} protocol" in str(error.value)


@pytest.mark.parametrize(
    ("name", "turn", "why"),
    [
        ("fences", ExpertTurn("```python\nx\n```"), "its content holds a fence"),
        ("fences", ExpertTurn("```\n", (asks("x"),)), "its content holds a fence"),
        ("python_tags", ExpertTurn("see <python>"), "holds a python tag"),
        ("python_tags", ExpertTurn("", (asks("'</python>'"),)), "holds a python tag"),
        ("python_tags", ExpertTurn("", (asks("'''\n<python>'''"),)), "holds a python tag"),
        ("hermes", ExpertTurn("see <tool_call>"), "its content holds a tool_call tag"),
        ("hermes", ExpertTurn("", (ToolCall("", {}),)), "without a name"),
        ("hermes", ExpertTurn("", (ToolCall("f", {"x": float("nan")}),)), "cannot be written as JSON"),
        ("openai", ExpertTurn("", (ToolCall("", {}),)), "without a name"),
        ("openai", ExpertTurn("", (ToolCall("f", {"x": float("inf")}),)), "cannot be written as JSON"),
        ("openai", ExpertTurn("", (ToolCall("f", {"x": {1}}),)), "cannot be written as JSON"),
    ],
)
def test_turns_that_cannot_be_said(name: str, turn: ExpertTurn, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        get_protocol(name).render(turn)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ANY_CALLS = st.lists(st.builds(ToolCall, st.text(min_size=1), st.dictionaries(st.text(), JSON, max_size=4)), max_size=4)
LINES = [
    "",
    "x = 1",
    "  ",
    "    y\n",
    "\n",
    "'''",
    "\\boxed{3}",
    "é\u2028",
    "\ud800",
    "```",
    "``",
    "~~~",
    "`",
    "<",
    "\t",
]
HARD = [*LINES, "````", "```python", "~~~py", "<python>", "</python>", "\r", "\r\n", "<python", ">"]
TEXT = st.lists(st.sampled_from(HARD), max_size=8).map("\n".join) | st.lists(st.sampled_from(HARD)).map("".join)


@given(st.text(), ANY_CALLS)
def test_openai_reads_back_whatever_it_writes(content: str, calls: list[ToolCall]) -> None:
    turn = OPENAI.parse(OPENAI.render(ExpertTurn(content, tuple(calls))))
    assert turn == ParsedTurn(content, tuple(ParsedCall(c.name, c.arguments) for c in calls))


@pytest.mark.parametrize("protocol", CODE_PROTOCOLS)
@given(st.text() | TEXT, st.lists((st.text() | TEXT).map(asks), max_size=3))
def test_code_protocols_read_back_what_they_write(protocol: TurnProtocol, content: str, calls: list[ToolCall]) -> None:
    try:
        raw = protocol.render(ExpertTurn(content, tuple(calls)))
    except ValueError:
        said = re.search(r"```|~~~|<python>|</python>|\r", content + "".join(c.arguments["code"] for c in calls))
        assert said or any(not c.arguments["code"].strip() for c in calls)
        return
    assert protocol.parse(raw) == ParsedTurn(content, tuple(ParsedCall(c.name, c.arguments) for c in calls))


@given(TEXT.filter(lambda code: bool(code.strip()) and not code.endswith("\r")))
def test_fences_can_say_any_code(code: str) -> None:
    assert FENCES.parse(FENCES.render(ExpertTurn("so", (asks(code),)))) == ParsedTurn("so", (run(code),))


# ---- whatever comes

FRAGMENTS = [
    *HARD,
    "<tool_call>",
    "</tool_call>",
    '{"name": "python", "arguments": {"code": "1"}}',
    one_call(),
    '{"role": "assistant", "content": "',
    '", "tool_calls": [',
    '{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\\"x\\": 1}"}}',
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    ",",
    ":",
    "1e999",
    "NaN",
    "\x00",
    "\U0001f600",
    "<|im_end|>",
]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=30).map("".join))
def test_parsing_never_raises(protocol: TurnProtocol, text: str) -> None:
    turn = protocol.parse(text)
    assert turn == protocol.parse(text)
    if not turn.calls and protocol is not PROTOCOLS["openai"]:
        assert turn.content == text
    for call in turn.calls:
        if isinstance(call, ParsedCall):
            json.dumps(call.arguments, allow_nan=False)
        else:
            assert_harmless(call.message)


@pytest.mark.parametrize("protocol", CODE_PROTOCOLS)
@given(st.lists(st.sampled_from(HARD), max_size=20).map("\n".join))
def test_every_call_that_was_read_can_be_written(protocol: TurnProtocol, text: str) -> None:
    calls = [c for c in protocol.parse(text).calls if isinstance(c, ParsedCall)]
    for call in calls:
        if call.arguments["code"].endswith("\r"):
            continue
        raw = protocol.render(ExpertTurn("", (ToolCall(call.name, call.arguments),)))
        assert protocol.parse(raw).calls == (call,)


# What a turn may open with, then pieces of it to repeat: first those that a careless reader takes longest for.
PIECES: dict[str, tuple[str, list[str], list[str]]] = {
    "hermes": (
        "<tool_call>",
        ["<tool_call>{", '<tool_call>["', "<tool_call>[[[[", "<tool_call>", "</tool_call>", "<tool_call>{</tool_call>"],
        ['<tool_call>{"a": "', '<tool_call>"', '","<tool_call>[', '<tool_call>{"a":1,"a":1}', '\\"<tool_call>'],
    ),
    "fences": (
        "```python\n",
        ["```python\n", "````\n```py\n", "```"],
        ["```python\n```\n", "```a\n", "`", "~~~~", "```python x\nx\n```\n"],
    ),
    "python_tags": (
        "<python>",
        ["<python>", "\n<python>", "</python>"],
        ["<python>x</python>", "<python>\n", " <python>\n", "<", "</python"],
    ),
    "openai": (
        '{"role": ',
        ['{"role":"assistant"', '[{"id":', one_call()],
        [json.dumps(openai_call()) + ",", '{"role": "assistant", "content": "'],
    ),
}
NESTING = ["[", '{"a":', " ", "\\", "{", "[{", "(", '"', "\n", "\t", "\r\n", "9", "\ud800", "a"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_hostile_turns_take_little_time(name: str) -> None:
    begin, worst = PIECES[name][0], PIECES[name][1][0]
    assert_quick(name, repeat(worst))
    for piece in NESTING[:4]:
        assert_quick(name, begin + repeat(piece))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOLS)
def test_more_hostile_turns_take_little_time(name: str) -> None:
    for begin, worst, more in PIECES.values():
        for piece in [*worst, *more, *NESTING]:
            for before in ("", begin):
                assert_quick(name, before + repeat(piece))


def indented_blocks() -> str:
    return "".join(f"{' ' * n}```python\n{' ' * n}x\n{' ' * n}```\n" for n in range(800))


def many_bad_calls() -> str:
    return message(content="a", tool_calls=[openai_call("{" * 20, id=str(i)) for i in range(8000)])


@pytest.mark.parametrize(
    "make",
    [
        indented_blocks,
        many_bad_calls,
        lambda: one_call("[" * MEBIBYTE),
        lambda: one_call('{"x": 1.' + "3" * MEBIBYTE + "}"),
        lambda: one_call('{"x": ' + "3" * MEBIBYTE + "}"),
        lambda: message(tool_calls=[{}] * 100_000),
        lambda: "<tool_call>{" + ", ".join(f'"k{i}": 1' for i in range(80_000)) + ', "k1": 2}</tool_call>',
        lambda: "<tool_call>[" + '"<tool_call>[",' * 60_000,
        lambda: '<tool_call>["<tool_call>["' + ',","' * 250_000,
        lambda: " " * MEBIBYTE + "```python",
        lambda: (" " * 1000 + "\n") * 1000 + "<python>" + " " * 1000,
    ],
)
def test_hostile_turns_of_one_kind_take_little_time(make: Callable[[], str]) -> None:
    text = make()
    for name in PROTOCOLS:
        assert_quick(name, text)


# ---- describing

PYTHON_SCHEMA = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Runs {code}.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}
OTHER_SCHEMA = {"type": "function", "function": {"name": "lookup", "description": "é", "parameters": {}}}


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_descriptions_tell_what_there_is(protocol: TurnProtocol) -> None:
    text = protocol.describe([PYTHON_SCHEMA, OTHER_SCHEMA])
    assert "Runs {code}." in text
    assert ("lookup" in text) == (protocol.name in ("hermes", "openai"))
    if protocol.name in ("hermes", "openai"):
        assert json.dumps(PYTHON_SCHEMA) in text.split("\n")
        assert "é" in text
    assert protocol.describe([]) == ""
    assert protocol.describe([PYTHON_SCHEMA]) != text or protocol.name in ("fences", "python_tags")


@pytest.mark.parametrize(("protocol", "codes"), [(FENCES, ["<code>"]), (TAGS, ["<code>"])])
def test_a_description_shows_a_call_that_can_be_read(protocol: TurnProtocol, codes: list[str]) -> None:
    assert protocol.parse(protocol.describe([PYTHON_SCHEMA])).calls == tuple(run(c) for c in codes)


@pytest.mark.parametrize("protocol", CODE_PROTOCOLS)
def test_a_code_protocol_cannot_describe_other_tools(protocol: TurnProtocol) -> None:
    with pytest.raises(ValueError, match="can only call python with the argument code; the tools are: lookup"):
        protocol.describe([OTHER_SCHEMA])
    function: Any = PYTHON_SCHEMA["function"]
    parameters = {**function["parameters"], "required": ["code", "session"]}
    with pytest.raises(ValueError, match="the tool needs session, too"):
        protocol.describe([{"type": "function", "function": {**function, "parameters": parameters}}])


@pytest.mark.parametrize("make", [Fences, PythonTags])
def test_the_tool_and_argument_can_be_named(make: Callable[[str, str], TurnProtocol]) -> None:
    protocol = make("repl", "source")
    turn = ExpertTurn("so", (ToolCall("repl", {"source": "x"}),))
    assert protocol.parse(protocol.render(turn)) == ParsedTurn("so", (ParsedCall("repl", {"source": "x"}),))
    with pytest.raises(ValueError, match="can only call repl with the argument source; this turn calls python"):
        protocol.render(ExpertTurn("", (asks("x"),)))
    with pytest.raises(ValueError, match="tool='' must be a name, such as 'python'"):
        make("", "code")
    with pytest.raises(ValueError, match="argument='' must be a name, such as 'code'"):
        make("python", "")


# ---- the registry and the shared decoder


def test_protocols_are_found_by_name() -> None:
    assert list(PROTOCOLS) == ["hermes", "fences", "python_tags", "openai"]
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert get_protocol(name) is protocol
    with pytest.raises(
        ValueError, match="protocol='xml' is unknown; choose one of hermes, fences, python_tags, openai"
    ):
        get_protocol("xml")


@pytest.mark.parametrize("value", [None, True, 0, -1, 2.5, 1e308, "", "é\ud800", [], {}, [{"a": [1]}], {"": None}])
def test_strict_json_reads_json(value: object) -> None:
    text = f" {json.dumps(value)} rest"
    assert read_value(text) == (value, len(text) - len(" rest"))


@pytest.mark.parametrize(
    "text", ["", " ", "x", "NaN", "-Infinity", "1e400", "[1,]", '{"a":1,"a":1}', "'a'", "\ufeff1", "+1"]
)
def test_strict_json_refuses_the_rest(text: str) -> None:
    with pytest.raises(RefusedJSONError, match=r"^invalid JSON"):
        read_value(text)


# ---- in an environment


@pytest.mark.parametrize("name", PROTOCOLS)
def test_an_expert_solves_tasks_in_every_protocol(name: str) -> None:
    env = MathEnv(protocol=name)
    for index in range(3):
        env.reset(options={"index": index})
        *_, last = [env.step(turn) for turn in env.expert_turns()]
        assert last[1:4] == (1.0, True, False), last[4]
    env.close()


@pytest.mark.parametrize(
    ("name", "turn"),
    [("fences", "```python\nprint(1)"), ("python_tags", "<python>print(1)"), ("openai", one_call("print(1)"))],
)
def test_a_malformed_call_is_an_observation(name: str, turn: str) -> None:
    env = MathEnv(protocol=name)
    env.reset(options={"index": 0})
    observation, reward, terminated, truncated, info = env.step(turn)
    (call,) = get_protocol(name).parse(turn).calls
    assert isinstance(call, MalformedCall)
    assert observation == f"Error: {call.message}"
    assert (reward, terminated, truncated, info["error_kind"]) == (0.0, False, False, "malformed_call")
    env.close()


def assert_calls(
    protocol: TurnProtocol, turn: str, content: str, said: Sequence[str | None], tool: str | None = None
) -> None:
    """One call for each item of `said`: a well-formed one for None, else a malformed one with that in its message."""
    parsed = protocol.parse(turn)
    assert parsed.content == content
    assert len(parsed.calls) == len(said), parsed.calls
    for call, part in zip(parsed.calls, said, strict=True):
        if part is None:
            assert isinstance(call, ParsedCall)
        else:
            assert isinstance(call, MalformedCall)
            assert part in call.message
            assert call.name == tool
            assert len(call.message) < 300
            assert_harmless(call.message)


def assert_harmless(text: str) -> None:
    """Nothing that a tokenizer or a protocol would read as more than text."""
    assert "<" not in text
    assert ">" not in text
    assert "```" not in text
    assert "\n" not in text


def repeat(piece: str) -> str:
    return piece * (MEBIBYTE // len(piece))


def assert_quick(name: str, text: str) -> None:
    """Processor time, which other work on the machine does not lengthen; each of these takes about a second."""
    start = time.thread_time()
    get_protocol(name).parse(text)
    assert time.thread_time() - start < HANG_GUARD_S, f"{name}: {text[:60]!r}"
