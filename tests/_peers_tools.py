"""Faults measured in other suites' tools and episodes, each as a check of ours through `gym.make`."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import elpo_envs
from elpo_envs.tasks import Task
from elpo_envs.wrappers import PerTurnReward, PlusMinusReward

Env = gym.Env[Any, Any]
DOMAINS = ("elpo/Math-v0", "elpo/ScienceQA-v0", "elpo/CodeExec-v0")
HANG_S = 4.0


class Fixed:
    """One task, again and again."""

    name, split, size = "fixed", "test", 1

    def __init__(self, question: str, answer: str, **metadata: Any) -> None:
        self.task = Task("fixed/test/0", 0, "test", question, answer, (), metadata)

    def get(self, index: int) -> Task:
        return self.task

    def by_id(self, task_id: str) -> Task:
        return self.task


FIVE = Fixed("What is 2 + 3?", "5")


def call(name: str = "python", /, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}</tool_call>"


def math(**arguments: Any) -> Env:
    """An environment with one known question, before its first turn."""
    env = gym.make("elpo/Math-v0", task_source=FIVE, **arguments)
    env.reset(seed=0)
    return env


# --- tools --------------------------------------------------------------------------------------------------------


def time_limit_of_tools() -> None:
    env = math(tool_timeout_s=1.0)
    env.step(call(code="x = 1"))
    for code in (
        "while True: pass",
        "import time; time.sleep(60)",
        "try:\n    while True: pass\nexcept Exception: pass",
    ):
        started = time.monotonic()
        *_, terminated, truncated, info = env.step(call(code=code))
        assert time.monotonic() - started < HANG_S
        assert (info["error_kind"], terminated, truncated, info["valid"]) == ("timeout", False, False, True)
        assert info["tool_calls"][0]["kind"] == "timeout"
    env.close()


def stderr_hides_stdout() -> None:
    env = math()
    text, *_ = env.step(call(code="import sys\nprint('out')\nprint('err', file=sys.stderr)\nprint('more')"))
    assert "out" in text and "more" in text
    text, *_ = env.step(call(code="print('before')\n1/0"))
    assert "before" in text and "ZeroDivisionError" in text
    text, *_ = env.step(call(code="import warnings\nwarnings.warn('careful')\nprint('after')"))
    assert "after" in text
    env.close()


def exit_ends_the_worker() -> None:
    env = math()
    env.step(call(code="x = 41"))
    for code in ("exit()", "quit(1)", "import sys; sys.exit(0)", "raise SystemExit", "raise KeyboardInterrupt"):
        *_, terminated, truncated, info = env.step(call(code=code))
        assert not terminated and not truncated and info["valid"], code
        assert env.step(call(code="x + 1"))[0] == "42", code
    env.close()


def last_line_in_print() -> None:
    env = math()
    for code in ("x = 5", "import math", "def f():\n    return x", "for i in range(2):\n    x += i", "del i"):
        *_, info = env.step(call(code=code))
        assert info["tool_calls"][0]["kind"] == "empty", (code, info["tool_calls"])
    assert env.step(call(code="f()"))[0] == "6"
    env.close()


def variables_are_lost() -> None:
    env = math()
    env.step(call(code="import math\nclass A: pass\na = A()\na.x = 1"))
    assert env.step(call(code="a.x += 1\nmath.factorial(4) + a.x"))[0] == "26"
    env.reset(seed=0)
    assert env.step(call(code="a"))[4]["error_kind"] == "error", "an episode sees nothing of the one before"
    env.close()


def needs_a_service() -> None:
    """A stateful sandbox that needs no login, no server and no key: as installed, here and now."""
    env = math(isolation="preferred")
    facts = env.reset(seed=0)[1]["sandbox"]
    assert facts["backend"] in ("fork", "pyodide", "replay")
    env.close()


# --- ends of episodes -----------------------------------------------------------------------------------------------


def both_ends() -> None:
    for env_id in DOMAINS:
        for turn in ("\\boxed{5}", "The answer is (A).", call("submit", code="x = 1"), call(code="1"), "hm", "x" * 900):
            for budget in (
                {"max_turns": 1},
                {"max_tool_calls": 0},
                {"max_chars": 2_000},
                {"max_turns": 1, "max_chars": 2_000},
            ):
                source = Fixed("What is 2 + 3?", "5", kind="output") if "Code" in env_id else FIVE
                env = gym.make(env_id, task_source=source, **budget)
                env.reset(seed=0)
                for _ in range(3):
                    _, _, terminated, truncated, _ = env.step(turn)
                    assert not (terminated and truncated), (env_id, turn, budget)
                    if terminated or truncated:
                        break
                env.close()


def no_truncation() -> None:
    for budget, turn, kind in (
        ({"max_turns": 2}, "hm", "turn_budget"),
        ({"max_tool_calls": 1}, call(code="1"), "tool_budget"),
        ({"max_chars": 700}, "x" * 300, "char_budget"),
    ):
        env = math(**budget)
        env.step(turn)
        _, reward, terminated, truncated, info = env.step(turn)
        assert (reward, terminated, truncated, info["error_kind"]) == (0.0, False, True, kind)
        env.close()


def stepping_on() -> None:
    for last in ("\\boxed{5}", "hm"):
        env = math(max_turns=1)
        env.step(last)
        with pytest.raises(ResetNeeded):
            env.step("once more")
        with pytest.raises(ResetNeeded):
            env.unwrapped.step("once more")
        env.reset(seed=0)
        env.step("hm")
        env.close()


def turns_from_the_registry() -> None:
    """`max_episode_steps` never reaches a constructor: ours takes its own number of turns."""
    assert all(gym.spec(env_id).max_episode_steps is None for env_id in elpo_envs.env_ids())
    env = math(max_turns=3)
    assert [env.step("hm")[3] for _ in range(3)] == [False, False, True]
    env.close()


# --- what Gymnasium asks for ----------------------------------------------------------------------------------------


def global_generators() -> None:
    import numpy.random as legacy

    before = random.getstate(), legacy.get_state()[1].tobytes()
    for env_id in DOMAINS:
        env = gym.make(env_id)
        env.reset(seed=123)
        env.step(call(code="import random, numpy; random.seed(1); numpy.random.seed(1)"))
        env.step("\\boxed{1}")
        env.close()
    assert (random.getstate(), legacy.get_state()[1].tobytes()) == before


def seeds() -> None:
    for env_id in DOMAINS:
        one, other = gym.make(env_id), gym.make(env_id)
        assert one.reset(seed=5) == other.reset(seed=5)
        assert one.reset() == other.reset(), "np_random goes on from the seed"
        assert len({one.reset(seed=seed)[0] for seed in range(8)}) > 1
        one.close()
        other.close()


def options_of_reset() -> None:
    env = gym.make("elpo/Math-v0")
    question, info = env.reset(options={"index": 7})
    assert info["index"] == 7 and env.reset(options={"task_id": info["task_id"]})[0] == question
    env.step("hm")
    frozen = elpo_envs.snapshot(env)
    env.reset(seed=1)
    assert env.reset(options={"snapshot": frozen})[1]["messages"][1]["content"] == question
    for wrong in ({"index": -1}, {"task_id": "nobody/knows/1"}, {"seed": 1}, {"index": 1, "task_id": info["task_id"]}):
        with pytest.raises(ValueError):
            env.reset(options=wrong)
    env.close()


def warnings_of_the_checker() -> None:
    import warnings

    for env_id in DOMAINS:
        env = gym.make(env_id)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*WARN:")
            check_env(env.unwrapped, skip_render_check=False)
        env.close()


def clocks_in_info() -> None:
    played = []
    for _ in range(2):
        env = gym.make("elpo/Math-v0")
        played.append(
            [env.reset(seed=3), *(env.step(turn) for turn in (call(code="x = 1\nx"), "hm", call(code="1/0")))]
        )
        env.close()
    assert played[0] == played[1]


def infos_without_keys() -> None:
    keys = {
        "task_id",
        "index",
        "split",
        "turn",
        "messages",
        "tool_calls",
        "answer",
        "is_correct",
        "grade",
        "error_kind",
    }
    for env_id in DOMAINS:
        env = gym.make(env_id, max_turns=3)
        infos = [env.reset(seed=0)[1], *(env.step(turn)[4] for turn in ("", call(code="1"), "\\boxed{1}"))]
        assert all(keys < set(info) for info in infos)
        assert len({frozenset(info) for info in infos}) == 1
        json.dumps(infos)
        env.close()


def unregistered_names() -> None:
    program = (
        "import gymnasium as gym; gym.make('elpo_envs:elpo/CodeExec-v0').reset(seed=1)\n"
        "import elpo_envs; gym.register_envs(elpo_envs); gym.make('elpo/Math-v0').reset(seed=1)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def specs() -> None:
    for env_id in elpo_envs.env_ids():
        spec = gym.spec(env_id)
        read = type(spec).from_json(spec.to_json())
        assert (read.id, read.entry_point, read.kwargs) == (env_id, spec.entry_point, spec.kwargs)
        assert isinstance(read.entry_point, str) and isinstance(read.vector_entry_point, str)
        assert json.loads(json.dumps(spec.kwargs)) == spec.kwargs
    env = gym.make("elpo/Math-v0", split="validation", max_turns=3, dataset_options={"min_steps": 3, "max_steps": 4})
    again = type(env.spec).from_json(env.spec.to_json()).make()
    assert env.reset(seed=1) == again.reset(seed=1)
    again.close()
    env.close()


def text_spaces() -> None:
    env = gym.make("elpo/Math-v0")
    for text in ("", "é", "漢字 🙂", "\n", "\x00", "x" * 60_000):
        assert text in env.observation_space and text in env.action_space, text[:9]
    assert not env.observation_space.contains(5) and env.action_space.sample().isascii()
    started = time.monotonic()
    for _ in range(1_000):
        env.observation_space.contains("é" * 60_000)
    assert time.monotonic() - started < HANG_S, "stock Text takes 6 ms for each"
    env.close()


def observations() -> None:
    env = math()
    question, info = env.reset(seed=0)
    assert question == info["messages"][-1]["content"] == "What is 2 + 3?"
    turn = "Zuerst 🙂 " + call(code="2 + 3")
    text, *_, info = env.step(turn)
    assert text == "5", "the new text only"
    assert [m["role"] for m in info["messages"]] == ["system", "user", "assistant", "tool"]
    assert info["messages"][2]["content"] == turn, "the whole chat, as it was written"
    tools = env.get_wrapper_attr("tools")
    assert tools[0]["type"] == "function" and tools[0]["function"]["parameters"]["type"] == "object"
    env.close()


def rendering_and_closing() -> None:
    assert gym.make("elpo/Math-v0").metadata["render_modes"] == ["ansi", "human"]
    env = math(render_mode="ansi")
    env.step("hm é")
    assert "hm é" in str(env.render()) and "What is 2 + 3?" in str(env.render())
    env.close()
    env.close()
    never = gym.make("elpo/CodeExec-v0")
    never.close()
    never.close()


# --- vector environments --------------------------------------------------------------------------------------------


def text_in_shared_memory() -> None:
    source = Fixed("Wie groß ist 2 + 3? 漢字", "5")
    vector = gym.make_vec("elpo/Math-v0", num_envs=2, task_source=source)
    observations, _ = vector.reset(seed=0)
    assert observations == ("Wie groß ist 2 + 3? 漢字",) * 2
    observations, *_ = vector.step((call(code="'ünïcödé 🙂'"), "é"))
    assert "ünïcödé 🙂" in observations[0]
    vector.close()
    stock = gym.vector.AsyncVectorEnv(
        [lambda: gym.make("elpo/Math-v0", task_source=source)] * 2, shared_memory=False, context="fork"
    )
    assert stock.reset(seed=0)[0] == ("Wie groß ist 2 + 3? 漢字",) * 2
    assert "🙂" in stock.step(("\\boxed{5}", call(code="'🙂'")))[0][1]
    stock.close()


def wasted_actions() -> None:
    vector = gym.make_vec("elpo/Math-v0", num_envs=2, task_source=FIVE)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    vector.reset(seed=0)
    _, rewards, terminations, *_ = vector.step(("\\boxed{5}", "hm"))
    assert list(rewards) == [1.0, 0.0] and list(terminations) == [True, False]
    with pytest.raises(ResetNeeded, match="environment 0"):
        vector.step(("\\boxed{5}", "hm"))
    vector.reset(options={"reset_mask": np.array([True, False])})
    _, rewards, terminations, _, info = vector.step(("\\boxed{5}", None))
    assert list(rewards) == [1.0, 0.0] and list(terminations) == [True, False], "the first action counts"
    assert info["turn"][0] == 1 and not info["_turn"][1]
    vector.close()


# --- snapshots ------------------------------------------------------------------------------------------------------


def no_branches() -> None:
    env = gym.wrappers.TimeLimit(math(), 6)
    env.reset(seed=0)
    env.step(call(code="g = (n * n for n in range(9))\nimport math as m\nopen('f', 'w').write('kept')\nnext(g)"))
    frozen = elpo_envs.snapshot(env)
    expected = [env.step(call(code="next(g), m.pi > 3, open('f').read()")), env.step("\\boxed{5}")]
    for _ in range(2):
        elpo_envs.restore(env, frozen)
        assert [env.step(call(code="next(g), m.pi > 3, open('f').read()")), env.step("\\boxed{5}")] == expected
    env.close()
    other = gym.wrappers.TimeLimit(math(), 6)
    elpo_envs.restore(other, frozen)
    assert other.step(call(code="next(g), m.pi > 3, open('f').read()"))[0] == expected[0][0]
    branches = elpo_envs.fork(other, 2, reseed=1)
    drawn = {branch.step(call(code="import random; random.random()"))[0] for branch in branches}
    assert len(drawn) == 2, "branches with fresh randomness differ"
    for made in (*branches, other):
        made.close()


def rewards_of_turns() -> None:
    env = PerTurnReward(math(), {"ok": 0.25})
    env.reset(seed=0)
    assert env.step(call(code="1 + 1"))[1] == 0.25 and env.step(call(code="1/0"))[1] == 0.0
    env.close()
    env = PlusMinusReward(math())
    env.reset(seed=0)
    assert env.step("\\boxed{6}")[1] == -1.0
    env.close()


def shared_infos() -> None:
    env = math()
    first = env.step(call(code="1"))[4]
    kept: Mapping[str, Any] = copy.deepcopy(first)
    first["messages"].clear()
    first["tool_calls"][0].clear()
    assert env.step("hm")[4]["messages"][: len(kept["messages"])] == kept["messages"]
    env.close()
