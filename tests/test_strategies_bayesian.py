"""Bayesian bisection: beliefs against enumeration, and localization against the inclusive search at equal probes."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from _scripted import Script, Writer, broken, grow, lost, won
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_agent.rollout import BayesianSearch, BinaryErrorLocalization, StepBelief
from elpo_agent.rollout.bayesian import Recovery, as_recovery
from elpo_agent.tree import RolloutTree

RECOVERIES = st.one_of(st.floats(0.01, 0.99), st.tuples(st.floats(0.2, 9.0), st.floats(0.2, 9.0)))


@st.composite
def probes_made(draw: st.DrawFn) -> tuple[int, list[tuple[int, bool]], Recovery]:
    """K, probes (anchor, outcome) that some first irrecoverable step explains, and the recovery."""
    k = draw(st.integers(1, 9))
    t = draw(st.integers(1, k + 1))
    anchors = draw(st.lists(st.integers(1, k), max_size=12))
    probes = [(m, m < t and draw(st.booleans())) for m in anchors]
    return k, probes, draw(RECOVERIES)


def belief_of(k: int, probes: list[tuple[int, bool]], recovery: Recovery) -> StepBelief:
    belief = StepBelief.before(k, recovery)
    for m, success in probes:
        belief = belief.after(m, int(success), int(not success))
    return belief


def enumerated(k: int, probes: list[tuple[int, bool]], recovery: Recovery) -> list[float]:
    """P(t | probes) probe by probe; with a Beta prior by its predictive probabilities."""
    likelihoods = []
    for t in range(1, k + 2):
        likelihood, won_, lost_ = 1.0, 0, 0
        for m, success in probes:
            if m >= t:
                likelihood *= 0.0 if success else 1.0
                continue
            if isinstance(recovery, tuple):
                p = (recovery[0] + won_) / (recovery[0] + recovery[1] + won_ + lost_)
            else:
                p = recovery
            likelihood *= p if success else 1.0 - p
            won_, lost_ = won_ + success, lost_ + (not success)
        likelihoods.append(likelihood)
    return [x / math.fsum(likelihoods) for x in likelihoods]


@settings(deadline=None, max_examples=200)
@given(probes_made())
def test_the_belief_is_bayes_rule(made: tuple[int, list[tuple[int, bool]], Recovery]) -> None:
    k, probes, recovery = made
    belief = belief_of(k, probes, recovery)
    np.testing.assert_allclose(belief.probabilities(), enumerated(k, probes, recovery), rtol=1e-9, atol=1e-12)
    step, probability = belief.likeliest()
    assert probability == pytest.approx(max(enumerated(k, probes, recovery)))
    assert belief.probabilities()[step - 1] == probability


@settings(deadline=None, max_examples=100)
@given(probes_made())
def test_information_is_the_expected_change_of_the_belief(made: tuple[int, list[tuple[int, bool]], Recovery]) -> None:
    k, probes, recovery = made
    belief = belief_of(k, probes, recovery)
    now = belief.probabilities()
    total, gained = sum(s for _, s in probes), []
    for m in range(1, k + 1):
        if isinstance(recovery, tuple):
            a, b = recovery
            failed = [sum(not s for anchor, s in probes if anchor < t) for t in range(1, k + 2)]
            chance = [(a + total) / (a + b + total + f) for f in failed]
        else:
            chance = [recovery] * (k + 1)
        p_success = math.fsum(now[t - 1] * chance[t - 1] for t in range(m + 1, k + 2))
        value = 0.0
        for success, p in ((1, p_success), (0, 1.0 - p_success)):
            if p > 1e-12:
                then = belief.after(m, success, 1 - success).probabilities()
                keep = then > 0.0
                value += p * float(np.sum(then[keep] * np.log(then[keep] / now[keep])))
        gained.append(value)
    np.testing.assert_allclose(belief.information(), gained, rtol=1e-6, atol=1e-9)
    assert gained[belief.best_anchor() - 1] == pytest.approx(max(gained), abs=1e-9)


def test_a_sure_probe_halves_the_candidates() -> None:
    # A probe that nearly always succeeds where it can is an ordinary bisection: 8 answers, so the 4th anchor of 7.
    belief = StepBelief.before(7, 1.0 - 1e-9)
    assert belief.best_anchor() == 4
    assert belief.after(4, 1, 0).best_anchor() == 6
    assert belief.after(4, 0, 1).best_anchor() == 2
    assert belief.after(4, 0, 1).after(2, 1, 0).after(3, 1, 0).likeliest() == (4, pytest.approx(1.0))
    # For rare successes p w log(1 / w) counts, with w the share of the answers that allow one: 1 / e, so 3 of 8.
    assert StepBelief.before(7, 0.01).best_anchor() == 5


def test_a_success_excludes_all_steps_up_to_its_anchor() -> None:
    belief = StepBelief.before(4, 0.5).after(3, 1, 5)
    assert belief.probabilities().tolist() == [0.0, 0.0, 0.0, 0.5, 0.5]


def irrecoverable_from(t: int, k: int, p: float, seed: int) -> Writer:
    """Full rollouts have k tool steps and fail; a suffix from prefix m < t succeeds with probability p."""
    rng = random.Random(seed)

    def write(tree: RolloutTree, node: int, made: int) -> Script:
        depth = tree.nodes[node].depth
        success = 0 < depth < t and rng.random() < p
        return Script((0.5,) * (k + 1 - depth), won() if success else lost())

    return write


def hits(strategy: BinaryErrorLocalization, seeds: int, k: int = 16, p: float = 0.3) -> float:
    """Share of first searches that name the right step, over `seeds` uniformly drawn steps."""
    found = 0
    for seed in range(seeds):
        t = random.Random(seed).randint(1, k + 1)
        _, result = grow(strategy, irrecoverable_from(t, k, p, 10_000 + seed))
        found += result.localizations[0].critical_step == t
    return found / seeds


def bayesian(probes: int, **options: Any) -> BinaryErrorLocalization:
    search = BayesianSearch(max_probes=probes, **options)
    return BinaryErrorLocalization(1 + probes, b_max=1, x_min=1, x_max=1, search="bayesian", bayesian=search)


def test_it_localizes_better_than_the_inclusive_search_at_equal_probes() -> None:
    """20 probes for 16 candidates at p = 0.3; the inclusive search spends 5 at each anchor, its best number."""
    inclusive = hits(BinaryErrorLocalization(21, b_max=1, x_min=5, x_max=5), 100)
    known = hits(bayesian(20, recovery=0.3, certainty=0.999), 100)
    assert known > inclusive + 0.05


@pytest.mark.slow
def test_how_much_better_it_localizes() -> None:
    inclusive = {x: hits(BinaryErrorLocalization(21, b_max=1, x_min=x, x_max=x), 600) for x in (3, 4, 5)}
    known = hits(bayesian(20, recovery=0.3, certainty=0.999), 600)
    unknown = hits(bayesian(20, certainty=0.999), 600)
    print(f"inclusive by probes an anchor {inclusive}, Bayesian with p {known}, without {unknown}")
    assert 0.60 < max(inclusive.values()) < 0.72
    assert 0.78 < known < 0.89
    assert max(inclusive.values()) + 0.03 < unknown < known


def test_it_stops_when_it_is_certain() -> None:
    k, t = 8, 5
    strategy = bayesian(40, recovery=0.999, certainty=0.99)
    expander, result = grow(strategy, irrecoverable_from(t, k, 1.0, 0), total=41)
    first = result.localizations[0]
    assert first.closed and first.critical_step == t
    assert first.critical_node == expander.tree.path(first.reference)[t - 1]
    assert len(first.anchors) <= 4  # as a bisection does with probes this sure
    assert first.posterior[t - 1] >= 0.99
    assert math.fsum(first.posterior) == pytest.approx(1.0)
    assert len(result.localizations) > 1  # the rest of the budget went to further failures


def test_a_budget_that_ends_leaves_the_likeliest_step() -> None:
    expander, result = grow(bayesian(2, recovery=0.3), irrecoverable_from(1, 8, 0.3, 0))
    first = result.localizations[0]
    assert not first.closed
    belief = StepBelief.before(8, 0.3)
    for anchor in first.anchors:
        belief = belief.after(anchor.step, 0, 1)
    assert first.critical_step == belief.likeliest()[0]
    assert first.posterior == tuple(belief.probabilities().tolist())
    assert len(expander.tree.leaves) == 3


def test_invalid_probes_are_no_evidence() -> None:
    def write(tree: RolloutTree, node: int, made: int) -> Script:
        return Script((0.5,) * (5 - tree.nodes[node].depth), broken() if node else lost())

    _, result = grow(bayesian(7, recovery=0.3), write)
    assert [(found.critical_step, found.closed) for found in result.localizations] == [(None, False)] * 4


def test_errors_are_named() -> None:
    with pytest.raises(ValueError, match=r"recovery=1\.0"):
        BayesianSearch(recovery=1.0)
    with pytest.raises(ValueError, match=r"recovery=\(0\.0, 1\.0\)"):
        BayesianSearch(recovery=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"certainty=0"):
        BayesianSearch(certainty=0.0)
    with pytest.raises(ValueError, match="max_probes=0"):
        BayesianSearch(max_probes=0)
    with pytest.raises(ValueError, match="m=3"):
        StepBelief.before(2).after(3, 1, 0)
    with pytest.raises(ValueError, match="same anchors"):
        StepBelief((1,), (1, 2))
    with pytest.raises(ValueError, match="recovery='half'"):
        as_recovery("half")
    assert as_recovery([1, 3]) == (1.0, 3.0)
