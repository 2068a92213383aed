"""Every term that `LossOptions` adds, against literal loops in float64, value and gradient by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elpo_agent.objective import ClippedObjective, ErrorLocalizedClipping, TokenBatch
from elpo_agent.objective.options import LossOptions, row_weights

LOW, HIGH = 0.2, 0.28


def random_batch(seed: int, rows: int = 6, width: int = 13, spread: float = 1.5) -> tuple[Tensor, Tensor, TokenBatch]:
    """Log-probabilities, entropies and a float64 batch with everything in it; ratios from exp(-spread) to
    exp(spread)."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, width, generator=generator, dtype=torch.float64)

    mask = (uniform(0, 1) < 0.6).double()
    mask[0] = 0.0  # a row without agent tokens
    logprobs = uniform(-4, 0) * mask
    batch = TokenBatch(
        old_logprobs=(logprobs + uniform(-spread, spread)) * mask,
        advantages=uniform(-2, 2) * mask,
        eps_low=uniform(0.05, 0.5) * mask,
        eps_high=uniform(0.05, 0.5) * mask,
        mask=mask,
        weights=torch.rand(rows, generator=generator, dtype=torch.float64),
        engine_logprobs=(logprobs + uniform(-spread, spread)) * mask,
        reference_logprobs=(logprobs + uniform(-spread, spread)) * mask,
    )
    return logprobs.requires_grad_(), uniform(0, 3).requires_grad_(), batch


def cut(difference: float) -> float:
    return max(-20.0, min(20.0, difference))


def literal_surrogate(rho: float, a: float, low: float, high: float, options: LossOptions) -> tuple[float, float]:
    """Loss of one token and its derivative by log rho, case by case."""
    if a >= 0:
        if rho <= high:
            return -rho * a, -rho * a
        return -high * a, -high * a if options.gradient_above else 0.0
    if rho < low:
        return -low * a, 0.0
    if options.dual_clip is not None and rho > options.dual_clip:
        return -options.dual_clip * a, 0.0
    return -rho * a, -rho * a


def literal_kl(logprob: float, reference: float, estimator: str) -> tuple[float, float]:
    """One token's estimate and its derivative by the log-probability."""
    d = cut(reference - logprob)
    inside = float(abs(reference - logprob) < 20.0)
    return {
        "k1": (-d, inside),
        "k2": (d * d / 2, -d * inside),
        "k3": (math.exp(d) - 1 - d, (1 - math.exp(d)) * inside),
    }[estimator]


def literal_loss(
    logprobs: Tensor, entropies: Tensor, batch: TokenBatch, options: LossOptions
) -> tuple[float, Tensor, Tensor]:
    """The loss, and its gradients by log-probabilities and entropies."""
    loss = 0.0
    by_logprob, by_entropy = torch.zeros_like(logprobs), torch.zeros_like(entropies)
    for i in range(len(logprobs)):
        places = [t for t in range(logprobs.shape[1]) if batch.mask[i, t] == 1]
        for t in places:
            row_weight = 1.0 / len(places) if batch.weights is None else float(batch.weights[i])
            difference = float(logprobs[i, t] - batch.old_logprobs[i, t])
            low, high = 1 - float(batch.eps_low[i, t]), 1 + float(batch.eps_high[i, t])
            a = float(batch.advantages[i, t])
            value, slope = literal_surrogate(math.exp(cut(difference)), a, low, high, options)
            slope *= abs(difference) < 20.0
            if options.importance_cap is not None:
                assert batch.engine_logprobs is not None
                mismatch = math.exp(cut(float(batch.old_logprobs[i, t] - batch.engine_logprobs[i, t])))
                value *= min(mismatch, options.importance_cap)
                slope *= min(mismatch, options.importance_cap)
            if options.kl_coef:
                assert batch.reference_logprobs is not None
                kl, kl_slope = literal_kl(float(logprobs[i, t]), float(batch.reference_logprobs[i, t]), options.kl)
                value += options.kl_coef * kl
                slope += options.kl_coef * kl_slope
            loss += row_weight * (value - options.entropy_coef * float(entropies[i, t]))
            by_logprob[i, t] = row_weight * slope
            by_entropy[i, t] = -row_weight * options.entropy_coef
    return loss, by_logprob, by_entropy


