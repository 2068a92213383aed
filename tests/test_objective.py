"""The clipped surrogate against a literal loop over equation 12, clip bounds on trees, and statistics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from _scripted import broken, lost, tree_of, won
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elpo_agent.algorithms import load
from elpo_agent.objective import ClippedObjective, ErrorLocalizedClipping, TokenBatch, first_all_failed
from elpo_agent.objective.scope import at_or_below
from elpo_agent.objective.surrogate import clipped_surrogate, sequence_mean
from elpo_agent.rollout import Localization, SearchResult
from elpo_agent.tree import RolloutTree


def random_batch(seed: int, rows: int = 5, width: int = 11) -> tuple[Tensor, TokenBatch]:
    """Float64 tokens with random bounds, advantages of both signs, random masks and ratios far from 1."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, width, generator=generator, dtype=torch.float64)

    mask = (uniform(0, 1) < 0.6).double()
    mask[0] = 0.0  # a row without agent tokens
    old = uniform(-4, 0) * mask
    logprobs = (old + uniform(-0.8, 0.8)).requires_grad_()
    batch = TokenBatch(
        old_logprobs=old,
        advantages=uniform(-2, 2) * mask,
        eps_low=uniform(0.05, 0.5) * mask,
        eps_high=uniform(0.05, 0.5) * mask,
        mask=mask,
    )
    return logprobs, batch


def literal_loss(logprobs: Tensor, batch: TokenBatch) -> tuple[float, list[list[float]]]:
    """Minus the sum over rows in equation 12, and its derivative by hand: rho A, or 0 where clipped."""
    loss = 0.0
    gradient = [[0.0] * logprobs.shape[1] for _ in range(logprobs.shape[0])]
    for i in range(logprobs.shape[0]):
        n = sum(float(m) for m in batch.mask[i])
        for t in range(logprobs.shape[1]):
            if batch.mask[i, t] == 0:
                continue
            a = float(batch.advantages[i, t])
            log_ratio = float(logprobs[i, t]) - float(batch.old_logprobs[i, t])
            rho = math.exp(max(-20.0, min(20.0, log_ratio)))
            low, high = 1 - float(batch.eps_low[i, t]), 1 + float(batch.eps_high[i, t])
            plain, clipped = rho * a, max(low, min(high, rho)) * a
            loss -= min(plain, clipped) / n
            active = low <= rho <= high or plain < clipped
            gradient[i][t] = -rho * a / n if active and abs(log_ratio) <= 20 else 0.0
    return loss, gradient


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("objective", [ClippedObjective(), ErrorLocalizedClipping()])
def test_loss_and_gradient_equal_the_literal_loop(
    seed: int, objective: ClippedObjective | ErrorLocalizedClipping
) -> None:
    logprobs, batch = random_batch(seed)
    loss, statistics = objective.loss(logprobs, batch)
    loss.backward()
    expected, gradient = literal_loss(logprobs.detach(), batch)
    assert abs(loss.item() - expected) < 1e-10
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor(gradient, dtype=torch.float64), atol=1e-10, rtol=0)
    # The case is worth something: both clips are active somewhere, and both signs pass somewhere.
    assert statistics["clip_low"] > 0
    assert statistics["clip_high"] > 0
    assert torch.any(logprobs.grad > 0)
    assert torch.any(logprobs.grad < 0)


def test_huge_log_ratios_are_cut_at_twenty() -> None:
    logprobs = torch.tensor([[30.0, -30.0, 20.5]], dtype=torch.float64, requires_grad=True)
    zeros, ones = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    batch = TokenBatch(zeros, -ones, 0.2 * ones, 0.2 * ones, ones)
    loss, _ = ClippedObjective().loss(logprobs, batch)
    loss.backward()
    assert loss.item() == pytest.approx(literal_loss(logprobs.detach(), batch)[0], rel=1e-12)
    assert logprobs.grad is not None
    assert torch.all(logprobs.grad == 0)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e9])
def test_nothing_at_masked_places_matters(garbage: float) -> None:
    logprobs, batch = random_batch(3)
    clean = logprobs.detach().clone().requires_grad_()
    loss, statistics = ClippedObjective().loss(clean, batch)
    loss.backward()
    off = batch.mask == 0
    dirty = torch.where(off, garbage, logprobs.detach()).requires_grad_()
    spoiled = replace(
        batch,
        old_logprobs=torch.where(off, garbage, batch.old_logprobs),
        advantages=torch.where(off, garbage, batch.advantages),
    )
    other, other_statistics = ClippedObjective().loss(dirty, spoiled)
    other.backward()
    assert other.item() == loss.item()
    assert other_statistics == statistics
    assert clean.grad is not None
    assert dirty.grad is not None
    assert torch.equal(dirty.grad, clean.grad)


def test_a_batch_without_agent_tokens_costs_nothing() -> None:
    logprobs, batch = random_batch(0)
    loss, statistics = ClippedObjective().loss(logprobs, replace(batch, mask=torch.zeros_like(batch.mask)))
    loss.backward()
    assert loss.item() == 0.0
    assert all(value == 0.0 for value in statistics.values())
    assert logprobs.grad is not None
    assert torch.all(logprobs.grad == 0)


