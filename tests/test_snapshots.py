"""Snapshots: restored any number of times, anywhere, an environment goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import NormalizeReward, RecordEpisodeStatistics, TimeLimit, TransformReward
from hypothesis import given, settings
from hypothesis import strategies as st

import elpo_envs
from elpo_envs import Snapshot, fork, restore, snapshot
from elpo_envs.durable import decode, encode, pack
from elpo_envs.math_env import MathEnv
from elpo_envs.tools import BaseTool, ToolResult

Env = gym.Env[str, str]


def call(code: str, name: str = "python") -> str:
    body = json.dumps({"name": name, "arguments": {"code": code}}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def make(**arguments: Any) -> Env:
    made: Env = gym.make("elpo/Math-v0", **arguments)
    return made


def play(env: Env, actions: Sequence[str]) -> bytes:
    """Everything that stepping through `actions` gives, as bytes; stops where the episode ends."""
    seen: list[Any] = []
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(action)
        info.pop("episode", None)  # RecordEpisodeStatistics adds a time
        seen.append([obs, reward, terminated, truncated, info])
        if terminated or truncated:
            break
    return json.dumps(seen, ensure_ascii=False).encode("utf-8", "surrogatepass")


class Counter(BaseTool):
    """A tool with state, in the fewest lines."""

    name = "count"
    description = "Count calls."
    parameters: Mapping[str, Any] = {"type": "object"}

    def open(self, seed: int) -> None:
        self.seen: list[int] = [seed % 7]

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        self.seen.append(len(self.seen))
        return ToolResult(str(self.seen))

    def snapshot(self) -> Any:
        return self.seen

    def restore(self, state: Any, reseed: int | None = None) -> None:
        self.seen = state if reseed is None else [reseed % 7]


COUNT = '<tool_call>{"name": "count", "arguments": {}}</tool_call>'

ACTIONS = [
    call("x = [1]"),
    call("x.append(len(x))\nx"),
    call("import random\nrandom.random()"),
    call("def gen():\n    yield from range(9)\ng = gen()"),
    call("next(g)"),
    call("1/0"),
    call("print('é☃')\n{'b', 'a'} == {'a', 'b'}"),
    call("exit()"),
    call("y = 7") + call("y * 6"),
    COUNT,
    call("1", "nope"),
    "<tool_call>{",
    '<tool_call>{"name": "python", "arguments": {"cod": "1"}}</tool_call>',
    "no idea \ud800",
    "",
    "\\boxed{1}",
]


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.sampled_from(ACTIONS[:-1]), max_size=4),
    st.lists(st.sampled_from(ACTIONS), max_size=4),
    st.booleans(),
)
def test_sixteen_restores_go_on_identically(before: list[str], after: list[str], durable: bool) -> None:
    original = make(extra_tools=(Counter,), max_turns=7)
    other = make(extra_tools=(Counter,), max_turns=7)
    original.reset(seed=11)
    obs, info = original.reset()
    for action in before:
        obs, *_, info = original.step(action)
    snap = snapshot(original)
    expected = play(original, after)
    next_task = original.reset()[1]["task_id"]
    original.close()
    if durable:
        snap = Snapshot.from_bytes(snap.to_bytes())
    for _ in range(16):
        assert restore(other, snap) == (obs, info)
        assert play(other, after) == expected
    assert other.reset()[1]["task_id"] == next_task
    other.close()


def test_a_snapshot_at_every_step_of_an_expert_episode() -> None:
    env, other = make(), make()
    env.reset(options={"index": 3})
    turns = env.unwrapped.expert_turns()
    snaps, states = [snapshot(env)], [env.reset(options={"index": 3})]
    for turn in turns:
        obs, *_, info = env.step(turn)
        states.append((obs, info))
        snaps.append(snapshot(env))
    for k in reversed(range(len(snaps))):
        assert restore(other, snaps[k]) == states[k]
        assert other.unwrapped.expert_turns() == turns
        if k == len(turns):
            with pytest.raises(ResetNeeded, match="the episode is over"):
                other.step("\\boxed{1}")
        else:
            *_, terminated, _, info = [other.step(t) for t in turns[k:]][-1]
            assert terminated and info == states[-1][1]


def test_in_place_and_repeated_restores() -> None:
    env = make()
    env.reset(seed=1)
    env.step(call("x = 0"))
    snap = snapshot(env)
    kept = snap.to_bytes()
    for _ in range(3):
        for expected in ("1", "2"):
            assert env.step(call("x += 1\nx"))[0] == expected
        restore(env, snap)
    assert snap.to_bytes() == kept
    assert snapshot(env).episode == snap.episode
    with pytest.raises(FrozenInstanceError):
        snap.fidelity = "exact"  # type: ignore[misc]


def test_reset_with_a_snapshot_is_a_restore() -> None:
    env, other = make(), make()
    env.reset(seed=4)
    obs, *_, info = env.step(call("x = 3\nx"))
    snap = snapshot(env)
    assert other.reset(options={"snapshot": snap}) == (obs, info)
    assert play(other, [call("x + 1")]) == play(env, [call("x + 1")])
    draws = {other.reset(seed=s, options={"snapshot": snap}) and other.reset()[1]["index"] for s in (1, 1, 2)}
    assert len(draws) == 2
    limited = TimeLimit(make(), 5)
    limited.reset(seed=1)
    stateful = snapshot(limited)
    with pytest.raises(ValueError, match=r"cannot restore the state of .*TimeLimit; use elpo_envs\.restore"):
        limited.reset(options={"snapshot": stateful})


def test_reseeding_tells_branches_apart() -> None:
    env = make(extra_tools=(Counter,))
    env.reset(seed=1)
    draw = call("import random\nrandom.random()")
    env.step(draw)
    snap = snapshot(env)

    def branch(reseed: int | None) -> tuple[str, str, str]:
        other = make(extra_tools=(Counter,))
        restore(other, snap, reseed=reseed)
        return other.step(draw)[0], other.step(COUNT)[0], other.reset()[1]["task_id"]

    assert branch(None) == branch(None)
    assert branch(5) == branch(5)
    assert len({branch(None)[0], branch(5)[0], branch(6)[0]}) == 3
    assert branch(5)[1] != branch(None)[1] and branch(5)[2] != branch(6)[2]


def test_fork() -> None:
    env = make(max_turns=5)
    env.reset(seed=2)
    env.step(call("x = 1"))
    branches = fork(env, 3)
    assert len(branches) == 3 and fork(env, 0) == []
    assert len({id(b.unwrapped) for b in (env, *branches)}) == 4
    for i, branch in enumerate(branches):
        assert str(branch) == str(env) and branch.spec == env.spec
        assert branch.step(call(f"x += {i}\nx"))[0] == str(1 + i)
    assert env.step(call("x"))[0] == "1"
    env.close()
    assert branches[2].step(call("x"))[0] == "3"
    draw = call("import random\nrandom.random()")
    assert len({b.step(draw)[0] for b in fork(branches[0], 3, reseed=9)}) == 3
    assert len({b.step(draw)[0] for b in fork(branches[0], 3)}) == 1
    with pytest.raises(ValueError, match="n=-1 must be 0 or larger"):
        fork(branches[0], -1)


# ---------------------------------------------------------------- wrappers


class Bonus(gym.Wrapper[str, str, str, str]):
    """Says itself what its state is."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.rng = np.random.default_rng(0)
        self.total = 0.0

    def step(self, action: str) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.total += 0.5
        return obs, float(reward) + self.total, terminated, truncated, info

    def snapshot_state(self) -> Any:
        return {"total": self.total}

    def restore_state(self, state: Any) -> None:
        self.total = state["total"]