def check(seed: int, options: LossOptions, *, spread: float = 1.5, weighted: bool = True) -> dict[str, float]:
    """The objective against the loops; returns its statistics."""
    logprobs, entropies, batch = random_batch(seed, spread=spread)
    if not weighted:
        batch = replace(batch, weights=None)
    loss, statistics = ClippedObjective(options=options).loss(logprobs, batch, entropies)
    loss.backward()
    expected, by_logprob, by_entropy = literal_loss(logprobs.detach(), entropies.detach(), batch, options)
    assert loss.dtype == torch.float64
    assert abs(loss.item() - expected) < 1e-10 * max(1.0, abs(expected))
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, by_logprob, atol=1e-10, rtol=1e-12)
    of_entropies = torch.zeros_like(entropies) if entropies.grad is None else entropies.grad
    torch.testing.assert_close(of_entropies, by_entropy, atol=1e-12, rtol=0)
    return statistics


EACH = {
    "none": LossOptions(),
    "dual clip": LossOptions(dual_clip=2.0),
    "gradient above": LossOptions(gradient_above=True),
    "importance": LossOptions(importance_cap=1.5),
    "k1": LossOptions(kl_coef=0.3, kl="k1"),
    "k2": LossOptions(kl_coef=0.3, kl="k2"),
    "k3": LossOptions(kl_coef=0.3, kl="k3"),
    "entropy": LossOptions(entropy_coef=0.2),
    "all": LossOptions(dual_clip=1.5, gradient_above=True, importance_cap=2.0, kl_coef=0.1, entropy_coef=0.01),
}


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", EACH)
def test_each_term_equals_the_literal_loop(name: str, weighted: bool) -> None:
    for seed in range(5):
        check(seed, EACH[name], weighted=weighted)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.05, 1.5, 30.0]),
    dual_clip=st.one_of(st.none(), st.floats(1.01, 10.0)),
    gradient_above=st.booleans(),
    importance_cap=st.one_of(st.none(), st.floats(0.1, 10.0)),
    kl_coef=st.sampled_from([0.0, 1e-3, 1.0]),
    kl=st.sampled_from(["k1", "k2", "k3"]),
    entropy_coef=st.sampled_from([0.0, 0.01]),
)
def test_any_options_together_equal_the_literal_loop(seed: int, spread: float, **given_options: Any) -> None:
    check(seed, LossOptions(**given_options), spread=spread)


def test_the_cases_are_met() -> None:
    """The batches above reach what they are to tell apart."""
    statistics = check(0, EACH["all"])
    for name in ("dual_clipped", "clip_high", "clip_low", "importance_capped"):
        assert 0.0 < statistics[name] < 1.0, name


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e9])
@pytest.mark.parametrize("name", EACH)
def test_nothing_at_masked_places_matters(name: str, garbage: float) -> None:
    logprobs, entropies, batch = random_batch(1)
    objective = ClippedObjective(options=EACH[name])
    loss, statistics = objective.loss(logprobs, batch, entropies)
    loss.backward()
    off = batch.mask == 0

    def spoil(values: Tensor | None) -> Tensor:
        assert values is not None
        return torch.where(off, garbage, values.detach())

    dirty, dirty_entropies = spoil(logprobs).requires_grad_(), spoil(entropies).requires_grad_()
    names = ("old_logprobs", "advantages", "eps_low", "eps_high", "engine_logprobs", "reference_logprobs")
    spoiled = replace(batch, **{name: spoil(getattr(batch, name)) for name in names})
    other, other_statistics = objective.loss(dirty, spoiled, dirty_entropies)
    other.backward()
    assert other.item() == loss.item()
    assert other_statistics == statistics
    assert logprobs.grad is not None
    assert dirty.grad is not None
    assert torch.equal(dirty.grad, logprobs.grad)
    if dirty_entropies.grad is not None:
        assert torch.all(dirty_entropies.grad[off] == 0)
        assert torch.all(dirty_entropies.grad[~off].isfinite())


@pytest.mark.parametrize("name", EACH)
def test_a_batch_without_agent_tokens_costs_nothing(name: str) -> None:
    logprobs, entropies, batch = random_batch(2)
    loss, statistics = ClippedObjective(options=EACH[name]).loss(
        logprobs, replace(batch, mask=torch.zeros_like(batch.mask)), entropies
    )
    loss.backward()
    assert loss.item() == 0.0
    assert all(value == 0.0 for value in statistics.values())
    assert logprobs.grad is not None
    assert torch.all(logprobs.grad == 0)


