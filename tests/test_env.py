"""elpo/Math-v0 as a Gymnasium environment: spaces, infos, budgets, grading, tools, and errors."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.passive_env_checker import (
    env_data_reuse_passive_checker,
    env_reset_passive_checker,
    env_step_passive_checker,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import elpo_envs
from elpo_envs.env import Budgets
from elpo_envs.grading import Grade
from elpo_envs.math_env import DEFAULT_SYSTEM_PROMPT, MathEnv
from elpo_envs.sandbox import Execution, SandboxError, SandboxSnapshot
from elpo_envs.spaces import UnicodeText
from elpo_envs.tasks import ExpertTurn, Task
from elpo_envs.tools import BaseTool, PythonTool, ToolResult

INFO_KEYS = {
    "task_id", "index", "split", "turn", "messages", "tool_calls", "answer", "is_correct", "grade",
    "error_kind", "n_tool_calls", "n_tool_errors", "valid",
}  # fmt: skip


def call(code: str, name: str = "python") -> str:
    body = json.dumps({"name": name, "arguments": {"code": code}}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


class OneTask:
    """A source of copies of one question, so that tests choose the gold answer."""

    name = "one"
    split = "test"

    def __init__(self, answer: str = "5", question: str = "What is 2 + 3?", size: int | None = 4) -> None:
        self.answer, self.question, self.size = answer, question, size

    def get(self, index: int) -> Task:
        if not 0 <= index < (self.size or 2**31):
            raise IndexError(f"index={index} is outside 0..{self.size}")
        return Task(f"one/test/{index}", index, "test", self.question, self.answer, (ExpertTurn("\\boxed{5}"),))

    def by_id(self, task_id: str) -> Task:
        if not task_id.startswith("one/test/"):
            raise KeyError(f"task_id={task_id!r} is unknown")
        return self.get(int(task_id.rsplit("/", 1)[1]))


class Flaky(BaseTool):
    """Fails for reasons that are not the model's."""

    name = "flaky"
    description = "Fails."
    parameters: Mapping[str, Any] = {"type": "object"}

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        return ToolResult("the machine is on fire", "sandbox_failure")


@pytest.fixture
def env() -> Iterator[gym.Env[str, str]]:
    made = gym.make("elpo/Math-v0")
    yield made
    made.close()


def small(**arguments: Any) -> MathEnv:
    return MathEnv(task_source=OneTask(), **arguments)


# ---------------------------------------------------------------- Gymnasium's conventions


