"""Success-anchored probes and early stop: exact traces from the rules, phase by phase."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from _scripted import Script, Writer, broken, grow, lost, step, won
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_agent.rollout import BinaryErrorLocalization, EarlyStop, IndependentSampling, SuccessAnchored
from elpo_agent.rollout.base import RolloutStrategy
from elpo_agent.rollout.success_anchored import Segments
from elpo_agent.tree import Outcome, RolloutTree


def written(outcomes: Sequence[Outcome], length: int = 5) -> Writer:
    """Rollout i ends as outcomes[i] says (the last one repeats), at the same depth whatever node it starts from."""

    def write(tree: RolloutTree, node: int, made: int) -> Script:
        turns = max(1, length - tree.nodes[node].depth)
        return Script((0.5,) * turns, outcomes[min(made, len(outcomes) - 1)])

    return write


def ends(text: str) -> list[Outcome]:
    """ "+-?" is a success, a failure and an invalid outcome."""
    return [{"+": won(), "-": lost(), "?": broken()}[c] for c in text]


# --- where a probe goes -------------------------------------------------------------------------------------


def test_probes_by_hand() -> None:
    """Four fresh rollouts of 8 steps, the second succeeds: V(prompt) = 1/4, and the success is a segment of 8 steps, so
    two probes start after its 4th (node 12). One succeeds: V(12) = (2 + 1/4) / (3 + 1) = 9/16. Segments now: prompt ->
    12 with (9/16 - 4/16) * 2 = 0.625; 12 -> the old success and 12 -> the new one with 7/16 * 2 = 0.875 each, of which
    the earlier wins: two probes after its 2nd step (node 14)."""
    expander, result = grow(SuccessAnchored(n_total=8, fresh=4), written(ends("-+--+---"), length=8))
    assert expander.tree.path(expander.tree.leaves[1]) == list(range(9, 17))
    assert expander.requests == [(0, 4, 4), (12, 2, 2), (14, 2, 2)]
    assert result.localizations == ()


def built(*trajectories: tuple[int, Outcome]) -> tuple[RolloutTree, list[int]]:
    """Trajectories of so many steps each, all from the prompt."""
    tree = RolloutTree("t", ())
    for turns, outcome in trajectories:
        node = 0
        for i in range(turns):
            node = tree.add(node, step(0.5), outcome=outcome if i == turns - 1 else None)
    return tree, tree.leaves


def widest_gap(tree: RolloutTree, leaves: Sequence[int], fresh: Sequence[int]) -> int | None:
    segments = Segments(tree)
    for leaf in leaves:
        segments.add([leaf], fresh=leaf in fresh)
    return segments.widest_gap()


def test_a_segment_is_judged_by_its_gap_and_the_root_of_its_length() -> None:
    """V(prompt) = 1/2. Successes of 2 and 9 steps: (1/2) sqrt 2 against (1/2) 3; the longer one's middle is its 4th."""
    tree, leaves = built((2, won()), (9, won()), (30, lost()), (3, lost()))
    assert widest_gap(tree, leaves, leaves) == tree.path(leaves[1])[3]
    # a trajectory that infrastructure failed counts nowhere
    tree, leaves = built((2, won()), (9, broken()), (30, lost()), (3, lost()))
    assert widest_gap(tree, leaves, leaves) == tree.path(leaves[0])[0]
    # nothing to halve: the success has one step
    tree, leaves = built((1, won()), (4, lost()))
    assert widest_gap(tree, leaves, leaves) is None


