"""A turn's effect on an episode of elpo/Math-v0: answers, failed calls, budgets, faults that are not the model's."""

from __future__ import annotations

import json

import pytest
from _episodes import Flaky, call, small
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_envs.env import Budgets
from elpo_envs.grading import Grade
from elpo_envs.math_env import DEFAULT_SYSTEM_PROMPT

# ---------------------------------------------------------------- answers and calls


@pytest.mark.parametrize(
    ("turn", "reward", "answer"),
    [
        ("\\boxed{5}", 1.0, "5"),
        ("so $\\boxed{5.0}$.<|im_end|>", 1.0, "5.0"),
        ("\\boxed{6}", 0.0, "6"),
        ("first \\boxed{6}, no: \\boxed{5}", 0.0, "5"),
        ("\\boxed{é☃}", 0.0, "é☃"),
    ],
)
def test_a_boxed_answer_ends_the_episode(turn: str, reward: float, answer: str) -> None:
    made = small(max_turns=1)
    made.reset(seed=1)
    obs, got, terminated, truncated, info = made.step(turn)
    assert (obs, got, terminated, truncated) == ("", reward, True, False)
    assert (info["answer"], info["is_correct"], info["valid"]) == (answer, reward == 1.0, True)
    assert info["grade"]["correct"] is (reward == 1.0)


def test_an_answer_beside_a_call_is_not_final() -> None:
    made = small()
    made.reset(seed=1)
    for turn in ("\\boxed{5}" + call("1"), "\\boxed{5}<tool_call>", "\\boxed{5}</tool_call>"):
        *_, terminated, truncated, info = made.step(turn)
        assert not terminated and not truncated and info["answer"] is None and not info["is_correct"]


def test_a_boxed_answer_in_tool_output_is_not_the_models() -> None:
    made = small()
    made.reset(seed=1)
    obs, reward, terminated, *_ = made.step(call("print(r'\\boxed{5}')"))
    assert "\\boxed{5}" in obs and reward == 0.0 and not terminated
    for turn in ("as the tool said", "<tool_response>\n\\boxed{5}\n</tool_response>"):
        _, reward, terminated, _, info = made.step(turn)
        assert reward == 0.0 and not terminated and info["error_kind"] == "no_action"


@pytest.mark.parametrize("turn", ["", "I think it is 5", "\\boxed{", "\\boxed{5", "\\boxed{}", "boxed{5}", "\x00"])
def test_a_turn_with_neither_is_told_so(turn: str) -> None:
    made = small()
    made.reset(seed=1)
    obs, reward, terminated, truncated, info = made.step(turn)
    assert "neither a tool call nor \\boxed{}" in obs
    assert (reward, terminated, truncated, info["error_kind"]) == (0.0, False, False, "no_action")
    assert info["messages"][-1] == {"role": "user", "content": obs}
    assert made.step("\\boxed{5}")[1] == 1.0


@pytest.mark.parametrize(
    ("turn", "kind", "message", "name"),
    [
        ("<tool_call>{", "malformed_call", "not closed before the next", "error"),
        ("<tool_call>1</tool_call>", "malformed_call", "must be a JSON object", "error"),
        ('<tool_call>{"name": "python"}</tool_call>', "malformed_call", '"arguments"', "python"),
        (call("1", "pyton"), "unknown_tool", 'no tool "pyton"; the available tools are: python', "pyton"),
        (
            '<tool_call>{"name": "python", "arguments": {"cod": "1"}}</tool_call>',
            "invalid_arguments",
            "do not fit its schema at $",
            "python",
        ),
        (
            '<tool_call>{"name": "python", "arguments": {"code": 1}}</tool_call>',
            "invalid_arguments",
            "at $.code: 1 is not of type 'string'",
            "python",
        ),
        (call("1/0"), "error", "ZeroDivisionError", "python"),
        (call("'\ud800'"), "error", "lone surrogate U+D800 at character 2", "python"),
    ],
)
def test_failed_calls_are_answered(turn: str, kind: str, message: str, name: str) -> None:
    made = small()
    made.reset(seed=1)
    obs, reward, terminated, truncated, info = made.step(turn + call("1 + 1"))
    first, second = info["tool_calls"]
    assert message in first["text"] and first["kind"] == info["error_kind"] == kind
    assert message in obs and info["messages"][3]["name"] == first["name"] == name
    assert (reward, terminated, truncated, info["valid"]) == (0.0, False, False, True)
    assert info["n_tool_errors"] == 1
    assert (second["kind"], second["text"]) == ("ok", "2")
    assert info["n_tool_calls"] == 2
    made.close()


def test_a_long_wrong_argument_is_not_echoed_whole() -> None:
    made = small()
    made.reset(seed=1)
    body = json.dumps({"name": "python", "arguments": {"code": ["x" * 50_000]}})
    assert len(made.step(f"<tool_call>{body}</tool_call>")[0]) < 500
    assert len(made.step(call("1", "n" * 50_000))[0]) < 200


# ---------------------------------------------------------------- budgets