def test_statistics_by_hand() -> None:
    ratio = torch.tensor([[4.0, 2.0, 4.0, 0.5, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1, 0]])
    zeros = torch.zeros(1, 5, dtype=torch.float64)
    batch = TokenBatch(
        old_logprobs=zeros,
        advantages=torch.tensor([[-1.0, -1.0, 1.0, -1.0, -1.0]], dtype=torch.float64),
        eps_low=zeros + LOW,
        eps_high=zeros + HIGH,
        mask=mask,
        engine_logprobs=-torch.tensor([[6.0, 1.0, 0.5, 2.0, 7.0]], dtype=torch.float64).log(),
        reference_logprobs=zeros,
    )
    options = LossOptions(dual_clip=3.0, importance_cap=2.0, kl_coef=0.1, kl="k2", entropy_coef=0.1)
    entropies = torch.tensor([[1.0, 2.0, 3.0, 4.0, 100.0]], dtype=torch.float64)
    _, statistics = ClippedObjective(LOW, HIGH, options).loss(ratio.log(), batch, entropies)
    expected = {
        "dual_clipped": 1 / 4,
        "importance_mean": (2.0 + 1.0 + 0.5 + 2.0) / 4,
        "importance_max": 6.0,
        "importance_capped": 1 / 4,
        "kl": sum(math.log(r) ** 2 / 2 for r in (4.0, 2.0, 4.0, 0.5)) / 4,
        "entropy": 10.0 / 4,
    }
    assert {name: statistics[name] for name in expected} == pytest.approx(expected)
    _, plain = ClippedObjective(LOW, HIGH).loss(ratio.log(), batch)
    assert not plain.keys() & expected.keys(), "what is off is not reported"


def test_relaxed_bounds_and_options_go_together() -> None:
    logprobs, entropies, batch = random_batch(4)
    options = EACH["all"]
    one, _ = ErrorLocalizedClipping(options=options).loss(logprobs, batch, entropies)
    other, _ = ClippedObjective(options=options).loss(logprobs, batch, entropies)
    assert one.item() == other.item()


@pytest.mark.parametrize(
    ("options", "missing", "message"),
    [
        (LossOptions(importance_cap=2.0), "engine_logprobs", r"importance_cap=2\.0 needs engine_logprobs"),
        (LossOptions(kl_coef=0.1), "reference_logprobs", r"kl_coef=0\.1 needs reference_logprobs"),
        (LossOptions(entropy_coef=0.1), "entropies", r"entropy_coef=0\.1 needs entropies"),
    ],
)
def test_what_is_missing_is_named(options: LossOptions, missing: str, message: str) -> None:
    logprobs, entropies, batch = random_batch(0)
    given_entropies = None if missing == "entropies" else entropies
    if missing != "entropies":
        batch = replace(batch, **{missing: None})
    with pytest.raises(ValueError, match=message):
        ClippedObjective(options=options).loss(logprobs, batch, given_entropies)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "sum"}, "aggregation='sum' is unknown"),
        ({"aggregation": "constant"}, "length=None"),
        ({"length": 8}, "length=8"),
        ({"aggregation": "constant", "length": 0}, "length=0"),
        ({"dual_clip": 1.0}, "dual_clip=1.0"),
        ({"dual_clip": math.inf}, "dual_clip=inf"),
        ({"importance_cap": 0.0}, "importance_cap=0.0"),
        ({"kl": "k4"}, "kl='k4' is unknown"),
        ({"kl_coef": -1.0}, "kl_coef=-1.0"),
        ({"entropy_coef": math.nan}, "entropy_coef=nan"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossOptions(**options)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.integers(1, 100), st.randoms(use_true_random=False))
def test_row_weights_are_the_four_aggregations(lengths: list[int], constant: int, random: Any) -> None:
    rows = [[random.uniform(-1, 1) for _ in range(n)] for n in lengths]
    count, total = len(rows), sum(lengths)
    expected = {
        "seq-mean-token-mean": sum(sum(row) / len(row) for row in rows if row) / count,
        "token-mean": sum(map(sum, rows)) / max(total, 1),
        "seq-mean-token-sum": sum(map(sum, rows)) / count,
        "constant": sum(map(sum, rows)) / (count * constant),
    }
    for aggregation, value in expected.items():
        options = LossOptions(
            aggregation=aggregation,  # type: ignore[arg-type]
            length=constant if aggregation == "constant" else None,
        )
        weights = row_weights(options, lengths)
        assert sum(w * sum(row) for w, row in zip(weights, rows, strict=True)) == pytest.approx(value, abs=1e-12)
        assert all(w == 0.0 for w, n in zip(weights, lengths, strict=True) if n == 0)