def literal_segments(tree: RolloutTree, fresh: Sequence[int]) -> list[tuple[float, int]]:
    """(score, midpoint) of every segment that can be halved, written with sets and recursion."""
    below = {n.index: {x for x in tree.leaves if tree.outcome(x).valid and n.index in tree.path(x)} for n in tree.nodes}

    def branches(i: int) -> int:
        return sum(bool(below[c]) for c in tree.nodes[i].children)

    def start(i: int) -> int:
        up = tree.nodes[i].parent
        return up if up == 0 or branches(up) != 1 else start(up)

    def value(i: int) -> float:
        if i == 0:
            known = [tree.outcome(x).success for x in fresh if tree.outcome(x).valid]
            return sum(known) / len(known)
        wins = [tree.outcome(x).success for x in below[i]]
        return float(wins[0]) if branches(i) == 0 else (sum(wins) + value(start(i))) / (len(wins) + 1)

    found = []
    for node in tree.nodes[1:]:
        if below[node.index] and branches(node.index) != 1:
            b = start(node.index)
            length = node.depth - tree.nodes[b].depth
            if length >= 2 and value(node.index) > value(b):
                middle = tree.path(node.index)[tree.nodes[b].depth + length // 2 - 1]
                found.append(((value(node.index) - value(b)) * math.sqrt(length), middle))
    return found


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_the_widest_gap_is_the_largest_of_all_segments(data: st.DataObject) -> None:
    outcome = st.sampled_from(ends("+--?"))
    tree, leaves = built(*data.draw(st.lists(st.tuples(st.integers(1, 7), outcome), min_size=2, max_size=5), "fresh"))
    fresh = list(leaves)
    for _ in range(data.draw(st.integers(0, 5), "branches")):
        inner = [n.index for n in tree.nodes[1:] if n.outcome is None]
        node = data.draw(st.sampled_from(inner or [0]), "from")
        fresh += [len(tree.nodes)] * (node == 0)  # a trajectory of one step
        turns = 1 if node == 0 else data.draw(st.integers(1, 6), "turns")
        for i in range(turns):
            node = tree.add(node, step(0.5), outcome=data.draw(outcome) if i == turns - 1 else None)
    if not any(tree.outcome(x).valid for x in fresh):
        return
    segments = literal_segments(tree, fresh)
    chosen = widest_gap(tree, tree.leaves, fresh)
    if not segments:
        assert chosen is None
    else:
        best = max(score for score, _ in segments)
        assert chosen in [middle for score, middle in segments if score > best - 1e-9]


# --- phases -------------------------------------------------------------------------------------------------


def fresh_and_probes(strategy: RolloutStrategy, outcomes: str, length: int = 8) -> tuple[int, int]:
    expander, _ = grow(strategy, written(ends(outcomes), length))
    drawn = [granted for node, _, granted in expander.requests if node == 0]
    return sum(drawn), len(expander.tree.leaves) - sum(drawn)


ADAPTIVE = SuccessAnchored(n_total=28, fresh=6, most_fresh=24, enough=(1, 3), probes=4)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ("---+", (4, 4)),  # 1 success and 3 failures
        ("+---", (4, 4)),
        ("--+-", (4, 4)),
        ("++--+-", (6, 4)),  # three failures with the sixth
        ("++++--", (6, 4)),  # never enough failures: the six, and contrast
        ("-----+", (6, 4)),
        ("-------+-", (8, 4)),  # no contrast yet: one by one until there is
        ("+++++++++-", (10, 4)),
        ("-", (24, 0)),  # never
        ("+", (24, 0)),
        ("?---+", (5, 4)),  # the invalid one is charged, and no outcome
        ("-" * 23 + "+", (24, 4)),
    ],
)
def test_the_adaptive_form_phase_by_phase(outcomes: str, expected: tuple[int, int]) -> None:
    assert fresh_and_probes(ADAPTIVE, outcomes) == expected


def test_the_first_form_spends_everything_or_finds_no_contrast() -> None:
    first = SuccessAnchored(n_total=16, fresh=8)
    assert fresh_and_probes(first, "+-") == (8, 8)
    assert fresh_and_probes(first, "---------+-") == (10, 6)
    assert fresh_and_probes(first, "-") == (16, 0)
    # nothing to probe where every trajectory is one step
    assert fresh_and_probes(first, "+-", length=1) == (16, 0)
    assert fresh_and_probes(SuccessAnchored(n_total=16, fresh=8, probes=0), "+-") == (8, 0)
    expander, _ = grow(SuccessAnchored(n_total=16, fresh=8, per_anchor=3), written(ends("+-"), 8))
    assert [n for _, n, _ in expander.requests] == [8, 3, 3, 2]


def test_anchored_errors_are_named() -> None:
    for options, message in (
        ({"fresh": 0}, "fresh=0"),
        ({"fresh": 9, "most_fresh": 8}, "most_fresh=8"),
        ({"enough": (0, 3)}, r"enough=\(0, 3\)"),
        ({"probes": -1}, "probes=-1"),
        ({"per_anchor": 0}, "per_anchor=0"),
    ):
        with pytest.raises(ValueError, match=message):
            SuccessAnchored(**options)  # type: ignore[arg-type]


# --- early stop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "rollouts"),
    [("+++-", 3), ("++-+", 16), ("-+++", 16), ("+?++-", 4), ("+?+-", 16), ("???+++", 6), ("?", 16)],
)
def test_early_stop_needs_the_first_valid_three(outcomes: str, rollouts: int) -> None:
    expander, _ = grow(EarlyStop(IndependentSampling(16)), written(ends(outcomes)))
    assert len(expander.tree.leaves) == rollouts
    assert expander.budget.spent == rollouts


@pytest.mark.parametrize("inner", [IndependentSampling(12), BinaryErrorLocalization(12, 4), SuccessAnchored(12, 5)])
@pytest.mark.parametrize("outcomes", ["-+", "+-+-", "++-+++-", "+?-+", "++"])
def test_a_strategy_that_is_not_stopped_grows_the_tree_it_grows_alone(inner: RolloutStrategy, outcomes: str) -> None:
    """The rollouts that were tried are handed over, not drawn twice; a script tells rollouts by their number. (Each of
    these draws four full rollouts before anything else.)"""
    alone, found = grow(inner, written(ends(outcomes), 6))
    wrapped, found_again = grow(EarlyStop(inner, 4), written(ends(outcomes), 6))
    if outcomes == "++":
        assert len(wrapped.tree.leaves) == 4
        return
    assert wrapped.tree.parents().tolist() == alone.tree.parents().tolist()
    assert found_again == found


def test_early_stop_with_less_than_it_needs() -> None:
    expander, _ = grow(EarlyStop(IndependentSampling(2)), written(ends("+")))
    assert len(expander.tree.leaves) == 2
    expander, _ = grow(EarlyStop(IndependentSampling(8)), written(ends("+")), total=1)
    assert len(expander.tree.leaves) == 1
    with pytest.raises(ValueError, match="after=0"):
        EarlyStop(IndependentSampling(8), 0)
    assert not EarlyStop(IndependentSampling(8)).branches
    assert EarlyStop(BinaryErrorLocalization(8)).branches
