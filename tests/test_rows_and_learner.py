"""From trees to token rows to one optimiser step: exactly the sampled tokens, exactly equation 12."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from elpo_agent.algorithms import load
from elpo_agent.config import LearnerConfig
from elpo_agent.credit.base import NodeCredit
from elpo_agent.learner.learner import Learner, NonFiniteLossError, scheduled_lr
from elpo_agent.learner.logprobs import token_logprobs
from elpo_agent.learner.rows import TrainingRow, collate, micro_batches, tree_rows
from elpo_agent.objective.base import NodeBounds, TokenBatch
from elpo_agent.rollout.base import SearchResult
from elpo_agent.training.tasks import update_indices
from elpo_agent.tree import Outcome, RolloutTree, Step

VOCAB = 11


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Recurrent(nn.Module):
    """A causal model in a few lines; nothing about it resembles a transformer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Parameter(torch.randn(VOCAB, 6, generator=generator) * 0.5)
        self.head = nn.Parameter(torch.randn(6, VOCAB, generator=generator) * 0.5)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Output:
        return Output(torch.cumsum(self.embedding[input_ids], dim=1).tanh() @ self.head)


def step(ids: list[int], feedback: list[int], seed: int) -> Step:
    rng = np.random.default_rng(seed)
    return Step(
        ids=tuple(ids),
        logprobs=-rng.random(len(ids)).astype(np.float32),
        entropies=rng.random(len(ids)).astype(np.float32),
        feedback_ids=tuple(feedback),
    )


def small_tree() -> RolloutTree:
    tree = RolloutTree("t", (1, 2, 3))
    a = tree.add(0, step([4, 5], [6], 0))
    tree.add(a, step([7], [], 1), outcome=Outcome(1.0, True))
    tree.add(a, step([8, 9, 10], [6, 6], 2), outcome=Outcome(0.0, False, truncated=True))
    tree.add(0, step([4], [], 3), outcome=Outcome(0.0, False, valid=False))
    return tree


def credit_of(tree: RolloutTree) -> NodeCredit:
    zero = np.zeros(len(tree.nodes))
    return NodeCredit(zero, zero, zero, np.arange(len(tree.nodes), dtype=np.float64))


def test_rows_hold_what_was_sampled_and_nothing_else_is_trained_on() -> None:
    tree = small_tree()
    n = len(tree.nodes)
    rows = tree_rows(tree, credit_of(tree), NodeBounds(np.full(n, 0.2), np.full(n, 0.3)))
    assert len(rows) == 2, "the invalid leaf is left out"
    first, second = rows
    assert first.ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert first.mask.tolist() == [False, False, False, True, True, False, True]
    assert second.ids.tolist() == [1, 2, 3, 4, 5, 6, 8, 9, 10], "feedback after the last turn is not carried along"
    assert first.advantages.tolist() == [0, 0, 0, 1, 1, 0, 2]
    assert second.advantages.tolist() == [0, 0, 0, 1, 1, 0, 3, 3, 3]
    shared = tree.nodes[1].step
    assert shared is not None
    assert first.old_logprobs[3:5].tolist() == shared.logprobs.tolist()
    for row in rows:
        for values in (row.old_logprobs, row.advantages, row.eps_low, row.eps_high):
            assert not values[~row.mask].any()


def test_a_row_without_advantage_has_no_signal() -> None:
    tree = small_tree()
    n = len(tree.nodes)
    zero = np.zeros(n)
    rows = tree_rows(tree, NodeCredit(zero, zero, zero, zero), NodeBounds(zero + 0.2, zero + 0.2))
    assert not any(r.has_signal for r in rows)


def test_token_logprobs_are_those_of_the_model_whatever_the_padding() -> None:
    model = Recurrent(0)
    tree = small_tree()
    n = len(tree.nodes)
    rows = tree_rows(tree, credit_of(tree), NodeBounds(np.full(n, 0.2), np.full(n, 0.3)))
    ids, batch = collate(rows, pad_id=0, device=torch.device("cpu"))
    together = token_logprobs(model, ids, batch.mask, temperature=0.7)
    for i, row in enumerate(rows):
        full = torch.log_softmax(model(torch.from_numpy(row.ids)[None]).logits[0] / 0.7, -1)
        for t in range(1, len(row.ids)):
            want = full[t - 1, row.ids[t]].item() if row.mask[t] else 0.0
            assert together[i, t].item() == pytest.approx(want, abs=1e-6)
    assert together.sum().item() == pytest.approx(together[batch.mask > 0].sum().item())


def groups() -> list[list[TrainingRow]]:
    algorithm = load("elpo")
    out = []
    for seed in range(4):
        tree = RolloutTree(f"t{seed}", (1, 2))
        rng = np.random.default_rng(seed)
        a = tree.add(0, step(rng.integers(3, VOCAB, 3).tolist(), [2], seed))
        for j in range(3):
            tree.add(
                a,
                step(rng.integers(3, VOCAB, 2 + j).tolist(), [], 10 * seed + j),
                outcome=Outcome(j % 2, j == 1),
            )
        tree.add(
            0,
            step(rng.integers(3, VOCAB, 4).tolist(), [], seed + 50),
            outcome=Outcome(float(seed > 1), seed > 1),
        )
        result = SearchResult()
        out.append(tree_rows(tree, algorithm.credit.assign(tree), algorithm.objective.bounds(tree, result)))
    return out


