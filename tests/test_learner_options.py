"""The learner with every option of the loss: the same gradient however rows are split, and the right one."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from elpo_agent.config import LearnerConfig
from elpo_agent.learner.learner import Learner
from elpo_agent.learner.logprobs import row_logprobs, token_logprobs, token_logprobs_and_entropies
from elpo_agent.learner.rows import TrainingRow, collate
from elpo_agent.objective import ClippedObjective, NodeBounds, TokenBatch
from elpo_agent.objective.options import LossOptions
from elpo_agent.rollout.base import SearchResult
from elpo_agent.tree import RolloutTree

VOCAB = 9
AGGREGATIONS: dict[str, dict[str, Any]] = {
    "seq-mean-token-mean": {},
    "token-mean": {"aggregation": "token-mean"},
    "seq-mean-token-sum": {"aggregation": "seq-mean-token-sum"},
    "constant": {"aggregation": "constant", "length": 7},
}
TERMS: dict[str, dict[str, Any]] = {
    "ratios": {},
    "all": {"dual_clip": 1.3, "importance_cap": 1.2, "kl_coef": 0.3, "entropy_coef": 0.1},
}


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Recurrent(nn.Module):
    """A causal model in a few lines, in float64."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Parameter(torch.randn(VOCAB, 5, generator=generator, dtype=torch.float64) * 0.5)
        self.head = nn.Parameter(torch.randn(5, VOCAB, generator=generator, dtype=torch.float64) * 0.5)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Output:
        return Output(torch.cumsum(self.embedding[input_ids], dim=1).tanh() @ self.head)


def row(seed: int, length: int, **changes: Any) -> TrainingRow:
    """A conversation with a prompt of 2 and some feedback; the policy that sampled it was a little different."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCAB, length)
    mask = rng.random(length) < 0.7
    mask[:2] = False
    mask[2] = True
    own = row_logprobs(Recurrent(0), [Plain(ids, mask)], pad_id=0, temperature=0.9, micro_batch_tokens=1000)[0]

    def near(width: float) -> Any:
        return np.where(mask, own + rng.uniform(-width, width, length), 0.0).astype(np.float32)

    def on_tokens(values: Any) -> Any:
        return np.where(mask, values, 0.0).astype(np.float32)

    return TrainingRow(
        ids,
        mask,
        near(0.6),
        on_tokens(rng.uniform(-1, 1, length)),
        on_tokens(np.full(length, 0.2)),
        on_tokens(np.full(length, 0.3)),
        reference_logprobs=near(0.5),
        **changes,
    )


class Plain:
    def __init__(self, ids: Any, mask: Any) -> None:
        self.ids, self.mask = ids, mask


def without_signal(given: TrainingRow) -> TrainingRow:
    return replace(given, advantages=np.zeros_like(given.advantages))


def groups() -> list[list[TrainingRow]]:
    """Rows of 4 to 24 tokens, some without signal, one replayed at a weight of its own."""
    return [
        [row(0, 4), row(1, 24), without_signal(row(2, 11))],
        [without_signal(row(3, 17)), row(4, 6)],
        [row(5, 9), row(6, 9), row(7, 13), replaced(row(8, 15))],
    ]


def replaced(given: TrainingRow) -> TrainingRow:
    return replace(given, weight=0.6, replayed=True, engine_logprobs=given.old_logprobs)


def learner(options: LossOptions, micro_batch_tokens: int = 1000, seed: int = 0) -> Learner:
    config = LearnerConfig(
        lr=0.0, mini_batches=1, micro_batch_tokens=micro_batch_tokens, max_grad_norm=1e9, weight_decay=0.0
    )
    return Learner(Recurrent(seed), ClippedObjective(0.2, 0.3, options), config, pad_id=0, temperature=0.9)


def gradient(given: Learner, rows: list[list[TrainingRow]]) -> tuple[Tensor, dict[str, float]]:
    statistics = given.update(rows, lr=0.0, seed=0)
    return torch.cat([p.grad.flatten() for p in given.model.parameters() if p.grad is not None]), statistics


def literal_loss(model: nn.Module, rows: list[TrainingRow], options: LossOptions) -> Tensor:
    """The mini-batch's loss, one token at a time, from the definitions."""
    sums, counts = [], []
    for given in rows:
        logs = torch.log_softmax(model(torch.from_numpy(given.ids)[None]).logits[0] / 0.9, -1)
        terms = []
        for t in np.flatnonzero(given.mask):
            new = logs[t - 1, given.ids[t]]
            old, engine = torch.tensor(float(given.old_logprobs[t])), float("nan")
            if options.importance_cap is not None:
                engine = float(given.old_logprobs[t] if given.engine_logprobs is None else given.engine_logprobs[t])
                old = old if given.engine_logprobs is not None else new.detach().float()
            a, rho = float(given.advantages[t]), torch.exp(new - old)
            bounded = torch.clamp(rho, 1 - float(given.eps_low[t]), 1 + float(given.eps_high[t]))
            loss = -torch.minimum(rho * a, bounded * a)
            if options.dual_clip is not None and a < 0:
                loss = torch.clamp(loss, max=-options.dual_clip * a)
            if options.importance_cap is not None:
                loss = loss * min(math.exp(float(old) - engine), options.importance_cap)
            if options.kl_coef:
                assert given.reference_logprobs is not None
                d = float(given.reference_logprobs[t]) - new
                loss = loss + options.kl_coef * (torch.exp(d) - 1 - d)
            p = logs[t - 1].exp()
            terms.append(loss + options.entropy_coef * (p * logs[t - 1]).sum())
        sums.append(given.weight * torch.stack(terms).sum())
        counts.append(len(terms))
    match options.aggregation:
        case "seq-mean-token-mean":
            return sum(s / n for s, n in zip(sums, counts, strict=True)) / len(rows)
        case "token-mean":
            return sum(sums) / sum(counts)
        case "seq-mean-token-sum":
            return sum(sums) / len(rows)
        case "constant":
            assert options.length is not None
            return sum(sums) / (len(rows) * options.length)


