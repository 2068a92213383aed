"""ARPO and AEPO: traces by hand, and whole trees against the loop that branches on the way."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
from _scripted import Script, Writer, broken, grow, lost, won
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_agent.rollout import EntropyBranching
from elpo_agent.tree import RolloutTree


def written(*scripts: tuple[float, ...]) -> Writer:
    """Rollout i continues with the turns of scripts[i]; the last script repeats."""

    def write(tree: RolloutTree, node: int, made: int) -> Script:
        return Script(scripts[min(made, len(scripts) - 1)], lost())

    return write


def test_arpo_by_hand() -> None:
    """Nodes: A = 1 2 3 4, B = 5 6; A's first result raises entropy (2 > 1), so C = 7 8 9 leaves it after node 1; C's
    first own result does too (1.5 > 1), so D = 10 leaves it after 7. Two rollouts are left."""
    a, b, c, d = (1.0, 2.0, 0.5, 0.3), (1.0, 0.5), (0.8, 1.5, 0.2), (3.0,)
    expander, result = grow(EntropyBranching(n_total=6, initial=2), written(a, b, c, d, (1.0,)))
    assert expander.requests == [(0, 2, 2), (1, 1, 1), (7, 1, 1), (0, 2, 2)]
    assert [expander.tree.path(leaf) for leaf in expander.tree.leaves[:4]] == [
        [1, 2, 3, 4],
        [5, 6],
        [1, 7, 8, 9],
        [1, 7, 10],
    ]
    assert result.localizations == ()


def test_an_entropy_that_does_not_rise_branches_nothing() -> None:
    # alpha equals tau, so that a difference of exactly 0 is not above it
    expander, _ = grow(EntropyBranching(n_total=4, initial=2), written((1.0, 1.0, 1.0)))
    assert expander.requests == [(0, 2, 2), (0, 2, 2)]
    expander, _ = grow(EntropyBranching(n_total=4, initial=2, alpha=0.51), written((1.0, 1.0, 1.0)))
    assert expander.requests == [(0, 2, 2), (1, 1, 1), (4, 1, 1)]


def test_the_budget_goes_to_the_first_trajectories_and_beam_counts_them() -> None:
    rising = written((1.0, 2.0))
    expander, _ = grow(EntropyBranching(n_total=5, initial=2, beam=3), rising)
    assert expander.requests == [(0, 2, 2), (1, 1, 1), (1, 1, 1), (3, 1, 1)]
    expander, _ = grow(EntropyBranching(n_total=4, initial=3), rising)
    assert expander.requests == [(0, 3, 3), (1, 1, 1)]
    expander, _ = grow(EntropyBranching(n_total=4, initial=2, beam=1), rising)
    assert expander.requests == [(0, 2, 2), (0, 2, 2)]


def test_the_threshold_is_in_units_of_log_v() -> None:
    """Turns have 2 tokens: a rise of 0.5 a token is 1.0 in all, by log 16 = 2.77: P = 0.5 + 0.2 * 0.361 = 0.572."""
    turns = written((1.0, 1.5), (1.0,))
    for tau, requests in ((0.571, 3), (0.573, 2)):
        expander, _ = grow(EntropyBranching(n_total=3, initial=1, tau=tau, vocabulary=16), turns)
        assert len(expander.requests) == requests, tau
    # only the first token: half of it
    for tau, requests in ((0.535, 3), (0.537, 2)):
        expander, _ = grow(EntropyBranching(n_total=3, initial=1, tau=tau, vocabulary=16, entropy_window=1), turns)
        assert len(expander.requests) == requests, tau


def test_the_penalty_pauses_and_is_inherited() -> None:
    """With a penalty of 0.9 a trajectory that was just branched needs five times the rise, and so does its branch."""
    strategy = EntropyBranching(n_total=7, initial=1, penalty=0.9)
    turns = written((1.0, 2.0, 2.0, 2.0, 2.0), (2.0, 2.0, 2.0, 2.0), (2.0,))
    expander, _ = grow(strategy, turns)
    # round 1: node 1; round 2: neither; round 3: both, at depth 3; round 4: neither again; then full rollouts
    assert expander.requests == [(0, 1, 1), (1, 1, 1), (3, 1, 1), (7, 1, 1), (0, 3, 3)]


def test_invalid_trajectories_are_not_branched() -> None:
    def write(tree: RolloutTree, node: int, made: int) -> Script:
        return Script((1.0, 2.0, 3.0), broken() if made == 0 else lost())

    expander, _ = grow(EntropyBranching(n_total=3, initial=2), write)
    assert expander.requests == [(0, 2, 2), (4, 1, 1)]


@pytest.mark.parametrize(("root", "tool"), [(1.0, 1.0), (1.0, 9.0), (9.0, 1.0), (3.0, 2.0)])
@pytest.mark.parametrize("quirks", [False, True])
def test_aepo_divides_the_budget_by_its_probe(root: float, tool: float, quirks: bool) -> None:
    strategy = EntropyBranching(n_total=11, probe=True, vocabulary=2, reference_quirks=quirks)
    expander, _ = grow(strategy, written((root, tool, tool), (1.0,)))
    others = (root + 2 * tool) / 3 if quirks else tool
    share = 10 / (1 + math.exp(-0.5 * 2 * (root - others) / math.log(2)))
    m = math.floor(share) + 1 if quirks else math.floor(share + 0.5)
    assert expander.requests[:2] == [(0, 1, 1), (0, max(1, min(m, 10)), max(1, min(m, 10)))]
    assert len(expander.tree.leaves) == 11
    assert expander.tree.nodes[2].children == [3]  # the probe is not branched


def test_a_probe_without_tools_or_without_outcome_divides_in_halves() -> None:
    for first in (Script((3.0,), won()), Script((3.0, 1.0), broken())):
        expander, _ = grow(EntropyBranching(n_total=9, probe=True), lambda t, n, made, s=first: s)
        assert expander.requests[:2] == [(0, 1, 1), (0, 4, 4)]


@dataclass
class OnTheWay:
    """A trajectory of the loop below: its turns so far, and those still to come."""

    turns: list[float]
    to_come: list[float]
    own_from: int
    streak: int = 0
    active: bool = True

    def advance(self) -> None:
        self.turns.append(self.to_come.pop(0))
        self.active = bool(self.to_come)


def released(strategy: EntropyBranching, scripts: list[list[float]], seed: int) -> list[list[float]]:
    """The released loop: a turn for everybody under way, then branches, then a fresh one where nobody is under way."""
    rng = random.Random(seed)
    slots: list[OnTheWay] = []
    first: dict[int, float] = {}  # H_init by slot
    initial, streak = strategy.initial, 0
    padding: list[list[float]] = []
    n = strategy.n_total
    unit = 2 / math.log(strategy.vocabulary)  # two tokens a turn
    if strategy.probe:
        probe, n = scripts[0], n - 1
        padding.append(probe)
        gap = unit * (probe[0] - sum(probe) / len(probe))
        initial = max(1, min(int(n / (1 + math.exp(-strategy.monitor_beta * gap))) + 1, n))
        scripts = scripts[1:]

    def add(prefix: list[float]) -> None:
        slots.append(OnTheWay(list(prefix), list(scripts[len(slots)]), len(prefix)))

    for _ in range(min(initial, n)):
        add([])
    while any(slot.active for slot in slots):
        now = {}
        for i, slot in enumerate(slots):
            if slot.active:
                slot.advance()
                now[i] = unit * slot.turns[-1]
                first.setdefault(i, now[i])
        going = [i for i, slot in enumerate(slots) if slot.active]
        new: list[list[float]] = []
        for i in going:
            for _ in range(min(strategy.beam - 1, n - len(slots) - len(new))):
                rise, u = now[i] - first[i], rng.random()
                if strategy.probe:
                    q = (u + strategy.gamma * rise) * max(0.0, 1.0 - strategy.penalty * streak)
                    branch = min(1.0, max(0.0, q)) >= strategy.tau
                else:
                    branch = min(1.0, max(0.0, u - strategy.gamma * rise)) <= strategy.tau
                if branch:
                    new.append(slots[i].turns)
        if not going and len(slots) < n:
            new.append([])
        streak = streak + 1 if new else 0
        for prefix in new:
            add(prefix)
    return padding + [slot.turns for slot in slots]


def printed(strategy: EntropyBranching, scripts: list[list[float]]) -> list[list[float]]:
    """The papers' rule on the way: once the turn after a result is there, branch from that result."""
    n = strategy.n_total
    unit = 2 / math.log(strategy.vocabulary)
    probes: list[list[float]] = []
    initial = strategy.initial
    if strategy.probe:
        probe, n = scripts[0], n - 1
        probes.append(probe)
        gap = unit * (probe[0] - sum(probe[1:]) / len(probe[1:])) if probe[1:] else 0.0
        initial = max(1, min(math.floor(n / (1 + math.exp(-strategy.monitor_beta * gap)) + 0.5), n))
        scripts = scripts[1:]
    slots: list[OnTheWay] = []

    def add(prefix: list[float], streak: int) -> None:
        slot = OnTheWay(list(prefix), list(scripts[len(slots)]), len(prefix), streak)
        slot.advance()
        slots.append(slot)

    for _ in range(min(initial, n)):
        add([], 0)
    while any(slot.active for slot in slots):
        new: list[tuple[list[float], int]] = []
        for slot in list(slots):
            if not slot.active:
                continue
            prefix = list(slot.turns)  # ends with a call, and its result
            slot.advance()
            damping = max(0.0, 1.0 - strategy.penalty * slot.streak)
            p = (strategy.alpha + strategy.gamma * unit * (slot.turns[-1] - slot.turns[0])) * damping
            room = min(strategy.beam - 1, n - len(slots) - len(new))
            branch = p > strategy.tau and room > 0
            slot.streak = slot.streak + 1 if branch else 0
            new += [(prefix, slot.streak)] * (room if branch else 0)
        for prefix, streak in new:
            add(prefix, streak)
    while len(slots) < n:
        slots.append(OnTheWay(list(scripts[len(slots)]), [], 0))
    return probes + [slot.turns for slot in slots]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_completing_first_and_branching_afterwards_gives_the_tree_of_branching_on_the_way(data: st.DataObject) -> None:
    quirks = data.draw(st.booleans(), "quirks")
    strategy = EntropyBranching(
        n_total=data.draw(st.integers(1, 14), "N"),
        initial=data.draw(st.integers(1, 6), "initial"),
        beam=data.draw(st.integers(1, 4), "beam"),
        gamma=data.draw(st.sampled_from([0.0, 0.2, 1.0, 5.0]), "gamma"),
        penalty=data.draw(st.sampled_from([0.0, 0.05, 0.3]), "penalty"),
        probe=data.draw(st.booleans(), "probe"),
        vocabulary=data.draw(st.sampled_from([2, 100, 151_936]), "V"),
        reference_quirks=quirks,
    )
    seed = data.draw(st.integers(0, 10**6), "seed")
    rng = random.Random(seed)
    scripts = [[rng.choice([0.5, 1.0, 2.0, 4.0]) for _ in range(rng.randint(1, 6))] for _ in range(strategy.n_total)]
    expander, _ = grow(strategy, written(*map(tuple, scripts)), seed=seed)
    expected = released(strategy, scripts, seed) if quirks else printed(strategy, scripts)
    grown = [
        [round(expander.tree.mean_entropy(node), 3) for node in expander.tree.path(leaf)]
        for leaf in expander.tree.leaves
    ]
    assert grown == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 0}, "initial=0"),
        ({"beam": 0}, "beam=0"),
        ({"tau": math.nan}, "tau=nan"),
        ({"penalty": -1.0}, "penalty=-1"),
        ({"entropy_window": 0}, "entropy_window=0"),
        ({"vocabulary": 1}, "vocabulary=1"),
        ({"n_total": 0}, "n_total=0"),
    ],
)
def test_errors_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EntropyBranching(**options)  # type: ignore[arg-type]