def literal_step(model: nn.Module, rows: list[TrainingRow]) -> Tensor:
    """Equation 12 written out, one token at a time."""
    total = torch.zeros(())
    for row in rows:
        logits = torch.log_softmax(model(torch.from_numpy(row.ids)[None]).logits[0], -1)
        terms = []
        for t in range(1, len(row.ids)):
            if row.mask[t]:
                rho = torch.exp(logits[t - 1, row.ids[t]] - float(row.old_logprobs[t]))
                a = float(row.advantages[t])
                bounded = torch.clamp(rho, 1 - float(row.eps_low[t]), 1 + float(row.eps_high[t]))
                terms.append(torch.minimum(rho * a, bounded * a))
        total = total - torch.stack(terms).mean()
    return total / len(rows)


@pytest.mark.parametrize("micro_batch_tokens", [8, 64, 10_000])
def test_one_step_follows_equation_12_for_any_micro_batch(micro_batch_tokens: int) -> None:
    data = groups()
    rows = [r for g in data for r in g]
    model = Recurrent(1)
    reference = copy.deepcopy(model)
    loss = literal_step(reference, rows)
    loss.backward()
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in reference.parameters() if p.grad is not None))
    config = LearnerConfig(lr=0.01, mini_batches=1, micro_batch_tokens=micro_batch_tokens, max_grad_norm=1e9)
    learner = Learner(model, load("elpo").objective, config, pad_id=0, temperature=1.0)
    stats = learner.update(data, lr=0.01, seed=0)
    assert stats["loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert stats["grad_norm"] == pytest.approx(norm, rel=1e-5)
    torch.optim.AdamW(reference.parameters(), lr=0.01, weight_decay=0.0).step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_every_prompt_is_trained_on_once_per_epoch() -> None:
    seen: list[int] = []

    class Counting:
        def bounds(self, tree: RolloutTree, result: SearchResult) -> NodeBounds:
            raise AssertionError("not used here")

        def loss(self, logprobs: Tensor, batch: TokenBatch) -> tuple[Tensor, dict[str, float]]:
            seen.append(len(batch.mask))
            return (logprobs * batch.mask).sum(), {"tokens": float(batch.mask.sum())}

    data = groups()
    live = sum(r.has_signal for g in data for r in g)
    config = LearnerConfig(mini_batches=3, epochs=2)
    Learner(Recurrent(0), Counting(), config, pad_id=0, temperature=1.0).update(data, lr=0.0, seed=1)
    assert sum(seen) == 2 * live


def test_a_step_that_would_break_the_weights_is_not_taken() -> None:
    model = Recurrent(2)
    with torch.no_grad():
        model.head[0, 0] = float("nan")
    before = [p.clone() for p in model.parameters()]
    learner = Learner(model, load("grpo").objective, LearnerConfig(mini_batches=1), pad_id=0, temperature=1.0)
    with pytest.raises(NonFiniteLossError, match="was not taken"):
        learner.update(groups(), lr=0.1, seed=0)
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p.nan_to_num(), q.nan_to_num())


def test_micro_batches_hold_every_row_within_the_bound() -> None:
    rows = [r for g in groups() for r in g]
    for bound in (1, 20, 100):
        parts = micro_batches([len(r.ids) for r in rows], bound)
        assert sorted(i for part in parts for i in part) == list(range(len(rows)))
        assert all(len(p) == 1 or len(p) * max(len(rows[i].ids) for i in p) <= bound for p in parts)


def test_learning_rate_schedule() -> None:
    config = LearnerConfig(lr=1.0, schedule="linear", final_lr_share=0.1, warmup_updates=2)
    rates = [scheduled_lr(config, u, 11) for u in range(11)]
    assert rates[0] == pytest.approx(0.5)
    assert rates[5] == pytest.approx(0.55)
    assert rates[10] == pytest.approx(0.1)
    assert scheduled_lr(LearnerConfig(lr=2.0), 7, 10) == 2.0


def test_updates_walk_through_a_finite_source_epoch_by_epoch() -> None:
    seen = [i for u in range(7) for i in update_indices(u, 3, 7, seed=5)]
    assert sorted(seen[:7]) == list(range(7))
    assert sorted(seen[7:14]) == list(range(7))
    assert seen[:7] != seen[7:14]
    assert seen[3:6] == update_indices(1, 3, 7, seed=5), "an update's tasks do not depend on earlier calls"


def test_updates_never_repeat_a_task_of_an_endless_source() -> None:
    seen = [i for u in range(50) for i in update_indices(u, 16, None, seed=1)]
    assert len(set(seen)) == len(seen)
    assert not set(seen) & {i for u in range(50) for i in update_indices(u, 16, None, seed=2)}