@pytest.mark.parametrize(("aggregation", "terms"), list(product(AGGREGATIONS, TERMS)))
def test_any_split_gives_the_gradient_of_the_definition(aggregation: str, terms: str) -> None:
    options = LossOptions(**AGGREGATIONS[aggregation], **TERMS[terms])
    rows = groups()
    whole, statistics = gradient(learner(options), rows)
    for tokens in (1, 20, 50):
        split, other = gradient(learner(options, tokens), rows)
        torch.testing.assert_close(split, whole, atol=1e-10, rtol=0)
        assert other == pytest.approx(statistics, rel=1e-6, abs=1e-9)
    model = Recurrent(0)
    loss = literal_loss(model, [r for group in rows for r in group], options)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    # Weights and what is sampled are float32.
    torch.testing.assert_close(whole, expected, atol=1e-7, rtol=1e-6)
    assert statistics["loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert float(expected.norm()) > 1e-3


@pytest.mark.parametrize(
    "given",
    [
        {"kl": "k1", "kl_coef": 0.3},
        {"kl": "k2", "kl_coef": 0.3, "aggregation": "token-mean"},
        {"kl_coef": 0.3, "importance_cap": 1.2, "dual_clip": 1.3, "entropy_coef": 0.2},
    ],
)
def test_the_gradient_is_that_of_finite_differences(given: dict[str, Any]) -> None:
    ours = learner(LossOptions(**given))
    # What the learner computes of its own before the first step belongs to the data, not to the loss.
    rows = ours.prepared(groups())
    analytic, _ = gradient(ours, rows)
    step, at = 1e-5, 0
    for parameter in ours.model.parameters():
        flat = parameter.data.view(-1)
        for i in range(0, len(flat), 7):
            losses = []
            for sign in (1, -1):
                flat[i] += sign * step
                losses.append(ours.update(rows, lr=0.0, seed=0)["loss"])
                flat[i] -= sign * step
            assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(analytic[at + i].item(), abs=1e-7)
        at += len(flat)


@pytest.mark.parametrize("given", [{"kl_coef": 0.1}, {"entropy_coef": 0.1}])
def test_rows_without_signal_are_skipped_only_where_nothing_is_lost(given: dict[str, Any]) -> None:
    rows = [[without_signal(row(0, 8)), without_signal(row(1, 12))]]
    plain = learner(LossOptions())
    assert plain.update(rows, lr=0.0, seed=0)["grad_norm"] == 0.0
    assert all(p.grad is None for p in plain.model.parameters())
    moved = learner(LossOptions(**given)).update(rows, lr=0.0, seed=0)
    assert moved["grad_norm"] > 0.0
    assert moved["live_rows"] == 0.0, "no advantage is no signal from rewards"


def test_rows_without_signal_count_in_every_mean() -> None:
    for given in AGGREGATIONS.values():
        options = LossOptions(**given)
        alone, _ = gradient(learner(options), [[row(0, 8)]])
        among, statistics = gradient(learner(options), [[row(0, 8), without_signal(row(1, 12))]])
        tokens = [int(r.mask.sum()) for r in (row(0, 8), row(1, 12))]
        share = tokens[0] / sum(tokens) if options.aggregation == "token-mean" else 0.5
        torch.testing.assert_close(among, share * alone, rtol=1e-6, atol=1e-9)
        assert statistics["live_rows"] == 0.5


def test_the_kl_term_pulls_towards_the_reference() -> None:
    for kl in ("k2", "k3"):
        config = LearnerConfig(lr=0.02, mini_batches=1)
        ours = Learner(
            Recurrent(1),
            ClippedObjective(options=LossOptions(kl_coef=1.0, kl=kl)),  # type: ignore[arg-type]
            config,
            pad_id=0,
            temperature=0.9,
        )
        rows = [[without_signal(row(seed, 10)) for seed in range(4)]]
        seen = [ours.update(rows, lr=0.02, seed=0)["kl"] for _ in range(60)]
        assert seen[-1] < 0.1 * seen[0]


def test_the_entropy_bonus_raises_entropy() -> None:
    config = LearnerConfig(mini_batches=1)
    objective = ClippedObjective(options=LossOptions(entropy_coef=1.0))
    ours = Learner(Recurrent(1), objective, config, pad_id=0, temperature=0.9)
    seen = [ours.update([[row(0, 12)]], lr=0.02, seed=0)["entropy"] for _ in range(60)]
    assert seen[0] + 0.1 < seen[-1] <= math.log(VOCAB) + 1e-9


def test_an_importance_cap_moves_ratios_to_the_learners_own() -> None:
    ours = learner(LossOptions(importance_cap=1.2))
    ((first, second, idle), *_) = prepared = ours.prepared(groups())
    raw = groups()[0]
    for ready, given in ((first, raw[0]), (second, raw[1])):
        assert ready.engine_logprobs is given.old_logprobs or ready.engine_logprobs.tolist() == (
            given.old_logprobs.tolist()
        )
        ids, batch = collate([given], 0, torch.device("cpu"))
        own = token_logprobs(ours.model, ids, batch.mask, 0.9)[0].detach().float().numpy()
        np.testing.assert_allclose(ready.old_logprobs, own, atol=1e-6)
    assert idle.engine_logprobs is None, "what is not trained on costs no forward pass"
    assert prepared[2][3].old_logprobs.tolist() == groups()[2][3].old_logprobs.tolist(), "replayed rows stay"
    again = ours.prepared(prepared)
    assert all(a is b for x, y in zip(again, prepared, strict=True) for a, b in zip(x, y, strict=True))
    statistics = ours.update([[r for r in group if not r.replayed] for group in groups()], lr=0.0, seed=0)
    assert statistics["ratio_mean"] == pytest.approx(1.0, abs=1e-6)
    live = [r for group in prepared for r in group if r.has_signal and not r.replayed]
    gaps = np.concatenate([np.abs(r.old_logprobs - r.engine_logprobs)[r.mask] for r in live])
    assert statistics["mismatch_max"] == pytest.approx(gaps.max(), abs=1e-6)
    assert statistics["mismatch_mean"] == pytest.approx(gaps.mean(), abs=1e-6)
    ratios = np.exp(np.concatenate([(r.old_logprobs - r.engine_logprobs)[r.mask] for r in live]))
    assert statistics["importance_max"] == pytest.approx(ratios.max(), rel=1e-5)
    assert statistics["importance_mean"] == pytest.approx(np.minimum(ratios, 1.2).mean(), rel=1e-5)


def test_own_logprobs_are_those_before_the_updates_first_step() -> None:
    config = LearnerConfig(mini_batches=3, epochs=2, max_grad_norm=1e9)
    ours = Learner(
        Recurrent(0), ClippedObjective(options=LossOptions(importance_cap=5.0)), config, pad_id=0, temperature=0.9
    )
    before = ours.prepared(groups())
    statistics = ours.update(groups(), lr=0.05, seed=0)
    assert abs(statistics["ratio_mean"] - 1.0) > 1e-3, "later steps see ratios that have moved"
    after = ours.prepared(groups())
    assert before[0][0].old_logprobs.tolist() != after[0][0].old_logprobs.tolist()


def test_replayed_rows_weigh_what_they_are_given_and_tell_nothing_of_the_engine() -> None:
    fresh, old = row(0, 8), row(8, 15)
    options = LossOptions(aggregation="token-mean")
    by_weight = []
    for weight in (0.0, 0.6, 1.0):
        ours = learner(options)
        value, statistics = gradient(ours, [[fresh], [replace(old, weight=weight, replayed=True)]])
        by_weight.append(value)
        alone = learner(options).update([[fresh]], lr=0.0, seed=0)
        assert statistics["mismatch_max"] == pytest.approx(alone["mismatch_max"])
        assert statistics["live_rows"] == 1.0
    torch.testing.assert_close(by_weight[1], 0.4 * by_weight[0] + 0.6 * by_weight[2], rtol=1e-6, atol=1e-9)
    idle = learner(options).update([[without_signal(fresh)], [replace(old, replayed=True)]], lr=0.0, seed=0)
    assert idle["live_rows"] == 0.0, "what an earlier update earned is no signal of this one"
    assert idle["mismatch_max"] == pytest.approx(alone["mismatch_max"]), "of the fresh row, though nothing is learnt"


class MeansOnly:
    """An objective of another distribution, written before there were options."""

    def bounds(self, tree: RolloutTree, result: SearchResult) -> NodeBounds:
        raise AssertionError("not used here")

    def loss(self, logprobs: Tensor, batch: TokenBatch) -> tuple[Tensor, dict[str, float]]:
        ratio = ((logprobs - batch.old_logprobs) * batch.mask).exp()
        means = -(ratio * batch.advantages * batch.mask).sum(1) / batch.mask.sum(1)
        return means.sum(), {"tokens": float(batch.mask.sum())}


def test_objectives_without_options_train_as_before() -> None:
    config = LearnerConfig(lr=0.0, mini_batches=1, micro_batch_tokens=30, max_grad_norm=1e9)
    rows = [[r for r in group if not r.replayed] for group in groups()]
    theirs = Learner(Recurrent(0), MeansOnly(), config, pad_id=0, temperature=0.9)  # type: ignore[arg-type]
    wide = Learner(Recurrent(0), ClippedObjective(0.9999, 1e9), config, pad_id=0, temperature=0.9)
    wide_open = [
        [replace(r, eps_low=r.mask * np.float32(0.9999), eps_high=r.mask * np.float32(1e9)) for r in group]
        for group in rows
    ]
    torch.testing.assert_close(gradient(theirs, rows)[0], gradient(wide, wide_open)[0], rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="MeansOnly has no attribute options"):
        theirs.update([[replace(row(0, 8), weight=0.6)]], lr=0.0, seed=0)


def test_nothing_to_train_on_is_no_error() -> None:
    for empty in ([], [[]], [[], []]):
        assert learner(LossOptions(importance_cap=2.0)).update(empty, lr=0.1, seed=0)["grad_norm"] == 0.0


def test_a_missing_reference_is_named() -> None:
    bare = replace(row(0, 8), reference_logprobs=None)
    with pytest.raises(ValueError, match=r"kl_coef=0\.1 needs reference_logprobs"):
        learner(LossOptions(kl_coef=0.1)).update([[bare]], lr=0.0, seed=0)


def test_entropies_are_those_of_the_distribution_that_is_drawn_from() -> None:
    class Masked(Recurrent):
        """Two tokens can never be drawn."""

        def forward(self, input_ids: Tensor, use_cache: bool = False) -> Output:
            logits = super().forward(input_ids).logits
            return Output(torch.cat([logits[..., :-2], torch.full_like(logits[..., -2:], -math.inf)], dim=-1))

    for model, drawn in ((Recurrent(3), VOCAB), (Masked(3), VOCAB - 2)):
        given = replace(row(0, 12), ids=row(0, 12).ids % (VOCAB - 2))
        ids, batch = collate([given], 0, torch.device("cpu"))
        logprobs, entropies = token_logprobs_and_entropies(model, ids, batch.mask, 0.7)
        assert torch.equal(logprobs, token_logprobs(model, ids, batch.mask, 0.7))
        logits = model(ids).logits[0] / 0.7
        for t in range(1, len(given.ids)):
            p = torch.softmax(logits[t - 1, :drawn], -1).tolist()
            expected = -sum(q * math.log(q) for q in p) if given.mask[t] else 0.0
            assert entropies[0, t].item() == pytest.approx(expected, abs=1e-12)
        entropies.sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
