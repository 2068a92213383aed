"""GiGPO against the authors' row-per-step computation, written out in plain floats."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import _formula_batch as fixed
import pytest
from _formula_batch import CHAINS, Turn
from _literal_loss import Literal, check, literal_result

from elpo_agent.algorithms import load

INVALID = ("malformed_call", "unknown_tool", "invalid_arguments", "no_action")


@dataclass
class Row:
    """One env step."""

    prompt: int
    leaf: int
    node: int
    anchor: tuple[int, ...]
    episode_reward: float
    step_return: float


def step_rows(gamma: float, penalty: float, prompts: list[list[Turn]] = CHAINS) -> list[Row]:
    out = []
    for p, turns in enumerate(prompts):
        for leaf in fixed.ends(turns):
            nodes = fixed.path(turns, leaf)
            end = turns[leaf - 1].end
            assert end is not None
            rewards = [end.reward if i == leaf else turns[i - 1].reward for i in nodes]
            for k, node in enumerate(nodes):
                anchor = fixed.prompt_ids(p) if k == 0 else turns[nodes[k - 1] - 1].feedback
                discounted = sum(gamma**j * r for j, r in enumerate(rewards[k:]))
                cost = penalty if any(kind in INVALID for kind in turns[node - 1].kinds) else 0.0
                out.append(Row(p, leaf, node, anchor, sum(rewards) - cost, discounted - cost))
    return out


def statistics(values: list[float], alone: float) -> tuple[float, float]:
    """Mean and std with ddof 1; of a single value `alone` and 1."""
    if len(values) == 1:
        return alone, 1.0
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def alike(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Ratcliff and Obershelp's ratio: twice the matched tokens by all of them; blocks of the longest match first."""

    def matched(x: tuple[int, ...], y: tuple[int, ...]) -> int:
        for n in range(min(len(x), len(y)), 0, -1):
            for i in range(len(x) - n + 1):
                for j in range(len(y) - n + 1):
                    if x[i : i + n] == y[j : j + n]:
                        return n + matched(x[:i], y[:j]) + matched(x[i + n :], y[j + n :])
        return 0

    return 2.0 * matched(a, b) / (len(a) + len(b))


def clustered(rows: list[Row], threshold: float) -> None:
    """A row joins the prompt's first cluster whose first member is alike enough."""
    for p in {row.prompt for row in rows}:
        heads: list[tuple[int, ...]] = []
        for row in rows:
            if row.prompt == p:
                head = next((h for h in heads if alike(row.anchor, h) >= threshold), None)
                if head is None:
                    heads.append(row.anchor)
                else:
                    row.anchor = head


def advantages(rows: list[Row], omega: float, norm: str) -> dict[tuple[int, int, int], float]:
    """Equations 3 to 8: A = A_E + omega A_S."""
    out = {}
    for row in rows:
        # Episode group: each trajectory counted once, by the first of its rows.
        seen: dict[int, float] = {}
        for other in rows:
            if other.prompt == row.prompt and other.leaf not in seen:
                seen[other.leaf] = other.episode_reward
        mean_e, std_e = statistics(list(seen.values()), alone=0.0)
        peers = [o.step_return for o in rows if o.prompt == row.prompt and o.anchor == row.anchor]
        mean_s, std_s = statistics(peers, alone=peers[0])
        f_e, f_s = (1.0, 1.0) if norm == "mean_norm" else (std_e + 1e-6, std_s + 1e-6)
        a_e, a_s = (row.episode_reward - mean_e) / f_e, (row.step_return - mean_s) / f_s
        out[row.prompt, row.leaf, row.node] = a_e + omega * a_s
    return out


@pytest.mark.parametrize("norm", ["mean_norm", "mean_std_norm"])
@pytest.mark.parametrize(("gamma", "omega", "penalty"), [(0.95, 1.0, 0.1), (0.5, 0.3, 0.01), (1.0, 0.0, 0.0)])
def test_gigpo(norm: str, gamma: float, omega: float, penalty: float) -> None:
    value = advantages(step_rows(gamma, penalty), omega, norm)
    rows = [(p, leaf) for p, turns in enumerate(CHAINS) for leaf in fixed.ends(turns)]
    literal = Literal(
        rows,
        [
            [value[p, leaf, i] for i in fixed.path(CHAINS[p], leaf) for _ in range(CHAINS[p][i - 1].tokens)]
            for p, leaf in rows
        ],
        dual_clip=3.0,
        kl=("k3", 0.01),
    )
    algorithm = load("gigpo", norm=norm, gamma=gamma, omega=omega, invalid_penalty=penalty)
    check(fixed.run(algorithm, CHAINS), literal_result(CHAINS, literal))


def test_gigpo_with_similar_observations() -> None:
    """One feedback differs from another in one token of three."""
    other = [[replace(t, feedback=(80, 81, 90)) if t.kinds == ("malformed_call",) else t for t in p] for p in CHAINS]
    rows = [(p, leaf) for p, turns in enumerate(other) for leaf in fixed.ends(turns)]
    results = []
    for similarity in (0.6, 0.7, None):
        steps = step_rows(0.95, 0.1, other)
        if similarity is not None:
            clustered(steps, similarity)
        value = advantages(steps, 1.0, "mean_norm")
        given = [
            [value[p, leaf, i] for i in fixed.path(other[p], leaf) for _ in range(other[p][i - 1].tokens)]
            for p, leaf in rows
        ]
        results.append(fixed.run(load("gigpo", similarity=similarity), other))
        check(results[-1], literal_result(other, Literal(rows, given, dual_clip=3.0, kl=("k3", 0.01))))
    assert results[0].advantages != results[1].advantages
    assert results[1].advantages == results[2].advantages


def test_the_batch_has_step_groups_beyond_the_prompt() -> None:
    rows = step_rows(0.95, 0.1)
    anchored = [(r.prompt, r.anchor) for r in rows if r.anchor != fixed.prompt_ids(r.prompt)]
    assert max(anchored.count(key) for key in anchored) >= 3
    assert min(anchored.count(key) for key in anchored) == 1


def test_the_published_defaults() -> None:
    assert load("gigpo") == load(
        "gigpo", gamma=0.95, omega=1.0, norm="mean_norm", invalid_penalty=0.1, std_eps=1e-6, eps_low=0.2, eps_high=0.2
    )
