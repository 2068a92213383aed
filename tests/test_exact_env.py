"""`elpo/ExactChain-v0`: the same world as the arrays, choice for choice; what is shown, snapshots, recoverability."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import TimeLimit

import elpo_envs
from elpo_envs.conformance import CHECKS, Subject
from elpo_envs.exact import (
    FAMILIES,
    FATAL,
    REPAIRABLE,
    Rollouts,
    RolloutState,
    build_world,
    ended,
    first_unsolvable,
    optimal_values,
    prefix_values,
    start_state,
    step,
    succeeded,
)
from elpo_envs.exact.act import ActTool, noise_uniform
from elpo_envs.exact.env import ExactChainEnv
from elpo_envs.exact.tasks import ChainSource
from elpo_envs.recovery import first_irrecoverable_turn, recoverable
from elpo_envs.tasks.base import ExpertTurn, ToolCall

ID = "elpo/ExactChain-v0"
NOISY = {
    "kind": "mix",
    "steps": 6,
    "start_success": 0.3,
    "noise": 0.3,
    "n_prompts": 9,
    "n_contexts": 20,
    "n_actions": 4,
}


def act(choice: Any) -> str:
    return f'<tool_call>\n{{"name": "act", "arguments": {{"choice": {json.dumps(choice)}}}}}\n</tool_call>'


def make(family: Any = "mix_8_.2_noise", **arguments: Any) -> ExactChainEnv:
    base = gym.make(ID, family=family, **arguments).unwrapped
    assert isinstance(base, ExactChainEnv)
    return base


def script(env: ExactChainEnv, rng: np.random.Generator, share: float) -> list[int]:
    """Choices to the end, of which that share is good and the others are anything; `env` is played to its end."""
    made: list[int] = []
    terminated = False
    while not terminated:
        row = env.chain_state.row(env.world)
        made.append(int(env.world.good[row] if rng.random() < share else rng.integers(env.world.n_actions)))
        *_, terminated, truncated, _ = env.step(act(made[-1]))
        assert not truncated
    return made


def in_arrays(env: ExactChainEnv, prompt: int, choices: Sequence[int]) -> Rollouts:
    """The rollout of these choices with the noise of the environment, told by `dynamics.step`."""
    world, prompts = env.world, np.array([prompt])
    state, states, rows = start_state(world, 1), [], []
    states.append(state)
    for number, choice in enumerate(choices):
        luck = np.array([noise_uniform(env.chain_state.noise_began, number)])
        rows.append(int(world.contexts[prompt, state.position[0]]) + int(state.in_repair[0]) * world.n_contexts)
        state = step(world, prompts, state, np.array([choice]), luck)
        states.append(state)
    stacked = RolloutState(
        *(np.array([[getattr(s, f)[0] for s in states]]) for f in ("position", "spare", "in_repair", "alive"))
    )
    done = succeeded(world, state)
    return Rollouts(prompts, np.array([rows]), np.array([choices]), stacked, np.array([len(choices)]), done)


# ---------------------------------------------------------------- the same world


@pytest.mark.parametrize("family", ["irr_8_.06", "rec_8_.06", "mix_8_.2_noise", "trap_16_.05", NOISY])
def test_an_episode_is_the_rollout_of_its_choices(family: Any) -> None:
    env = make(family)
    rng = np.random.default_rng(0)
    best = optimal_values(env.world)
    outcomes = {True: 0, False: 0}
    for number in range(20):
        prompt = int(rng.integers(env.world.n_prompts))
        env.reset(options={"index": prompt})
        choices = script(env, rng, (0.3, 0.8, 0.97, 1.0)[number % 4])
        rollout = in_arrays(env, prompt, choices)
        last = rollout.after(-1)
        assert ended(env.world, last).all() and not ended(env.world, rollout.after(len(choices) - 1)).any()
        success = bool(rollout.success[0])
        assert env._current().reward == float(success) and env._current().is_correct == success
        grade = json.loads(env._current().grade or "")
        structural = int(first_unsolvable(env.world, rollout)[0])
        assert grade == {"correct": success, "method": "chain", "steps": len(choices), "first_unsolvable": structural}
        outcomes[success] += 1
        # every prefix: recoverable where the best policy has a chance, and nowhere else
        solvable = prefix_values(best, rollout.prompts, rollout.states)[0] > 0.0
        env.reset(options={"index": prompt})
        turns = [act(choice) for choice in choices]
        for m, turn in enumerate((*turns, None)):
            assert env.recoverable() == env.recoverable("expert") == bool(solvable[m])
            state = env.chain_state
            seen = (state.position, state.spare, state.in_repair, state.alive)
            s = rollout.states
            assert seen == (s.position[0, m], s.spare[0, m], s.in_repair[0, m], s.alive[0, m])
            if turn is not None:
                env.step(turn)
        env.reset(options={"index": prompt})
        assert first_irrecoverable_turn(env, turns) == (None if structural == -1 else structural)
    assert min(outcomes.values()) > 0
    env.close()


def test_the_world_is_that_of_the_arrays() -> None:
    env = make("irr_8_.06", world_seed=4)
    world = build_world(FAMILIES["irr_8_.06"], 4)
    assert (env.world.kinds == world.kinds).all() and (env.world.contexts == world.contexts).all()
    question, info = env.reset(options={"task_id": "exact/irr_8_.06/4/17"})
    assert question.endswith(f"Context {world.contexts[17, 0]}. Choose 0-7.")
    assert info["index"] == 17 and info["chain"]["row"] == world.contexts[17, 0]
    assert env.clone().world is env.world
    own = make(NOISY)
    assert own.world.family.noise == 0.3 and own.task_source.size == 9


# ---------------------------------------------------------------- what is shown


def kind_at(env: ExactChainEnv, kind: int) -> int | None:
    """A choice of that kind in the present context."""
    found = np.flatnonzero(env.world.kinds[env.chain_state.row(env.world)] == kind)
    return int(found[0]) if len(found) else None


def test_feedback_names_what_comes_next_and_hides_fatal_choices() -> None:
    env = make("mix_8_.2")
    contexts = env.world.contexts
    index = next(
        i
        for i in range(128)
        if FATAL in env.world.kinds[contexts[i, 0]] and REPAIRABLE in env.world.kinds[contexts[i, 1]]
    )
    first, second, third = contexts[index, :3].tolist()
    env.reset(options={"index": index})
    good = int(env.world.good[first])
    after_good = env.step(act(good))
    env.reset(options={"index": index})
    after_fatal = env.step(act(kind_at(env, FATAL)))
    assert after_good[:4] == after_fatal[:4] == (f"Context {second}. Choose 0-7.", 0.0, False, False)
    assert after_good[4]["chain"] == after_fatal[4]["chain"]
    assert env.chain_state.alive is False and env.chain_state.first_unsolvable == 1
    wrong = kind_at(env, REPAIRABLE)
    obs, *_, info = env.step(act(wrong))
    assert obs == f"Error: that needs a repair. Repair {second}. Choose 0-7." and info["error_kind"] == "error"
    assert info["chain"] == {"position": 1, "spare": 2, "in_repair": True, "row": second + 192}
    repair = int(env.world.good[192 + second])
    assert env.step(act((repair + 1) % 8))[0] == f"Error: the repair failed. Repair {second}. Choose 0-7."
    obs, *_, info = env.step(act(repair))
    assert obs == f"Repaired. Context {third}. Choose 0-7." and info["error_kind"] is None
    assert info["chain"]["spare"] == 0
    for _ in range(5):
        env.step(act(int(env.world.good[env.chain_state.row(env.world)])))
    obs, reward, terminated, _, info = env.step(act(int(env.world.good[env.chain_state.row(env.world)])))
    assert (obs, reward, terminated, info["answer"]) == ("That was the last context.", 0.0, True, "failed")
    assert info["grade"]["first_unsolvable"] == 1 and info["chain"]["row"] == -1
    with pytest.raises(ResetNeeded):
        env.step(act(0))


def test_the_end_in_a_repair() -> None:
    env = make("rec_8_.06")
    env.reset(options={"index": 0})
    env.step(act(kind_at(env, REPAIRABLE)))
    wrong = (int(env.world.good[env.chain_state.row(env.world)]) + 1) % 8
    assert env.recoverable()
    env.step(act(wrong))
    obs, reward, terminated, truncated, info = env.step(act(wrong))
    assert obs == "Error: the repair failed, and no repair steps are left."
    assert (reward, terminated, truncated, info["error_kind"]) == (0.0, True, False, "error")
    assert not env.recoverable() and info["grade"]["first_unsolvable"] == 3


@pytest.mark.parametrize(
    ("turn", "kind", "text"),
    [
        (act(8), "error", "Error: choice must be 0 to 7. Context"),
        (act(-1), "error", "Error: choice must be 0 to 7. Context"),
        (act(10**30), "error", "Error: choice must be 0 to 7. Context"),
        (act("3"), "invalid_arguments", "Error: "),
        (act(True), "invalid_arguments", "Error: "),
        (act(2.5), "invalid_arguments", "Error: "),
        ("\\boxed{passed}", "no_action", "Error: no tool call was found. Call act with your choice."),
        ("<tool_call>{", "malformed_call", "Error: "),
    ],
)
def test_what_is_no_choice_changes_nothing(turn: str, kind: str, text: str) -> None:
    env = make("mix_8_.2_noise")
    env.reset(seed=3)
    before = env.chain_state
    obs, reward, terminated, truncated, info = env.step(turn)
    assert obs.startswith(text) and info["error_kind"] == kind
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert env.chain_state == before


def test_several_choices_in_a_turn_end_where_the_episode_does() -> None:
    env = make("irr_4_.06")
    env.reset(options={"index": 0})
    good = env.world.good[env.world.contexts[0]].tolist()
    turn = env.write_turn(ExpertTurn("", tuple(ToolCall("act", {"choice": c}) for c in (*good, 0, 0))))
    obs, reward, terminated, _, info = env.step(turn)
    assert (reward, terminated, info["n_tool_calls"], info["turn"]) == (1.0, True, 4, 1)
    assert obs.splitlines()[-1] == "That was the last context."


def test_the_last_turn_says_nothing_of_the_outcome() -> None:
    env = make("irr_4_.06")
    env.reset(options={"index": 0})
    with pytest.raises(ValueError, match=r"'exact/irr_4_\.06/0/0' cannot be graded by its last turn"):
        env.grade_turn(env.task, act(0))


# ---------------------------------------------------------------- experts and budgets


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", ["hermes", "openai"])
def test_expert_traces_score_one(family: str, protocol: str) -> None:
    env = make(family, protocol=protocol)
    lost = 0
    for index in range(0, env.world.n_prompts, 15):
        env.reset(options={"index": index})
        turns = env.expert_turns()
        if not turns:
            lost += 1
            continue
        assert turns == env.expert_turns() and (env.world.family.noise > 0.0 or len(turns) == env.world.steps)
        for turn in turns:
            assert env.expert_turns() == turns
            _, reward, terminated, truncated, info = env.step(turn)
        assert (reward, terminated, truncated) == (1.0, True, False), info["task_id"]
    assert lost <= (1 if env.world.family.noise else 0)


def test_noise_costs_the_expert_steps_and_sometimes_success() -> None:
    env = make(NOISY)
    lengths = []
    for index in range(9):
        env.reset(options={"index": index})
        lengths.append(len(env.expert_turns()))
        assert env.task.expert == () and env.recoverable("expert")
    assert 0 in lengths and max(lengths) > 6


def test_recoverable_within_budgets() -> None:
    env = make("irr_8_.06", max_turns=8)
    env.reset(options={"index": 0})
    turns = env.expert_turns()
    assert env.recoverable() and env.recoverable("expert")
    env.step("Hm.")
    assert env.recoverable() and not env.recoverable("expert")
    few = make("irr_8_.06", max_tool_calls=7)
    few.reset(options={"index": 0})
    assert not few.recoverable() and not few.recoverable("expert")
    limited = TimeLimit(gym.make(ID, family="irr_8_.06"), 7)
    limited.reset(options={"index": 0})
    assert recoverable(limited) and not recoverable(limited, "expert")
    env.reset(options={"index": 0})
    assert first_irrecoverable_turn(env, ["Hm.", *turns]) == 1
    assert first_irrecoverable_turn(env, turns) is None
    with pytest.raises(ValueError, match="policy='me' is unknown; choose omniscient or expert"):
        env.recoverable("me")  # type: ignore[arg-type]
    with pytest.raises(ResetNeeded):
        make().recoverable()


def test_recoverable_leaves_everything_as_it_is() -> None:
    env, other = make(NOISY), make(NOISY)
    for one in (env, other):
        one.reset(seed=5)
    for _ in range(4):
        env.recoverable()
        env.recoverable("expert")
        assert env.step(act(1)) == other.step(act(1))
        assert elpo_envs.snapshot(env).to_bytes() == elpo_envs.snapshot(other).to_bytes()


# ---------------------------------------------------------------- snapshots and noise


def test_a_snapshot_goes_on_with_the_same_noise_and_reseed_with_another() -> None:
    env = make(NOISY)

    def goods(one: ExactChainEnv) -> list[str]:
        seen: list[str] = []
        for _ in range(3):
            if one._current().over:
                break
            seen.append(one.step(act(int(one.world.good[one.chain_state.row(one.world)])))[0])
        return seen

    env.reset(options={"index": 3})
    env.step(act(int(env.world.good[env.chain_state.row(env.world)])))
    snap = elpo_envs.snapshot(env)
    assert snap.fidelity == "exact"
    blob = elpo_envs.Snapshot.from_bytes(snap.to_bytes())
    assert blob.fidelity == "exact"
    expected = goods(env)
    others = set()
    for n in range(20):
        other = make(NOISY)
        elpo_envs.restore(other, blob if n % 2 else snap)
        assert goods(other) == expected
        elpo_envs.restore(other, snap, reseed=n)
        once = goods(other)
        elpo_envs.restore(other, snap, reseed=n)
        assert goods(other) == once
        others.add(tuple(once))
    assert len(others) > 2
    # the same task has the same noise from its beginning on, whatever the seed of the reset
    env.reset(seed=1, options={"index": 3})
    first = goods(env)
    env.reset(seed=2, options={"index": 3})
    assert goods(env) == first


def test_reseeded_noise_fails_as_often_as_the_family_says() -> None:
    env = make(NOISY)
    env.reset(options={"index": 0})
    snap, failed, n = elpo_envs.snapshot(env), 0, 400
    for seed in range(n):
        elpo_envs.restore(env, snap, reseed=seed)
        failed += "needs a repair" in env.step(act(int(env.world.good[env.chain_state.row(env.world)])))[0]
    assert abs(failed / n - 0.3) <= 5 * np.sqrt(0.3 * 0.7 / n)


def test_a_snapshot_fits_the_same_world_only() -> None:
    env = make("irr_8_.06")
    env.reset(seed=0)
    snap = elpo_envs.snapshot(env)
    for other in (make("irr_8_.02"), make("irr_8_.06", world_seed=1)):
        with pytest.raises(ValueError):
            elpo_envs.restore(other, snap)
    with pytest.raises(ValueError, match="the state of the tool act has an unexpected form"):
        ActTool(env.world).restore({"position": 1})


# ---------------------------------------------------------------- the suite's own rules


@pytest.mark.parametrize("name", list(CHECKS))
@pytest.mark.parametrize("family", ["mix_8_.2_noise", "trap_16_.05"])
def test_conformance(name: str, family: str) -> None:
    CHECKS[name](Subject(lambda: gym.make(ID, family=family), seeds=(0, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "irr_9"}, "family='irr_9' is unknown; choose one of irr_4_.06"),
        ({"family": {"kind": "irr"}}, "lacks 'steps'"),
        ({"world_seed": -1}, "seed=-1 must be an integer of at least 0"),
        ({"protocol": "fences"}, "protocol='fences' can call python only; choose hermes or openai"),
        ({"protocol": "python_tags"}, "protocol='python_tags' can call python only"),
        ({"max_turns": 0}, "max_turns=0 must be an integer of at least 1"),
        ({"tool_timeout_s": 0}, "tool_timeout_s=0 must be greater than 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make(ID, **arguments)


def test_the_source_names_what_it_has() -> None:
    source = ChainSource(build_world(FAMILIES["irr_4_.06"], 0))
    assert (source.name, source.split, source.size) == ("exact/irr_4_.06/0", "train", 128)
    task = source.get(5)
    assert source.by_id(task.task_id) == task and len(task.expert) == 4
    with pytest.raises(IndexError, match="index=128 is out of range"):
        source.get(128)
    for wrong in ("exact/irr_4_.06/0/128", "exact/irr_4_.06/1/3", "exact/irr_4_.06/0/-1", "exact/irr_4_.06/0/٣", "5"):
        with pytest.raises(KeyError, match="is none of"):
            source.by_id(wrong)


def test_importing_the_package_loads_no_world() -> None:
    program = (
        "import sys, elpo_envs; assert not [m for m in sys.modules if m.startswith('elpo_envs.exact')];"
        "import elpo_envs.exact; assert 'torch' not in sys.modules and 'sympy' not in sys.modules;"
        "assert elpo_envs.exact.family('irr_8_.06').steps == 8"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
