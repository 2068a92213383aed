"""Credit rules and reward rules one by one: small cases by hand, edges, and wrong input."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from _formula_batch import BROKEN, CHAINS, LOST, OK, TREES, WON, End, Turn, build
from _scripted import lost, tree_of, won

from elpo_agent.credit import GroupRelativeCredit
from elpo_agent.credit.base import leaf_credits
from elpo_agent.credit.rewards import (
    FormatScores,
    LastExecutionPenalty,
    OverlongPenalty,
    RewardRule,
    SuccessReward,
    TurnBonus,
    TurnRewards,
    response_tokens,
    rewarded,
)
from elpo_agent.credit.step_groups import StepGroupCredit, discounted_returns
from elpo_agent.credit.trajectories import LeaveOneOutCredit, TrajectoryCredit, TreeGroupCredit, leave_one_out
from elpo_agent.credit.value_gap import ValueGapCredit, value_gap
from elpo_agent.credit.whitening import WhitenedCredit, returns_to_go, whiten
from elpo_agent.credit.wrappers import (
    EntropyScaled,
    PositivesWeighted,
    Rewarded,
    TurnAdvantages,
    WithoutVoidTurns,
    with_rule,
)

# --- rewards --------------------------------------------------------------------------------------------------


def leaf_reward(rule: RewardRule, turns: list[Turn], leaf: int) -> float:
    tree = build(0, turns)
    return rule.reward(tree, leaf, tree.outcome(leaf).reward)


def test_overlong_at_its_edges() -> None:
    """L = 10, buffer 4: nothing up to 6 tokens, -1 at 10, tool tokens counted, those after the last turn not."""
    for tokens, expected in ((1, 0.0), (2, 0.0), (3, -0.25), (6, -1.0), (8, -1.5)):
        turns = [Turn(0, 2, OK), Turn(1, tokens, (9, 9, 9), end=End(0.5))]
        assert response_tokens(build(0, turns), 2) == 4 + tokens
        assert leaf_reward(OverlongPenalty(10, 4), turns, 2) == 0.5 + expected
    assert leaf_reward(OverlongPenalty(10, 4, penalty=0.0), turns, 2) == 0.5


def test_only_the_last_execution_counts_for_torl() -> None:
    def turns(*kinds: tuple[str, ...]) -> list[Turn]:
        chain = [Turn(i, 1, OK, k) for i, k in enumerate(kinds)]
        return [*chain, Turn(len(chain), 1, end=WON)]

    rule = LastExecutionPenalty(0.5)
    for kinds, expected in (
        ([("error",), ("ok",)], 1.0),
        ([("ok",), ("error",)], 0.5),
        ([("ok", "timeout")], 0.5),
        ([("timeout", "empty")], 1.0),
        ([("error",), ("no_action",)], 0.5),
        ([], 1.0),
    ):
        assert leaf_reward(rule, turns(*kinds), len(kinds) + 1) == expected, kinds


def test_demyagents_meant_reward_rises_with_tool_turns_to_its_cap() -> None:
    def chain(n: int, end: End) -> list[Turn]:
        return [*(Turn(i, 1, OK) for i in range(n - 1)), Turn(n - 1, 1, end=end)]

    for n, expected in ((1, -1.0), (2, -0.9), (4, -0.7), (5, -0.6), (9, -0.6)):
        assert leaf_reward(TurnBonus(count_turns=True), chain(n, LOST), n) == pytest.approx(expected, abs=1e-12)
        assert leaf_reward(TurnBonus(), chain(n, LOST), n) == -1.1
        assert leaf_reward(TurnBonus(), chain(n, WON), n) == 1.0


def test_format_scores() -> None:
    bad, good = ("malformed_call",), ("error",)
    for kinds, end, expected in (
        (good, WON, 1.0),
        (bad, WON, 0.8),
        (good, LOST, 0.2),
        (bad, LOST, 0.1),
        (bad, End(0.0, answer=None), 0.0),
    ):
        turns = [Turn(0, 1, OK, kinds), Turn(1, 1, end=end)]
        assert leaf_reward(FormatScores(), turns, 2) == pytest.approx(expected, abs=1e-12)


def test_turn_rewards_go_to_their_turns() -> None:
    turns = [
        Turn(0, 1, OK, ("error", "error", "timeout"), reward=0.5),
        Turn(1, 1, OK, ("ok",)),
        Turn(2, 1, kinds=("error",), end=WON),
        Turn(0, 1, kinds=("error",), end=BROKEN),
    ]
    tree = build(0, turns)
    changed = rewarded(tree, (TurnRewards({"error": -0.25, "timeout": -0.125}),))
    assert [n.step.reward for n in changed.nodes[1:3] if n.step] == [0.5 - 0.25 - 0.125, 0.0]
    assert changed.outcome(3).reward == 0.75
    assert changed.outcome(4) == tree.outcome(4)
    assert changed.leaf_return(3) == pytest.approx(0.875)
    assert tree.leaf_return(3) == 1.5  # as it was


def test_rules_apply_in_order_and_a_further_one_comes_last() -> None:
    first = Rewarded((SuccessReward(1.0, -1.0),), GroupRelativeCredit())
    for credit in (first, PositivesWeighted(first, 2.0), WithoutVoidTurns(EntropyScaled(TurnAdvantages(first, {})))):
        longer = with_rule(credit, TurnRewards({"error": -0.5}))
        inner = longer
        while not isinstance(inner, Rewarded):
            inner = inner.inner  # type: ignore[union-attr]
        assert inner.rules == (SuccessReward(1.0, -1.0), TurnRewards({"error": -0.5}))
    assert with_rule(GroupRelativeCredit(), SuccessReward()) == Rewarded((SuccessReward(),), GroupRelativeCredit())
    # The turn's reward survives the outcome's replacement.
    tree = rewarded(build(0, [Turn(0, 1, kinds=("error",), end=WON)]), inner.rules)
    assert tree.leaf_return(1) == 0.5


def test_wrong_rules_are_named() -> None:
    with pytest.raises(ValueError, match="overlong_buffer=5 with overlong_length=5"):
        OverlongPenalty(5, 5)
    with pytest.raises(ValueError, match="overlong_penalty=nan"):
        OverlongPenalty(9, 5, math.nan)
    with pytest.raises(ValueError, match="wrong=inf must be a finite reward"):
        SuccessReward(1.0, math.inf)
    with pytest.raises(ValueError, match=r"form=1\.5 is no score"):
        FormatScores(1.5)
    with pytest.raises(ValueError, match="no kind 'slow'"):
        TurnRewards({"slow": -1.0})
    with pytest.raises(ValueError, match=r"turn_rewards\['ok'\]=True is no finite number"):
        TurnRewards({"ok": True})


# --- wrappers -------------------------------------------------------------------------------------------------


def flat(credited: list) -> list[float]:  # type: ignore[type-arg]
    return [float(a) for leaves in credited for leaf in leaves for a in leaf.advantages]


def test_void_turns_leave_the_row_out_but_not_the_reward() -> None:
    trees = [build(p, turns) for p, turns in enumerate(CHAINS)]
    plain = leaf_credits(GroupRelativeCredit(), trees)
    kept = leaf_credits(WithoutVoidTurns(GroupRelativeCredit()), trees)
    assert [given.leaf for given in plain[2]] == [4, 6, 8, 11]
    assert [given.leaf for given in kept[2]] == [8, 11]
    by_leaf = {given.leaf: given for given in plain[2]}
    for given in kept[2]:
        assert given.advantages.tolist() == by_leaf[given.leaf].advantages.tolist()
    assert [len(leaves) for leaves in kept] == [4, 3, 2, 1, 0]


def test_positive_advantages_alone_are_weighted() -> None:
    trees = [build(p, turns) for p, turns in enumerate(TREES)]
    before = flat(leaf_credits(TrajectoryCredit(), trees))
    after = flat(leaf_credits(PositivesWeighted(TrajectoryCredit(), 1.6), trees))
    assert after == [a * 1.6 if a > 0 else a for a in before]
    assert min(before) < 0 < max(before)


def test_a_turns_feedback_moves_its_own_advantage_alone() -> None:
    """Turns of 1, 2, 1 | 1, 3 tokens worth -1, 0, 0 | -1.5, 0: mean -0.5, in a prompt where nothing else differs."""
    first = [Turn(0, 1, OK, ("error", "error")), Turn(1, 2, OK, ("ok",)), Turn(2, 1, end=LOST)]
    second = [Turn(0, 1, OK, ("error", "timeout")), Turn(4, 3, end=LOST)]
    tree = build(0, [*first, *second])
    credit = TurnAdvantages(GroupRelativeCredit(), {"error": -1.0, "timeout": -0.5})
    by_leaf = {given.leaf: given.advantages.tolist() for given in credit.assign_batch([tree])[0]}
    assert by_leaf == {3: [-0.5, 0.5, 0.5, 0.5], 5: [-1.0, 0.5, 0.5, 0.5]}
    mixed = build(0, [*first[:2], Turn(2, 1, end=WON), *second])
    plain = flat(leaf_credits(GroupRelativeCredit(), [mixed]))
    assert flat(leaf_credits(credit, [mixed])) == [
        a + f for a, f in zip(plain, [-0.5, 0.5, 0.5, 0.5, -1.0, 0.5, 0.5, 0.5], strict=True)
    ]
    same = TurnAdvantages(GroupRelativeCredit(), {"ok": 0.1, "error": 0.1, "timeout": 0.1})
    alike = build(0, [Turn(0, 1, OK, (kind,), end=LOST) for kind in ("ok", "error", "timeout")])
    assert flat(leaf_credits(same, [alike])) == [0.0, 0.0, 0.0]  # equal turns: exactly nothing
    broken = build(0, [Turn(0, 1, OK, end=BROKEN)])
    assert leaf_credits(credit, [broken]) == [[]]


def test_equal_entropies_scale_nothing() -> None:
    tree = tree_of([-1, 0, 0], {1: won(), 2: lost()})
    for node in tree.nodes[1:]:
        assert node.step is not None
        node.step = replace(node.step, entropies=np.full(2, 0.7, dtype=np.float32))
    assert flat(leaf_credits(EntropyScaled(TrajectoryCredit(), 5.0), [tree])) == flat(
        leaf_credits(TrajectoryCredit(), [tree])
    )
    assert leaf_credits(EntropyScaled(TrajectoryCredit()), []) == []


def test_wrappers_ask_for_a_reference_where_the_rule_inside_does() -> None:
    inner = WhitenedCredit(kl_coef=0.1)
    for credit in (Rewarded((), inner), PositivesWeighted(inner), EntropyScaled(inner), WithoutVoidTurns(inner)):
        assert credit.needs_reference
        assert not replace(credit, inner=WhitenedCredit(kl_coef=0.0)).needs_reference
        assert not replace(credit, inner=GroupRelativeCredit()).needs_reference


# --- per trajectory -------------------------------------------------------------------------------------------


def test_leave_one_out_by_hand() -> None:
    assert leave_one_out([1.0, 0.0, 0.0]).tolist() == pytest.approx([1.0, -0.5, -0.5])
    assert leave_one_out([0.1, 0.1, 0.1]).tolist() == [0.0, 0.0, 0.0]
    assert leave_one_out([0.7]).tolist() == [0.7]
    assert leave_one_out([]).tolist() == []


def test_a_leaf_that_the_strategy_dropped_is_in_no_statistic() -> None:
    """As if it had never been sampled, for every rule."""
    turns = [Turn(0, 1, end=WON), Turn(0, 1, end=LOST), Turn(0, 2, end=End(5.0)), Turn(0, 1, end=LOST)]
    rules = (TrajectoryCredit(), LeaveOneOutCredit(), TreeGroupCredit(), StepGroupCredit(), GroupRelativeCredit())
    for credit in (*rules, ValueGapCredit(), WhitenedCredit(kl_coef=0.0)):
        kept = leaf_credits(credit, [build(0, turns, {1: 0, 2: 0, 4: 1})])
        fewer = leaf_credits(credit, [build(0, [turns[0], turns[1], turns[3]], {1: 0, 2: 0, 3: 1})])
        assert [given.leaf for given in kept[0]] == [1, 2, 4]
        assert flat(kept) == flat(fewer)


def test_tree_groups_by_hand() -> None:
    """Rewards 1 0 | 1 1: z of all (ddof 1, s = 0.5) is 0.5, -1.5, 0.5, 0.5; in the first tree 0.7071 and -0.7071."""
    turns = [Turn(0, 1, end=e) for e in (WON, LOST, WON, WON)]
    credit = TreeGroupCredit(eps=0.0)
    groups = {1: 0, 2: 0, 3: 1, 4: 1}
    half = 1 / math.sqrt(2)
    assert flat(leaf_credits(credit, [build(0, turns, groups)])) == pytest.approx([0.5 + half, -1.5 - half, 0.5, 0.5])
    assert flat(leaf_credits(credit, [build(0, turns)])) == pytest.approx([1.0, -3.0, 1.0, 1.0])


def test_a_reward_that_is_not_finite_is_refused() -> None:
    tree = tree_of([-1, 0, 0], {1: won(math.nan), 2: lost()})
    for credit in (TrajectoryCredit(), LeaveOneOutCredit(), TreeGroupCredit(), StepGroupCredit(), WhitenedCredit(0.0)):
        with pytest.raises(ValueError, match="reward=nan of node 1 of task 'built' is not finite"):
            leaf_credits(credit, [tree])


# --- per token ------------------------------------------------------------------------------------------------


def test_returns_to_go_by_hand() -> None:
    steps = returns_to_go([np.array([-1.0, -2.0]), np.zeros(0), np.array([-4.0])], [10.0, 20.0, 30.0])
    assert [s.tolist() for s in steps] == [[53.0, 54.0], [], [26.0]]


def test_whitening_by_hand() -> None:
    assert whiten(np.array([1.0, 3.0])).tolist() == [-1.0, 1.0]
    assert whiten(np.array([1.0, 3.0]), unbiased=True) == pytest.approx(
        [-1 / math.sqrt(2 + 1e-8), 1 / math.sqrt(2 + 1e-8)]
    )
    tiny = whiten(np.array([0.0, 2e-6]))
    assert tiny.tolist() == pytest.approx([-0.01, 0.01])  # the variance's floor of 1e-8
    for equal in (np.full(3, 0.1), np.array([5.0]), np.zeros(0)):
        assert whiten(equal).tolist() == [0.0] * equal.size
        assert whiten(equal, unbiased=True).tolist() == [0.0] * equal.size


def test_the_kl_penalty_needs_its_reference() -> None:
    with pytest.raises(ValueError, match=r"kl_coef=0\.01 needs the reference policy's"):
        WhitenedCredit().assign_batch([build(0, CHAINS[0])])
    with pytest.raises(ValueError, match="kl_coef=-1"):
        WhitenedCredit(kl_coef=-1)


# --- steps and trees ------------------------------------------------------------------------------------------


def test_discounted_returns_by_hand() -> None:
    assert discounted_returns([1.0, 0.0, 4.0], 0.5) == [2.0, 2.0, 4.0]
    assert discounted_returns([], 0.5) == []


def test_a_penalty_is_not_blown_up_where_rewards_are_equal() -> None:
    turns = [Turn(0, 1, OK), Turn(1, 1, (80,), ("no_action",)), Turn(2, 1, end=LOST), Turn(0, 1, end=LOST)]
    given = flat(leaf_credits(StepGroupCredit(norm="mean_std_norm"), [build(0, turns)]))
    assert given == pytest.approx([0.0, -0.1, 0.0, 0.0], abs=1e-6)


def test_wrong_step_group_options_are_named() -> None:
    for options, message in (
        ({"gamma": 1.5}, r"gamma=1\.5"),
        ({"norm": "std"}, "norm='std' is unknown"),
        ({"omega": -1.0}, r"omega=-1\.0"),
        ({"invalid_penalty": math.inf}, "invalid_penalty=inf"),
        ({"eps": -1.0}, r"eps=-1\.0"),
        ({"similarity": 1.0}, r"similarity=1\.0 is no ratio"),
    ):
        with pytest.raises(ValueError, match=message):
            StepGroupCredit(**options)


def test_value_gap_by_hand() -> None:
    """Root with leaves 2 and 3 under node 1, and leaf 4: rewards 1, 0 and 0, mean 1/3, sigma sqrt(2)/3."""
    credit = value_gap([-1, 0, 1, 1, 0], {2: 1.0, 3: 0.0, 4: 0.0}, eps=0.0)
    unit = math.sqrt(2) / 3
    assert credit.reward.tolist() == [0.25, 0.5, 1.0, 0.0, 0.0]
    assert credit.branch.tolist() == pytest.approx([0.0, 0.5 / unit, 1 / unit, -1 / unit, -0.5 / unit])
    below = [1 / 3, 0.5, 1.0, 0.0, 0.0]
    assert credit.trajectory.tolist() == pytest.approx([(v - 1 / 3) / unit for v in below])
    assert credit.advantage.tolist() == pytest.approx((0.5 * (credit.branch + credit.trajectory)).tolist())
    with pytest.raises(ValueError, match="leaf_reward lacks node 4"):
        value_gap([-1, 0, 1, 1, 0], {2: 1.0, 3: 0.0})
    with pytest.raises(ValueError, match=r"lambda_tree=2\.0"):
        ValueGapCredit(2.0)
