"""A transformers model's forward passes over a `KVBatch`, and what an engine must know of the model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from elpo_agent.engines.attention import MASKED_ATTENTION
from elpo_agent.engines.kv_batch import KVBatch, KVShape

_PREFILL_TOKENS = 8192  # tokens of one prefill pass over all its rows
_PREFILL_COLUMNS = 1024  # tokens of one row in one prefill pass: bounds the mask and the scores


class CachedForward:
    """Passes of a causal LM of `transformers` with full attention and rotary positions.

    Args:
        model: the module; its own device and weights are used.
        pad_id: any valid id, fed at padding positions; it has no influence.
    Raises:
        ValueError: a model that cannot be run so (sliding windows, recurrent layers, flash attention, which takes no
            explicit mask).
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        attention = model.config._attn_implementation
        if attention not in MASKED_ATTENTION:
            raise ValueError(f"attn_implementation={attention!r} takes no explicit mask; load with 'sdpa'")
        self.model = model
        self.vocab = int(model.get_input_embeddings().weight.shape[0])
        self.max_positions = int(getattr(model.config, "max_position_embeddings", 0) or 2**62)
        self._pad_id = pad_id
        self._last_only = (
            {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        )
        self.shape = self._probe()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device = next(self.model.parameters()).device
        assert isinstance(device, torch.device)
        return device

    def __call__(self, ids: Tensor, positions: Tensor, mask: Tensor, batch: KVBatch) -> Tensor:
        """Logits (B, V) of the last column of `ids` (B, T), which `batch.begin` has announced.

        Args:
            ids: (B, T) int64.
            positions: (B, T) int64.
            mask: (B, 1, T or 1, width), added to the scores.
            batch: gets the new tokens' keys and values.
        """
        out = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=batch,
            use_cache=True,
            **self._last_only,
        )
        logits = out.logits[:, -1]
        assert isinstance(logits, Tensor)
        return logits

    def prefill(self, batch: KVBatch, first: int, prefixes: Sequence[tuple[int, ...]], cached: Sequence[int]) -> Tensor:
        """Compute the tokens of prefixes that the batch's rows `first`, `first + 1`, ... do not hold yet.

        Args:
            batch: row `first + r` holds the first `cached[r]` tokens of `prefixes[r]`.
            first: row of the first prefix.
            prefixes: P of them, ordered by the number of tokens to compute, so that there is little padding.
            cached: (P,), each less than the prefix's length.
        Returns:
            Logits (P, V) after the last token of each.
        """
        todo = [len(p) - n for p, n in zip(prefixes, cached, strict=True)]
        out: list[Tensor] = []
        start = 0
        while start < len(prefixes):
            stop = start + 1
            while (
                stop < len(prefixes)
                and todo[stop] * (stop + 1 - start) <= _PREFILL_TOKENS
                and todo[stop] <= 2 * todo[start] + 16  # bounds the padding
            ):
                stop += 1
            rows = slice(first + start, first + stop)
            out.append(self._prefill_rows(batch, rows, prefixes[start:stop], todo[start:stop]))
            start = stop
        return torch.cat(out)

    def _prefill_rows(
        self, batch: KVBatch, rows: slice, prefixes: Sequence[tuple[int, ...]], todo: Sequence[int]
    ) -> Tensor:
        n, longest, width = len(prefixes), max(todo), max(map(len, prefixes))
        ids = np.full((n, longest), self._pad_id, dtype=np.int64)
        columns = np.full((n, longest), batch.width, dtype=np.int64)  # padding writes to the spare column
        for r, (prefix, new) in enumerate(zip(prefixes, todo, strict=True)):
            ids[r, longest - new :] = prefix[len(prefix) - new :]
            columns[r, longest - new :] = np.arange(len(prefix) - new, len(prefix))
        device = self.device
        ids_t, columns_t = torch.from_numpy(ids).to(device), torch.from_numpy(columns).to(device)
        row_index = torch.arange(rows.start, rows.stop, device=device)[:, None]
        minimum = torch.finfo(self.shape.dtype).min
        logits = torch.zeros(0)
        for start in range(0, longest, _PREFILL_COLUMNS):
            cut = columns_t[:, start : start + _PREFILL_COLUMNS]
            # A token sees its row's columns up to its own; padding sees everything, and nobody sees padding.
            hidden = torch.arange(width, device=device) > cut[:, :, None]
            mask = torch.zeros(hidden.shape, dtype=self.shape.dtype, device=device).masked_fill_(hidden, minimum)
            positions = torch.where(cut == batch.width, torch.zeros_like(cut), cut)
            batch.begin(rows, row_index, cut, width)
            logits = self(ids_t[:, start : start + _PREFILL_COLUMNS], positions, mask[:, None], batch)
        for r, prefix in enumerate(prefixes):
            batch.mask[rows.start + r, : len(prefix)] = 0
        return logits

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode, every submodule's own state restored afterwards."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def _probe(self) -> KVShape:
        """Learn the layout of the model's keys and values from a pass over one token."""
        cache = DynamicCache(config=self.model.config)
        with torch.inference_mode(), self.evaluating():
            self.model(torch.tensor([[self._pad_id]], device=self.device), past_key_values=cache, use_cache=True)
        kinds = {type(layer) for layer in cache.layers}
        if kinds != {DynamicLayer}:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise ValueError(f"this engine runs full attention only, but the model's layers keep {names}")
        shapes = {(t.shape[1], t.shape[3], t.dtype) for layer in cache.layers for t in (layer.keys, layer.values)}
        if len(shapes) != 1:
            raise ValueError(f"keys and values differ in shape ({shapes}); this engine needs one for all layers")
        ((heads, head_dim, dtype),) = shapes
        return KVShape(len(cache.layers), heads, head_dim, dtype)
