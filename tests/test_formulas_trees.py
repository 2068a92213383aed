"""The algorithms on trees against their formulas, written out recursively in plain floats."""

from __future__ import annotations

import math

import _formula_batch as fixed
import pytest
from _formula_batch import CRITICAL, GROUPS, TREES, Turn
from _literal_loss import Literal, check, literal_result, tokens

from elpo_agent.algorithms import load

ROWS = [(p, leaf) for p, turns in enumerate(TREES) for leaf in fixed.ends(turns)]


def mean(xs: list[float]) -> float:
    return sum(xs) / len(xs)


def std(xs: list[float], ddof: int) -> float:
    return math.sqrt(sum((x - mean(xs)) ** 2 for x in xs) / (len(xs) - ddof))


def below(turns: list[Turn], node: int) -> list[int]:
    """The valid leaves under `node`."""
    return [leaf for leaf in fixed.ends(turns) if node == 0 or node in fixed.path(turns, leaf)]


def children(turns: list[Turn], node: int) -> list[int]:
    return [i for i, turn in enumerate(turns, start=1) if turn.parent == node and below(turns, i)]


def r(turns: list[Turn], node: int) -> float:
    """ELPO, equation 6: the mean over direct children."""
    inner = children(turns, node)
    return mean([r(turns, c) for c in inner]) if inner else fixed.total(turns, node)


def all_rewards(turns: list[Turn]) -> list[float]:
    return [fixed.total(turns, leaf) for leaf in fixed.ends(turns)]


def by_node(value: dict[tuple[int, int], float]) -> dict[str, object]:
    """A node's advantage on each of its tokens, in every trajectory through it."""
    return {"rows": ROWS, "advantages": [[value[p, i] for p, i, _ in tokens(TREES, p, leaf)] for p, leaf in ROWS]}


def by_leaf(value: dict[tuple[int, int], float]) -> dict[str, object]:
    rows = [row for row in ROWS if row in value]
    return {"rows": rows, "advantages": [[value[row]] * len(tokens(TREES, *row)) for row in rows]}


def nodes() -> list[tuple[int, int]]:
    return [(p, i) for p, turns in enumerate(TREES) for i in range(1, len(turns) + 1) if below(turns, i)]


# --- ELPO -----------------------------------------------------------------------------------------------------


def a_branch(turns: list[Turn], node: int) -> float:
    """Equation 7 with the population's standard deviation; an only child inherits."""
    if node == 0:
        return 0.0
    parent = turns[node - 1].parent
    siblings = [r(turns, c) for c in children(turns, parent)]
    if len(siblings) == 1:
        return a_branch(turns, parent)
    return (r(turns, node) - mean(siblings)) / (std(siblings, 0) + 1e-6)


def a_trajectory(turns: list[Turn], node: int) -> float:
    """Equations 8 and 9: the mean over the leaves below of (R - mean) / (std + eps)."""
    rewards = all_rewards(turns)
    scores = [(fixed.total(turns, x) - mean(rewards)) / (std(rewards, 0) + 1e-6) for x in below(turns, node)]
    return mean(scores)


def a_hier(lambda_tree: float) -> dict[tuple[int, int], float]:
    """Equation 10."""
    return {
        (p, i): lambda_tree * a_branch(TREES[p], i) + (1.0 - lambda_tree) * a_trajectory(TREES[p], i)
        for p, i in nodes()
    }


def relaxed_under_critical() -> dict[tuple[int, int], float]:
    """Equation 11: eps_elc on the subtree under each critical step."""
    return {
        (p, i): 0.115
        for p, turns in enumerate(TREES)
        for i in range(1, len(turns) + 1)
        if CRITICAL[p] is not None and CRITICAL[p] in fixed.path(turns, i)
    }


def relaxed_where_all_failed() -> dict[tuple[int, int], float]:
    """From the earliest node on a failed leaf's path below which every sampled leaf failed."""
    out = {}
    for p, turns in enumerate(TREES):
        for leaf in fixed.ends(turns):
            if turns[leaf - 1].end.success:  # type: ignore[union-attr]
                continue
            lost = [
                i
                for i in fixed.path(turns, leaf)
                if not any(turns[x - 1].end.success for x in below(turns, i))  # type: ignore[union-attr]
            ]
            out |= {(p, i): 0.115 for i in range(1, len(turns) + 1) if lost and lost[0] in fixed.path(turns, i)}
    return out


@pytest.mark.parametrize(
    ("name", "lambda_tree", "relaxed"),
    [
        ("elpo", 0.5, relaxed_under_critical()),
        ("elpo_no_branch", 0.0, relaxed_under_critical()),
        ("elpo_no_elc", 0.5, {}),
        ("elpo_no_bel", 0.5, relaxed_where_all_failed()),
    ],
)
def test_elpo_and_its_ablations(name: str, lambda_tree: float, relaxed: dict[tuple[int, int], float]) -> None:
    literal = Literal(
        **by_node(a_hier(lambda_tree)),  # type: ignore[arg-type]
        eps_high=0.315,
        aggregation="seq-mean-token-mean",
        relaxed=relaxed,
    )
    check(fixed.run(load(name), TREES, critical=CRITICAL), literal_result(TREES, literal))


