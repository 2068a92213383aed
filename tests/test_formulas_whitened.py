"""REINFORCE++, its baseline variant and CIR against OpenRLHF's and verl's formulas, written out in plain floats."""

from __future__ import annotations

import math

import _formula_batch as fixed
import pytest
from _formula_batch import CHAINS
from _literal_loss import Literal, check, literal_result, tokens

from elpo_agent.algorithms import load


def rows() -> list[tuple[int, int]]:
    return [(p, leaf) for p, turns in enumerate(CHAINS) for leaf in fixed.ends(turns)]


def token_rewards(p: int, leaf: int, beta: float, outcome: float) -> list[float]:
    """r_t = -beta * (log pi_old - log pi_ref), a step's reward at its last token, the outcome's at the last of all."""
    turns, out = CHAINS[p], []
    for node in fixed.path(turns, leaf):
        for t in range(turns[node - 1].tokens):
            r = -beta * (fixed.old(p, node, t) - fixed.expected(p, node, t))
            if t == turns[node - 1].tokens - 1:
                r += outcome if node == leaf else turns[node - 1].reward
            out.append(r)
    return out


def to_go(rewards: list[float]) -> list[float]:
    return [sum(rewards[t:]) for t in range(len(rewards))]


def whitened(returns: list[list[float]], unbiased: bool) -> list[list[float]]:
    flat = [g for row in returns for g in row]
    mean = sum(flat) / len(flat)
    squares = sum((g - mean) ** 2 for g in flat)
    if unbiased:  # verl: masked_whiten
        scale = 1.0 / math.sqrt(squares / (len(flat) - 1) + 1e-8)
    else:  # OpenRLHF
        scale = 1.0 / math.sqrt(max(squares / len(flat), 1e-8))
    return [[(g - mean) * scale for g in row] for row in returns]


def outcome(p: int, leaf: int) -> float:
    end = CHAINS[p][leaf - 1].end
    assert end is not None
    return end.reward


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("beta", [0.01, 0.5, 0.0])
def test_reinforce_pp(beta: float, unbiased: bool) -> None:
    returns = [to_go(token_rewards(p, leaf, beta, outcome(p, leaf))) for p, leaf in rows()]
    literal = Literal(rows(), whitened(returns, unbiased))
    ours = fixed.run(load("reinforce_pp", kl_reward=beta, unbiased=unbiased), CHAINS)
    check(ours, literal_result(CHAINS, literal))


def test_returns_are_carried_across_tool_tokens() -> None:
    """The first token of a deep trajectory has the outcome in its return."""
    returns = to_go(token_rewards(2, 4, 0.0, 1.0))
    assert len(returns) == len(tokens(CHAINS, 2, 4)) == 10
    assert returns[0] == 1.0 + 0.25 - 0.125
    assert returns[-1] == 1.0


def group_mean(p: int, reward: dict[tuple[int, int], float]) -> float:
    values = [r for (q, _), r in reward.items() if q == p]
    return sum(values) / len(values)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_reinforce_pp_baseline(beta: float) -> None:
    """R - group mean first, then as above; the script's k2 loss of 1e-5."""
    total = {row: fixed.total(CHAINS[row[0]], row[1]) for row in rows()}
    returns = [to_go(token_rewards(p, leaf, beta, outcome(p, leaf) - group_mean(p, total))) for p, leaf in rows()]
    literal = Literal(rows(), whitened(returns, unbiased=False), kl=("k2", 1e-5))
    check(fixed.run(load("reinforce_pp_baseline", kl_reward=beta), CHAINS), literal_result(CHAINS, literal))


def test_cir() -> None:
    """Rewards 1 and -1, group mean, verl's whitening, bounds 0.2 and 0.28, c = 3, mean over tokens."""
    sign = {}
    for p, leaf in rows():
        end = CHAINS[p][leaf - 1].end
        assert end is not None
        sign[p, leaf] = 1.0 if end.success else -1.0
    inner = {(p, leaf): fixed.total(CHAINS[p], leaf) - outcome(p, leaf) for p, leaf in rows()}
    total = {row: sign[row] + inner[row] for row in rows()}
    returns = [to_go(token_rewards(p, leaf, 0.0, sign[p, leaf] - group_mean(p, total))) for p, leaf in rows()]
    literal = Literal(rows(), whitened(returns, unbiased=True), eps_high=0.28, dual_clip=3.0)
    check(fixed.run(load("cir"), CHAINS), literal_result(CHAINS, literal))


def test_cirs_tool_budget_grows_in_equal_shares() -> None:
    budget = load("cir").tool_budget
    assert budget is not None
    assert [budget(i / 10) for i in range(11)] == [2, 2, 4, 4, 5, 5, 8, 8, 10, 10, 10]
    assert load("cir", tool_calls=None).tool_budget is None
    with pytest.raises(ValueError, match=r"tool_calls=\[\] is no schedule"):
        load("cir", tool_calls=[])
