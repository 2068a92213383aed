"""Entropies, suffix counts, and the binary search over scripted policies of known recoverability."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from _scripted import Script, Writer, broken, grow, lost, step, tree_of, won
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_agent.rollout import BinaryErrorLocalization, Budget, IndependentSampling, SearchResult
from elpo_agent.rollout.entropy import path_entropy, suffix_count, tool_steps
from elpo_agent.tree import Outcome, RolloutTree, Step

# --- entropy ------------------------------------------------------------------------------------------------


def test_path_entropy_uses_the_turn_after_each_tool_result() -> None:
    tree = RolloutTree("t", (1,))
    node = 0
    for values in ([1.0, 3.0], [0.5, 0.5, 2.0], [4.0]):
        turn = Step((7,) * len(values), np.zeros(len(values), np.float32), np.array(values, np.float32), (9, 9))
        node = tree.add(node, turn, outcome=lost() if values == [4.0] else None)
    h = path_entropy(tree, node)
    assert tool_steps(tree, node) == [1, 2]
    assert h.root == 2.0
    assert h.after_tool == (1.0, 4.0)
    assert h.rise == 0.5
    first = path_entropy(tree, node, window=2)
    assert (first.root, first.after_tool) == (2.0, (0.5, 4.0))
    alone = path_entropy(tree, 1)
    assert (alone.root, alone.after_tool, alone.rise) == (2.0, (), None)


def test_the_last_step_is_no_candidate_even_when_it_called_a_tool() -> None:
    tree = RolloutTree("t", (1,))
    first = tree.add(0, step(0.5))
    cut = Step((1,), np.zeros(1, np.float32), np.zeros(1, np.float32), feedback_ids=(9,), tool_calls=1)
    leaf = tree.add(first, cut, outcome=Outcome(0.0, False, truncated=True))
    assert tool_steps(tree, leaf) == [first]


def test_entropy_errors_are_named() -> None:
    tree = tree_of([-1, 0], {1: lost()})
    with pytest.raises(ValueError, match="entropy_window=0"):
        path_entropy(tree, 1, window=0)
    with pytest.raises(ValueError, match="leaf=0"):
        path_entropy(tree, 0)
    bad = RolloutTree("t", (1,))
    bad.add(0, Step((1,), np.zeros(1, np.float32), np.array([np.nan], np.float32)), outcome=lost())
    with pytest.raises(ValueError, match="node 1 of task 't'"):
        path_entropy(bad, 1)
    empty = np.zeros(0, np.float32)
    silent = RolloutTree("t", (1,))
    assert silent.mean_entropy(silent.add(0, Step((), empty, empty), outcome=lost())) == 0.0


@pytest.mark.parametrize(
    ("rise", "expected"),
    [(-1e6, 1), (-1.0, 1), (0.0, 2), (0.2, 2), (0.2197, 2), (0.2198, 3), (1.0, 3), (1e6, 3)],
)
def test_suffix_count_with_the_papers_defaults(rise: float, expected: int) -> None:
    # 1 + 2 * sigmoid(5 * rise) reaches 2.5 at rise = ln(3) / 5 = 0.21972
    assert suffix_count(0.5 + rise, 0.5) == expected


def test_suffix_count_rounding() -> None:
    # 1 + 1 * sigmoid(0) is 1.5
    given_ = {r: suffix_count(0.5, 0.5, 1, 2, 5.0, r) for r in ("nearest", "floor", "ceil")}
    assert given_ == {"nearest": 2, "floor": 1, "ceil": 2}
    # 2.5 goes up as well: halves do not go to the even neighbour
    assert suffix_count(0.5, 0.5, 2, 3) == 3


@given(
    st.floats(-50, 50), st.floats(-50, 50), st.integers(1, 9), st.integers(0, 9), st.floats(-100, 100),
    st.sampled_from(["nearest", "floor", "ceil"]),
)  # fmt: skip
def test_suffix_count_stays_in_range(a: float, b: float, low: int, extra: int, beta: float, rounding: Any) -> None:
    assert low <= suffix_count(a, b, low, low + extra, beta, rounding) <= low + extra


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((0.5, 0.5, 0, 3), "x_min=0"),
        ((0.5, 0.5, 3, 2), "x_max=2"),
        ((math.nan, 0.5), "h_tool_m=nan"),
        ((0.5, 0.5, 1, 3, math.inf), "beta=inf"),
        ((0.5, 0.5, 1, 3, 5.0, "up"), "rounding='up'"),
    ],
)
def test_suffix_count_errors_are_named(args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        suffix_count(*args)


# --- known recoverability -----------------------------------------------------------------------------------


def recoverable_before(k: int, first_lost: int, entropy: float = 0.5) -> Writer:
    """Full rollouts have k tool steps and fail; a suffix from prefix m succeeds iff m < first_lost."""

    def write(tree: RolloutTree, node: int, made: int) -> Script:
        depth = tree.nodes[node].depth
        turns = (entropy,) * (k + 1 - depth)
        return Script(turns, won() if 0 < depth < first_lost else lost())

    return write


def check_localizations(result: SearchResult, tree: RolloutTree, first_lost: int, k: int) -> int:
    """Every search that ran to its end is exact and short; returns how many did."""
    closed = [loc for loc in result.localizations if loc.closed]
    for loc in closed:
        assert loc.n_candidates == k
        assert loc.critical_step == first_lost
        assert loc.critical_node == tree.path(loc.reference)[first_lost - 1]
        assert len(loc.anchors) <= (math.ceil(math.log2(k)) + 1 if k else 0)
    return len(closed)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_inclusive_search_is_exact_for_every_k(data: st.DataObject) -> None:
    k = data.draw(st.integers(1, 32), "K")
    first_lost = data.draw(st.integers(1, k + 1), "first irrecoverable step")
    b_max = data.draw(st.integers(1, 4), "B_max")
    entropy = data.draw(st.floats(0, 6), "entropy")
    strategy = BinaryErrorLocalization(n_total=data.draw(st.integers(24, 60)), b_max=b_max, x_max=3)
    expander, result = grow(strategy, recoverable_before(k, first_lost, entropy))
    # 4 failures and 6 anchors of at most 3 probes fit into 24 rollouts: at least one search ends.
    assert check_localizations(result, expander.tree, first_lost, k) >= 1


def test_inclusive_search_is_exact_for_all_pairs_up_to_32() -> None:
    strategy = BinaryErrorLocalization(n_total=14, b_max=1, x_min=2, x_max=2)
    for k in range(1, 33):
        for first_lost in range(1, k + 2):
            expander, result = grow(strategy, recoverable_before(k, first_lost))
            assert check_localizations(result, expander.tree, first_lost, k) >= 1


@pytest.mark.parametrize("k", [1, 2, 3, 7, 8, 32])
def test_printed_search_never_probes_the_last_candidate(k: int) -> None:
    strategy = BinaryErrorLocalization(n_total=14, b_max=1, x_min=1, x_max=1, search="printed")
    for first_lost in range(1, k + 2):
        expander, result = grow(strategy, recoverable_before(k, first_lost))
        found = result.localizations[0]
        assert found.closed
        # All prefixes recoverable looks the same to it as the last one lost.
        assert found.critical_step == min(first_lost, k)
        assert found.critical_node == expander.tree.path(found.reference)[min(first_lost, k) - 1]
        assert len(found.anchors) <= math.ceil(math.log2(k))
        assert all(anchor.step < k for anchor in found.anchors)


def test_one_tool_step() -> None:
    for search, critical, anchors in (("printed", 1, 0), ("inclusive", 2, 1)):
        strategy = BinaryErrorLocalization(n_total=4, b_max=1, x_max=1, search=search)  # type: ignore[arg-type]
        found = grow(strategy, recoverable_before(1, 2))[1].localizations[0]
        assert (found.critical_step, len(found.anchors), found.closed) == (critical, anchors, True)


def test_no_tool_step_has_nothing_to_localize() -> None:
    expander, result = grow(BinaryErrorLocalization(n_total=7), recoverable_before(0, 1))
    assert [(loc.n_candidates, loc.critical_step, loc.critical_node) for loc in result.localizations] == [
        (0, None, None)
    ] * 3
    assert [loc.reference for loc in result.localizations] == [1, 4, 7]
    assert len(expander.tree.leaves) == 7


def test_a_failure_with_a_tool_step_is_searched_before_one_without() -> None:
    def write(tree: RolloutTree, node: int, made: int) -> Script:
        # Rollout 1 alone calls a tool, and its entropy falls afterwards.
        return Script((0.9, 0.1) if made == 1 else (0.5,), lost())

    expander, result = grow(BinaryErrorLocalization(n_total=4), write)
    assert result.localizations[0].reference == expander.tree.leaves[1]
    assert result.localizations[0].critical_step == 1


@pytest.mark.parametrize(("rises", "chosen"), [((0.1, 0.3, 0.2), 1), ((0.3, 0.3, 0.3), 0), ((-3, -2, -1), 2)])
def test_the_reference_is_the_failure_whose_entropy_rises_most(rises: tuple[float, ...], chosen: int) -> None:
    def write(tree: RolloutTree, node: int, made: int) -> Script:
        return Script((4.0, 4.0 + rises[made]), lost()) if made < 3 else Script((1.0,), lost())

    expander, result = grow(BinaryErrorLocalization(n_total=3), write)
    assert result.localizations[0].reference == expander.tree.leaves[chosen]


def test_everything_succeeded() -> None:
    expander, result = grow(BinaryErrorLocalization(n_total=16), lambda *_: Script((0.5, 0.5), won()))
    assert result.localizations == ()
    assert len(expander.tree.leaves) == 16
    assert all(node == 0 for node, _, _ in expander.requests)


def test_success_is_the_outcomes_word_not_its_reward() -> None:
    lost_but_rewarded = Outcome(reward=1.0, success=False)
    result = grow(BinaryErrorLocalization(n_total=3), lambda *_: Script((0.5, 0.5), lost_but_rewarded))[1]
    assert len(result.localizations) == 1
    won_but_punished = Outcome(reward=-1.1, success=True)
    result = grow(BinaryErrorLocalization(n_total=3), lambda *_: Script((0.5, 0.5), won_but_punished))[1]
    assert result.localizations == ()


def test_budget_ends_in_the_middle_of_an_anchor_and_the_probes_made_count() -> None:
    strategy = BinaryErrorLocalization(n_total=3, b_max=1, x_min=3, x_max=3)
    expander, result = grow(strategy, recoverable_before(1, 2))
    (found,) = result.localizations
    assert [len(anchor.probes) for anchor in found.anchors] == [2]
    assert (found.critical_step, found.closed) == (2, True)
    assert len(expander.tree.leaves) == 3


def test_budget_ends_inside_a_search() -> None:
    strategy = BinaryErrorLocalization(n_total=3, b_max=1, x_min=2, x_max=2)
    result = grow(strategy, recoverable_before(8, 7))[1]
    (found,) = result.localizations
    # Anchor 4 was recovered, so step 5 is the earliest not shown to be recoverable.
    assert [(a.step, a.recovered) for a in found.anchors] == [(4, True)]
    assert (found.critical_step, found.closed) == (5, False)


def test_invalid_rollouts_are_no_failures() -> None:
    def write(tree: RolloutTree, node: int, made: int) -> Script:
        return Script((0.5, 0.5), broken() if made < 5 else lost())

    expander, result = grow(BinaryErrorLocalization(n_total=8), write)
    assert result.localizations[0].reference == expander.tree.leaves[5]


def test_an_anchor_with_only_invalid_probes_is_no_evidence() -> None:
    def write(tree: RolloutTree, node: int, made: int) -> Script:
        return Script((0.5, 0.5, 0.5), broken() if node else lost())

    expander, result = grow(BinaryErrorLocalization(n_total=10, b_max=1, x_min=2, x_max=2), write)
    assert len(expander.tree.leaves) == 10
    *searched, last = result.localizations
    assert searched
    for found in searched:
        assert [anchor.recovered for anchor in found.anchors] == [None]
        assert (found.critical_step, found.critical_node, found.closed) == (None, None, False)
    assert last.anchors == ()  # the tenth rollout


@pytest.mark.parametrize(("other", "recovered"), [(won(), True), (lost(), False)])
def test_an_anchor_with_some_invalid_probes_is_judged_by_the_others(other: Outcome, recovered: bool) -> None:
    def write(tree: RolloutTree, node: int, made: int) -> Script:
        if node == 0:
            return Script((0.5, 0.5), lost())
        return Script((0.5,), broken() if made == 1 else other)

    result = grow(BinaryErrorLocalization(n_total=3, b_max=1, x_min=2, x_max=2), write)[1]
    assert result.localizations[0].anchors[0].recovered is recovered


# --- budgets ------------------------------------------------------------------------------------------------

OUTCOMES = st.sampled_from([lost(), lost(-1.1), won(), broken(), Outcome(0.0, False, truncated=True)])
SCRIPTS = st.lists(
    st.builds(Script, st.lists(st.floats(0, 5), min_size=1, max_size=9).map(tuple), OUTCOMES),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=200)
@given(
    scripts=SCRIPTS,
    n_total=st.integers(1, 40),
    total=st.integers(1, 40),
    b_max=st.integers(1, 5),
    x=st.tuples(st.integers(1, 4), st.integers(0, 4)),
    search=st.sampled_from(["printed", "inclusive", "independent"]),
    silent_after=st.none() | st.integers(0, 40),
)
def test_no_strategy_ever_exceeds_its_budget_or_stops_early(
    scripts: list[Script],
    n_total: int,
    total: int,
    b_max: int,
    x: tuple[int, int],
    search: str,
    silent_after: int | None,
) -> None:
    def write(tree: RolloutTree, node: int, made: int) -> Script:
        return scripts[made % len(scripts)]

    strategy: IndependentSampling | BinaryErrorLocalization
    if search == "independent":
        strategy = IndependentSampling(n_total)
    else:
        strategy = BinaryErrorLocalization(n_total, b_max, x[0], x[0] + x[1], search=search)  # type: ignore[arg-type]
    expander, result = grow(strategy, write, total=total, silent_after=silent_after)
    tree = expander.tree
    limits = [n_total, total] + ([] if silent_after is None else [silent_after])
    assert len(tree.leaves) == expander.budget.spent == min(limits)
    for found in result.localizations:
        assert not tree.outcome(found.reference).success
        if found.critical_node is None:
            continue
        assert found.critical_step is not None
        assert 1 <= found.critical_step <= found.n_candidates + 1
        assert tree.nodes[found.critical_node].depth == found.critical_step
        # The rollouts known at the end of the search agree with its claim: none below it succeeded.
        ends = (tree.nodes[i].outcome for i in tree.subtree(found.critical_node))
        assert not any(end.success for end in ends if end is not None)


def test_failures_are_collected_without_sampling_more_than_one_by_one_would() -> None:
    outcomes = [won(), lost(), won(), won(), lost(), lost()]
    strategy = BinaryErrorLocalization(n_total=6)
    expander, result = grow(strategy, lambda tree, node, made: Script((0.5,), outcomes[made]))
    assert [(asked, granted) for _, asked, granted in expander.requests] == [(3, 3), (2, 2), (1, 1)]
    assert len(result.localizations) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryErrorLocalization(n_total=0), "n_total=0"),
        (lambda: BinaryErrorLocalization(b_max=0), "b_max=0"),
        (lambda: BinaryErrorLocalization(x_min=0), "x_min=0"),
        (lambda: BinaryErrorLocalization(x_min=4), "x_min=4"),
        (lambda: BinaryErrorLocalization(beta=math.nan), "beta=nan"),
        (lambda: BinaryErrorLocalization(search="binary"), "search='binary'"),  # type: ignore[arg-type]
        (lambda: BinaryErrorLocalization(rounding="up"), "rounding='up'"),  # type: ignore[arg-type]
        (lambda: BinaryErrorLocalization(entropy_window=0), "entropy_window=0"),
        (lambda: IndependentSampling(0), "n_total=0"),
        (lambda: Budget(0), "n_total=0"),
    ],
)
def test_bad_settings_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