class Plain(gym.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Knows nothing of snapshots; its attributes are plain values."""

    def __init__(self, env: Env, scale: float) -> None:
        RecordConstructorArgs.__init__(self, scale=scale)
        super().__init__(env)
        self.scale, self.steps, self.trail = scale, 0, ([], {"last": ("", 0)})

    def step(self, action: str) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        self.trail[0].append(self.steps)
        self.trail[1]["last"] = (action[:3], self.steps)
        return obs, float(reward) + self.scale * self.steps + len(self.trail[0]), terminated, truncated, info


class Numbered(gym.ObservationWrapper[str, str, str]):
    """An observation wrapper that counts what it has shown."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.shown = 0

    def observation(self, observation: str) -> str:
        self.shown += 1
        return f"{len(observation)}: {observation}"


def wrapped() -> Env:
    inner: Env = TimeLimit(Bonus(make(max_episode_steps=50)), 4)
    return TransformReward(Numbered(Plain(RecordEpisodeStatistics(inner), 0.25)), float)


@pytest.mark.parametrize("durable", [False, True])
def test_wrappers_continue_where_they_were(durable: bool) -> None:
    env, other = wrapped(), wrapped()
    env.reset(seed=1)
    env.step("hm")
    obs, *_, info = env.step(call("x = 1\nx"))
    snap = snapshot(env)
    if durable:
        snap = Snapshot.from_bytes(snap.to_bytes())
    shown = env.env.shown
    actions = [call("x + 1"), "hm", "hm"]
    expected = play(env, actions)
    for _ in range(3):
        assert restore(other, snap) == (obs, info)
        assert other.env.shown == shown
        assert play(other, actions) == expected
        assert json.loads(expected)[-1][3] and len(json.loads(expected)) == 2  # TimeLimit ended it at step 4
    statistics = other.get_wrapper_attr("length_queue")
    assert list(statistics) == [4, 4, 4]


def test_a_wrapper_in_a_fork() -> None:
    env: Env = Plain(TimeLimit(make(), 3), 2.0)
    env.reset(seed=1)
    env.step("hm")
    (branch,) = fork(env, 1)
    assert play(branch, ["a", "b"]) == play(env, ["a", "b"])

    class Secretive(gym.Wrapper[str, str, str, str]):
        def __init__(self, env: Env, factor: float = 1.0) -> None:
            super().__init__(env)

    with pytest.raises(TypeError, match=r"Secretive cannot be built again .*RecordConstructorArgs"):
        fork(Secretive(env), 1)


def test_unknown_state_in_a_wrapper_is_not_ignored() -> None:
    env = NormalizeReward(make())
    env.reset(seed=1)
    with pytest.raises(TypeError, match=r"NormalizeReward keeps something in '\w+' that a snapshot"):
        snapshot(env)


def test_the_guards_of_gymnasium_need_not_match() -> None:
    env = make(disable_env_checker=True)
    env.reset(seed=1)
    snap = snapshot(env)
    for other in (make(), env.unwrapped, MathEnv()):
        restore(other, snap)
        assert other.step(call("1"))[0] == "1"
        assert other.step(call("2"))[0] == "2"


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: make(max_turns=3), "its max_turns is 16, this environment's is 3"),
        (lambda: make(split="test"), 'its split is "train", this environment\'s is "test"'),
        (
            lambda: make(dataset_options={"max_steps": 5}),
            'dataset_options is {}, this .* is {"max_steps": 5}',
        ),
        (lambda: make(system_prompt="Hi"), "its system_prompt is"),
        (
            lambda: make(extra_tools=(Counter,)),
            r'its tools is \["python"\], this environment\'s is \["python", "count"\]',
        ),
        (lambda: TimeLimit(make(), 9), r"its wrappers are \[\], this environment's \['.*TimeLimit'\]"),
    ],
)
def test_another_configuration_is_refused(other: Any, message: str) -> None:
    env = make()
    env.reset(seed=1)
    snap = snapshot(env)
    target = other()
    with pytest.raises(ValueError, match=message):
        restore(target, snap)
    assert (snapshot(env).spec_digest == snap.spec_digest) and len(snap.spec_digest) == 64


