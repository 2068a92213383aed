"""One policy update: mini-batches of whole prompts, micro-batched forward passes, one clipped AdamW step each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from elpo_agent.objective.base import Objective, TokenBatch
from elpo_agent.objective.options import LossOptions, row_weights
from elpo_agent.training.config import LearnerConfig
from elpo_agent.training.logprobs import forward_passes, row_logprobs, token_logprobs, token_logprobs_and_entropies
from elpo_agent.training.rows import TrainingRow, collate

_NOTHING_LEARNT = {"loss": 0.0, "grad_norm": 0.0, "live_rows": 0.0}
_MEND = "the last checkpoint is from before, start a new run with a smaller learner.lr"


class NonFiniteLossError(RuntimeError):
    """The loss, its gradient or the weights became NaN or infinite; what was saved before is intact."""


def scheduled_lr(config: LearnerConfig, update: int, total: int) -> float:
    """Learning rate of update `update` (from 0) of `total`."""
    lr = config.lr
    if config.schedule == "linear" and total > 1:
        lr *= 1.0 - (1.0 - config.final_lr_share) * update / (total - 1)
    if update < config.warmup_updates:
        lr *= (update + 1) / config.warmup_updates
    return lr


class Learner:
    """Owns the optimiser of `model` and applies an objective to credited rows.

    Args:
        model: any causal language model whose output has `.logits`.
        objective: gives the loss; its `options`, where it has them, say how rows are weighted and what is supplied.
        config: see `LearnerConfig`.
        pad_id: token used for padding; never seen by the loss.
        temperature: that of sampling, so that ratios compare like with like.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        config: LearnerConfig,
        *,
        pad_id: int,
        temperature: float,
    ) -> None:
        self.model = model
        self.objective = objective
        # An objective that has none may know nothing of weights: its loss is a sum of its rows' means.
        self.weighs = hasattr(objective, "options")
        self.options: LossOptions = getattr(objective, "options", LossOptions())
        self.config = config
        self.pad_id = pad_id
        self.temperature = temperature
        self.optimizer = torch.optim.AdamW(
            (p for p in model.parameters() if p.requires_grad),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )

    def prepared(self, groups: Sequence[Sequence[TrainingRow]]) -> list[list[TrainingRow]]:
        """The same rows; with an importance cap, ratios are from here on to the learner's own log-probabilities.

        Those are computed now, before the update's first step, and the engine's move to `engine_logprobs`. Rows that
        have them already, or are not trained on, stay. `update` does this too; rows that are to be replayed later have
        to be kept as they come from here.
        """
        if self.options.importance_cap is None:
            return [list(group) for group in groups]
        self.model.eval()

        def due(row: TrainingRow) -> bool:
            return row.engine_logprobs is None and not row.replayed and self._is_trained_on(row)

        values = iter(
            row_logprobs(
                self.model,
                [row for group in groups for row in group if due(row)],
                pad_id=self.pad_id,
                temperature=self.temperature,
                micro_batch_tokens=self.config.micro_batch_tokens,
                packing=self.config.packing,
            )
        )
        return [
            [
                replace(row, old_logprobs=next(values), engine_logprobs=row.old_logprobs) if due(row) else row
                for row in group
            ]
            for group in groups
        ]

    def update(self, groups: Sequence[Sequence[TrainingRow]], *, lr: float, seed: int) -> dict[str, float]:
        """Train on one batch: `groups[i]` are the rows of prompt i. Returns statistics, averaged over mini-batches
        (of names that end in _max the largest).

        Raises:
            NonFiniteLossError: a step with a NaN or infinite loss or gradient is not taken; one that makes a weight
                so, as a huge learning rate does, is only noticed.
            ValueError: rows lack what the objective's options need, or have weights that it does not know of.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.eval()  # no dropout: the ratio compares two states of the same function
        groups = self.prepared(groups)
        rng = np.random.default_rng(seed)
        stats: list[dict[str, float]] = []
        parts = max(1, min(self.config.mini_batches, len(groups)))
        for _ in range(self.config.epochs):
            for part in np.array_split(rng.permutation(len(groups)), parts):
                rows = [row for i in part for row in groups[i]]
                if rows:
                    stats.append(self._step(rows, first=all(s is _NOTHING_LEARNT for s in stats)))
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise NonFiniteLossError(f"the weights became NaN or infinite at learning rate {lr:.3g}; {_MEND}")
        return _combined(stats or [_NOTHING_LEARNT])

    def _is_trained_on(self, row: TrainingRow) -> bool:
        """Whether it can add anything to the gradient; in means over trajectories or tokens it counts in any case."""
        return row.has_signal or (not self.options.ratios_only and bool(row.mask.any()))

    def _weighted(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """A mini-batch's rows with what each token loss counts in its loss as `weight`."""
        if not self.weighs:
            if any(row.weight != 1.0 for row in rows):
                raise ValueError(
                    f"{type(self.objective).__name__} has no attribute options, so rows cannot be replayed at a weight "
                    "of their own; give it one, or set the algorithm's replay_weight to 0"
                )
            return list(rows)
        shares = row_weights(self.options, [int(row.mask.sum()) for row in rows])
        return [replace(row, weight=row.weight * share) for row, share in zip(rows, shares, strict=True)]

    def _loss(self, rows: Sequence[TrainingRow], pack: bool) -> tuple[Tensor, dict[str, float], Tensor]:
        """One micro-batch: the objective's loss and statistics, and the `_gap` of its rows."""
        weights = [row.weight for row in rows] if self.weighs else None
        ids, batch = collate(rows, self.pad_id, next(self.model.parameters()).device, weights)
        if self.options.entropy_coef > 0.0:
            logprobs, entropies = token_logprobs_and_entropies(self.model, ids, batch.mask, self.temperature, pack=pack)
            loss, stats = self.objective.loss(logprobs, batch, entropies)
        else:
            logprobs = token_logprobs(self.model, ids, batch.mask, self.temperature, pack=pack)
            loss, stats = self.objective.loss(logprobs, batch)
        return loss, stats, _gap(logprobs, batch, rows)

    def _step(self, rows: Sequence[TrainingRow], *, first: bool) -> dict[str, float]:
        """One optimiser step on the token losses of `rows`, aggregated as the objective's options say."""
        trained = [row for row in self._weighted(rows) if self._is_trained_on(row)]
        if not trained:
            return _NOTHING_LEARNT
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        figures: list[Mapping[str, float]] = []
        gaps: list[Tensor] = []
        for part, pack in forward_passes(self.model, trained, self.config.micro_batch_tokens, self.config.packing):
            loss, stats, gap = self._loss([trained[i] for i in part], pack)
            if not self.weighs:
                loss = loss / len(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            figures.append(stats)
            gaps.append(gap)
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm))
        if not (math.isfinite(norm) and math.isfinite(total)):
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLossError(f"loss={total}, gradient norm={norm}: this step was not taken; {_MEND}")
        self.optimizer.step()
        out = _combined(figures, [stats["tokens"] for stats in figures])
        del out["tokens"]
        out |= {"loss": total, "grad_norm": norm}
        fresh = [row for row in rows if not row.replayed]
        if fresh:
            out["live_rows"] = sum(row.has_signal for row in fresh) / len(fresh)
        gap = torch.cat(gaps)
        if first and gap.numel():
            # Before the first step of an update the two must agree; anything else is engine mismatch.
            out |= {"mismatch_mean": float(gap.mean()), "mismatch_max": float(gap.max())}
        return out


def _gap(logprobs: Tensor, batch: TokenBatch, rows: Sequence[TrainingRow]) -> Tensor:
    """|log-probability under the learner - under the engine| of every agent token that was sampled in this update."""
    engine = batch.old_logprobs if batch.engine_logprobs is None else batch.engine_logprobs
    fresh = torch.tensor([not row.replayed for row in rows], device=logprobs.device)
    return (logprobs.detach() - engine)[(batch.mask > 0) & fresh[:, None]].abs()


def _combined(stats: Sequence[Mapping[str, float]], weights: Sequence[float] | None = None) -> dict[str, float]:
    """The (weighted) mean of each figure over the parts that have it; of one that ends in _max the maximum."""
    out: dict[str, float] = {}
    for name in dict.fromkeys(name for s in stats for name in s):
        having = [i for i, s in enumerate(stats) if name in s]
        values = [stats[i][name] for i in having]
        if name.endswith("_max"):
            out[name] = max(values)
        else:
            out[name] = float(np.average(values, weights=None if weights is None else [weights[i] for i in having]))
    return out
