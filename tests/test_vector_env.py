"""The vector environment: many conversations at once, each at its own pace."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from _episodes import OneTask, call, small
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import DictInfoToList

import elpo_envs
from elpo_envs.math_env import MathEnv
from elpo_envs.tools import BaseTool, ToolResult
from elpo_envs.vector import (
    CodeExecVectorEnv,
    ConversationVectorEnv,
    MathVectorEnv,
    RegisteredVectorEnv,
    ScienceQAVectorEnv,
    VectorEnvError,
)
from elpo_envs.vector_infos import batch_infos
from elpo_envs.wrappers import ChatObservation, PlusMinusReward, RecordTraces, read_traces

VECTOR_ID = "elpo_test/VectorMath-v0"
BROKEN = '<tool_call>{"name": "broken", "arguments": {}}</tool_call>'
GATE = '<tool_call>{"name": "gate", "arguments": {}}</tool_call>'


class Broken(BaseTool):
    """A bug in a tool."""

    name = "broken"
    description = "Raises."
    parameters: Mapping[str, Any] = {"type": "object"}

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        raise OSError("no such pipe")


class Gate(BaseTool):
    """Answers when the test lets it."""

    name = "gate"
    description = "Waits."
    parameters: Mapping[str, Any] = {"type": "object"}
    open_now = threading.Event()

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        return ToolResult("passed" if self.open_now.wait(60) else "never opened")


@pytest.fixture
def vector() -> Iterator[ConversationVectorEnv]:
    Gate.open_now.clear()
    made = ConversationVectorEnv(lambda: small(extra_tools=(Broken, Gate), tool_timeout_s=30.0), 4)
    yield made
    Gate.open_now.set()
    made.close()


@pytest.fixture
def registered() -> Iterator[str]:
    gym.register(
        VECTOR_ID,
        entry_point="elpo_envs.math_env:MathEnv",
        vector_entry_point="elpo_envs.vector:MathVectorEnv",
        kwargs={"split": "test"},
    )
    yield VECTOR_ID
    del gym.registry[VECTOR_ID]


def mask(*indices: int, n: int = 4) -> Any:
    chosen = np.zeros(n, dtype=np.bool_)
    chosen[list(indices)] = True
    return chosen


# ---------------------------------------------------------------- as Gymnasium has it


def test_make_vec(registered: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vector = gym.make_vec(registered, num_envs=3, vectorization_mode="vector_entry_point", max_turns=5, threads=2)
    assert isinstance(vector, MathVectorEnv) and vector.num_envs == len(vector.envs) == 3
    assert vector.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert all(e.unwrapped.budgets.max_turns == 5 for e in vector.envs)
    obs, info = vector.reset(seed=1)
    assert obs in vector.observation_space and list(info["split"]) == ["test"] * 3
    assert vector.single_observation_space == vector.envs[0].observation_space
    actions = vector.action_space.sample()
    obs, rewards, terminations, truncations, info = vector.step(actions)
    assert obs in vector.observation_space
    assert (rewards.dtype, rewards.shape) == (np.float64, (3,))
    assert terminations.dtype == truncations.dtype == np.bool_ and not terminations.any() and not truncations.any()
    assert len(vector.get_attr("tools")) == 3 and vector.call("facts")[0]["sandbox"]
    vector.close()
    default = gym.make_vec(registered, num_envs=2)
    assert isinstance(default, MathVectorEnv)
    default.close()


@pytest.mark.parametrize("made_of", [MathVectorEnv, ScienceQAVectorEnv, CodeExecVectorEnv])
def test_every_domain_has_one(made_of: type[RegisteredVectorEnv]) -> None:
    vector = made_of(2, max_turns=3)
    _, info = vector.reset(seed=1)
    assert info["task_id"][0] != info["task_id"][1]
    obs, *_ = vector.step(["hm", None])
    assert vector.envs[0].unwrapped.no_action_text == obs[0]
    vector.close()


def test_rendering() -> None:
    vector = MathVectorEnv(2, render_mode="ansi", task_source=OneTask())
    vector.reset(seed=1)
    assert vector.render_mode == "ansi"
    assert [text.splitlines()[-1] for text in vector.render()] == ["[user] What is 2 + 3?"] * 2
    vector.close()


@pytest.mark.parametrize("seed", [5, [5, None, 7, 5]])
def test_seeding_equals_single_environments(seed: Any) -> None:
    vector = MathVectorEnv(4)
    seeds = [5, 6, 7, 8] if seed == 5 else seed
    for again in range(2):
        obs, info = vector.reset(seed=seed if again == 0 else None)
        for i, own in enumerate(seeds):
            if own is None:
                continue
            single = MathEnv()
            single.reset(seed=own)
            expected = single.reset() if again else single.reset(seed=own)
            assert (obs[i], info["per_env"][i]) == expected
            single.close()
    vector.close()


def test_every_step_equals_single_environments() -> None:
    turns = [call("x = 'é☃'\nx"), "\ud83d hm", call("x * 2") + call("1/0"), "\\boxed{7}"]
    vector, single = MathVectorEnv(3, max_turns=6), MathEnv(max_turns=6)
    obs, info = vector.reset(options={"per_env": [{"index": 4}, None, {"index": 4}]})
    assert (obs[0], info["per_env"][2]) == single.reset(options={"index": 4})
    for turn in turns:
        obs, rewards, terminations, truncations, info = vector.step([turn, None, turn])
        expected = single.step(turn)
        for i in (0, 2):
            given = (obs[i], rewards[i], terminations[i], truncations[i], info["per_env"][i])
            assert given == expected
    vector.close()
    single.close()


def test_infos_have_gymnasiums_form(vector: ConversationVectorEnv) -> None:
    vector.reset(seed=1)
    *_, info = vector.step(["\\boxed{5}", "hm", None, call("1")])
    assert info["is_correct"].dtype == np.bool_ and list(info["is_correct"]) == [True, False, False, False]
    assert list(info["_is_correct"]) == list(info["_per_env"]) == [True, True, False, True]
    assert info["turn"].dtype == int and list(info["turn"]) == [1, 1, 0, 1]
    assert list(info["answer"]) == ["5", None, None, None]
    assert list(info["error_kind"]) == [None, "no_action", None, None]
    assert info["messages"][3][-1] == {"role": "tool", "name": "python", "content": "1"}
    # A grade is a dict or None.
    assert list(info["grade"]["_correct"]) == [True, False, False, False]
    assert list(info["grade"]["correct"]) == [True, False, False, False]
    assert info["per_env"][2] is None and info["per_env"][0]["grade"]["correct"]


def test_infos_of_mixed_types() -> None:
    info = batch_infos([{"a": 1, "b": 2**70, "c": [1]}, None, {"a": 2.5, "b": 1, "c": {"d": 1}, "n": np.float32(2)}])
    assert list(info["a"]) == [1, None, 2.5] and list(info["b"]) == [2**70, None, 1]
    assert list(info["c"]) == [[1], None, {"d": 1}] and list(info["n"]) == [0, 0, 2]
    assert list(info["_n"]) == [False, False, True] and info["n"].dtype == np.float32
    assert set(batch_infos([None, None])) == {"per_env", "_per_env"}


def test_gymnasiums_vector_wrappers_take_it() -> None:
    vector = DictInfoToList(MathVectorEnv(2, task_source=OneTask()))
    _, infos = vector.reset(seed=1)
    assert [i["task_id"] for i in infos] == [i["per_env"]["task_id"] for i in infos]
    vector.close()


# ---------------------------------------------------------------- masks and partial steps


def test_none_steps_nothing(vector: ConversationVectorEnv) -> None:
    first, _ = vector.reset(seed=1)
    obs, rewards, terminations, _, info = vector.step([None, "\\boxed{5}", None, call("print('é')")])
    assert obs == (first[0], "", first[2], "é") and list(rewards) == [0.0, 1.0, 0.0, 0.0]
    assert list(terminations) == [False, True, False, False]
    obs, rewards, terminations, truncations, info = vector.step([None] * 4)
    assert obs == (first[0], "", first[2], "é") and not rewards.any() and not truncations.any()
    assert list(terminations) == [False, True, False, False]
    assert not info["_per_env"].any() and len(info) == 2
    assert [e.unwrapped._episode.turn for e in vector.envs] == [0, 1, 0, 1]


def test_a_mask_resets_only_its_own(vector: ConversationVectorEnv) -> None:
    vector.reset(seed=1)
    vector.step(["\\boxed{5}", call("x = 1"), "\\boxed{6}", "hm"])
    options = {"reset_mask": mask(0, 2), "index": 3}
    before = dict(options)
    obs, info = vector.reset(options=options)
    assert options.keys() == before.keys(), "the caller's options are not changed"
    assert list(info["_task_id"]) == [True, False, True, False] and info["index"][0] == 3
    assert "neither a tool call" in obs[3] and obs[0] == "What is 2 + 3?"
    _, _, terminations, *_ = vector.step([None] * 4)
    assert not terminations.any()
    assert vector.step([None, call("x"), None, None])[0][1] == "1"


def test_wrong_masks_seeds_and_options(vector: ConversationVectorEnv) -> None:
    for options, error, message in (
        ({"reset_mask": [True] * 4}, TypeError, r"\['reset_mask'\] must be a numpy array of dtype bool"),
        ({"reset_mask": np.ones(4)}, TypeError, "dtype bool"),
        ({"reset_mask": mask(0, n=3)}, ValueError, r"must have the shape \(4,\), not \(3,\)"),
        ({"reset_mask": mask()}, ValueError, "must be True somewhere"),
        ({"per_env": [{}]}, ValueError, "has 1 entries; give one for each of the 4"),
        ({"indx": 3}, VectorEnvError, "environment 0: ValueError: reset option 'indx' is unknown"),
    ):
        with pytest.raises(error, match=message):
            vector.reset(options=options)
    with pytest.raises(ValueError, match="seed has 2 entries"):
        vector.reset(seed=[1, 2])
    for arguments in ({"num_envs": 0}, {"threads": 0}, {"num_envs": 2.0}):
        with pytest.raises(ValueError, match=r"must be an integer of at least 1"):
            MathVectorEnv(**arguments)
    with pytest.raises(TypeError, match="CartPoleEnv is no ConversationEnv"):
        ConversationVectorEnv(lambda: gym.make("CartPole-v1"), 2)
    with pytest.raises(ValueError, match="max_turns=0"):
        MathVectorEnv(2, max_turns=0)


# ---------------------------------------------------------------- what goes wrong


def test_stepping_what_is_over_names_it_and_steps_nothing(vector: ConversationVectorEnv) -> None:
    with pytest.raises(ResetNeeded, match="environment 1 was not reset"):
        vector.step([None, "x", None, None])
    vector.reset(seed=1)
    vector.step([None, None, "\\boxed{5}", None])
    with pytest.raises(ResetNeeded, match=r"environment 2 is over.*reset_mask"):
        vector.step(["hm"] * 4)
    assert [e.unwrapped._episode.turn for e in vector.envs] == [0, 0, 1, 0]
    for wrong in (["hm"] * 3, "four"):
        with pytest.raises(ValueError, match=r"actions (has 3 entries|must be a sequence of 4 texts)"):
            vector.step(wrong)
    limited = ConversationVectorEnv(lambda: TimeLimit(small(), 1), 2)
    limited.reset(seed=1)
    assert list(limited.step(["hm", None])[3]) == [True, False]
    with pytest.raises(ResetNeeded, match="environment 0 is over"):
        limited.step(["hm", None])
    limited.close()


def test_an_exception_does_not_lose_the_others_results(vector: ConversationVectorEnv) -> None:
    vector.reset(seed=1)
    with pytest.raises(VectorEnvError, match=r"1 of the .* \(environment 1: OSError: no such pipe\)") as caught:
        vector.step(["\\boxed{5}", BROKEN, None, call("6 * 7")])
    assert list(caught.value.errors) == [1] and isinstance(caught.value.errors[1], OSError)
    obs, rewards, terminations, _, info = caught.value.result
    assert list(rewards) == [1.0, 0.0, 0.0, 0.0] and obs[3] == "42" and list(terminations) == [True] + [False] * 3
    assert list(info["_turn"]) == [True, False, False, True]
    with pytest.raises(ResetNeeded, match="environment 1 is over, or its last step failed"):
        vector.step([None, "hm", None, None])
    vector.reset(options={"reset_mask": mask(1)})
    vector.step_async([1, 3], [BROKEN, call("x = 1")])
    seen: list[int] = []
    with pytest.raises(VectorEnvError) as caught:
        while vector.pending:
            seen += [t.index for t in vector.step_wait(at_least=2)]
    assert [t.index for t in caught.value.result] + seen == [3] and list(caught.value.errors) == [1]
    assert not vector.pending
    with pytest.raises(VectorEnvError) as caught:
        vector.step([None, None, None, 5])
    assert isinstance(caught.value.errors[3], TypeError)


# ---------------------------------------------------------------- each at its own pace


def test_a_slow_tool_holds_up_nobody() -> None:
    vector = MathVectorEnv(16, task_source=OneTask(), tool_timeout_s=30.0)
    vector.reset(seed=1)
    vector.step([call("import time")] * 16)
    began = time.monotonic()
    vector.step_async(
        range(16), [call("import time\ntime.sleep(4)\nprint('slow')")] + [call(f"{i} + 100") for i in range(1, 16)]
    )
    seen: dict[int, str] = {}
    while len(seen) < 15:
        for t in vector.step_wait(timeout=30):
            seen[t.index] = t.observation
    assert 0 not in seen and vector.pending == (0,), "the fifteen did not wait for the slow one"
    assert seen == {i: str(100 + i) for i in range(1, 16)}
    # They even go on and finish while it sleeps.
    _, rewards, *_ = vector.step([None] + ["\\boxed{5}"] * 15)
    assert rewards.sum() == 15.0
    if time.monotonic() - began < 3:
        assert vector.pending == (0,) and vector.step_wait(timeout=0.01) == []
    (last,) = vector.step_wait(timeout=60)
    assert (last.index, last.observation) == (0, "slow")
    vector.close()


def test_starting_and_waiting(vector: ConversationVectorEnv) -> None:
    vector.reset(seed=1)
    assert vector.step_wait() == [] and vector.step_wait(at_least=3) == []
    vector.step_async([3, 0], [GATE, call("2")])
    (first,) = vector.step_wait()
    assert (first.index, first.observation, first.terminated, first.info["turn"]) == (0, "2", False, 1)
    assert vector.pending == (3,)
    assert vector.step_wait(timeout=0.05) == vector.step_wait(at_least=0) == vector.step_wait(0.05, at_least=2) == []
    for clash in (
        lambda: vector.step_async([0, 3], ["x", "y"]),
        lambda: vector.step([None, None, None, "x"]),
        lambda: vector.reset(),
        lambda: vector.reset(options={"reset_mask": mask(3)}),
        lambda: vector.restore(3, elpo_envs.snapshot(vector.envs[0])),
    ):
        with pytest.raises(AlreadyPendingCallError, match="environment 3 is still being stepped"):
            clash()
    assert vector.pending == (3,), "a refused call starts nothing"
    vector.reset(options={"reset_mask": mask(0, 1)})
    assert vector.step(["hm", "\\boxed{5}", None, None])[1][1] == 1.0
    with pytest.raises(ResetNeeded, match="environment 1"):
        vector.step_async([2, 1], ["x", "y"])
    for indices, actions, message in (
        ([4], ["x"], r"index 4 is outside 0\.\.3"),
        ([2, 2], ["x", "y"], "names an environment twice"),
        ([2], ["x", "y"], "1 indices and 2 actions"),
    ):
        with pytest.raises(ValueError, match=message):
            vector.step_async(indices, actions)
    vector.step_async([2], [GATE])
    Gate.open_now.set()
    assert [(t.index, t.observation) for t in vector.step_wait(at_least=2)] == [(2, "passed"), (3, "passed")]


def test_an_interrupt_loses_no_result(vector: ConversationVectorEnv) -> None:
    program = """
