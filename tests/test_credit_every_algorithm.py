"""What holds for the credit of every algorithm, on random trees with random rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_agent.algorithms import load
from elpo_agent.algorithms.registry import BUILT_IN
from elpo_agent.credit.base import LeafCredit, leaf_credits, valid_leaves
from elpo_agent.learner.rows import tree_rows
from elpo_agent.rollout.base import SearchResult
from elpo_agent.tree import Outcome, RolloutTree, Step

KINDS = ("ok", "empty", "error", "timeout", "malformed_call", "no_action")
NAMES = list(BUILT_IN)


@dataclass(frozen=True)
class Sketch:
    """A tree before it is built: `steps[i]` is node i + 1's, `parents[i]` its parent."""

    prompt: int
    parents: tuple[int, ...]
    steps: tuple[Step, ...]
    outcomes: Mapping[int, Outcome]
    groups: Mapping[int, int]

    def build(self, order: list[int] | None = None) -> tuple[RolloutTree, dict[int, int]]:
        """The tree with its nodes added in `order`, which has parents first; and each node's index in it."""
        tree = RolloutTree(f"task {self.prompt}", (1, 2, self.prompt))
        index = {0: 0}
        for node in order or range(1, len(self.steps) + 1):
            step, parent = self.steps[node - 1], self.parents[node - 1]
            index[node] = tree.add(index[parent], step, outcome=self.outcomes.get(node))
        tree.groups.update((index[leaf], group) for leaf, group in self.groups.items())
        return tree, index


def sketch_of(random: Random, prompt: int, *, plain: bool, reward: float | None) -> Sketch:
    """A random tree; `plain`: at least two valid leaves, outcomes alone are rewarded and no turn is out of form."""
    n = random.randint(2, 14)
    parents = [random.randint(0, i) for i in range(n)]  # of node i + 1
    if plain:
        parents[-1] = parents[-2] = 0
    leaves = sorted(set(range(1, n + 1)) - set(parents))
    steps = []
    for _ in range(n):
        tokens = random.randint(1, 3)
        numbers = [random.randint(1, 300) / 100 for _ in range(2 * tokens)]
        steps.append(
            Step(
                ids=tuple(range(100, 100 + tokens)),
                logprobs=-np.array(numbers[:tokens], dtype=np.float32),
                entropies=np.array(numbers[tokens:], dtype=np.float32),
                feedback_ids=random.choice([(70,), (71, 72), ()]),
                kinds=("ok",) if plain else tuple(random.choices(KINDS, k=random.randint(0, 2))),
                reward=0.0 if plain else random.choice([0.0, 0.0, 0.25, -0.5]),
            )
        )
    outcomes = {}
    for leaf in leaves:
        valid = (plain and leaf in leaves[-2:]) or random.random() < 0.75
        success = random.random() < 0.5 if reward is None else reward > 0
        earned = random.randint(-100, 100) / 50 if reward is None else reward
        outcomes[leaf] = Outcome(earned if valid else 1e7, success, answer="1", valid=valid)
    kept = [leaf for leaf in leaves if random.random() < 0.8] if random.random() < 0.5 and not plain else leaves
    groups = {leaf: random.randint(0, 1) for leaf in kept} if plain or random.random() < 0.5 else {}
    return Sketch(prompt, tuple(parents), tuple(steps), outcomes, groups)


def batch(*, plain: bool = False, reward: float | None = None) -> st.SearchStrategy[tuple[Sketch, ...]]:
    """Three prompts, drawn by a seed: drawing every number by itself takes a hundred times as long."""

    def drawn(seed: int) -> tuple[Sketch, ...]:
        random = Random(seed)
        return tuple(sketch_of(random, prompt, plain=plain, reward=reward) for prompt in (3, 4, 5))

    return st.integers(0, 2**32).map(drawn)


def expected(tree: RolloutTree, leaf: int) -> list[np.ndarray]:
    """A reference policy."""
    steps = [tree.nodes[i].step for i in tree.path(leaf)]
    return [step.logprobs.astype(np.float64) * 0.75 for step in steps if step is not None]


def credits_of(name: str, trees: list[RolloutTree], **options: Any) -> list[list[LeafCredit]]:
    credit = load(name, **options).credit
    return leaf_credits(credit, trees, expected if getattr(credit, "needs_reference", False) else None)


def values(credited: list[list[LeafCredit]]) -> np.ndarray:
    parts = [leaf.advantages for leaves in credited for leaf in leaves]
    return np.concatenate(parts) if parts else np.zeros(0)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=8)
@given(batch())
def test_advantages_are_finite_and_fit_the_valid_leaves(name: str, drawn: tuple[Sketch, ...]) -> None:
    trees = [sketch.build()[0] for sketch in drawn]
    credited = credits_of(name, trees)
    for tree, leaves in zip(trees, credited, strict=True):
        assert [given.leaf for given in leaves] == valid_leaves(tree)
        for leaf in leaves:
            steps = [tree.nodes[i].step for i in tree.path(leaf.leaf)]
            assert leaf.advantages.shape == (sum(len(s.ids) for s in steps if s is not None),)
            assert leaf.advantages.dtype == np.float64
    assert np.isfinite(values(credited)).all()
    assert np.abs(values(credited)).max(initial=0.0) < 1e3, "a broken rollout's reward has leaked"