def test_budgets_have_the_agreed_defaults() -> None:
    assert Budgets().max_turns == 16
    made = small()
    made.reset(seed=1)
    assert made.expert_turns() == ["\\boxed{5}"]


def test_the_turn_budget_truncates_after_running_the_last_call() -> None:
    made = small(max_turns=2)
    made.reset(seed=1)
    made.step("hm")
    obs, reward, terminated, truncated, info = made.step(call("6 * 7"))
    assert (obs, reward, terminated, truncated) == ("42", 0.0, False, True)
    assert (info["error_kind"], info["turn"], info["is_correct"]) == ("turn_budget", 2, False)
    made.close()


def test_the_tool_call_budget() -> None:
    made = small(max_tool_calls=2)
    made.reset(seed=1)
    assert not made.step(call("1") + call("2"))[3]
    obs, _, terminated, truncated, info = made.step(call("3"))
    assert (obs, terminated, truncated, info["error_kind"]) == ("", False, True, "tool_budget")
    assert info["n_tool_calls"] == 2
    made.reset(seed=1)
    obs, _, _, truncated, info = made.step(call("1") + call("2") + call("3"))
    assert (obs, truncated, info["n_tool_calls"]) == ("1\n2", True, 2)
    made.reset(seed=1)
    made.step(call("1") + call("2"))
    assert made.step("\\boxed{5}")[1] == 1.0
    made.close()


def test_the_character_budget() -> None:
    prompt = len(DEFAULT_SYSTEM_PROMPT) + len("What is 2 + 3?")
    made = small(max_chars=prompt + 100)
    made.reset(seed=1)
    obs, reward, terminated, truncated, info = made.step("\\boxed{5}" + " " * 100)
    assert (obs, reward, terminated, truncated) == ("", 0.0, False, True)
    assert info["error_kind"] == "char_budget" and len(info["messages"][-1]["content"]) == 109
    made.reset(seed=1)
    obs, _, terminated, truncated, info = made.step(call("print('y' * 5000)"))
    assert truncated and not terminated and obs in made.observation_space and 0 < len(obs) < 50
    assert sum(len(m["content"]) for m in info["messages"]) == prompt + 100
    with pytest.raises(ValueError, match=f"max_chars={prompt} leaves nothing after the {prompt} characters"):
        small(max_chars=prompt).reset(seed=1)
    made.close()


TURNS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [call("x = 1"), call("x"), call("1/0"), call("1", "nope"), "<tool_call>", call("1") * 3, "\\boxed{4}",
        "\\boxed{5}",
         "\ud800", "<tool_call>{}</tool_call>\\boxed{5}"]
    ),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(TURNS, max_size=8), st.integers(1, 5), st.integers(0, 4), st.integers(140, 900))
def test_no_turn_raises_and_budgets_hold(turns: list[str], max_turns: int, max_calls: int, max_chars: int) -> None:
    made = small(max_turns=max_turns, max_tool_calls=max_calls, max_chars=max_chars)
    _, info = made.reset(seed=1)
    ended = False
    for turn in turns:
        if ended:
            break
        obs, reward, terminated, truncated, info = made.step(turn)
        assert not (terminated and truncated)
        assert obs in made.observation_space
        assert reward == (1.0 if terminated and info["is_correct"] else 0.0)
        assert info["n_tool_calls"] <= max_calls and info["turn"] <= max_turns
        ended = terminated or truncated
        assert ended or info["turn"] < max_turns
        feedback = [m["content"] for m in info["messages"] if m["role"] != "assistant"]
        assert sum(map(len, feedback)) <= max_chars
    made.close()


# ---------------------------------------------------------------- faults that are not the model's


def test_a_sandbox_failure_is_not_a_wrong_answer() -> None:
    made = small(extra_tools=(Flaky,))
    made.reset(seed=1)
    flaky = '<tool_call>{"name": "flaky", "arguments": {}}</tool_call>'
    *_, info = made.step(call("1 + 1") + flaky + call("1"))
    assert [c["kind"] for c in info["tool_calls"]] == ["ok", "sandbox_failure"]
    assert (info["error_kind"], info["valid"], info["is_correct"]) == ("sandbox_failure", False, False)
    with pytest.raises(ResetNeeded):
        made.step("\\boxed{5}")
    assert made.reset(seed=1)[1]["valid"]
    made.close()


def test_an_answer_that_takes_too_much_work_to_grade_is_wrong() -> None:
    """It is the answer's own work that is bounded, so that no model can void its episode."""
    made = small()
    made.reset(seed=1)
    _, reward, terminated, truncated, info = made.step(r"\boxed{\lfloor 9^{9^{9}} \rfloor}")
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert (info["valid"], info["is_correct"], info["grade"]["timed_out"]) == (True, False, True)
    made.close()


def test_a_grader_without_time_is_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Grade(False, "symbolic", timed_out=True, failed_infrastructure=True)
    monkeypatch.setattr("elpo_envs.math_env.grade_response", lambda *_: late)
    made = small()
    made.reset(seed=1)
    _, reward, terminated, truncated, info = made.step("\\boxed{5}")
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["error_kind"], info["valid"], info["is_correct"]) == ("sandbox_failure", False, False)
