"""From a credited tree to token rows: what was sampled is what is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elpo_agent.credit.base import LeafCredit, NodeCredit, ReferenceLogprobs, spread
from elpo_agent.objective.base import NodeBounds, TokenBatch
from elpo_agent.tree import RolloutTree


@dataclass(frozen=True)
class LeafTokens:
    """One trajectory as tokens, length T = prompt + turns + feedback; feedback after the last turn is left out.

    Attributes:
        ids: int64 (T,), the ids that were sampled and what stood between them.
        mask: bool (T,), True on agent tokens.
        spans: for each step on the path, where its agent tokens are in `ids`.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    spans: tuple[slice, ...]


@dataclass(frozen=True)
class TrainingRow:
    """One trajectory, length T as in `LeafTokens`.

    Attributes:
        ids: int64 (T,), the ids that were sampled and what stood between them.
        mask: bool (T,), True on agent tokens.
        old_logprobs, advantages, eps_low, eps_high: float32 (T,), 0 where `mask` is False.
        weight: what its token losses are multiplied by; it counts in means over trajectories and tokens all the same.
        engine_logprobs: float32 (T,), at sampling time, where `old_logprobs` are the learner's own of that update.
        reference_logprobs: float32 (T,), of the reference policy, where there is one.
        replayed: of an earlier update, so that its ratios are not 1 before the first step.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    old_logprobs: NDArray[np.float32]
    advantages: NDArray[np.float32]
    eps_low: NDArray[np.float32]
    eps_high: NDArray[np.float32]
    weight: float = 1.0
    engine_logprobs: NDArray[np.float32] | None = None
    reference_logprobs: NDArray[np.float32] | None = None
    replayed: bool = False

    @property
    def has_signal(self) -> bool:
        """Whether any agent token has a non-zero advantage; without one the ratios' gradient is exactly zero."""
        return bool(np.any(self.advantages[self.mask] != 0.0))


def leaf_tokens(tree: RolloutTree, leaf: int) -> LeafTokens:
    """The trajectory that ends in `leaf`."""
    ids: list[int] = list(tree.prompt_ids)
    spans: list[slice] = []
    for node in tree.path(leaf):
        step = tree.nodes[node].step
        assert step is not None
        spans.append(slice(len(ids), len(ids) + len(step.ids)))
        ids.extend(step.ids)
        if node != leaf:
            ids.extend(step.feedback_ids)
    mask = np.zeros(len(ids), dtype=bool)
    for span in spans:
        mask[span] = True
    return LeafTokens(np.array(ids, dtype=np.int64), mask, tuple(spans))


def tree_rows(
    tree: RolloutTree,
    credit: NodeCredit | Sequence[LeafCredit],
    bounds: NodeBounds,
    reference: ReferenceLogprobs | None = None,
) -> list[TrainingRow]:
    """One row for each credited leaf; a shared step appears in every trajectory through it.

    Args:
        credit: per node, which gives every valid leaf a row, in completion order; or per leaf.
        reference: gives the rows their `reference_logprobs`.
    """
    leaves = spread(tree, credit) if isinstance(credit, NodeCredit) else credit
    return [_leaf_row(tree, given, bounds, reference) for given in leaves]


def _leaf_row(
    tree: RolloutTree, credit: LeafCredit, bounds: NodeBounds, reference: ReferenceLogprobs | None
) -> TrainingRow:
    tokens = leaf_tokens(tree, credit.leaf)
    old, adv, low, high = (np.zeros(len(tokens.ids), dtype=np.float32) for _ in range(4))
    adv[tokens.mask] = credit.advantages
    for node, span in zip(tree.path(credit.leaf), tokens.spans, strict=True):
        step = tree.nodes[node].step
        assert step is not None
        old[span] = step.logprobs
        low[span] = bounds.low[node]
        high[span] = bounds.high[node]
    of_reference = None
    if reference is not None:
        of_reference = np.zeros(len(tokens.ids), dtype=np.float32)
        for span, values in zip(tokens.spans, reference(tree, credit.leaf), strict=True):
            of_reference[span] = values
    return TrainingRow(tokens.ids, tokens.mask, old, adv, low, high, reference_logprobs=of_reference)


def collate(
    rows: Sequence[TrainingRow], pad_id: int, device: torch.device, weights: Sequence[float] | None = None
) -> tuple[Tensor, TokenBatch]:
    """Right-padded ids int64 (B, T) and the batch that the objective reads.

    Engine's and reference's log-probabilities are there if all rows have them.

    Args:
        weights: for each row, see `TokenBatch`; the rows' own are not looked at.
    """

    def stack(name: str) -> Tensor:
        return padded([getattr(row, name) for row in rows], np.float32, device)

    def stack_if_given(name: str) -> Tensor | None:
        return None if any(getattr(row, name) is None for row in rows) else stack(name)

    ids = padded([row.ids for row in rows], np.int64, device, fill=pad_id)
    return ids, TokenBatch(
        old_logprobs=stack("old_logprobs"),
        advantages=stack("advantages"),
        eps_low=stack("eps_low"),
        eps_high=stack("eps_high"),
        mask=stack("mask"),
        weights=None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device),
        engine_logprobs=stack_if_given("engine_logprobs"),
        reference_logprobs=stack_if_given("reference_logprobs"),
    )


def padded(arrays: Sequence[NDArray[Any]], dtype: type[np.generic], device: torch.device, *, fill: int = 0) -> Tensor:
    """Arrays (T_i,) as one tensor (B, max T_i) of `dtype`, with `fill` on the right."""
    out: NDArray[Any] = np.full((len(arrays), max(map(len, arrays))), fill, dtype=dtype)
    for i, values in enumerate(arrays):
        out[i, : len(values)] = values
    return torch.from_numpy(out).to(device)


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of rows of similar length together, each group at most `max_tokens` padded tokens (one row at least)."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups and lengths[i] * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