def test_rows_weigh_the_same_whatever_their_length() -> None:
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0], [7.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert sequence_mean(values, mask).tolist() == [2.5, 7.0, 0.0]


def test_bool_masks_and_half_precision() -> None:
    logprobs, batch = random_batch(5)
    exact, _ = ClippedObjective().loss(logprobs, batch)
    as_bool, _ = ClippedObjective().loss(logprobs, replace(batch, mask=batch.mask.bool()))
    assert exact.item() == as_bool.item()
    half = clipped_surrogate(
        torch.full((1, 2), -1.0, dtype=torch.bfloat16),
        torch.full((1, 2), -1.1),
        torch.ones(1, 2),
        torch.ones(1, 2),
        torch.full((1, 2), 0.2),
        torch.full((1, 2), 0.2),
    )
    assert half.dtype == torch.float32
    assert half[0, 0].item() == pytest.approx(-math.exp(0.1), rel=1e-6)


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match=r"old_logprobs \(1, 3\)"):
        clipped_surrogate(*(torch.zeros(1, n) for n in (2, 3, 2, 2, 2, 2)))


def test_statistics_by_hand() -> None:
    ratio = torch.tensor([[0.7, 0.7, 1.3, 1.3, 0.75, 9.0]], dtype=torch.float64)
    batch = TokenBatch(
        old_logprobs=torch.zeros(1, 6, dtype=torch.float64),
        advantages=torch.tensor([[-1.0, 1.0, -1.0, 1.0, -1.0, 5.0]], dtype=torch.float64),
        eps_low=torch.tensor([[0.2, 0.2, 0.2, 0.2, 0.315, 0.0]], dtype=torch.float32),
        eps_high=torch.full((1, 6), 0.2),
        mask=torch.tensor([[1, 1, 1, 1, 1, 0]]),
    )
    _, statistics = ErrorLocalizedClipping().loss(ratio.log(), batch)
    kl = [r - 1 - math.log(r) for r in (0.7, 0.7, 1.3, 1.3, 0.75)]
    assert statistics == pytest.approx(
        {
            "tokens": 5,
            "ratio_mean": 4.75 / 5,
            "clip_low": 1 / 5,  # the fifth token is within its relaxed bound
            "clip_high": 1 / 5,
            "approx_kl": sum(kl) / 5,
            "relaxed": 1 / 5,
        }
    )


def test_a_relaxed_bound_lets_a_gradient_through_only_below_the_usual_one() -> None:
    for ratio, passes in ((0.9, (True, True)), (0.75, (False, True)), (0.6, (False, False))):
        for relaxed in (False, True):
            logprobs = torch.full((1, 1), math.log(ratio), requires_grad=True)
            low = torch.full((1, 1), 0.315 if relaxed else 0.2)
            one = torch.ones(1, 1)
            loss, _ = ErrorLocalizedClipping().loss(
                logprobs, TokenBatch(torch.zeros(1, 1), -one, low, 0.315 * one, one)
            )
            loss.backward()
            assert logprobs.grad is not None
            assert bool(logprobs.grad.item() != 0) is passes[relaxed]


# --- bounds on trees ----------------------------------------------------------------------------------------


def test_constant_bounds() -> None:
    bounds = ClippedObjective(0.1, 0.3).bounds(tree_of([-1, 0, 1], {2: lost()}), SearchResult())
    np.testing.assert_array_equal(bounds.low, [0.1] * 3)
    np.testing.assert_array_equal(bounds.high, [0.3] * 3)


def small_tree() -> RolloutTree:
    # root -> 1 -> (2 -> 3 lost, 4 lost, 5 won); root -> 6 -> (7 broken, 8 lost); root -> 9 broken
    return tree_of(
        [-1, 0, 1, 2, 2, 1, 0, 6, 6, 0],
        {3: lost(), 4: lost(), 5: won(), 7: broken(), 8: lost(), 9: broken()},
    )


def test_critical_scope_relaxes_the_subtrees_found() -> None:
    found = (Localization(3, 2, 2, 2), Localization(8, 1, None, None, closed=False))
    bounds = ErrorLocalizedClipping().bounds(small_tree(), SearchResult(found))
    assert np.flatnonzero(bounds.low > 0.2).tolist() == [2, 3, 4]
    assert bounds.low[2] == pytest.approx(0.315)
    assert np.all(bounds.high == 0.315)


def test_first_all_failed_scope_ignores_invalid_leaves() -> None:
    bounds = ErrorLocalizedClipping(scope="first_all_failed").bounds(small_tree(), SearchResult())
    # Node 6 has a failed and a broken leaf: all that can be judged failed. Node 9 has nothing to judge.
    assert np.flatnonzero(bounds.low > 0.2).tolist() == [2, 3, 4, 6, 7, 8]