def test_the_relaxed_bound_is_felt() -> None:
    """Some token with a negative advantage has a ratio between 0.685 and 0.8 after a critical step."""
    usual = fixed.run(load("elpo_no_elc"), TREES, critical=CRITICAL)
    for relaxed in (
        fixed.run(load("elpo"), TREES, critical=CRITICAL),
        fixed.run(load("elpo", elc_scope="first_all_failed"), TREES, critical=CRITICAL),
    ):
        assert usual.advantages == relaxed.advantages
        assert sum(a != b for a, b in zip(usual.gradient, relaxed.gradient, strict=True)) > 0


# --- ARPO and AEPO --------------------------------------------------------------------------------------------


def grpo(p: int, leaf: int) -> float:
    rewards = all_rewards(TREES[p])
    return (fixed.total(TREES[p], leaf) - mean(rewards)) / (std(rewards, 1) + 1e-6)


def test_arpo_soft() -> None:
    """Plain GRPO on all rows, shared tokens included."""
    literal = Literal(**by_leaf({row: grpo(*row) for row in ROWS}), dual_clip=3.0)  # type: ignore[arg-type]
    check(fixed.run(load("arpo"), TREES), literal_result(TREES, literal))


def test_arpo_hard() -> None:
    """A shared token has the mean over the trajectories through it."""
    value = {(p, i): mean([grpo(p, leaf) for leaf in below(TREES[p], i)]) for p, i in nodes()}
    literal = Literal(**by_node(value), dual_clip=3.0)  # type: ignore[arg-type]
    check(fixed.run(load("arpo", estimate="hard"), TREES), literal_result(TREES, literal))


def test_aepo() -> None:
    """A (1 + 0.2 z_H) over the batch's agent tokens, and a gradient above the upper bound."""
    entropies = [fixed.entropy(*token) for row in ROWS for token in tokens(TREES, *row)]
    centre, scale = mean(entropies), std(entropies, 1)
    advantages = [
        [grpo(*row) * (1.0 + 0.2 * (fixed.entropy(*token) - centre) / scale) for token in tokens(TREES, *row)]
        for row in ROWS
    ]
    literal = Literal(ROWS, advantages, dual_clip=3.0, gradient_above=True)
    ours = fixed.run(load("aepo"), TREES)
    check(ours, literal_result(TREES, literal))
    clipped = fixed.run(load("aepo", loss={"gradient_above": False}), TREES)
    assert ours.loss == clipped.loss
    assert sum(a != b for a, b in zip(ours.gradient, clipped.gradient, strict=True)) > 0


# --- Tree-GRPO ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_scores", [False, True])
def test_tree_grpo(format_scores: bool) -> None:
    """z among the prompt's leaves plus z among the own tree's, over the leaves that were kept; k3 of 0.001."""

    def reward(p: int, leaf: int) -> float:
        turns = TREES[p]
        if not format_scores:
            return fixed.total(turns, leaf)
        end = turns[leaf - 1].end
        assert end is not None
        valid_format = all("malformed_call" not in turns[i - 1].kinds for i in fixed.path(turns, leaf))
        if end.success:
            return 1.0 if valid_format else 1.0 - 0.2
        if valid_format:
            return 0.2
        return 0.1 if end.answer is not None else 0.0

    value = {}
    for p, leaf in ROWS:
        kept = [x for x in fixed.ends(TREES[p]) if x in GROUPS[p]]
        if leaf not in kept:
            continue
        everyone = [reward(p, x) for x in kept]
        own = [reward(p, x) for x in kept if GROUPS[p][x] == GROUPS[p][leaf]]
        value[p, leaf] = (reward(p, leaf) - mean(everyone)) / (std(everyone, 1) + 1e-6)
        if len(own) > 1:
            value[p, leaf] += (reward(p, leaf) - mean(own)) / (std(own, 1) + 1e-6)
    assert len(value) == len(ROWS) - 1
    literal = Literal(**by_leaf(value), dual_clip=3.0, kl=("k3", 0.001))  # type: ignore[arg-type]
    ours = fixed.run(load("tree_grpo", format_scores=format_scores), TREES, groups=GROUPS)
    check(ours, literal_result(TREES, literal))


# --- ELPO+ ----------------------------------------------------------------------------------------------------


def gap_branch(turns: list[Turn], node: int) -> float:
    """(r(c) - sibling mean) * k / (k - 1) / sigma_group, inherited by only children."""
    if node == 0:
        return 0.0
    parent = turns[node - 1].parent
    siblings = [r(turns, c) for c in children(turns, parent)]
    k = len(siblings)
    if k == 1:
        return gap_branch(turns, parent)
    return (r(turns, node) - mean(siblings)) * k / (k - 1) / (std(all_rewards(turns), 0) + 1e-6)


@pytest.mark.parametrize("weight", [1.0, 1.6])
def test_elpo_plus(weight: float) -> None:
    value = {}
    for p, i in nodes():
        turns = TREES[p]
        rewards = all_rewards(turns)
        share = mean([fixed.total(turns, leaf) for leaf in below(turns, i)])
        a_t = (share - mean(rewards)) / (std(rewards, 0) + 1e-6)
        a = 0.5 * gap_branch(turns, i) + 0.5 * a_t
        value[p, i] = a * weight if a > 0.0 else a
    literal = Literal(**by_node(value), eps_high=0.315, aggregation="seq-mean-token-mean")  # type: ignore[arg-type]
    check(fixed.run(load("elpo_plus", positive_weight=weight), TREES), literal_result(TREES, literal))