# With these options a formula says that equal rewards teach nothing.
EQUAL: dict[str, dict[str, Any]] = {
    "reinforce_pp": {"kl_reward": 0.0},
    "gigpo": {"gamma": 1.0},
}


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=8)
@given(st.sampled_from([0.0, 1.0, 0.1, -1.1]).flatmap(lambda reward: batch(plain=True, reward=reward)))
def test_equal_rewards_give_exactly_no_advantage(name: str, drawn: tuple[Sketch, ...]) -> None:
    trees = [sketch.build()[0] for sketch in drawn]
    assert not values(credits_of(name, trees, **EQUAL.get(name, {}))).any()


# Free of the reward's scale and origin, and of its origin alone (times the scale).
FREE = [n for n in NAMES if n not in ("rloo", "gigpo")]
ORIGIN = ["rloo", "gigpo"]
NO_EPS: dict[str, dict[str, Any]] = {
    "reinforce_pp": {"kl_reward": 0.0},
    "reinforce_pp_baseline": {},
    "cir": {},
    "rloo": {},
    "gigpo": {"gamma": 1.0, "invalid_penalty": 0.0},
}


def changed(sketch: Sketch, scale: float, shift: float) -> Sketch:
    outcomes = {i: replace(o, reward=scale * o.reward + shift) for i, o in sketch.outcomes.items()}
    return replace(sketch, outcomes=outcomes)


@pytest.mark.parametrize("name", FREE)
@settings(deadline=None, max_examples=8)
@given(batch(plain=True), st.floats(0.5, 20), st.floats(-20, 20))
def test_affine_changes_of_the_reward_do_not_matter(
    name: str, drawn: tuple[Sketch, ...], scale: float, shift: float
) -> None:
    options = NO_EPS.get(name, {"std_eps": 0.0})
    before = values(credits_of(name, [s.build()[0] for s in drawn], **options))
    after = values(credits_of(name, [changed(s, scale, shift).build()[0] for s in drawn], **options))
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("name", ORIGIN)
@settings(deadline=None, max_examples=8)
@given(batch(plain=True), st.floats(0.5, 20), st.floats(-20, 20))
def test_the_origin_of_the_reward_does_not_matter(
    name: str, drawn: tuple[Sketch, ...], scale: float, shift: float
) -> None:
    options = NO_EPS.get(name, {})
    before = values(credits_of(name, [s.build()[0] for s in drawn], **options))
    after = values(credits_of(name, [changed(s, scale, shift).build()[0] for s in drawn], **options))
    np.testing.assert_allclose(after, scale * before, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=8)
@given(batch(), st.randoms(use_true_random=False))
def test_the_order_of_siblings_and_prompts_does_not_matter(name: str, drawn: tuple[Sketch, ...], random: Any) -> None:
    def by_leaf(order: list[int], shuffled: bool) -> dict[tuple[int, int], np.ndarray]:
        trees, names = [], []
        for k in order:
            sketch, nodes = drawn[k], []
            waiting = [i for i, p in enumerate(sketch.parents, start=1) if p == 0]
            while waiting:
                node = waiting.pop(random.randrange(len(waiting)) if shuffled else 0)
                nodes.append(node)
                waiting += [i for i, p in enumerate(sketch.parents, start=1) if p == node]
            tree, index = sketch.build(nodes)
            trees.append(tree)
            names.append({new: old for old, new in index.items()})
        return {
            (k, back[given.leaf]): given.advantages
            for k, back, leaves in zip(order, names, credits_of(name, trees), strict=True)
            for given in leaves
        }

    # GiGPO, too: its rows are told apart by trajectory, whose first step is the same in any order.
    straight, shuffled = by_leaf([0, 1, 2], False), by_leaf([2, 0, 1], True)
    assert straight.keys() == shuffled.keys()
    for leaf, advantages in straight.items():
        np.testing.assert_allclose(shuffled[leaf], advantages, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=8)
@given(batch())
def test_tool_tokens_carry_no_loss(name: str, drawn: tuple[Sketch, ...]) -> None:
    trees = [sketch.build()[0] for sketch in drawn]
    objective = load(name).objective
    for tree, leaves in zip(trees, credits_of(name, trees), strict=True):
        rows = tree_rows(tree, leaves, objective.bounds(tree, SearchResult()))
        assert len(rows) == len(leaves)
        for row, credit in zip(rows, leaves, strict=True):
            agent = row.ids >= 100
            assert np.array_equal(row.mask, agent)
            for field in (row.advantages, row.old_logprobs, row.eps_low, row.eps_high):
                assert not field[~agent].any()
            np.testing.assert_array_equal(row.advantages[agent], credit.advantages.astype(np.float32))
            assert row.eps_high[agent].all()


@settings(deadline=None, max_examples=8)
@given(batch())
def test_credit_leaves_the_trees_as_they_are(drawn: tuple[Sketch, ...]) -> None:
    trees, again = [s.build()[0] for s in drawn], [s.build()[0] for s in drawn]
    for name in NAMES:
        credits_of(name, trees)
    for tree, other in zip(trees, again, strict=True):
        assert [n.outcome for n in tree.nodes] == [n.outcome for n in other.nodes]
        assert [n.step.reward for n in tree.nodes[1:]] == [n.step.reward for n in other.nodes[1:]]  # type: ignore[union-attr]
        assert [n.children for n in tree.nodes] == [n.children for n in other.nodes]