def test_a_wrapper_with_other_arguments_is_refused() -> None:
    env = TimeLimit(make(), 9)
    env.reset(seed=1)
    with pytest.raises(ValueError, match=r"TimeLimit has the arguments {'max_episode_steps': 9}, this"):
        restore(TimeLimit(make(), 8), snapshot(env))


def test_what_cannot_be_snapshot() -> None:
    with pytest.raises(ResetNeeded, match="no episode has begun"):
        snapshot(make())
    with pytest.raises(TypeError, match="CartPoleEnv cannot be snapshot"):
        snapshot(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match=r"a Snapshot is needed, not bytes; .*Snapshot\.from_bytes"):
        restore(make(), b"")  # type: ignore[arg-type]


def test_a_session_that_does_not_repeat_voids_the_episode() -> None:
    env = make(sandbox="replay")
    env.reset(seed=1)
    env.step(call("import time\ntime.time_ns()"))
    data = snapshot(env).to_bytes()
    other = make(sandbox="replay")
    restore(other, Snapshot.from_bytes(data))
    *_, terminated, truncated, info = other.step(call("1"))
    assert (terminated, truncated, info["valid"]) == (False, True, False)
    assert info["error_kind"] == "sandbox_failure"


# ---------------------------------------------------------------- the durable form


def played() -> Snapshot:
    env = make(extra_tools=(Counter,))
    env.reset(options={"index": 3})
    env.step("\ud83d\ude00 😀 é\x00")
    env.step(call("x = 'é'\nx") + COUNT)
    return snapshot(env)


