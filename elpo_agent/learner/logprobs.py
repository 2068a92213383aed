"""Log-probabilities and entropies of the agent tokens of conversations under a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elpo_agent.learner.packing import Packing, packs, pays, predicting
from elpo_agent.learner.rows import micro_batches, padded
from elpo_agent.learner.tree_attention import packed_logits, takes_trees
from elpo_agent.ranks import ALONE, Ranks


class TokenRow(Protocol):
    """A conversation as tokens: `ids` int64 (T,), and `mask` bool (T,), True on agent tokens."""

    @property
    def ids(self) -> NDArray[np.int64]: ...

    @property
    def mask(self) -> NDArray[np.bool_]: ...


def token_logprobs(model: nn.Module, ids: Tensor, mask: Tensor, temperature: float, *, pack: bool = False) -> Tensor:
    """Log-probability of each token given those before it, at least float32, (B, T); 0 where `mask` is 0.

    Only agent positions go through the softmax. Right padding needs no attention mask under causal attention.

    Args:
        pack: compute what rows share once, for a model that `takes_trees`; values and gradient are the same.
    """
    return _terms(model, ids, mask, temperature, pack=pack, with_entropies=False)[0]


def token_logprobs_and_entropies(
    model: nn.Module, ids: Tensor, mask: Tensor, temperature: float, *, pack: bool = False
) -> tuple[Tensor, Tensor]:
    """`token_logprobs`, and the entropy in nats of the distribution that each agent token was drawn from, (B, T)."""
    logprobs, entropies = _terms(model, ids, mask, temperature, pack=pack, with_entropies=True)
    assert entropies is not None
    return logprobs, entropies


def _terms(
    model: nn.Module, ids: Tensor, mask: Tensor, temperature: float, *, pack: bool, with_entropies: bool
) -> tuple[Tensor, Tensor | None]:
    keep = mask[:, 1:] > 0
    rows, columns = keep.nonzero(as_tuple=True)
    if pack and len(rows):
        chosen, at = packed_logits(model, ids, mask)
    else:
        chosen = model(input_ids=ids, use_cache=False).logits[:, :-1][keep]
        at = torch.arange(len(rows), device=ids.device)
    logs = torch.log_softmax(chosen.to(torch.promote_types(chosen.dtype, torch.float32)) / temperature, dim=-1)

    def placed(values: Tensor) -> Tensor:
        return torch.zeros(ids.shape, dtype=values.dtype, device=ids.device).index_put((rows, columns + 1), values)

    logprobs = placed(logs[at, ids[:, 1:][keep]])
    if not with_entropies:
        return logprobs, None
    # A token that cannot be drawn has log-probability minus infinity, and adds 0 to the entropy.
    finite = logs.clamp(min=torch.finfo(logs.dtype).min)
    return logprobs, placed(-(logs.exp() * finite).sum(dim=-1)[at])


def forward_passes(
    model: nn.Module, rows: Sequence[TokenRow], micro_batch_tokens: int, packing: Packing
) -> list[tuple[list[int], bool]]:
    """Which rows are scored together, by index, and whether packed.

    Raises:
        ValueError: `packing` is "always", and the model cannot take packed rows.
    """
    if not rows:
        return []
    flat = micro_batches([len(row.ids) for row in rows], micro_batch_tokens)
    if packing != "never":
        together, computed = packs([predicting(row.ids, row.mask) for row in rows], micro_batch_tokens)
        padded_tokens = sum(len(part) * max(len(rows[i].ids) for i in part) for part in flat)
        if (packing == "always" or pays(computed, padded_tokens)) and takes_trees(model):
            return [(part, True) for part in together]
        if packing == "always":
            raise ValueError(f"learner.packing='always', but {type(model).__name__} cannot take packed rows; give auto")
    return [(part, False) for part in flat]


def row_logprobs(
    model: nn.Module,
    rows: Sequence[TokenRow],
    *,
    pad_id: int,
    temperature: float,
    micro_batch_tokens: int,
    packing: Packing = "never",
    ranks: Ranks = ALONE,
) -> list[NDArray[np.float32]]:
    """`token_logprobs` of every row, (T,) each and in the order of `rows`, without gradient.

    Args:
        micro_batch_tokens, packing: see `LearnerConfig`.
        ranks: each has the same rows and the whole model, computes a part, and gets what the others computed.
    """
    if not ranks.alone:
        own = [rows[i] for i in ranks.share([len(row.ids) for row in rows])]
        computed = row_logprobs(
            model, own, pad_id=pad_id, temperature=temperature, micro_batch_tokens=micro_batch_tokens, packing=packing
        )
        return [line for part in ranks.gathered(computed) for line in part]
    device = next(model.parameters()).device
    out: list[NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * len(rows)
    with torch.no_grad():
        for part, pack in forward_passes(model, rows, micro_batch_tokens, packing):
            ids = padded([rows[i].ids for i in part], np.int64, device, fill=pad_id)
            mask = padded([rows[i].mask for i in part], np.float32, device)
            values = token_logprobs(model, ids, mask, temperature, pack=pack).float().cpu().numpy()
            for i, line in zip(part, values, strict=True):
                out[i] = line[: len(rows[i].ids)].copy()
    return out
