"""One policy update: mini-batches of whole prompts, micro-batched forward passes, one clipped AdamW step each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elpo_agent.config import LearnerConfig
from elpo_agent.learner.logprobs import forward_passes, row_logprobs, token_logprobs, token_logprobs_and_entropies
from elpo_agent.learner.recomputation import recomputed_layers
from elpo_agent.learner.rows import TrainingRow, collate
from elpo_agent.learner.sharded import gradient_norm, weights_of
from elpo_agent.objective.base import Objective, TokenBatch
from elpo_agent.objective.options import LossOptions, row_weights
from elpo_agent.ranks import ALONE, Ranks

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
        model: any causal language model whose output has `.logits`; what the engine samples from.
        objective: gives the loss; its `options`, where it has them, say how rows are weighted and what is supplied.
        config: see `LearnerConfig`.
        pad_id: token used for padding; never seen by the loss.
        temperature: that of sampling, so that ratios compare like with like.
        ranks: the processes that train together. Each has the same rows, makes a part of the passes, and takes the same
            step. The model's parameters are held and stepped as `weights_of` says, from what they are now.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        config: LearnerConfig,
        *,
        pad_id: int,
        temperature: float,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model = model
        self.ranks = ranks
        self.weights = weights_of(model, config, ranks)
        self.objective = objective
        # An objective that has none may know nothing of weights: its loss is a sum of its rows' means.
        self.weighs = hasattr(objective, "options")
        self.options: LossOptions = getattr(objective, "options", LossOptions())
        self.config = config
        self.pad_id = pad_id
        self.temperature = temperature
        self.optimizer = torch.optim.AdamW(
            [parameter for _, parameter in self.weights.named()],
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )

    def state_dict(self) -> dict[str, Any]:
        """What it keeps beside the weights: the optimiser's state."""
        return self.weights.optimizer_state(self.optimizer)

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take what `state_dict` gave."""
        self.weights.load_optimizer_state(self.optimizer, state)

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

        values = iter(self._row_logprobs([row for group in groups for row in group if due(row)]))
        return [
            [
                replace(row, old_logprobs=next(values), engine_logprobs=row.old_logprobs) if due(row) else row
                for row in group
            ]
            for group in groups
        ]

    def _row_logprobs(self, rows: Sequence[TrainingRow]) -> list[NDArray[np.float32]]:
        return row_logprobs(
            self.model,
            rows,
            pad_id=self.pad_id,
            temperature=self.temperature,
            micro_batch_tokens=self.config.micro_batch_tokens,
            packing=self.config.packing,
            ranks=self.ranks,
        )

    def update(self, groups: Sequence[Sequence[TrainingRow]], *, lr: float, seed: int) -> dict[str, float]:
        """Train on one batch: `groups[i]` are the rows of prompt i. Returns statistics, averaged over mini-batches
        (of names that end in _max the largest).

        Raises:
            NonFiniteLossError: a step with a NaN or infinite loss or gradient is not taken; one that makes a weight
                so, as a huge learning rate does, is only noticed.
            RankLostError: another process has ended.
            ValueError: rows lack what the objective's options need, or have weights that it does not know of.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        for module in (self.model, self.weights.module):
            module.eval()  # no dropout: the ratio compares two states of the same function
        groups = self.prepared(groups)
        mismatch = self._mismatch_unlearnt(groups)
        rng = np.random.default_rng(seed)
        stats: list[dict[str, float]] = []
        parts = max(1, min(self.config.mini_batches, len(groups)))
        for _ in range(self.config.epochs):
            for part in np.array_split(rng.permutation(len(groups)), parts):
                rows = [row for i in part for row in groups[i]]
                if rows:
                    stats.append(self._step(rows, first=all(s is _NOTHING_LEARNT for s in stats)))
        self.weights.published()
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise NonFiniteLossError(f"the weights became NaN or infinite at learning rate {lr:.3g}; {_MEND}")
        return {**_combined(stats or [_NOTHING_LEARNT]), **mismatch}

    def _mismatch_unlearnt(self, groups: Sequence[Sequence[TrainingRow]]) -> dict[str, float]:
        """Engine mismatch where no fresh row is trained on, so that no step shows it: of as many as make one pass."""
        fresh = [row for group in groups for row in group if not row.replayed and row.mask.any()]
        if not fresh or any(map(self._is_trained_on, fresh)):
            return {}
        reached = np.cumsum([len(row.ids) for row in fresh])
        rows = fresh[: max(1, int((reached <= self.config.micro_batch_tokens).sum()))]
        engine = [row.old_logprobs if row.engine_logprobs is None else row.engine_logprobs for row in rows]
        pairs = zip(self._row_logprobs(rows), engine, rows, strict=True)
        gap = np.concatenate([np.abs(a - b)[row.mask] for a, b, row in pairs])
        return {"mismatch_mean": float(gap.mean()), "mismatch_max": float(gap.max())}

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
        module = self.weights.module
        ids, batch = collate(rows, self.pad_id, next(self.model.parameters()).device, weights)
        with recomputed_layers(module) if self.config.activation_checkpointing else nullcontext():
            if self.options.entropy_coef > 0.0:
                logprobs, entropies = token_logprobs_and_entropies(module, ids, batch.mask, self.temperature, pack=pack)
                loss, stats = self.objective.loss(logprobs, batch, entropies)
            else:
                logprobs = token_logprobs(module, ids, batch.mask, self.temperature, pack=pack)
                loss, stats = self.objective.loss(logprobs, batch)
        return loss, stats, _gap(logprobs, batch, rows)

    def _gradients(self, rows: Sequence[TrainingRow], divisor: int) -> tuple[float, list[dict[str, float]], Tensor]:
        """Leave the gradient of all `rows` in the parameters, each rank having seen some of them.

        Returns:
            Their loss, divided by `divisor`, and each pass's statistics and all gaps as `_loss` gives them.
        """
        own = [rows[i] for i in self.ranks.share([len(row.ids) for row in rows])]
        passes = forward_passes(self.model, own, self.config.micro_batch_tokens, self.config.packing)
        idle = max(self.ranks.gathered(len(passes))) - len(passes) if self.weights.lockstep else 0
        total = 0.0
        figures: list[dict[str, float]] = []
        gaps: list[Tensor] = []
        for part, pack in passes:
            loss, stats, gap = self._loss([own[i] for i in part], pack)
            loss = loss / divisor
            loss.backward()  # type: ignore[no-untyped-call]
            self.weights.collect()
            total += float(loss.detach())
            figures.append(stats)
            gaps.append(gap)
        for _ in range(idle):
            self._idle_pass()
        self.weights.reduced()
        if self.ranks.alone:
            return total, figures, torch.cat(gaps)
        parts = self.ranks.gathered((total, figures, [gap.cpu() for gap in gaps]))
        every = [gap for _, _, some in parts for gap in some]
        return sum(t for t, _, _ in parts), [s for _, some, _ in parts for s in some], torch.cat(every)

    def _idle_pass(self) -> None:
        """Take part in the others' pass with nothing of one's own."""
        ids = torch.full((1, 2), self.pad_id, device=next(self.model.parameters()).device)
        logits = self.weights.module(input_ids=ids, use_cache=False).logits
        (logits.sum() * 0.0).backward()
        self.weights.collect()

    def _step(self, rows: Sequence[TrainingRow], *, first: bool) -> dict[str, float]:
        """One optimiser step on the token losses of `rows`, aggregated as the objective's options say."""
        trained = [row for row in self._weighted(rows) if self._is_trained_on(row)]
        if not trained:
            return _NOTHING_LEARNT
        self.optimizer.zero_grad(set_to_none=True)
        with self.ranks.noticing_loss():
            total, figures, gap = self._gradients(trained, 1 if self.weighs else len(rows))
            trainable = [parameter for _, parameter in self.weights.named()]
            norm = gradient_norm(trainable, self.config.max_grad_norm)
        if not (math.isfinite(norm) and math.isfinite(total)):
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLossError(f"loss={total}, gradient norm={norm}: this step was not taken; {_MEND}")
        self.optimizer.step()
        self.weights.stepped()
        out = _combined(figures, [stats["tokens"] for stats in figures])
        del out["tokens"]
        out |= {"loss": total, "grad_norm": norm}
        fresh = [row for row in rows if not row.replayed]
        if fresh:
            out["live_rows"] = sum(row.has_signal for row in fresh) / len(fresh)
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