@pytest.mark.parametrize("render_mode", [None, "ansi", "human"])
def test_check_env_has_no_warnings(render_mode: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = gym.make("elpo/Math-v0", render_mode=render_mode)
        check_env(made.unwrapped)
        made.close()


def test_the_passive_checker_sees_no_fault_in_any_step() -> None:
    """Gymnasium's wrapper looks at the first reset and step only."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = small(max_turns=6)
        before = env_reset_passive_checker(made, seed=1)
        for turn in (call("1"), "hm", call("1/0") + "<tool_call>", call("é"), call("2") * 3, "\\boxed{5}"):
            obs, *_, info = env_step_passive_checker(made, turn)
            env_data_reuse_passive_checker(before, (obs, info), "step", "step")
            before = (obs, info)
        made.close()


def test_the_spec_round_trips_through_json() -> None:
    made = gym.make(
        "elpo_envs:elpo/Math-v0",
        split="validation",
        max_turns=3,
        dataset_options={"min_steps": 3, "max_steps": 4},
    )
    spec = gym.envs.registration.EnvSpec.from_json(made.spec.to_json())
    assert spec == made.spec
    again = spec.make()
    assert made.reset(options={"index": 11}) == again.reset(options={"index": 11})
    assert again.unwrapped.contract == made.unwrapped.contract


def test_both_ways_to_make_it_work_in_a_fresh_process() -> None:
    for program in (
        "import gymnasium as gym; gym.make('elpo_envs:elpo/Math-v0').reset(seed=1)",
        "import gymnasium as gym, elpo_envs; gym.register_envs(elpo_envs); gym.make('elpo/Math-v0').reset()",
        "import elpo_envs; assert elpo_envs.grading.grade_math('1/2', '0.5').correct",
    ):
        subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def test_every_observation_is_in_the_space_and_every_info_complete(env: gym.Env[str, str]) -> None:
    for index in range(4):
        obs, info = env.reset(options={"index": index})
        ended = False
        for turn in ["?", call("print('é' * 9000)"), *env.unwrapped.expert_turns()]:
            assert obs in env.observation_space
            assert set(info) == INFO_KEYS
            json.dumps(info)
            assert not ended
            assert turn in env.action_space
            obs, reward, terminated, truncated, info = env.step(turn)
            assert not (terminated and truncated)
            ended = terminated or truncated
        assert (obs, reward, terminated, truncated) == ("", 1.0, True, False)
        assert info["is_correct"] and info["grade"]["correct"] and info["answer"]


def test_the_chat_is_kept_verbatim(env: gym.Env[str, str]) -> None:
    question, info = env.reset(options={"index": 3})
    assert DEFAULT_SYSTEM_PROMPT.endswith("Give the final answer in \\boxed{}.")
    system = {"role": "system", "content": DEFAULT_SYSTEM_PROMPT}
    assert info["messages"] == [system, {"role": "user", "content": question}]
    turn = "  Zuerst é ☃\n" + call("print('naïve ☃')") + call("6*7") + "<|im_end|>\n"
    obs, *_, info = env.step(turn)
    assert obs.split("\n") == ["naïve ☃", "42"] or obs == "naïve ☃\n\n42"
    assert info["messages"][2] == {"role": "assistant", "content": turn}
    assert [(m["role"], m["name"]) for m in info["messages"][3:]] == [("tool", "python")] * 2
    assert "\n".join(m["content"] for m in info["messages"][3:]) == obs
    assert [c["arguments"] for c in info["tool_calls"]] == [{"code": "print('naïve ☃')"}, {"code": "6*7"}]
    assert [c["kind"] for c in info["tool_calls"]] == ["ok", "ok"]
    assert "messages" in info and MathEnv(system_prompt="").reset(seed=1)[1]["messages"][0]["role"] == "user"


def test_returned_infos_are_never_changed_and_never_shared(env: gym.Env[str, str]) -> None:
    _, first = env.reset(seed=3)
    kept = [copy.deepcopy(first)]
    given_back = [first]
    for turn in (call("x = [1]\nx"), call("x"), "hm"):
        info = env.step(turn)[4]
        kept.append(copy.deepcopy(info))
        given_back.append(info)
    assert given_back == kept
    given_back[-1]["messages"].clear()
    given_back[1]["messages"][0]["content"] = "overwritten"
    given_back[1]["tool_calls"][0]["arguments"]["code"] = "overwritten"
    after = env.step("hm")[4]
    assert after["messages"][0]["content"] == DEFAULT_SYSTEM_PROMPT
    env.unwrapped.tools[0]["function"]["name"] = "overwritten"
    assert env.unwrapped.tools[0]["function"]["name"] == "python"


def test_render_and_close(capsys: pytest.CaptureFixture[str]) -> None:
    ansi = small(render_mode="ansi")
    ansi.reset(seed=1)
    ansi.step(call("1"))
    assert "[user] What is 2 + 3?" in str(ansi.render())
    assert "[tool python] 1" in str(ansi.render())
    human = small(render_mode="human")
    human.reset(seed=1)
    human.step("hm")
    assert human.render() is None
    printed = capsys.readouterr().out
    assert printed.count("What is 2 + 3?") == 1 and "[assistant] hm" in printed
    for made in (ansi, human, small()):
        made.close()
        made.close()
    with pytest.raises(ResetNeeded):
        ansi.step("hm")
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        small(render_mode="rgb_array")


# ---------------------------------------------------------------- reset


def test_the_seed_alone_picks_the_task(env: gym.Env[str, str]) -> None:
    obs, info = env.reset(seed=7)
    assert env.reset(seed=7) == (obs, info)
    assert env.reset(seed=8)[1]["index"] != info["index"]
    assert 0 <= info["index"] < 2**31
    assert env.reset(seed=1, options={"index": 3}) == env.reset(seed=2, options={"index": 3})
    assert env.reset(options={"task_id": info["task_id"]}) == (obs, info)
    finite = small()
    assert {finite.reset(seed=s)[1]["index"] for s in range(40)} == {0, 1, 2, 3}


def test_the_interpreter_is_seeded_by_the_task() -> None:
    draw = call("import random\nrandom.random()")
    outputs = set()
    for index in (0, 0, 1):
        made = small()
        made.reset(options={"index": index})
        outputs.add(made.step(draw)[0])
        made.close()
    assert len(outputs) == 2


def test_no_global_generator_is_touched(env: gym.Env[str, str]) -> None:
    random.seed(5)
    np.random.seed(5)
    before = (random.getstate(), np.random.get_state())
    env.reset(seed=1)
    env.step(call("import random\nrandom.seed(1)\nrandom.random()"))
    branch = elpo_envs.fork(env, 1, reseed=4)[0]
    branch.step(call("random.random()"))
    after = (random.getstate(), np.random.get_state())
    assert before[0] == after[0]
    assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"idx": 1}, "'idx' is unknown; give one of index, task_id, snapshot"),
        ({"index": 1, "task_id": "one/test/1"}, "index, task_id conflict"),
        ({"index": "1"}, "index='1' must be an int"),
        ({"index": True}, "index=True must be an int"),
        ({"task_id": 1}, "task_id=1 must be a str"),
        ({"snapshot": b""}, "must be an elpo_envs.Snapshot"),
        ({"index": 4}, "outside 0..4"),
        ({"index": -1}, "outside 0..4"),
        ({"task_id": "two/test/1"}, "'two/test/1' is unknown"),
    ],
)
def test_wrong_reset_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().reset(options=options)


def test_stepping_needs_a_running_episode_and_a_string() -> None:
    made = small()
    with pytest.raises(ResetNeeded, match="no episode has begun"):
        made.step("hm")
    made.reset(seed=1)
    with pytest.raises(TypeError, match="action must be a str, the assistant's raw turn, not int"):
        made.step(3)  # type: ignore[arg-type]
    made.step("\\boxed{5}")
    with pytest.raises(ResetNeeded, match="the episode is over"):
        made.step("\\boxed{5}")
    made.reset(seed=1)
    assert made.step("hm")[4]["turn"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "gsm9k"}, "dataset='gsm9k' is unknown; choose generated, gsm8k"),
        ({"dataset": "math500"}, "split='train' of math500 does not exist; choose test"),
        ({"split": "dev"}, "split='dev' is unknown"),
        ({"dataset_options": {"steps": 3}}, "do not fit dataset='generated'"),
        ({"dataset": "x.jsonl", "dataset_options": {"min_steps": 3}}, "is for dataset='generated'"),
        ({"protocol": "xml"}, "protocol='xml' is unknown"),
        ({"sandbox": "docker"}, "docker"),
        ({"max_turns": 0}, "max_turns=0 must be an integer of at least 1"),
        ({"max_tool_calls": -1}, "max_tool_calls=-1"),
        ({"max_chars": 1.5}, "max_chars=1.5"),
        ({"tool_timeout_s": 0}, "tool_timeout_s=0 must be greater than 0"),
        ({"extra_tools": (Flaky, Flaky)}, "has a name twice"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make("elpo/Math-v0", **arguments)


# ---------------------------------------------------------------- turns, grading, budgets


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


# ---------------------------------------------------------------- infrastructure


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


def test_a_grader_that_timed_out_is_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Grade(False, "symbolic", timed_out=True)
    monkeypatch.setattr("elpo_envs.math_env.grade_response", lambda *_: late)
    made = small()
    made.reset(seed=1)
    _, reward, terminated, truncated, info = made.step("\\boxed{5}")
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["error_kind"], info["valid"], info["is_correct"]) == ("sandbox_failure", False, False)


class ScriptedSandbox:
    """Counts what is asked of it; fails on "boom"."""

    fidelity = "exact"
    isolated = False

    def __init__(self, name: str = "scripted") -> None:
        self.name = name
        self.log: list[Any] = []

    def open(self, seed: int) -> None:
        self.log.append(("open", seed))

    def run(self, code: str) -> Execution:
        if code == "boom":
            raise SandboxError("no processes left")
        self.log.append(("run", code))
        return Execution("", "empty")

    def snapshot(self) -> SandboxSnapshot:
        return SandboxSnapshot(0, ("a",), "d", "exact", live=self)

    def restore(self, snapshot: SandboxSnapshot, reseed: int | None = None) -> None:
        self.log.append(("restore", snapshot.live is not None, reseed))

    def close(self) -> None:
        self.log.append("close")


def test_the_python_tool_starts_and_restores_sessions_only_when_needed() -> None:
    sandbox = ScriptedSandbox()
    tool = PythonTool(sandbox)
    tool.open(7)
    unused = tool.snapshot()
    assert sandbox.log == [] and unused == {"seed": 7}
    assert tool.call({"code": "x"}) == ToolResult("(no output)", "empty")
    state = tool.snapshot()
    assert state.fidelity == "exact"
    other = ScriptedSandbox()
    second = PythonTool(other)
    second.restore(state)
    assert second.snapshot() == state and other.log == []
    second.call({"code": "y"})
    second.restore(state, reseed=3)
    second.call({"code": "y"})
    assert other.log == [("restore", True, None), ("run", "y"), ("restore", True, 3), ("run", "y")]
    foreign = ScriptedSandbox("other")
    third = PythonTool(foreign)
    third.restore(state)
    third.call({"code": "y"})
    third.restore(json.loads(json.dumps(state.to_json())))
    third.call({"code": "y"})
    assert [entry for entry in foreign.log if entry[0] == "restore"] == [("restore", False, None)] * 2
    third.restore(unused)
    failed = ToolResult("The Python sandbox failed: no processes left", "sandbox_failure")
    assert third.call({"code": "boom"}) == failed
    assert foreign.log[-1] == ("open", 7)
    with pytest.raises(ValueError, match="cannot restore a state of type list"):
        third.restore([1])


def test_a_third_partys_tool() -> None:
    class Adder(BaseTool):
        name = "add"
        description = "Add two integers."
        parameters: Mapping[str, Any] = {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        }

        def call(self, arguments: Mapping[str, Any]) -> ToolResult:
            return ToolResult(str(arguments["a"] + arguments["b"]))

    made = small(extra_tools=(Adder,))
    made.reset(seed=1)
    assert [t["function"]["name"] for t in made.tools] == ["python", "add"]
    obs, *_ = made.step('<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>')
    assert obs == "5"
    obs, *_ = made.step('<tool_call>{"name": "add", "arguments": {"a": "2", "b": 3}}</tool_call>')
    assert "at $.a: '2' is not of type 'integer'" in obs

    class Broken(Adder):
        parameters: Mapping[str, Any] = {"type": "objekt"}

    with pytest.raises(ValueError, match=r"schema of tool 'add' has no valid function\.parameters"):
        small(extra_tools=(Broken,))


# ---------------------------------------------------------------- flaws seen elsewhere


def test_a_tool_timeout_is_the_one_asked_for() -> None:
    made = small(tool_timeout_s=1.0)
    made.reset(seed=1)
    made.step(call("x = 41"))
    start = time.perf_counter()
    _, _, _, truncated, info = made.step(call("while True: pass"))
    assert time.perf_counter() - start < 3.0
    assert info["error_kind"] == "timeout" and not truncated and info["valid"]
    assert made.step(call("x + 1"))[0] == "42"
    made.close()


def test_interpreter_manners() -> None:
    made = small(max_turns=20)
    made.reset(seed=1)
    obs, *_ = made.step(call("import sys\nprint('out')\nprint('err', file=sys.stderr)"))
    assert "out" in obs and "err" in obs
    assert made.step(call("x = 5"))[0] == "(no output)"
    made.step(call("exit()"))
    assert made.step(call("x"))[0] == "5"
    made.step(call("y = 1\nraise ValueError('é')"))
    assert made.step(call("(x, y)"))[0] == "(5, 1)"
    made.close()


# ---------------------------------------------------------------- spaces, speed, data


def test_unicode_text() -> None:
    space = UnicodeText(1000, seed=1)
    for text in ("", "é☃\n\x00", "\ud800", "x" * 1000, np.str_("x")):
        assert text in space
    for other in ("x" * 1001, b"x", 3, None):
        assert other not in space
    samples = [space.sample() for _ in range(50)]
    assert all(s in space and len(s) <= 256 for s in samples)
    assert all(c.isprintable() or c == "\n" for s in samples for c in s)
    assert len(set(samples)) > 45
    assert space == UnicodeText(1000) and space != UnicodeText(999) and space != gym.spaces.Text(1000)
    assert repr(space) == "UnicodeText(0, 1000)"
    assert UnicodeText(5, min_length=2) != UnicodeText(5)
    assert len(space.sample(mask=(7, None))) == 7
    start = time.perf_counter()
    for _ in range(1000):
        assert "x" * 1001 not in space
    assert time.perf_counter() - start < 0.5


def test_a_step_without_the_sandbox_is_fast() -> None:
    made = small(max_turns=10_000, max_tool_calls=10_000, max_chars=10**7)
    made.reset(seed=1)
    turn = '<tool_call>\n{"name": "python", "arguments": {"cod": "1"}}\n</tool_call>'
    took = []
    for _ in range(40):
        start = time.perf_counter()
        made.step(turn)
        took.append(time.perf_counter() - start)
    assert sorted(took)[20] < 1e-3  # 0.05 ms here; generous for a busy machine


def test_data_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(3)]
    path = tmp_path / "sums.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    made = gym.make("elpo/Math-v0", dataset=str(path), split="test")
    obs, info = made.reset(options={"index": 2})
    assert obs == "What is 2 + 1?" and info["split"] == "test" and info["index"] == 2
    assert made.step("\\boxed{3}")[1] == 1.0
    again = gym.make("elpo/Math-v0", dataset=str(path), split="test")
    assert made.unwrapped.task_source is again.unwrapped.task_source
    with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
        gym.make("elpo/Math-v0", dataset="missing.jsonl").reset(seed=1)
    monkeypatch.delenv("ELPO_DATA", raising=False)
    with pytest.raises(ValueError, match="set data_dir or the variable ELPO_DATA"):
        gym.make("elpo/Math-v0", dataset="gsm8k").reset(seed=1)
    with pytest.raises(FileNotFoundError, match=r"gsm8k_train\.jsonl\.gz"):
        gym.make("elpo/Math-v0", dataset="gsm8k", data_dir=str(tmp_path)).reset(seed=1)


def test_experts_solve_real_problems() -> None:
    if not os.environ.get("ELPO_DATA"):
        pytest.skip("ELPO_DATA is not set: a folder with gsm8k_test.jsonl.gz")
    made = gym.make("elpo/Math-v0", dataset="gsm8k", split="test")
    solved = tried = 0
    for index in range(20):
        made.reset(options={"index": index})
        reward = 0.0
        for turn in made.unwrapped.expert_turns():
            _, reward, _, _, info = made.step(turn)
            assert info["n_tool_errors"] == 0
        tried += bool(made.unwrapped.expert_turns())
        solved += int(reward)
    made.close()
    assert tried >= 15 and solved >= tried - 1


def test_budgets_have_the_agreed_defaults() -> None:
    assert Budgets().max_turns == 16
    made = small()
    made.reset(seed=1)
    assert made.expert_turns() == ["\\boxed{5}"]
