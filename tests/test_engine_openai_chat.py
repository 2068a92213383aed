"""Assistant messages of chat endpoints as turns of an environment, and the histories that go back."""

from __future__ import annotations

import json
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("httpx2")

from _openai_server import call, message

from elpo_agent.engines.openai.chat import clean, continued, read_turn
from elpo_envs.protocols import PROTOCOLS, Hermes, MalformedCall, OpenAI, ParsedCall

HERMES, OPENAI = Hermes(), OpenAI()
CODE = json.dumps({"code": "print('</tool_call>', 'é', \"q\")"})


def parsed(reply: dict[str, Any], protocol: Any) -> Any:
    return protocol.parse(read_turn(reply["choices"][0]["message"], protocol).text)


@pytest.mark.parametrize("protocol", [HERMES, OPENAI], ids=lambda p: p.name)
def test_turns_say_what_the_message_says(protocol: Any) -> None:
    turn = parsed(message("Let me see.", [call("python", CODE), call("count", "{}")]), protocol)
    assert turn.content.strip() == "Let me see."
    assert turn.calls == (ParsedCall("python", json.loads(CODE)), ParsedCall("count", {}))
    assert parsed(message("\\boxed{3}"), protocol) == (("\\boxed{3}"), ())
    assert parsed(message(None), protocol) == ("", ())
    assert parsed(message('{"content": 3}'), HERMES).content == '{"content": 3}'


@pytest.mark.parametrize("protocol", [HERMES, OPENAI], ids=lambda p: p.name)
@pytest.mark.parametrize(
    "arguments", ["", "  ", None, {"code": "1"}, '{"code": "1"}'], ids=["empty", "blank", "none", "object", "text"]
)
def test_arguments_in_the_forms_that_servers_have(arguments: Any, protocol: Any) -> None:
    turn = parsed(message(None, [call("python", arguments)]), protocol)
    (only,) = turn.calls
    assert isinstance(only, ParsedCall) and only.name == "python"
    assert only.arguments == ({"code": "1"} if arguments and str(arguments).strip() else {})


BROKEN = {
    "cut": '{"code": "1',
    "no object": "[1, 2]",
    "text": '"print(1)"',
    "null": "null",
    "python": "{'code': 1}",
    "two objects": '{"code": "1"} {"code": "2"}',
    "another field": '{"code": "1"}, "x": 2',
    "an end of its own": '{"code": "1"}}\n</tool_call>\n<tool_call>\n{"name": "python", "arguments": {"code": "2"}',
    "an open tag": '<tool_call>{"name": "python", "arguments": {"code": "2"}}',
    "nan": '{"code": NaN}',
    "twice": '{"code": "1", "code": "2"}',
    "deep": '{"code": ' + "[" * 5000,
    "surrogate": '{"code": "\ud83d',
    "number": 7,
    "list": [{"code": "1"}],
    "infinity": math.inf,
}


@pytest.mark.parametrize("protocol", [HERMES, OPENAI], ids=lambda p: p.name)
@pytest.mark.parametrize("case", BROKEN)
def test_broken_arguments_become_one_error(case: str, protocol: Any) -> None:
    env = gym.make("elpo/Math-v0", protocol=protocol.name)
    env.reset(options={"index": 0})
    reply = message("Hm.", [call("python", BROKEN[case])])
    turn = read_turn(reply["choices"][0]["message"], protocol)
    assert turn.native is None, "no server would take it back"
    (only,) = protocol.parse(turn.text).calls
    assert isinstance(only, MalformedCall)
    _, reward, terminated, truncated, info = env.step(turn.text)
    assert (reward, terminated, truncated) == (0, False, False)
    assert [c["kind"] for c in info["tool_calls"]] == ["malformed_call"]
    history = continued(turn, info["messages"][-1:])
    assert [m["role"] for m in history] == ["assistant", "user"]
    assert "<tool_response>\n" in history[1]["content"]
    json.dumps(history).encode()
    env.close()


@pytest.mark.parametrize("name", [None, "", 5, {"a": 1}, "no_such_tool", "<tool_call>", "\udc00"])
def test_names_that_are_none(name: Any) -> None:
    env = gym.make("elpo/Math-v0")
    env.reset(options={"index": 0})
    turn = read_turn({"content": None, "tool_calls": [call(name, "{}")]}, HERMES)
    *_, info = env.step(turn.text)
    assert [c["kind"] for c in info["tool_calls"]] == (
        ["unknown_tool"] if isinstance(name, str) and name else ["malformed_call"]
    )
    env.close()


def test_no_message_raises() -> None:
    """Messages of random JSON with the right names in the wrong places."""
    rng = np.random.default_rng(0)
    names = ["content", "tool_calls", "function", "name", "arguments", "id", "type", "refusal", "text", "role"]
    texts = ["", "x", "<tool_call>", "</tool_call>", '{"code": "1"}', "{", "\ud800", "python", "function", "\\boxed{1}"]

    def value(depth: int) -> Any:
        kind = rng.integers(0, 7 if depth else 4)
        if kind <= 1:
            return texts[rng.integers(len(texts))]
        if kind <= 3:
            return [None, 3, True, 1e400][rng.integers(4)]
        if kind == 4:
            return [value(depth - 1) for _ in range(rng.integers(3))]
        return {names[rng.integers(len(names))]: value(depth - 1) for _ in range(rng.integers(5))}

    env = gym.make("elpo/Math-v0", max_turns=10_000, max_tool_calls=100_000, max_chars=10_000_000)
    env.reset(options={"index": 0})
    for _ in range(1500):
        calls: Any = value(4)
        if rng.random() < 0.5:
            calls = [{"id": value(0), "function": {"name": value(0), "arguments": value(2)}}]
        said = {"content": value(2), "tool_calls": calls}
        for protocol in PROTOCOLS.values():
            turn = read_turn(said, protocol)
            turn.text.encode()
            protocol.parse(turn.text)
        _, _, terminated, truncated, info = env.step(read_turn(said, HERMES).text)
        json.dumps(continued(read_turn(said, HERMES), info["messages"][-1:])).encode()
        if terminated or truncated:
            env.reset(options={"index": 0})
    env.close()


def test_contents_in_the_forms_that_servers_have() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}, 3]
    assert read_turn({"content": parts}, HERMES).text == "ab"
    assert read_turn({"content": None, "refusal": "I will not."}, HERMES).text == "I will not."
    assert read_turn({"content": "x", "reasoning": "secret"}, HERMES).text == "x"
    assert read_turn({"content": "\ud83d\ude00 \ud83d"}, HERMES).text == "😀 �"
    assert clean("é😀") == "é😀"


def test_histories() -> None:
    new = [{"role": "tool", "name": "python", "content": "1"}, {"role": "tool", "name": "python", "content": "\ud800"}]
    two = read_turn({"content": "", "tool_calls": [call("python", CODE, "a"), call("python", "{}", "b")]}, HERMES)
    said, *results = continued(two, new)
    assert said["content"] is None and [c["id"] for c in said["tool_calls"]] == ["a", "b"]
    assert results == [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "�"},
    ]
    assert [m["role"] for m in continued(two, new[:1])] == ["assistant", "user"], "a call without a result"
    both = read_turn({"content": "<tool_call>{}</tool_call>", "tool_calls": [call("python", CODE)]}, HERMES)
    assert [m["role"] for m in continued(both, new)] == ["assistant", "user"], "a call in the text, too"
    plain = read_turn({"content": "Hm."}, HERMES)
    hint = {"role": "user", "content": "Call a tool."}
    assert continued(plain, [hint]) == [{"role": "assistant", "content": "Hm."}, hint]
