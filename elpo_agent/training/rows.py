"""From a credited tree to token rows: what was sampled is what is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elpo_agent.credit.base import LeafCredit, NodeCredit, spread
from elpo_agent.objective.base import NodeBounds, TokenBatch
from elpo_agent.tree import RolloutTree


@dataclass(frozen=True)
class TrainingRow:
    """One trajectory, length T = prompt + turns + feedback.

    Attributes:
        ids: int64 (T,), the ids that were sampled and what stood between them.
        mask: bool (T,), True on agent tokens.
        old_logprobs, advantages, eps_low, eps_high: float32 (T,), 0 where `mask` is False.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    old_logprobs: NDArray[np.float32]
    advantages: NDArray[np.float32]
    eps_low: NDArray[np.float32]
    eps_high: NDArray[np.float32]

    @property
    def has_signal(self) -> bool:
        """Whether any agent token has a non-zero advantage; without one the row's gradient is exactly zero."""
        return bool(np.any(self.advantages[self.mask] != 0.0))


def tree_rows(tree: RolloutTree, credit: NodeCredit | Sequence[LeafCredit], bounds: NodeBounds) -> list[TrainingRow]:
    """One row for each credited leaf; a shared step appears in every trajectory through it.

    Args:
        credit: per node, which gives every valid leaf a row, in completion order; or per leaf.
    """
    leaves = spread(tree, credit) if isinstance(credit, NodeCredit) else credit
    return [_leaf_row(tree, given, bounds) for given in leaves]


def _leaf_row(tree: RolloutTree, credit: LeafCredit, bounds: NodeBounds) -> TrainingRow:
    leaf = credit.leaf
    ids: list[int] = list(tree.prompt_ids)
    spans: list[tuple[int, int, int]] = []
    for node in tree.path(leaf):
        step = tree.nodes[node].step
        assert step is not None
        spans.append((node, len(ids), len(ids) + len(step.ids)))
        ids.extend(step.ids)
        if node != leaf:
            ids.extend(step.feedback_ids)
    length = len(ids)
    mask = np.zeros(length, dtype=bool)
    old, adv, low, high = (np.zeros(length, dtype=np.float32) for _ in range(4))
    for (node, start, end), advantages in zip(spans, credit.advantages, strict=True):
        step = tree.nodes[node].step
        assert step is not None
        mask[start:end] = True
        old[start:end] = step.logprobs
        adv[start:end] = advantages
        low[start:end] = bounds.low[node]
        high[start:end] = bounds.high[node]
    return TrainingRow(np.array(ids, dtype=np.int64), mask, old, adv, low, high)


def collate(rows: Sequence[TrainingRow], pad_id: int, device: torch.device) -> tuple[Tensor, TokenBatch]:
    """Right-padded ids int64 (B, T) and the batch that the objective reads."""
    length = max(len(r.ids) for r in rows)

    def stack(name: str, dtype: type, fill: int = 0) -> Tensor:
        out: NDArray[Any] = np.full((len(rows), length), fill, dtype=dtype)
        for i, row in enumerate(rows):
            values = getattr(row, name)
            out[i, : len(values)] = values
        return torch.from_numpy(out).to(device)

    return stack("ids", np.int64, pad_id), TokenBatch(
        old_logprobs=stack("old_logprobs", np.float32),
        advantages=stack("advantages", np.float32),
        eps_low=stack("eps_low", np.float32),
        eps_high=stack("eps_high", np.float32),
        mask=stack("mask", np.float32),
    )


def micro_batches(rows: Sequence[TrainingRow], max_tokens: int) -> list[list[TrainingRow]]:
    """Rows of similar length together, each group at most `max_tokens` padded tokens (one row at least)."""
    groups: list[list[TrainingRow]] = []
    for row in sorted(rows, key=lambda r: len(r.ids)):
        if groups and len(row.ids) * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
