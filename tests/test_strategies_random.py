"""Random prefixes and random expansions: shapes, uniformity, and what belongs to which tree."""

from __future__ import annotations

from collections import Counter

import pytest
from _scripted import Script, Writer, broken, grow, lost, won
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_agent.rollout import BinaryErrorLocalization, RandomExpansion, RandomPrefixes
from elpo_agent.tree import RolloutTree


def failing(k: int, entropies: tuple[float, ...] = ()) -> Writer:
    """Trajectories of k tool steps that fail, wherever they start; `entropies` of the first turns, else 0.5."""

    def write(tree: RolloutTree, node: int, made: int) -> Script:
        turns = (*entropies, *(0.5,) * (k + 1))[tree.nodes[node].depth : k + 1]
        return Script(turns, lost())

    return write


# --- random prefixes ----------------------------------------------------------------------------------------


def test_random_prefixes_have_bels_shape() -> None:
    """Three failures, then floor(log2 10) + 1 = 4 different anchors of 2 suffixes each (sigmoid(0) = 1/2); again."""
    expander, result = grow(RandomPrefixes(n_total=22), failing(10), seed=3)
    assert [n for _, n, _ in expander.requests] == [3, 2, 2, 2, 2, 3, 2, 2, 2, 2]
    for found in result.localizations:
        steps = [anchor.step for anchor in found.anchors]
        assert len(steps) == len(set(steps)) == 4
        assert all(1 <= m <= 10 for m in steps)
        path = expander.tree.path(found.reference)
        assert [anchor.node for anchor in found.anchors] == [path[m - 1] for m in steps]
        assert all(anchor.recovered is False for anchor in found.anchors)
        assert (found.critical_step, found.critical_node, found.closed) == (None, None, False)
    # the reference and its suffix counts are BEL's
    _, searched = grow(BinaryErrorLocalization(n_total=22), failing(10))
    assert result.localizations[0].reference == searched.localizations[0].reference


def test_suffix_counts_follow_the_entropy_at_the_anchor() -> None:
    # after the first result entropy rises by 1: 3 suffixes; elsewhere it falls: 1
    expander, result = grow(RandomPrefixes(n_total=12, b_max=1), failing(2, (2.0, 3.0, 1.0)), seed=1)
    first = result.localizations[0]
    assert {anchor.step: len(anchor.probes) for anchor in first.anchors} == {1: 3, 2: 1}
    assert expander.requests[0] == (0, 1, 1)


def test_anchors_are_uniform_and_follow_the_seed() -> None:
    counts: Counter[int] = Counter()
    for seed in range(600):
        _, result = grow(RandomPrefixes(n_total=3, b_max=1), failing(4), seed=seed)
        counts[result.localizations[0].anchors[0].step] += 1
    assert set(counts) == {1, 2, 3, 4}
    assert all(110 < n < 195 for n in counts.values())  # 150 expected, standard deviation 11
    one, again, other = (grow(RandomPrefixes(n_total=20), failing(9), seed=s)[0].requests for s in (5, 5, 6))
    assert one == again != other


def test_random_prefixes_without_tools_or_failures() -> None:
    expander, result = grow(RandomPrefixes(n_total=6), failing(0))
    assert expander.requests == [(0, 3, 3), (0, 3, 3)]
    assert all(found.n_candidates == 0 for found in result.localizations)
    _, result = grow(RandomPrefixes(n_total=6), lambda t, n, made: Script((0.5, 0.5), won()))
    assert result.localizations == ()


# --- random expansions --------------------------------------------------------------------------------------


def test_the_shape_of_random_expansion() -> None:
    expander, _ = grow(RandomExpansion(), failing(4), seed=2)
    tree = expander.tree
    assert expander.requests[0] == (0, 4, 4)
    assert sum(granted for _, _, granted in expander.requests[1:]) == 12
    assert sorted(tree.groups) == sorted(tree.leaves)
    assert Counter(tree.groups.values()) == {0: 4, 1: 4, 2: 4, 3: 4}
    # a leaf that leaves a chain belongs to that chain's tree
    assert [tree.groups[leaf] for leaf in tree.leaves[:4]] == [0, 1, 2, 3]
    owner = {tree.path(leaf)[0]: number for number, leaf in enumerate(tree.leaves[:4])}
    for leaf, group in tree.groups.items():
        assert owner.get(tree.path(leaf)[0], group) == group


def test_later_rounds_expand_what_earlier_ones_grew() -> None:
    strategy = RandomExpansion(n_total=2 * (1 + 5 * 4), chains=2, expansions=5, rounds=4)
    expander, _ = grow(strategy, failing(6), seed=0)
    seeds = {node for leaf in expander.tree.leaves[:2] for node in expander.tree.path(leaf)}
    grown_later = {node for node, _, _ in expander.requests if node} - seeds
    assert grown_later
    assert Counter(expander.tree.groups.values()) == {0: 21, 1: 21}


def test_expansions_are_uniform_over_the_prompt_and_inner_nodes() -> None:
    counts: Counter[int] = Counter()
    for seed in range(800):
        strategy = RandomExpansion(n_total=2, chains=1, expansions=1)
        expander, _ = grow(strategy, failing(3), seed=seed)
        counts[expander.requests[1][0]] += 1
    assert set(counts) == {0, 1, 2, 3}  # node 4 is the leaf
    assert all(155 < n < 245 for n in counts.values())  # 200 expected, standard deviation 12


def test_keep_drops_leaves_that_were_paid_for() -> None:
    strategy = RandomExpansion(n_total=12, chains=2, expansions=5, keep=3)
    expander, _ = grow(strategy, failing(3), seed=4)
    assert len(expander.tree.leaves) == 12
    assert Counter(expander.tree.groups.values()) == {0: 3, 1: 3}
    assert set(expander.tree.groups) < set(expander.tree.leaves)


def test_invalid_chains_are_neither_expanded_nor_kept() -> None:
    def write(tree: RolloutTree, node: int, made: int) -> Script:
        return Script((0.5,) * (4 - tree.nodes[node].depth), broken() if made == 0 else lost())

    for seed in range(20):
        expander, _ = grow(RandomExpansion(n_total=8, chains=2), write, seed=seed)
        assert not {1, 2, 3} & {node for node, _, _ in expander.requests}
        assert expander.tree.leaves[0] not in expander.tree.groups
        assert Counter(expander.tree.groups.values()) == {0: 3, 1: 4}


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 4), st.integers(0, 3), st.integers(0, 99))
def test_a_small_budget_cuts_the_shape(n: int, chains: int, expansions: int, rounds: int, seed: int) -> None:
    strategy = RandomExpansion(n, chains, expansions, rounds)
    expander, _ = grow(strategy, failing(3), seed=seed)
    assert len(expander.tree.leaves) == min(n, chains * (1 + expansions * rounds))
    assert len(expander.tree.groups) == len(expander.tree.leaves)


def test_errors_are_named() -> None:
    for options, message in (
        ({"chains": 0}, "chains=0"),
        ({"expansions": -1}, "expansions=-1"),
        ({"rounds": -1}, "rounds=-1"),
        ({"keep": 0}, "keep=0"),
    ):
        with pytest.raises(ValueError, match=message):
            RandomExpansion(**options)
    with pytest.raises(ValueError, match="b_max=0"):
        RandomPrefixes(b_max=0)