def test_no_relaxation_is_constant_bounds() -> None:
    found = SearchResult((Localization(3, 2, 2, 2),))
    for scope in ("critical", "first_all_failed"):
        objective = ErrorLocalizedClipping(eps_elc=0.0, scope=scope)
        bounds = objective.bounds(small_tree(), found)
        constant = ClippedObjective(0.2, 0.315).bounds(small_tree(), found)
        np.testing.assert_array_equal(bounds.low, constant.low)
        np.testing.assert_array_equal(bounds.high, constant.high)


@settings(deadline=None)
@given(st.data())
def test_first_all_failed_by_its_definition(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 25))
    parent = [-1] + [data.draw(st.integers(0, i - 1)) for i in range(1, n)]
    leaves = sorted(set(range(n)) - set(parent))
    kinds = {leaf: data.draw(st.sampled_from(["failed", "failed", "won", "ignored"])) for leaf in leaves}

    def path(i: int) -> list[int]:
        return [] if i == 0 else [*path(parent[i]), i]

    failed = [leaf for leaf in leaves if kinds[leaf] == "failed"]
    expected = {
        leaf: next(node for node in path(leaf) if all(kinds[other] != "won" for other in leaves if node in path(other)))
        for leaf in failed
    }
    ignored = [leaf for leaf in leaves if kinds[leaf] == "ignored"]
    assert first_all_failed(parent, failed, ignored) == expected


@settings(deadline=None)
@given(st.data())
def test_at_or_below_by_its_definition(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 40))
    parent = [-1] + [data.draw(st.integers(max(0, i - 3), i - 1)) for i in range(1, n)]
    roots = data.draw(st.sets(st.integers(0, n - 1), max_size=3))
    expected = []
    for node in range(n):
        above = [node]
        while above[-1] > 0:
            above.append(parent[above[-1]])
        expected.append(not roots.isdisjoint(above))
    assert at_or_below(parent, roots).tolist() == expected


@pytest.mark.parametrize(
    ("failed", "ignored", "message"),
    [
        ([1], [], "failed names node 1"),
        ([2], [9], "ignored names node 9"),
        ([2], [2], "both"),
        ([0], [], "failed names node 0"),
    ],
)
def test_first_all_failed_errors_are_named(failed: list[int], ignored: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        first_all_failed([-1, 0, 1], failed, ignored)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClippedObjective(eps_low=1.0), "eps_low=1.0"),
        (lambda: ClippedObjective(eps_high=-0.1), "eps_high=-0.1"),
        (lambda: ErrorLocalizedClipping(eps_high=math.inf), "eps_high=inf"),
        (lambda: ErrorLocalizedClipping(eps_elc=0.8), "eps_elc=0.8"),
        (lambda: ErrorLocalizedClipping(eps_elc=-0.1), "eps_elc=-0.1"),
        (lambda: ErrorLocalizedClipping(scope="all"), "scope='all'"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- ELPO reduces to GRPO -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ddof", [0, 1])
def test_elpo_without_its_parts_is_grpo(ddof: int) -> None:
    """lambda 0, eps_elc 0, independent rollouts, one kind of standard deviation: one loss and gradient."""
    tree = tree_of(
        [-1, 0, 1, 0, 0, 4, 5, 0, 7],
        {2: lost(-1.1), 3: won(), 6: lost(-1.1), 8: won(0.5)},
    )
    found = SearchResult((Localization(6, 2, 1, 4),))  # a search's result must not matter either
    results = []
    for algorithm in (
        load("elpo", lambda_tree=0.0, eps_elc=0.0, ddof=ddof, eps_high=0.25),
        load("grpo", ddof=ddof, eps_high=0.25),
    ):
        credit = algorithm.credit.assign(tree)
        bounds = algorithm.objective.bounds(tree, found)
        rows = [tree.path(leaf) for leaf in tree.leaves]
        width = 2 * max(map(len, rows))

        def padded(values: Any, rows: list[list[int]] = rows, width: int = width) -> Tensor:
            out = torch.zeros(len(rows), width, dtype=torch.float64)
            for i, row in enumerate(rows):
                for j, node in enumerate(row):
                    out[i, 2 * j : 2 * j + 2] = float(values[node])
            return out

        mask = padded(np.ones(len(tree.nodes)))
        generator = torch.Generator().manual_seed(1)
        old = -0.5 * mask
        shift = torch.rand(mask.shape, generator=generator, dtype=torch.float64) - 0.5
        logprobs = (old + shift).requires_grad_()
        batch = TokenBatch(old, padded(credit.advantage), padded(bounds.low), padded(bounds.high), mask)
        loss, statistics = algorithm.objective.loss(logprobs, batch)
        loss.backward()
        assert logprobs.grad is not None
        assert torch.any(logprobs.grad != 0)
        results.append((loss.item(), logprobs.grad, statistics))
    (elpo_loss, elpo_gradient, elpo_statistics), (grpo_loss, grpo_gradient, grpo_statistics) = results
    assert abs(elpo_loss - grpo_loss) < 1e-12
    torch.testing.assert_close(elpo_gradient, grpo_gradient, atol=1e-12, rtol=0)
    assert elpo_statistics == pytest.approx(grpo_statistics)
