"""Advantages on trees: against a literal transcription of the equations, and by their properties."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from _scripted import broken, lost, tree_of, won
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_agent.credit import GroupRelativeCredit, HierarchicalCredit, group_relative, hierarchical
from elpo_agent.credit.value_gap import ValueGapCredit, value_gap
from elpo_agent.tree import Outcome, RolloutTree

EPS = 1e-6
FIELDS = ("reward", "branch", "trajectory", "advantage")
# Two decimals: distinct rewards differ by far more than rounding, and ties are common.
REWARD = st.integers(-300, 300).map(lambda i: i / 100)


@st.composite
def trees(draw: st.DrawFn, max_nodes: int = 40) -> tuple[list[int], dict[int, float]]:
    """A random parent array and a reward for each leaf."""
    n = draw(st.integers(2, max_nodes))
    parent = [-1] + [draw(st.integers(max(0, i - draw(st.integers(1, i))), i - 1)) for i in range(1, n)]
    leaves = sorted(set(range(n)) - set(parent))
    return parent, {leaf: draw(REWARD) for leaf in leaves}


def literal(parent: list[int], leaf_reward: dict[int, float], lambda_tree: float, ddof: int) -> dict[str, list[float]]:
    """Equations 6-10 written down recursively, with no care for speed or rounding."""

    def children(i: int) -> list[int]:
        return [c for c, p in enumerate(parent) if p == i]

    def mean(xs: list[float]) -> float:
        return sum(xs) / len(xs)

    def std(xs: list[float]) -> float:
        return math.sqrt(sum((x - mean(xs)) ** 2 for x in xs) / (len(xs) - ddof)) if len(xs) > 1 else 0.0

    def r(i: int) -> float:  # equation 6
        return leaf_reward[i] if not children(i) else mean([r(c) for c in children(i)])

    def a_branch(i: int) -> float:  # equation 7, with inheritance
        if i == 0:
            return 0.0
        siblings = [r(c) for c in children(parent[i])]
        if len(siblings) == 1:
            return a_branch(parent[i])
        return (r(i) - mean(siblings)) / (std(siblings) + EPS)

    def below(i: int) -> list[int]:
        return [i] if not children(i) else [x for c in children(i) for x in below(c)]

    def a_leaf(i: int) -> float:  # equation 8
        rewards = list(leaf_reward.values())
        return (leaf_reward[i] - mean(rewards)) / (std(rewards) + EPS)

    def a_trajectory(i: int) -> float:  # equation 9
        return mean([a_leaf(x) for x in below(i)])

    def a(i: int) -> float:  # equation 10
        return lambda_tree * a_branch(i) + (1 - lambda_tree) * a_trajectory(i)

    nodes = range(len(parent))
    return {
        "reward": [r(i) for i in nodes],
        "branch": [a_branch(i) for i in nodes],
        "trajectory": [a_trajectory(i) for i in nodes],
        "advantage": [a(i) for i in nodes],
    }


@settings(deadline=None, max_examples=150)
@given(trees(), st.floats(0, 1), st.sampled_from([0, 1]))
def test_hierarchical_equals_the_literal_equations(
    tree: tuple[list[int], dict[int, float]], lambda_tree: float, ddof: int
) -> None:
    parent, rewards = tree
    ours = hierarchical(parent, rewards, lambda_tree, eps=EPS, ddof=ddof)
    theirs = literal(parent, rewards, lambda_tree, ddof)
    for field in FIELDS:
        value = getattr(ours, field)
        assert value.dtype == np.float64
        assert value.shape == (len(parent),)
        np.testing.assert_allclose(value, theirs[field], atol=1e-8)


@settings(deadline=None)
@given(trees())
def test_sums_and_inheritance(tree: tuple[list[int], dict[int, float]]) -> None:
    parent, rewards = tree
    credit = hierarchical(parent, rewards)
    leaves = list(rewards)
    assert credit.trajectory[leaves].sum() == pytest.approx(0, abs=1e-9)
    assert credit.trajectory[0] == pytest.approx(0, abs=1e-9)
    assert credit.branch[0] == 0
    for i in range(len(parent)):
        group = [c for c, p in enumerate(parent) if p == i]
        if len(group) == 1:
            assert credit.branch[group[0]] == credit.branch[i]
            assert credit.reward[group[0]] == credit.reward[i]
        elif group:
            assert credit.branch[group].sum() == pytest.approx(0, abs=1e-9)
            squares = float((credit.branch[group] ** 2).mean())
            equal = np.ptp(credit.reward[group]) < 1e-9
            spread = float(credit.reward[group].std())
            # The constant added to the standard deviation shows where that is small.
            assert squares == pytest.approx(0.0 if equal else (spread / (spread + 1e-6)) ** 2, abs=1e-6)
            if equal:
                assert np.all(credit.branch[group] == 0.0)


@settings(deadline=None)
@given(trees(), st.floats(0.5, 20), st.floats(-20, 20))
def test_positive_affine_reward_changes_do_not_matter(
    tree: tuple[list[int], dict[int, float]], scale: float, shift: float
) -> None:
    parent, rewards = tree
    before = hierarchical(parent, rewards, eps=0.0)
    after = hierarchical(parent, {i: scale * r + shift for i, r in rewards.items()}, eps=0.0)
    np.testing.assert_allclose(after.reward, scale * before.reward + shift, atol=1e-9)
    for field in FIELDS[1:]:
        np.testing.assert_allclose(getattr(after, field), getattr(before, field), atol=1e-6)


@settings(deadline=None)
@given(trees())
def test_negated_rewards_negate_advantages(tree: tuple[list[int], dict[int, float]]) -> None:
    parent, rewards = tree
    up = hierarchical(parent, rewards)
    down = hierarchical(parent, {i: -r for i, r in rewards.items()})
    for field in FIELDS:
        np.testing.assert_allclose(getattr(up, field), -getattr(down, field), atol=1e-12)


@settings(deadline=None)
@given(trees(), st.floats(-1e6, 1e6))
def test_equal_leaves_give_exactly_zero(tree: tuple[list[int], dict[int, float]], r: float) -> None:
    parent, rewards = tree
    credit = hierarchical(parent, dict.fromkeys(rewards, r))
    assert np.all(credit.reward == r)
    assert np.all(credit.advantage == 0.0)


def test_equal_means_in_another_order_are_equal_siblings() -> None:
    parent = [-1, 0, 0, 1, 1, 1, 2, 2, 2]
    rewards = {3: 0.1, 4: 0.2, 5: 0.7, 6: 0.7, 7: 0.1, 8: 0.2}
    assert np.all(hierarchical(parent, rewards).branch[:3] == 0.0)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
@pytest.mark.parametrize("rewards", [(1e300, -1e300), (1e-300, 0.0), (1e12, 1e12 + 1)])
def test_extreme_rewards_stay_finite(rewards: tuple[float, float], eps: float) -> None:
    credit = hierarchical([-1, 0, 0], {1: rewards[0], 2: rewards[1]}, eps=eps)
    assert np.all(np.isfinite(credit.advantage))


def test_hand_computed_tree() -> None:
    # root -> 1 -> (2 won, 3 lost); root -> 4 lost
    credit = hierarchical([-1, 0, 1, 1, 0], {2: 1.0, 3: 0.0, 4: 0.0}, 0.25, eps=0.0)
    np.testing.assert_allclose(credit.reward, [0.25, 0.5, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(credit.branch, [0, 1, 1, -1, -1])
    high, low = math.sqrt(2), -math.sqrt(0.5)
    np.testing.assert_allclose(credit.trajectory, [0, (high + low) / 2, high, low, low], atol=1e-15)
    np.testing.assert_allclose(credit.advantage, 0.25 * credit.branch + 0.75 * credit.trajectory)


@pytest.mark.parametrize(
    ("parent", "rewards", "options", "message"),
    [
        ([0, 0], {1: 1.0}, {}, r"parent\[0\]=0"),
        ([-1, 2, 1], {2: 1.0}, {}, r"parent\[1\]=2"),
        ([-1, 1], {1: 1.0}, {}, r"parent\[1\]=1"),
        ([-1, -1], {1: 1.0}, {}, r"parent\[1\]=-1"),
        ([-1], {}, {}, "root alone"),
        ([], {}, {}, "at least the root"),
        ([[-1, 0]], {1: 1.0}, {}, "one-dimensional"),
        ([-1.0, 0.0], {1: 1.0}, {}, "integers"),
        ([-1, 0, 0], {1: 1.0}, {}, "lacks node 2"),
        ([-1, 0, 1], {1: 1.0, 2: 1.0}, {}, "node 1, which has children"),
        ([-1, 0], {1: 1.0, 7: 1.0}, {}, "names node 7"),
        ([-1, 0], {1: math.nan}, {}, r"leaf_reward\[1\]=nan"),
        ([-1, 0], {1: math.inf}, {}, r"leaf_reward\[1\]=inf"),
        ([-1, 0], {1: 1.0}, {"lambda_tree": 1.5}, "lambda_tree=1.5"),
        ([-1, 0], {1: 1.0}, {"eps": -1.0}, "eps=-1.0"),
        ([-1, 0], {1: 1.0}, {"ddof": 2}, "ddof=2"),
    ],
)
def test_bad_input_is_named(
    parent: list[int], rewards: dict[int, float], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        hierarchical(parent, rewards, **options)


@pytest.mark.parametrize("shape", ["random", "chain", "star"])
def test_a_hundred_thousand_nodes_in_under_a_second(shape: str) -> None:
    n = 100_000
    rng = np.random.default_rng(0)
    index = np.arange(n)
    parent = {
        "random": np.maximum(0, index - 1 - rng.integers(0, 50, n)),
        "chain": index - 1,
        "star": np.zeros(n, dtype=np.int64),
    }[shape]
    parent[0] = -1
    leaves = np.setdiff1d(index, parent)
    rewards = dict(zip(leaves.tolist(), rng.integers(0, 2, leaves.size).astype(float).tolist(), strict=True))
    start = time.process_time()
    credit = hierarchical(parent, rewards)
    assert time.process_time() - start < 1.0
    assert np.all(np.isfinite(credit.advantage))


# --- group-relative -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(REWARD, min_size=2, max_size=40), st.sampled_from([0, 1]))
def test_group_relative_is_the_z_score(rewards: list[float], ddof: int) -> None:
    values = np.array(rewards)
    expected = (values - values.mean()) / (values.std(ddof=ddof) + EPS)
    np.testing.assert_allclose(group_relative(rewards, ddof, EPS), expected, atol=1e-8)


def test_group_relative_corner_cases() -> None:
    assert np.all(group_relative([0.1, 0.1, 0.1]) == 0.0)
    np.testing.assert_allclose(group_relative([-1.1]), [-1.1 / (1 + EPS)])
    assert group_relative([]).shape == (0,)
    with pytest.raises(ValueError, match=r"rewards\[1\]=nan"):
        group_relative([0.0, math.nan])
    with pytest.raises(ValueError, match="shape"):
        group_relative([[0.0, 1.0]])


# --- rules on trees -----------------------------------------------------------------------------------------


@st.composite
def trees_with_failures(draw: st.DrawFn) -> tuple[list[int], dict[int, Outcome]]:
    parent, rewards = draw(trees())
    outcomes = {}
    for leaf, r in rewards.items():
        kind = draw(st.sampled_from(["good", "good", "invalid", "unfinished"]))
        if kind != "unfinished":
            outcomes[leaf] = Outcome(reward=r, success=r > 0) if kind == "good" else broken()
    return parent, outcomes


def without_invalid(parent: list[int], outcomes: dict[int, Outcome]) -> tuple[list[int], RolloutTree]:
    """Kept nodes, and the tree made of them alone."""
    keep = {0}
    for leaf, outcome in outcomes.items():
        while outcome.valid and leaf > 0:
            keep.add(leaf)
            leaf = parent[leaf]
    kept = sorted(keep)
    new = {old: i for i, old in enumerate(kept)}
    return kept, tree_of(
        [-1] + [new[parent[i]] for i in kept[1:]], {new[i]: o for i, o in outcomes.items() if i in keep}
    )


@settings(deadline=None)
@given(trees_with_failures(), st.sampled_from([HierarchicalCredit(), GroupRelativeCredit()]))
def test_invalid_leaves_enter_no_statistic(
    drawn: tuple[list[int], dict[int, Outcome]], rule: HierarchicalCredit | GroupRelativeCredit
) -> None:
    parent, outcomes = drawn
    credit = rule.assign(tree_of(parent, outcomes))
    kept, small = without_invalid(parent, outcomes)
    dropped = sorted(set(range(len(parent))) - set(kept))
    expected = rule.assign(small)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(credit, field)[kept], getattr(expected, field))
        assert np.all(getattr(credit, field)[dropped] == 0.0)


@settings(deadline=None)
@given(trees())
def test_rules_that_take_chains_for_single_nodes_lose_nothing(tree: tuple[list[int], dict[int, float]]) -> None:
    parent, rewards = tree
    grown = tree_of(parent, {leaf: Outcome(reward=r, success=r > 0) for leaf, r in rewards.items()})
    for credit, expected in (
        (HierarchicalCredit(0.3, ddof=1).assign(grown), hierarchical(parent, rewards, 0.3, ddof=1)),
        (ValueGapCredit(0.3).assign(grown), value_gap(parent, rewards, 0.3)),
    ):
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(credit, field), getattr(expected, field))


def test_invalid_sibling_leaves_an_only_child_that_inherits() -> None:
    # root -> 1 -> (2 won, 3 broken); root -> 4 lost
    tree = tree_of([-1, 0, 1, 1, 0], {2: won(), 3: broken(), 4: lost()})
    credit = HierarchicalCredit(eps=0.0).assign(tree)
    np.testing.assert_allclose(credit.advantage, [0, 1, 1, 0, -1])


@pytest.mark.parametrize("rule", [HierarchicalCredit(), GroupRelativeCredit()])
def test_nothing_valid_gives_zeros(rule: HierarchicalCredit | GroupRelativeCredit) -> None:
    for tree in (RolloutTree("empty", (1,)), tree_of([-1, 0, 1, 0], {2: broken(), 3: broken()})):
        credit = rule.assign(tree)
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(credit, field), np.zeros(len(tree.nodes)))


@pytest.mark.parametrize("rule", [HierarchicalCredit(), GroupRelativeCredit()])
def test_a_reward_that_is_no_number_is_named(rule: HierarchicalCredit | GroupRelativeCredit) -> None:
    with pytest.raises(ValueError, match="node 1 of task 'built'"):
        rule.assign(tree_of([-1, 0], {1: won(math.nan)}))


def test_group_relative_credit_spreads_a_trajectorys_score_over_its_steps() -> None:
    tree = tree_of([-1, 0, 1, 0, 0], {2: won(), 3: lost(), 4: lost()})
    credit = GroupRelativeCredit().assign(tree)
    a = group_relative([1.0, 0.0, 0.0])
    np.testing.assert_allclose(credit.advantage, [0, a[0], a[0], a[1], a[2]], atol=1e-15)


def test_hierarchical_without_branch_level_is_group_relative_on_independent_rollouts() -> None:
    tree = tree_of([-1, 0, 1, 0, 0, 4], {2: won(), 3: lost(), 5: won(0.5)})
    for ddof in (0, 1):
        np.testing.assert_array_equal(
            HierarchicalCredit(lambda_tree=0.0, ddof=ddof).assign(tree).advantage,
            GroupRelativeCredit(ddof=ddof).assign(tree).advantage,
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HierarchicalCredit(lambda_tree=-0.1), "lambda_tree=-0.1"),
        (lambda: HierarchicalCredit(eps=math.nan), "eps=nan"),
        (lambda: GroupRelativeCredit(ddof=3), "ddof=3"),
    ],
)
def test_bad_coefficients_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
