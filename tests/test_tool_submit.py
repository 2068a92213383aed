"""The submit tool: what it takes, what it refuses, and how it stands in an episode."""

from __future__ import annotations

import json
from typing import Any

import pytest
from _episodes import small

from elpo_envs.tools.arguments import compile_check
from elpo_envs.tools.submit import SubmitTool


def test_an_answer_is_acknowledged() -> None:
    tool = SubmitTool()
    assert tool.terminal and tool.name == "submit"
    assert tool.call({"answer": "42"}).text == "Submitted."
    assert tool.call({"answer": "42"}).kind == "ok"
    assert [tool.submitted({"answer": value}) for value in ("B", 42, 0.5)] == ["B", "42", "0.5"]


@pytest.mark.parametrize("text", ["", " \n", "x" * 11])
def test_what_is_no_answer_is_an_error(text: str) -> None:
    result = SubmitTool(max_chars=10).call({"answer": text})
    assert result.kind == "error" and "nothing was submitted" in result.text


@pytest.mark.parametrize(
    ("argument", "arguments", "fits"),
    [
        ("answer", {"answer": "5"}, True),
        ("answer", {"answer": 5}, True),
        ("answer", {"answer": 5.5}, True),
        ("answer", {"answer": True}, False),
        ("answer", {"answer": None}, False),
        ("answer", {"answer": ["5"]}, False),
        ("answer", {}, False),
        ("answer", {"code": "5"}, False),
        ("answer", {"answer": "5", "more": 1}, False),
        ("code", {"code": "def f(): pass"}, True),
        ("code", {"code": 5}, False),
        ("code", {"answer": "5"}, False),
    ],
)
def test_the_schema(argument: str, arguments: dict[str, Any], fits: bool) -> None:
    check = compile_check("submit", SubmitTool(argument).schema)
    assert (check(arguments) is None) is fits


def test_the_description_is_configurable() -> None:
    schema = SubmitTool("code", "The function median.").schema
    assert schema["function"]["parameters"]["properties"]["code"]["description"] == "The function median."
    assert "program" in schema["function"]["description"]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"argument='my answer' must be an identifier"):
        SubmitTool("my answer")
    with pytest.raises(ValueError, match="max_chars=0 must be at least 1"):
        SubmitTool(max_chars=0)


def test_in_an_environment() -> None:
    made = small(extra_tools=(SubmitTool,))
    made.reset(seed=1)
    body = json.dumps({"name": "submit", "arguments": {"answer": ""}})
    obs, *_, info = made.step(f"<tool_call>{body}</tool_call>")
    assert "nothing was submitted" in obs and info["error_kind"] == "error"
    made.close()