import _thread, threading, time
from _episodes import call, small
from elpo_envs.vector import ConversationVectorEnv
vector = ConversationVectorEnv(lambda: small(tool_timeout_s=30.0), 2)
vector.reset(seed=1)
threading.Timer(0.5, _thread.interrupt_main).start()
try:
    vector.step([call("import time\\ntime.sleep(1)\\n7"), call("8")])
except KeyboardInterrupt:
    print(vector.pending, [t.observation for t in vector.step_wait(at_least=2)])
vector.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout == "(0, 1) ['7', '8']\n", done.stderr[-2000:]


# ---------------------------------------------------------------- snapshots, wrappers, the end


def test_snapshots_of_one_of_many(vector: ConversationVectorEnv) -> None:
    vector.reset(seed=1)
    vector.step([call("x = 'é'"), "hm", "hm", "hm"])
    snap = elpo_envs.snapshot(vector.envs[0])
    assert vector.step(["\\boxed{5}", None, None, None])[2][0]
    (branch,) = elpo_envs.fork(vector.envs[0], 1)
    branch.close()
    elpo_envs.restore(vector.envs[0], snap)  # behind the vector's back
    assert vector.step([call("print(x)"), None, None, None])[0][0] == "é"
    obs, info = vector.restore(3, snap)
    assert info["messages"] == [m.as_dict() for m in snap.messages]
    assert vector.step([None] * 4)[0][3] == obs
    assert vector.step([None, None, None, call("print(x * 2)")])[0][3] == "éé"
    over = elpo_envs.snapshot(vector.envs[0]) if vector.step(["\\boxed{6}", None, None, None])[2][0] else None
    assert over is not None
    for restore in (
        lambda: vector.restore(2, over),
        lambda: vector.reset(options={"per_env": [{"snapshot": over}] * 4}),
    ):
        restore()
        assert vector.step([None] * 4)[2][2]
        with pytest.raises(ResetNeeded, match="environment 2"):
            vector.step([None, None, "hm", None])


