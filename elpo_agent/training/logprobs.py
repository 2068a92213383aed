"""Log-probabilities and entropies of the agent tokens of conversations under a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elpo_agent.training.rows import packed, padded


class TokenRow(Protocol):
    """A conversation as tokens: `ids` int64 (T,), and `mask` bool (T,), True on agent tokens."""

    @property
    def ids(self) -> NDArray[np.int64]: ...

    @property
    def mask(self) -> NDArray[np.bool_]: ...


def token_logprobs(model: nn.Module, ids: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Log-probability of each token given those before it, at least float32, (B, T); 0 where `mask` is 0.

    Only agent positions go through the softmax. Right padding needs no attention mask under causal attention.
    """
    return _terms(model, ids, mask, temperature, with_entropies=False)[0]


def token_logprobs_and_entropies(
    model: nn.Module, ids: Tensor, mask: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """`token_logprobs`, and the entropy in nats of the distribution that each agent token was drawn from, (B, T)."""
    logprobs, entropies = _terms(model, ids, mask, temperature, with_entropies=True)
    assert entropies is not None
    return logprobs, entropies


def _terms(
    model: nn.Module, ids: Tensor, mask: Tensor, temperature: float, *, with_entropies: bool
) -> tuple[Tensor, Tensor | None]:
    logits = model(input_ids=ids, use_cache=False).logits
    keep = mask[:, 1:] > 0
    chosen = logits[:, :-1][keep]
    logs = torch.log_softmax(chosen.to(torch.promote_types(chosen.dtype, torch.float32)) / temperature, dim=-1)
    rows, columns = keep.nonzero(as_tuple=True)

    def placed(values: Tensor) -> Tensor:
        return torch.zeros(ids.shape, dtype=values.dtype, device=ids.device).index_put((rows, columns + 1), values)

    logprobs = placed(logs.gather(-1, ids[:, 1:][keep].unsqueeze(-1)).squeeze(-1))
    if not with_entropies:
        return logprobs, None
    # A token that cannot be drawn has log-probability minus infinity, and adds 0 to the entropy.
    finite = logs.clamp(min=torch.finfo(logs.dtype).min)
    return logprobs, placed(-(logs.exp() * finite).sum(dim=-1))


def row_logprobs(
    model: nn.Module, rows: Sequence[TokenRow], *, pad_id: int, temperature: float, micro_batch_tokens: int
) -> list[NDArray[np.float32]]:
    """`token_logprobs` of every row, (T,) each and in the order of `rows`, without gradient.

    Args:
        micro_batch_tokens: padded tokens per forward pass, see `packed`.
    """
    device = next(model.parameters()).device
    out: list[NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * len(rows)
    with torch.no_grad():
        for part in packed([len(row.ids) for row in rows], micro_batch_tokens):
            ids = padded([rows[i].ids for i in part], np.int64, device, fill=pad_id)
            mask = padded([rows[i].mask for i in part], np.float32, device)
            values = token_logprobs(model, ids, mask, temperature).float().cpu().numpy()
            for i, line in zip(part, values, strict=True):
                out[i] = line[: len(rows[i].ids)].copy()
    return out
