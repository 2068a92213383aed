"""Snapshots: restored any number of times, anywhere, an environment goes on as if nothing had happened."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import gymnasium as gym
import pytest
from _episodes import call
from _playing import COUNT, Counter, make, play, played
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st

import elpo_envs
from elpo_envs import Snapshot, fork, restore, snapshot

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


def test_the_public_names() -> None:
    assert {"Snapshot", "snapshot", "restore", "fork"} <= set(elpo_envs.__all__)
    assert elpo_envs.env_ids()[:3] == ("elpo/Math-v0", "elpo/ScienceQA-v0", "elpo/CodeExec-v0")
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        elpo_envs.nonsense  # noqa: B018
    assert replace(played(), env_id="x").env_id == "x"


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
