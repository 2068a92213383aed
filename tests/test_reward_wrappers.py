"""Reward wrappers: what they give, in every order, through snapshots, and never against a void episode."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from _episodes import Flaky, call, small
from _wrapped import Wrap, check_snapshots_at_every_turn, check_without_warnings

from elpo_envs.conformance import Subject, conformance_tests
from elpo_envs.tools import BaseTool, ToolResult
from elpo_envs.wrappers import (
    FEEDBACK_KINDS,
    DemyAgentReward,
    FormatPenalty,
    OverlongPenalty,
    PerTurnReward,
    PlusMinusReward,
    TokenBudget,
    ToolBonus,
    turn_kinds,
)

RIGHT, WRONG = "\\boxed{5}", "\\boxed{6}"
BROKEN, UNKNOWN = "<tool_call>{", call("1", "nope")
ARGUMENTS = '<tool_call>{"name": "python", "arguments": {"cod": "1"}}</tool_call>'
FLAKY = '<tool_call>{"name": "flaky", "arguments": {}}</tool_call>'

ALL: dict[str, Wrap] = {
    "plus_minus": PlusMinusReward,
    "format": FormatPenalty,
    "bonus": ToolBonus,
    "demy": DemyAgentReward,
    "overlong": lambda env: OverlongPenalty(env, 10, 200),
    "per_turn": lambda env: PerTurnReward(env, {"ok": 0.25, "error": -0.5, "no_action": -0.125}),
}


class Submit(BaseTool):
    """Hands in the answer."""

    name = "submit"
    description = "Hand in the answer."
    parameters: Mapping[str, Any] = {"type": "object", "required": ["answer"]}
    terminal = True

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        return ToolResult("received")


def all_of_them() -> gym.Env[Any, str]:
    env: gym.Env[Any, str] = TokenBudget(gym.make("elpo/Math-v0"), 5000)
    for wrap in ALL.values():
        env = wrap(env)
    return env


TestAllOfThemConform = conformance_tests(Subject(all_of_them, seeds=(0,)))


def rewards(env: gym.Env[Any, str], actions: Sequence[str]) -> list[float]:
    env.reset(seed=1)
    given = []
    for action in actions:
        _, reward, *_ = env.step(action)
        given.append(float(reward))
    env.close()
    return given


@pytest.mark.parametrize("wrap", ALL.values(), ids=ALL)
def test_gymnasiums_checker_has_nothing_to_say(wrap: Wrap) -> None:
    check_without_warnings(wrap(gym.make("elpo/Math-v0")))


@pytest.mark.parametrize("wrap", ALL.values(), ids=ALL)
def test_snapshots_at_every_turn(wrap: Wrap) -> None:
    check_snapshots_at_every_turn(lambda: wrap(small()), [call("x = 2\nx"), "hm", call("1/0"), call("x + 3"), RIGHT])


def test_a_snapshot_of_all_of_them_together() -> None:
    def make() -> gym.Env[Any, str]:
        env: gym.Env[Any, str] = small(extra_tools=(Flaky,))
        for wrap in ALL.values():
            env = wrap(env)
        return env

    check_snapshots_at_every_turn(make, ["hm", BROKEN, call("7"), WRONG])
    check_snapshots_at_every_turn(make, ["hm", call("7"), FLAKY])


# ---------------------------------------------------------------- each one's rule


def test_plus_minus() -> None:
    assert rewards(PlusMinusReward(small()), ["hm", RIGHT]) == [0.0, 1.0]
    assert rewards(PlusMinusReward(small()), ["hm", WRONG]) == [0.0, -1.0]
    assert rewards(PlusMinusReward(small(max_turns=2)), ["hm", "hm"]) == [0.0, -1.0]
    assert rewards(PlusMinusReward(small(), right=2.0, wrong=-0.5), [RIGHT]) == [2.0]
    assert rewards(PlusMinusReward(small(), right=2.0, wrong=-0.5), [WRONG]) == [-0.5]


@pytest.mark.parametrize("turn", ["hm", "", BROKEN, UNKNOWN, ARGUMENTS, BROKEN + UNKNOWN, call("1/0") + UNKNOWN])
def test_a_format_penalty_once_a_turn(turn: str) -> None:
    assert rewards(FormatPenalty(small(), 0.25), [turn, turn, RIGHT]) == [-0.25, -0.25, 1.0]
    # Where the last turn is such a one, the info names the budget and not the fault.
    assert rewards(FormatPenalty(small(max_turns=1), 0.25), [turn]) == [-0.25]
    assert rewards(PlusMinusReward(FormatPenalty(small(max_turns=1), 0.25)), [turn]) == [-1.25]


def test_what_is_no_fault_of_format() -> None:
    given = rewards(FormatPenalty(small()), [call("1"), call("1/0"), call("x = 1"), WRONG])
    assert given == [0.0, 0.0, 0.0, 0.0]
    given = rewards(FormatPenalty(small(), 1.0, ["error"]), [call("1/0"), "hm", RIGHT])
    assert given == [-1.0, 0.0, 1.0]


def test_tool_bonus_is_for_right_answers_only_and_capped() -> None:
    turns = [call("1") + call("x = 1"), call("1/0"), BROKEN]
    assert rewards(ToolBonus(small(), 0.125, 1.0), [*turns, RIGHT]) == [0.0, 0.0, 0.0, 1.25]
    assert rewards(ToolBonus(small(), 0.125, 0.2), [*turns, RIGHT])[-1] == 1.2
    assert rewards(ToolBonus(small(), 0.125, 1.0), [*turns, WRONG])[-1] == 0.0
    assert rewards(ToolBonus(small(max_turns=2), 0.125, 1.0), [call("1"), call("1")]) == [0.0, 0.0]


def test_handing_in_is_no_successful_call() -> None:
    submit = '<tool_call>{"name": "submit", "arguments": {"answer": "%s"}}</tool_call>'
    env = ToolBonus(small(extra_tools=(Submit,)), 0.125)
    assert rewards(env, [call("1"), submit % "5"]) == [0.0, 1.125]
    assert rewards(env, [submit % "5"]) == [1.0]
    assert rewards(env, [call("1"), submit % "6"]) == [0.0, 0.0]
    assert rewards(PlusMinusReward(small(extra_tools=(Submit,))), [submit % "6"]) == [-1.0]


def test_demy_agent() -> None:
    assert rewards(DemyAgentReward(small()), [call("1"), RIGHT]) == [0.0, 1.0]
    for rounds, outcome in ((0, -1.0), (1, -0.9), (3, -0.7), (4, -0.6), (9, -0.6)):
        given = rewards(DemyAgentReward(small()), [call("1")] * rounds + [WRONG])
        assert given[:-1] == [0.0] * rounds and given[-1] == pytest.approx(outcome)
    assert rewards(DemyAgentReward(small(), reference_quirks=True), [call("1"), WRONG])[-1] == pytest.approx(-1.1)
    assert rewards(DemyAgentReward(small(), reference_quirks=True), [call("1"), RIGHT])[-1] == 1.0


def test_overlong_is_linear_between_its_bounds() -> None:
    for n_before, punishment in ((0, 0.0), (91, 0.0), (141, 0.5), (191, 1.0), (5000, 1.0)):
        for answer, outcome in ((RIGHT, 1.0), (WRONG, 0.0)):
            given = rewards(OverlongPenalty(small(), 100, 200), ["y" * n_before, answer])
            assert given == pytest.approx([0.0, outcome - punishment])
    # Tool output is not the assistant's.
    assert rewards(OverlongPenalty(small(), 100, 200), [call("print('y' * 5000)"), RIGHT])[-1] == pytest.approx(1.0)
    assert rewards(OverlongPenalty(small(), 100, 200, 0.5), ["y" * 300, RIGHT]) == [0.0, 0.5]


def test_per_turn_rewards_add_up_over_calls() -> None:
    table = {"ok": 0.25, "empty": 0.125, "error": -0.5, "no_action": -0.0625, "unknown_tool": -2.0}
    turns = [call("1") + call("x = 1") + call("1/0"), "hm", UNKNOWN, ARGUMENTS, RIGHT]
    assert rewards(PerTurnReward(small(), table), turns) == [-0.125, -0.0625, -2.0, 0.0, 1.0]
    assert rewards(PerTurnReward(small(max_turns=1), table), ["hm"]) == [-0.0625]


def test_the_kinds_of_a_turn() -> None:
    env = small()
    assert turn_kinds(env.reset(seed=1)[1]) == ()
    assert turn_kinds(env.step("hm")[-1]) == ("no_action",)
    assert turn_kinds(env.step(call("1") + BROKEN)[-1]) == ("ok", "malformed_call")
    assert turn_kinds(env.step(RIGHT)[-1]) == ()
    env.close()
    assert {"ok", "empty", "error", "timeout", "sandbox_failure", "malformed_call", "no_action"} <= FEEDBACK_KINDS


# ---------------------------------------------------------------- together


EPISODES = {
    "right": ["hm", BROKEN + call("1"), call("x = 1"), call("1/0"), RIGHT],
    "wrong": ["hm", BROKEN + call("1"), call("1"), WRONG],
    "truncated": ["hm"] * 5,
    "void": ["hm", BROKEN + call("1"), FLAKY],
}


@pytest.mark.parametrize("name", EPISODES)
def test_every_order_gives_the_same_rewards(name: str) -> None:
    def run(order: Sequence[Wrap]) -> list[float]:
        env: gym.Env[Any, str] = small(max_turns=5, extra_tools=(Flaky,))
        for wrap in order:
            env = wrap(env)
        return rewards(env, EPISODES[name])

    wraps = [ALL[n] for n in ("plus_minus", "format", "bonus", "overlong", "per_turn")]
    expected = run(wraps)
    assert any(expected)
    for order in itertools.islice(itertools.permutations(wraps), 0, None, 29):
        assert run(order) == pytest.approx(expected)
    alone = np.array([run([wrap]) for wrap in wraps])
    outcome = np.array(run([]))
    assert expected == pytest.approx((alone - outcome).sum(axis=0) + outcome)


@pytest.mark.parametrize("wrap", ALL.values(), ids=ALL)
def test_a_void_episode_has_no_punishment(wrap: Wrap) -> None:
    given = rewards(wrap(small(extra_tools=(Flaky,))), EPISODES["void"])
    assert sum(given) == pytest.approx(0.0)
    assert rewards(wrap(small(max_turns=1, extra_tools=(Flaky,))), [FLAKY]) == [0.0]


def test_what_was_given_before_a_reset_is_forgotten() -> None:
    env = FormatPenalty(small(extra_tools=(Flaky,)), 0.5)
    env.reset(seed=1)
    env.step("hm")
    assert rewards(env, [FLAKY]) == [0.0]


def test_infos_say_which_term_gave_what_and_keep_the_rest() -> None:
    bare, env = small(), FormatPenalty(FormatPenalty(PlusMinusReward(small()), 0.5), 0.25)
    assert env.reset(seed=1) == bare.reset(seed=1)
    for action, terms in (("hm", (0.0, -0.75)), (WRONG, (-1.0, 0.0))):
        *_, info = env.step(action)
        *_, plain = bare.step(action)
        assert info.pop("reward_terms") == {"PlusMinusReward": terms[0], "FormatPenalty": terms[1]}
        assert info == plain
    env.close()
    bare.close()


def test_a_token_budget_is_seen_from_both_sides() -> None:
    long = "y" * 400 + RIGHT
    for env in (PlusMinusReward(TokenBudget(small(), 50)), TokenBudget(PlusMinusReward(small()), 50)):
        assert rewards(env, ["hm", long]) == [0.0, -1.0]


def test_the_spec_round_trips_with_wrappers() -> None:
    env = PerTurnReward(FormatPenalty(OverlongPenalty(gym.make("elpo/Math-v0"), 10, 20), 0.5, ["error"]), {"ok": 0.5})
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    again = gym.make(spec)
    turns = [call("1"), call("1/0"), "\\boxed{é}"]
    assert rewards(again, turns) == rewards(env, turns) == [0.5, -0.5, -1.0]


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda env: FormatPenalty(env, -1.0), r"penalty=-1.0 must be a finite number of at least 0"),
        (lambda env: FormatPenalty(env, 0.1, ["fine"]), r"kinds has the unknown kind 'fine'; choose of empty, error"),
        (lambda env: PlusMinusReward(env, wrong=float("nan")), r"wrong=nan must be a finite number"),
        (lambda env: PlusMinusReward(env, right="1"), r"right='1' must be a finite number"),
        (lambda env: ToolBonus(env, cap=True), r"cap=True must be a finite number"),
        (lambda env: OverlongPenalty(env, 20, 20), r"end_chars=20 must be greater than start_chars=20"),
        (lambda env: PerTurnReward(env, {"nice": 1.0}), r"table has the unknown kind 'nice'"),
        (lambda env: PerTurnReward(env, {"ok": float("inf")}), r"table\['ok'\]=inf must be a finite number"),
    ],
)
def test_wrong_arguments(wrap: Wrap, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap(small())
