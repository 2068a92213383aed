"""The complete 16-rollout tree of the paper's Figure 4: credit, clip scope, and the search that grew it."""

from __future__ import annotations

import numpy as np
import pytest
from _fig4 import FIRST_ALL_FAILED, LAMBDA_TREE, LEAF_REWARDS, N_TOTAL, NODES, ROLLOUT_ORDER
from _scripted import Script, ScriptedExpander, grow

from elpo_agent.credit import HierarchicalCredit, hierarchical
from elpo_agent.objective import ErrorLocalizedClipping, first_all_failed
from elpo_agent.rollout import BinaryErrorLocalization, SearchResult
from elpo_agent.tree import Outcome, RolloutTree

INDEX = {"root": 0} | {node.name: i for i, node in enumerate(NODES, start=1)}
PARENT = np.array([-1] + [INDEX[node.parent] for node in NODES])
LEAVES = {node.leaves[0]: INDEX[node.name] for node in NODES if node.name not in {other.parent for other in NODES}}
REWARDS = {LEAVES[i]: LEAF_REWARDS[i] for i in range(N_TOTAL)}

# Mean entropy of each turn of rollout i, chosen so that the suffix counts come out as in the figure: a rise
# of 0 after a tool result asks for 2 suffixes, a rise of 1 for 3; rollouts 0 and 5 rise most of their three.
TURNS: dict[int, tuple[float, ...]] = {
    0: (0.5, 0.5, 1.5),
    1: (0.5, 0.2),
    2: (0.5,),
    3: (0.4, 0.4),
    4: (0.4, 0.4),
    5: (0.5, 0.5, 1.5),
    6: (0.5, 0.6, 0.7),
    7: (0.5, 0.6, 0.6),
    8: (0.3,),
    9: (0.3, 0.3),
    10: (0.6,),
    11: (0.6,),
    12: (0.6,),
    13: (0.5,),
    14: (0.5,),
    15: (0.5, 0.6, 0.6, 0.6),
}


@pytest.fixture(scope="module")
def grown() -> tuple[ScriptedExpander, SearchResult]:
    def write(tree: RolloutTree, node: int, made: int) -> Script:
        reward = LEAF_REWARDS[made]
        return Script(TURNS[made], Outcome(reward=reward, success=made in (8, 9)))

    return grow(BinaryErrorLocalization(n_total=N_TOTAL, search="inclusive"), write)


def figure_name(tree: RolloutTree, node: int) -> str:
    """The figure's node with the same step and the same rollouts below it."""
    rank = {leaf: i for i, leaf in enumerate(tree.leaves)}
    below = tuple(sorted(rank[i] for i in tree.subtree(node) if i in rank))
    (name,) = [n.name for n in NODES if n.leaves == below and n.step == tree.nodes[node].depth]
    return name


def test_the_copy_of_the_figure_is_consistent() -> None:
    assert len(NODES) == 31
    assert sorted(LEAVES) == list(range(N_TOTAL))
    assert sorted(leaf for group in FIRST_ALL_FAILED for leaf in group) == [
        i for i in range(N_TOTAL) if LEAF_REWARDS[i] < 0
    ]


@pytest.mark.parametrize("field", ["reward", "branch", "trajectory", "advantage"])
def test_every_value_of_every_node_to_three_decimals(field: str) -> None:
    credit = hierarchical(PARENT, REWARDS, LAMBDA_TREE)
    ours = {node.name: f"{getattr(credit, field)[INDEX[node.name]]:.3f}" for node in NODES}
    theirs = {node.name: f"{getattr(node, field):.3f}" for node in NODES}
    assert ours == theirs


def test_fourteen_first_all_failed_assignments() -> None:
    failed = [LEAVES[i] for i in range(N_TOTAL) if LEAF_REWARDS[i] < 0]
    first = first_all_failed(PARENT, failed)
    assert len(first) == 14
    groups: dict[int, list[int]] = {}
    for i in range(N_TOTAL):
        if LEAVES[i] in first:
            groups.setdefault(first[LEAVES[i]], []).append(i)
    assert sorted(tuple(g) for g in groups.values()) == sorted(FIRST_ALL_FAILED)
    names = {NODES[node - 1].name for node in groups}
    assert names == {"a", "b", "c", "d5", "e6_1", "e7_1", "e13", "e14", "e15_1"}


def test_inclusive_search_makes_the_rollouts_in_the_figures_order(
    grown: tuple[ScriptedExpander, SearchResult],
) -> None:
    expander, result = grown
    tree = expander.tree
    rank = {leaf: i for i, leaf in enumerate(tree.leaves)}
    reference = {a.node: rank[loc.reference] for loc in result.localizations for a in loc.anchors}
    made = 0
    order = []
    for node, asked, granted in expander.requests:
        assert asked == granted
        order.append((tree.nodes[node].depth, reference.get(node), tuple(range(made, made + granted))))
        made += granted
    assert tuple(order) == ROLLOUT_ORDER
    assert expander.budget.left == 0


def test_inclusive_search_finds_the_figures_anchors_and_critical_steps(
    grown: tuple[ScriptedExpander, SearchResult],
) -> None:
    expander, result = grown
    tree = expander.tree
    rank = {leaf: i for i, leaf in enumerate(tree.leaves)}
    seen = [
        (
            rank[loc.reference],
            loc.n_candidates,
            [(a.step, figure_name(tree, a.node), [rank[p] for p in a.probes], a.recovered) for a in loc.anchors],
            loc.critical_step,
            figure_name(tree, loc.critical_node or 0),
            loc.closed,
        )
        for loc in result.localizations
    ]
    assert seen == [
        (0, 2, [(1, "a", [3, 4], False)], 1, "a", True),
        (5, 2, [(1, "d", [8, 9], True), (2, "d5", [10, 11, 12], False)], 2, "d5", True),
        # The budget is spent, so this one is chosen but never probed.
        (15, 3, [], 1, "e15_1", False),
    ]


def test_credit_of_the_tree_the_search_grew(grown: tuple[ScriptedExpander, SearchResult]) -> None:
    tree = grown[0].tree
    credit = HierarchicalCredit().assign(tree)
    names = {i: figure_name(tree, i) for i in range(1, len(tree.nodes))}
    assert sorted(names.values()) == sorted(node.name for node in NODES)
    printed = {node.name: node for node in NODES}
    for i, name in names.items():
        assert round(float(credit.reward[i]), 3) == printed[name].reward
        assert round(float(credit.branch[i]), 3) == printed[name].branch
        assert round(float(credit.trajectory[i]), 3) == printed[name].trajectory
        assert round(float(credit.advantage[i]), 3) == printed[name].advantage


@pytest.mark.parametrize(
    ("scope", "relaxed"),
    [
        ("critical", {0, 3, 4, 5, 10, 11, 12, 15}),
        ("first_all_failed", set(range(16)) - {8, 9}),
    ],
)
def test_relaxed_bounds_on_the_figures_tree(
    grown: tuple[ScriptedExpander, SearchResult], scope: str, relaxed: set[int]
) -> None:
    expander, result = grown
    tree = expander.tree
    bounds = ErrorLocalizedClipping(scope=scope).bounds(tree, result)  # type: ignore[arg-type]
    assert np.all(bounds.high == 0.315)
    assert {i for i, leaf in enumerate(tree.leaves) if bounds.low[leaf] > 0.3} == relaxed
    low = {figure_name(tree, i): bounds.low[i] for i in range(1, len(tree.nodes))}
    assert low["d"] == low["d8"] == low["d9"] == low["d9x"] == 0.2
    assert low["a"] == low["d5"] == low["e15_4"] == pytest.approx(0.315)
