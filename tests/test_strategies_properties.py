"""What holds for every strategy: budgets, refusals, determinism, and expansions that are under way at once."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from _every_strategy import COUNT, strategies
from _scripted import Script, ScriptedExpander, Writer, broken, grow, lost, won
from hypothesis import given, settings
from hypothesis import strategies as st

import elpo_agent.algorithms
from elpo_agent.algorithms import load, names, options
from elpo_agent.algorithms.elpo import elpo, elpo_no_elc
from elpo_agent.algorithms.fixed import with_fixed
from elpo_agent.algorithms.selection import Selection
from elpo_agent.rollout import EarlyStop, RandomPrefixes, SuccessAnchored
from elpo_agent.rollout.base import Expander, RolloutStrategy, SearchResult
from elpo_agent.rollout.draw import Draw, expand_each
from elpo_agent.tree import RolloutTree


def random_writer(seed: int, success: float, invalid: float) -> Writer:
    """Trajectories of 1 to 7 turns; rollout i is the same whoever asks for it, and however."""

    def write(tree: RolloutTree, node: int, made: int) -> Script:
        rng = random.Random(seed * 1000 + made)
        draw = rng.random()
        outcome = broken() if draw < invalid else won() if draw < invalid + success else lost()
        return Script(tuple(rng.uniform(0.0, 3.0) for _ in range(rng.randint(1, 7))), outcome)

    return write


class Careful(ScriptedExpander):
    """Refuses to continue a finished trajectory, as the real one does, and to be asked for nothing."""

    async def expand(self, node: int, n: int) -> list[int]:
        assert self.tree.nodes[node].outcome is None, "a finished trajectory was to be continued"
        return await super().expand(node, n)


class AtOnce(Careful):
    """Has all expansions of a call under way at once."""

    async def expand_each(self, requests: Sequence[tuple[int, int]]) -> list[list[int]]:
        return list(await asyncio.gather(*(self.expand(node, n) for node, n in requests)))


Trace = tuple[list[tuple[int, int, int]], list[int], dict[int, int], SearchResult]


def trace(strategy: RolloutStrategy, expander: Careful) -> Trace:
    result = asyncio.run(strategy.grow(expander))
    return expander.requests, expander.tree.parents().tolist(), expander.tree.groups, result


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_strategy_overspends_and_equal_runs_are_equal(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 24), "n_total")
    strategy = strategies(n)[data.draw(st.integers(0, COUNT - 1), "strategy")]
    total = data.draw(st.integers(1, 30), "budget")
    silent = data.draw(st.one_of(st.none(), st.integers(0, 12)), "silent after")
    seed = data.draw(st.integers(0, 999), "seed")
    writer = random_writer(seed, data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])), data.draw(st.sampled_from([0, 0.3])))
    first = Careful(writer, total, silent, seed)
    made = trace(strategy, first)
    leaves = len(first.tree.leaves)
    assert leaves == first.budget.spent <= min(n, total)
    assert set(first.tree.groups) <= set(first.tree.leaves)
    for found in made[3].localizations:
        assert found.critical_node is None or found.critical_node in first.tree.path(found.reference)
        assert all(anchor.node in first.tree.path(found.reference) for anchor in found.anchors)
    assert trace(strategy, Careful(writer, total, silent, seed)) == made
    # at once or in turn: the same tree (requests that find the budget empty are not made in turn)
    if silent is None:
        assert trace(strategy, AtOnce(writer, total, None, seed))[1:] == made[1:]


@pytest.mark.parametrize("number", range(COUNT))
def test_a_budget_that_can_be_spent_is(number: int) -> None:
    """With both outcomes and tool calls in every group nothing is left over but what a rule leaves on purpose."""
    strategy = strategies(16)[number]
    for seed in range(8):
        expander, _ = grow(strategy, random_writer(seed, 0.4, 0.1), seed=seed)
        spent = len(expander.tree.leaves)
        inner = strategy.inner if isinstance(strategy, EarlyStop) else strategy
        shape = isinstance(inner, SuccessAnchored) and inner.probes is not None
        stopped = isinstance(strategy, EarlyStop) and spent <= 5
        assert spent == 16 or shape or stopped


def test_sample_each_gives_the_budget_to_the_earlier_requests() -> None:
    async def run(expander: Expander) -> list[list[int]]:
        draw = Draw(expander, 5)
        leaves = await draw.sample_each([(0, 2), (0, 2), (0, 2), (0, 1)])
        assert draw.left == 0
        return leaves

    for kind in (Careful, AtOnce):
        expander = kind(random_writer(0, 0.5, 0.0), 9)
        leaves = asyncio.run(run(expander))
        assert [len(own) for own in leaves] == [2, 2, 1, 0]
        assert [leaf for own in leaves for leaf in own] == expander.tree.leaves


def test_sample_each_ends_where_nothing_is_given() -> None:
    async def run() -> tuple[list[list[int]], int]:
        draw = Draw(Careful(random_writer(0, 0.5, 0.0), 9, silent_after=2), 9)
        return await draw.sample_each([(0, 1), (0, 1), (0, 1)]), draw.left

    leaves, left = asyncio.run(run())
    assert [len(own) for own in leaves] == [1, 1, 0]
    assert left == 0
    assert asyncio.run(expand_each(Careful(random_writer(0, 0.5, 0.0), 9), [])) == []


MINE = ["elpo", "elpo_no_bel", "elpo_no_branch", "elpo_no_elc", "arpo", "aepo", "tree_grpo", "elpo_plus"]


@pytest.mark.parametrize("name", MINE)
def test_algorithms_have_their_names_and_stay_within_their_budget(name: str) -> None:
    assert name in names()
    algorithm = load(name)
    assert algorithm.name == name
    expander, result = grow(algorithm.strategy, random_writer(3, 0.4, 0.0))
    assert 0 < len(expander.tree.leaves) <= algorithm.strategy.n_total
    bounds = algorithm.objective.bounds(expander.tree, result)
    assert len(bounds.low) == len(expander.tree.nodes)


def test_ablations_differ_from_elpo_in_their_part_only() -> None:
    whole = load("elpo")
    no_branch, no_elc, no_bel = load("elpo_no_branch"), load("elpo_no_elc"), load("elpo_no_bel")
    assert no_branch == replace(load("elpo", lambda_tree=0.0), name="elpo_no_branch")
    assert no_elc == replace(load("elpo", eps_elc=0.0), name="elpo_no_elc")
    assert no_bel.credit == whole.credit
    assert no_bel.objective == load("elpo", elc_scope="first_all_failed").objective
    assert isinstance(no_bel.strategy, RandomPrefixes)
    with pytest.raises(ValueError, match="lambda_tree"):
        load("elpo_no_branch", lambda_tree=0.5)


def test_the_first_form_of_elpo_plus_can_be_had() -> None:
    first = {"fresh": 8, "most_fresh": 16, "probes": None, "largest_group": 16, "replay_weight": 0.0}
    plus = load("elpo_plus", enough_successes=None, enough_failures=None, **first)
    assert plus.strategy == EarlyStop(SuccessAnchored(16, 8, 16), 3)
    assert plus.replay_weight == 0.0
    study = load("elpo_plus")
    assert study.strategy == EarlyStop(SuccessAnchored(28, 6, 24, (1, 3), 4), 3)
    assert (study.replay_weight, study.selection.hand_on, study.selection.n_total) == (0.6, True, 16)
    with pytest.raises(ValueError, match="enough_successes=1"):
        load("elpo_plus", enough_failures=None)


def test_selections_and_fixed_options_are_checked() -> None:
    with pytest.raises(ValueError, match="n_total=8 with hand_on=False"):
        Selection(n_total=8)
    with pytest.raises(ValueError, match="n_total=0"):
        Selection(hand_on=True, n_total=0)
    with pytest.raises(ValueError, match="has no option lamda to fix"):
        with_fixed(elpo, "elpo_mine", lamda=0.0)
    with pytest.raises(ValueError, match="eps_elc; it is what the name stands for"):
        elpo_no_elc(eps_elc=0.1)
    assert "eps_elc" not in options("elpo_no_elc")
    assert set(options("elpo_no_elc")) == set(options("elpo")) - {"eps_elc"}


def test_no_submodule_hides_what_the_package_exports() -> None:
    """A submodule of an exported name would take its place as soon as an algorithm is loaded."""
    for name in names():
        load(name)
    for exported in elpo_agent.algorithms.__all__:
        assert not inspect.ismodule(getattr(elpo_agent.algorithms, exported)), exported