def test_the_durable_form_is_the_same_snapshot() -> None:
    snap = played()
    data = snap.to_bytes()
    again = Snapshot.from_bytes(data)
    assert again.episode == snap.episode
    assert (again.messages, again.task, again.contract) == (snap.messages, snap.task, snap.contract)
    assert (again.env_id, again.protocol, again.version) == ("elpo/Math-v0", "hermes", 1)
    assert again.spec_digest == snap.spec_digest
    assert again.fidelity == "replay"
    assert again.to_bytes() == data == snap.to_bytes()
    untouched = make()
    untouched.reset(seed=1)
    assert snapshot(untouched).fidelity == "exact"
    assert Snapshot.from_bytes(snapshot(untouched).to_bytes()).fidelity == "exact"


def test_bytes_that_are_no_snapshot() -> None:
    data = played().to_bytes()
    for bad, message in [
        (b"", "are not a snapshot"),
        (b"\x80\x04pickle", "are not a snapshot"),
        (data[:20], "is cut short: 20 bytes"),
        (data[:-1], "digest does not match"),
        (data[:60] + bytes([data[60] ^ 1]) + data[61:], "digest does not match"),
        (data[:8] + b"\x00\x02" + data[10:], "has format version 2, this package reads version 1"),
        (pack({"episode": {}}, 1), "have an unexpected form"),
        (pack([], 1), "have an unexpected form"),
        (pack({"episode": None}, 1), "have an unexpected form"),
    ]:
        with pytest.raises(ValueError, match=message):
            Snapshot.from_bytes(bad)
    with pytest.raises(ValueError, match="is bytes, not str"):
        Snapshot.from_bytes("x")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_byte_is_noticed(data: st.DataObject) -> None:
    good = _PLAYED.to_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with pytest.raises(ValueError, match="snapshot"):
        Snapshot.from_bytes(bad)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_plain_values_survive_as_json(value: Any) -> None:
    assert repr(decode(json.loads(json.dumps(encode(value))))) == repr(value)


CHILD = """
import json, sys
import gymnasium as gym
import elpo_envs
snap = elpo_envs.Snapshot.from_bytes(open(sys.argv[1], "rb").read())
env = gym.make("elpo/Math-v0", dataset=sys.argv[2], split="test")
seen = [list(elpo_envs.restore(env, snap))]
for action in json.loads(sys.argv[3]):
    seen.append(list(env.step(action)))
print(json.dumps(seen))
"""


def test_another_process_continues_without_the_data(tmp_path: Path) -> None:
    data = tmp_path / "sums.jsonl"
    data.write_text(json.dumps({"question": "1 + 1?", "answer": "2"}))
    env = make(dataset=str(data), split="test")
    env.reset(seed=1)
    env.step(call("import random\nx = random.random()\nx"))
    obs, *_, info = env.step(call("y = [x]\n1/0"))
    file = tmp_path / "snap.bin"
    file.write_bytes(snapshot(env).to_bytes())
    data.unlink()
    actions = [call("y.append(random.random())\ny"), "hm é", "\\boxed{2}"]
    seen = [[obs, info], *(list(env.step(a)) for a in actions)]
    clean = {k: v for k, v in os.environ.items() if k != "ELPO_DATA"} | {"PYTHONHASHSEED": "77"}
    command = [sys.executable, "-W", "error", "-c", CHILD, str(file), str(data), json.dumps(actions)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == seen
    assert seen[-1][1] == 1.0


def test_a_snapshot_and_restore_take_little_time() -> None:
    env, other = make(max_tool_calls=100), make(max_tool_calls=100)
    env.reset(options={"index": 3})
    for _ in range(14):
        env.step('<tool_call>{"name": "python", "arguments": {}}</tool_call>' * 3)
    took = []
    for _ in range(50):
        start = time.perf_counter()
        restore(other, snapshot(env))
        took.append(time.perf_counter() - start)
    assert sorted(took)[25] < 1e-3  # about 0.07 ms on an idle machine


def test_the_public_names() -> None:
    assert {"Snapshot", "snapshot", "restore", "fork"} <= set(elpo_envs.__all__)
    assert elpo_envs.env_ids() == ("elpo/Math-v0",)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        elpo_envs.nonsense  # noqa: B018
    assert replace(played(), env_id="x").env_id == "x"


_PLAYED = played()