def test_wrapped_environments() -> None:
    vector = ConversationVectorEnv(lambda: ChatObservation(PlusMinusReward(gym.make("elpo/Math-v0"))), 2)
    obs, _ = vector.reset(seed=1)
    assert obs in vector.observation_space and obs[0][-1]["role"] == "user"
    obs, rewards, *_, info = vector.step(["\\boxed{nothing}", "hm"])
    assert obs in vector.observation_space and list(rewards) == [-1.0, 0.0]
    assert list(info["reward_terms"]["PlusMinusReward"]) == [-1.0, 0.0]
    vector.close()


def test_recording_them_all(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    vector = ConversationVectorEnv(lambda: RecordTraces(small(), str(path)), 6)
    for answer in ("5", "6"):
        vector.reset(seed=1)
        vector.step([call("1")] * 6)
        vector.step([f"\\boxed{{{answer}}}"] * 6)
    assert sorted(t["answer"] for t in read_traces(path)) == ["5"] * 6 + ["6"] * 6
    vector.close()


def test_twenty_episodes_by_their_masks() -> None:
    vector = MathVectorEnv(8, threads=3, max_turns=9)
    vector.reset(seed=1)
    plans = [env.unwrapped.expert_turns() for env in vector.envs]
    finished = right = 0
    while finished < 20:
        _, rewards, terminations, truncations, _ = vector.step([plan.pop(0) for plan in plans])
        over = terminations | truncations
        assert not (terminations & truncations).any()
        finished, right = finished + int(over.sum()), right + int(rewards.sum())
        if over.any():
            vector.reset(options={"reset_mask": over})
            for i in np.flatnonzero(over):
                plans[i] = vector.envs[i].unwrapped.expert_turns()
    assert right == finished
    vector.close()


def test_closing_ends_the_threads_and_can_be_repeated() -> None:
    before = set(threading.enumerate())
    vector = MathVectorEnv(5, task_source=OneTask())
    vector.reset(seed=1)
    vector.step([call("1")] * 5)
    own = {t for t in threading.enumerate() if t.name.startswith("elpo-vector")} - before
    assert own
    vector.step_async([0], [call("2")])
    vector.close()
    assert not own & set(threading.enumerate())
    vector.close()
    for use in (vector.reset, lambda: vector.step([None] * 5), lambda: vector.step_async([], []), vector.step_wait):
        with pytest.raises(ClosedEnvironmentError, match="this vector environment was closed"):
            use()


def test_one_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    vector = MathVectorEnv(3, task_source=OneTask())
    vector.reset(seed=1)

    def fails() -> None:
        raise OSError("stuck")

    really_close, vector.envs[2].close = vector.envs[2].close, fails  # type: ignore[method-assign]
    with pytest.raises(OSError, match="stuck"):
        vector.close()
    assert vector.closed and vector.envs[0].unwrapped._episode is None
    vector.close()
    really_close()


def test_infos_are_values(vector: ConversationVectorEnv) -> None:
    vector.reset(seed=1)
    *_, info = vector.step(["hm"] * 4)
    json.dumps(list(info["per_env"]))
    info["per_env"][0]["messages"].clear()
    assert len(vector.step(["hm"] * 4)[-1]["per_env"][0]["messages"]) == 6
