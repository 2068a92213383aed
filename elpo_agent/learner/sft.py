"""Supervised fine-tuning on conversations: next-token cross-entropy on agent tokens only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elpo_agent.learner.precision import MasterWeights


@dataclass(frozen=True)
class SftRow:
    """One conversation as tokens.

    Attributes:
        ids: int32 (T,), prompt, turns and tool feedback in order.
        mask: bool (T,), True on the agent's own tokens (the only ones predicted).
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class SftConfig:
    """How the cold start is trained.

    Attributes:
        epochs: passes over the rows.
        lr: peak learning rate; linear warm-up, then cosine to a tenth.
        warmup: share of all updates spent warming up, 0 to 1.
        batch_tokens: padded tokens per update.
        optimizer: "adamw", or "muon" (matrices by Muon, the rest by AdamW; better from random weights).
        weight_decay: decoupled weight decay.
        max_grad_norm: gradients are clipped to this norm.
        seed: order of the batches.
    """

    epochs: int = 1
    lr: float = 1e-3
    warmup: float = 0.03
    batch_tokens: int = 8192
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class SftProgress:
    """Figures of one update: `loss` in nats per agent token, `tokens` trained on so far (padding excluded)."""

    update: int
    total: int
    loss: float
    lr: float
    tokens: int


def token_loss(model: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of agent tokens and their number; `ids` int64 (B, T) right-padded, `mask` bool (B, T).

    Rows need no attention mask: with causal attention, padding on the right is invisible to what precedes it.
    """
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    targets, keep = ids[:, 1:], mask[:, 1:]
    loss = nn.functional.cross_entropy(logits[keep], targets[keep], reduction="sum")
    return loss, keep.sum()


def pad_rows(rows: Sequence[SftRow], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Right-padded int64 ids (B, T) and bool mask (B, T)."""
    length = max(len(r.ids) for r in rows)
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        mask[i, : len(row.mask)] = row.mask
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def batches(rows: Sequence[SftRow], batch_tokens: int, rng: np.random.Generator) -> Iterator[list[SftRow]]:
    """One epoch of batches of similar length, each at most `batch_tokens` padded tokens (one row at least)."""
    # Lengths are jittered before sorting so that batches differ between epochs.
    lengths = np.array([len(r.ids) for r in rows], dtype=float) + rng.uniform(0, 16, len(rows))
    groups: list[list[int]] = [[]]
    widest = 0
    for i in np.argsort(lengths):
        widest = max(widest, len(rows[i].ids))
        if groups[-1] and widest * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
            widest = len(rows[i].ids)
        groups[-1].append(int(i))
    for g in rng.permutation(len(groups)):
        if groups[g]:
            yield [rows[i] for i in groups[g]]


def learning_rate(update: int, total: int, peak: float, warmup: float) -> float:
    """Linear warm-up over `warmup * total` updates, then a cosine down to a tenth of `peak`."""
    rise = max(1, round(warmup * total))
    if update < rise:
        return peak * (update + 1) / rise
    done = (update - rise) / max(1, total - rise)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def make_optimizers(params: Sequence[tuple[str, nn.Parameter]], config: SftConfig) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon for the hidden matrices with AdamW for embeddings and norms. Raises ValueError otherwise.

    Args:
        params: what is trained, and its names in the model.
    """
    adam: dict[str, Any] = {"betas": (0.9, 0.95), "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return [torch.optim.AdamW([p for _, p in params], lr=config.lr, **adam)]
    if config.optimizer == "muon":
        matrices = [p for n, p in params if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
        known = {id(p) for p in matrices}
        rest = [p for _, p in params if id(p) not in known]
        return [
            torch.optim.Muon(matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=config.lr, **adam),
        ]
    raise ValueError(f"optimizer={config.optimizer!r} is unknown; choose adamw or muon")


def train_sft(
    model: nn.Module,
    rows: Sequence[SftRow],
    config: SftConfig,
    *,
    pad_id: int,
    on_update: Callable[[SftProgress], None] | None = None,
) -> None:
    """Train `model` in place on `rows`; while it lasts, parameters of 16 bits are held in float32 (`MasterWeights`).

    Raises:
        ValueError: no rows, or no agent token in them.
    """
    if not rows or not any(r.mask.any() for r in rows):
        raise ValueError("there is nothing to train on: no conversation holds an agent token; check the data set")
    device = next(model.parameters()).device
    plan = [
        batch
        for epoch in range(config.epochs)
        for batch in batches(rows, config.batch_tokens, np.random.default_rng([config.seed, epoch]))
    ]
    weights = MasterWeights(model)
    trained = weights.named()
    optimizers = make_optimizers(trained, config)
    model.train()
    seen = 0
    for update, batch in enumerate(plan):
        lr = learning_rate(update, len(plan), config.lr, config.warmup)
        ids, mask = pad_rows(batch, pad_id, device)
        loss, count = token_loss(model, ids, mask)
        mean = loss / count.clamp(min=1)
        mean.backward()  # type: ignore[no-untyped-call]
        weights.collect()
        nn.utils.clip_grad_norm_([parameter for _, parameter in trained], config.max_grad_norm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        weights.stepped()
        seen += sum(len(r.ids) for r in batch)
        if on_update is not None:
            on_update(SftProgress(update + 1, len(plan), float(mean.detach()), lr, seen))
    model.eval()
