"""One policy update: mini-batches of whole prompts, micro-batched forward passes, one clipped AdamW step each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from elpo_agent.objective.base import Objective, TokenBatch
from elpo_agent.training.config import LearnerConfig
from elpo_agent.training.rows import TrainingRow, collate, micro_batches

_NOTHING_LEARNT = {"loss": 0.0, "grad_norm": 0.0, "live_rows": 0.0}
_MEND = "the last checkpoint is from before, start a new run with a smaller learner.lr"


class NonFiniteLossError(RuntimeError):
    """The loss, its gradient or the weights became NaN or infinite; what was saved before is intact."""


def token_logprobs(model: nn.Module, ids: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Log-probability of each token given those before it, float32 (B, T); 0 where `mask` is 0.

    Only agent positions go through the softmax. Right padding needs no attention mask under causal attention.
    """
    logits = model(input_ids=ids, use_cache=False).logits
    keep = mask[:, 1:] > 0
    chosen = torch.log_softmax(logits[:, :-1][keep].float() / temperature, dim=-1)
    values = chosen.gather(-1, ids[:, 1:][keep].unsqueeze(-1)).squeeze(-1)
    rows, columns = keep.nonzero(as_tuple=True)
    return torch.zeros(ids.shape, dtype=values.dtype, device=ids.device).index_put((rows, columns + 1), values)


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
        objective: gives the loss.
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
        self.config = config
        self.pad_id = pad_id
        self.temperature = temperature
        self.optimizer = torch.optim.AdamW(
            (p for p in model.parameters() if p.requires_grad),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )

    def update(self, groups: Sequence[Sequence[TrainingRow]], *, lr: float, seed: int) -> dict[str, float]:
        """Train on one batch: `groups[i]` are the rows of prompt i. Returns statistics, averaged over mini-batches.

        Raises:
            NonFiniteLossError: a step with a NaN or infinite loss or gradient is not taken; one that makes a weight
                so, as a huge learning rate does, is only noticed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.eval()  # no dropout: the ratio compares two states of the same function
        rng = np.random.default_rng(seed)
        stats: list[dict[str, float]] = []
        for _ in range(self.config.epochs):
            for part in np.array_split(rng.permutation(len(groups)), min(self.config.mini_batches, len(groups))):
                rows = [row for i in part for row in groups[i]]
                if rows:
                    stats.append(self._step(rows, first=not stats))
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise NonFiniteLossError(f"the weights became NaN or infinite at learning rate {lr:.3g}; {_MEND}")
        return _mean(stats or [_NOTHING_LEARNT])

    def _step(self, rows: Sequence[TrainingRow], *, first: bool) -> dict[str, float]:
        """One optimiser step on the mean over `rows` of each row's mean token loss (equation 12)."""
        device = next(self.model.parameters()).device
        self.optimizer.zero_grad(set_to_none=True)
        total = tokens = 0.0
        sums: dict[str, float] = {}
        # Rows without signal add exactly nothing to the gradient, but they count in the mean.
        live = [r for r in rows if r.has_signal]
        gaps: list[Tensor] = []
        for micro in micro_batches(live, self.config.micro_batch_tokens):
            ids, batch = collate(micro, self.pad_id, device)
            logprobs = token_logprobs(self.model, ids, batch.mask, self.temperature)
            if first:
                gaps.append(_gap(logprobs, batch))
            loss, stats = self.objective.loss(logprobs, batch)
            (loss / len(rows)).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach()) / len(rows)
            weight = stats.pop("tokens")
            tokens += weight
            for name, value in stats.items():
                sums[name] = sums.get(name, 0.0) + value * weight
        if not live:
            return _NOTHING_LEARNT
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm))
        if not (math.isfinite(norm) and math.isfinite(total)):
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLossError(f"loss={total}, gradient norm={norm}: this step was not taken; {_MEND}")
        self.optimizer.step()
        out = {name: value / tokens for name, value in sums.items()}
        out |= {"loss": total, "grad_norm": norm, "live_rows": len(live) / len(rows)}
        if gaps:
            # Before the first step of an update the two must agree; anything else is engine mismatch.
            gap = torch.cat(gaps)
            out |= {"mismatch_mean": float(gap.mean()), "mismatch_max": float(gap.max())}
        return out


def _gap(logprobs: Tensor, batch: TokenBatch) -> Tensor:
    """|log-probability under the learner - under the engine| of every agent token."""
    keep = batch.mask > 0
    return (logprobs.detach() - batch.old_logprobs)[keep].abs()


def _mean(stats: Sequence[dict[str, float]]) -> dict[str, float]:
    names = {name: None for s in stats for name in s}
    return {n: float(np.mean([s[n] for s in stats if n in s])) for n in names}
