"""elpo/Math-v0 as a Gymnasium environment: spaces, infos, rendering, seeds, reset options, arguments."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from _episodes import Flaky, call, small
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.passive_env_checker import (
    env_data_reuse_passive_checker,
    env_reset_passive_checker,
    env_step_passive_checker,
)

import elpo_envs
from elpo_envs.math_env import DEFAULT_SYSTEM_PROMPT, MathEnv

INFO_KEYS = {
    "task_id", "index", "split", "turn", "messages", "tool_calls", "answer", "is_correct", "grade",
    "error_kind", "n_tool_calls", "n_tool_errors", "valid", "sandbox",
}  # fmt: skip


@pytest.fixture
def env() -> Iterator[gym.Env[str, str]]:
    made = gym.make("elpo/Math-v0")
    yield made
    made.close()


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
    assert printed.count("What is 2 + 3?") == 1 and "turn 1 of 16" in printed and "\n  hm\n" in printed
    for made in (ansi, human, small()):
        made.close()
        made.close()
    with pytest.raises(ResetNeeded):
        ansi.step("hm")
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        small(render_mode="rgb_array")


# ---------------------------------------------------------------- reset and arguments


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
        ({"dataset": "x.jsonl", "dataset_options": {"min_steps": 3}}, "are for named data sets"),
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
