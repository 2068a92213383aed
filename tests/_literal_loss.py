"""The published losses with their gradients written out, token by token, in plain floats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import _formula_batch as fixed

Token = tuple[int, int, int]
"""Prompt, node, position within the turn."""


@dataclass(frozen=True)
class Literal:
    """What a transcription says: a row for each trajectory, an advantage for each of its tokens."""

    rows: list[tuple[int, int]]
    advantages: list[list[float]]
    eps_low: float = 0.2
    eps_high: float = 0.2
    aggregation: str = "token-mean"
    dual_clip: float | None = None
    kl: tuple[str, float] | None = None
    gradient_above: bool = False
    relaxed: Mapping[tuple[int, int], float] | None = None  # added to eps_low, by prompt and node


def tokens(prompts: Sequence[Sequence[fixed.Turn]], prompt: int, leaf: int) -> list[Token]:
    """The agent tokens of a trajectory."""
    turns = prompts[prompt]
    return [(prompt, node, t) for node in fixed.path(turns, leaf) for t in range(turns[node - 1].tokens)]


def token_loss(given: Literal, token: Token, a: float) -> tuple[float, float]:
    """The loss of one token and its derivative with respect to the token's log-probability."""
    rho = math.exp(min(max(fixed.current(*token) - fixed.old(*token), -20.0), 20.0))
    low = 1.0 - given.eps_low - (given.relaxed or {}).get(token[:2], 0.0)
    high = 1.0 + given.eps_high
    unclipped, clipped = rho * a, min(max(rho, low), high) * a
    if unclipped <= clipped:
        loss, slope = -unclipped, -unclipped
    else:
        loss, slope = -clipped, 0.0
    if given.gradient_above and a > 0.0 and rho > high:
        loss, slope = -high * a, -high * a
    if given.dual_clip is not None and a < 0.0 and loss > -given.dual_clip * a:
        loss, slope = -given.dual_clip * a, 0.0
    if given.kl is not None:
        name, coefficient = given.kl
        d = fixed.expected(*token) - fixed.current(*token)
        value, by_l = {
            "k1": (-d, 1.0),
            "k2": (d * d / 2.0, -d),
            "k3": (math.exp(d) - d - 1.0, 1.0 - math.exp(d)),
        }[name]
        loss, slope = loss + coefficient * value, slope + coefficient * by_l
    return loss, slope


def literal_result(prompts: Sequence[Sequence[fixed.Turn]], given: Literal) -> fixed.Result:
    """Advantages, loss and gradient, in the order of `_formula_batch.Result`."""
    lengths = [len(tokens(prompts, *row)) for row in given.rows]
    loss, gradient, flat = 0.0, [], []
    for row, advantages, n in zip(given.rows, given.advantages, lengths, strict=True):
        weight = {
            "token-mean": 1.0 / sum(lengths),
            "seq-mean-token-mean": 1.0 / len(lengths) / n,
            "seq-mean-token-sum": 1.0 / len(lengths),
        }[given.aggregation]
        for token, a in zip(tokens(prompts, *row), advantages, strict=True):
            value, slope = token_loss(given, token, a)
            loss += weight * value
            gradient.append(weight * slope)
            flat.append(a)
    return fixed.Result(given.rows, flat, loss, gradient)


def check(ours: fixed.Result, literal: fixed.Result, tolerance: float = 1e-10) -> None:
    """Agreement of every advantage, of the loss and of every derivative."""
    assert ours.leaves == literal.leaves
    assert len(ours.advantages) == len(literal.advantages) > 0
    for a, b in zip(ours.advantages, literal.advantages, strict=True):
        assert abs(a - b) <= tolerance, (a, b)
    assert abs(ours.loss - literal.loss) <= tolerance, (ours.loss, literal.loss)
    for a, b in zip(ours.gradient, literal.gradient, strict=True):
        assert abs(a - b) <= tolerance, (a, b)
    assert any(g != 0.0 for g in ours.gradient)
