"""The keys and values of a running batch, preallocated, handed to a transformers model as its cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

_GROWTH = 64  # columns added at a time, at least


@dataclass(frozen=True)
class KVShape:
    """Layout of one token's keys and values; the same in every layer."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype


class KVBatch(Cache):  # type: ignore[misc]
    """Row-wise, left-aligned keys and values: row r holds its first `lengths[r]` tokens in columns 0, 1, ...

    A step writes each row's new tokens at that row's own columns, so rows of different lengths share a batch
    without padding between their tokens. The last column takes the writes of padding and is never read.

    Args:
        shape: layout of the model's keys and values.
        rows: capacity in rows; width: capacity in tokens of a row.
        device: where the tensors live.
    """

    def __init__(self, shape: KVShape, rows: int, width: int, device: torch.device) -> None:
        super().__init__(layers=[])
        self._shape, self._device = shape, device
        self.kv = torch.zeros(0)
        self.mask = torch.zeros(0)
        self._allocate(rows, width)
        self._rows = slice(0, rows)
        self._row_index = torch.zeros(0, dtype=torch.long)
        self._columns = torch.zeros(0, dtype=torch.long)
        self._width = 0

    @property
    def rows(self) -> int:
        """Rows that there is room for."""
        return int(self.kv.shape[2])

    @property
    def width(self) -> int:
        """Tokens that fit in a row."""
        return int(self.kv.shape[-2]) - 1

    def _allocate(self, rows: int, width: int) -> None:
        s = self._shape
        # Zeros, not empty: a NaN in a masked column would still poison the softmax.
        self.kv = torch.zeros((s.layers, 2, rows, s.heads, width + 1, s.head_dim), dtype=s.dtype, device=self._device)
        self.mask = torch.full((rows, width + 1), torch.finfo(s.dtype).min, dtype=s.dtype, device=self._device)

    def reserve(self, width: int, keep: int, rows: int) -> None:
        """Make room for `rows` rows of `width` tokens, keeping the first `keep` rows; no-op when they fit.

        Where `width` does not fit, there is room for `rows` rows afterwards and no more.
        """
        if width <= self.width and rows <= self.rows:
            return
        kv, mask, used = self.kv, self.mask, self.width
        self._allocate(rows, used if width <= used else max(width, used + _GROWTH, used * 5 // 4))
        self.kv[:, :, :keep, :, :used] = kv[:, :, :keep, :, :used]
        self.mask[:keep, :used] = mask[:keep, :used]

    def hide(self, rows: slice) -> None:
        """Begin anew with rows: nothing in them is attended to."""
        self.mask[rows].fill_(torch.finfo(self._shape.dtype).min)

    def load(self, row: int, pieces: Sequence[Tensor]) -> None:
        """Fill a row from its first column with pieces of (layers, 2, heads, tokens, head_dim)."""
        start = 0
        for piece in pieces:
            stop = start + piece.shape[-2]
            self.kv[:, :, row, :, start:stop] = piece
            start = stop
        self.mask[row, :start] = 0

    def tokens(self, row: int, start: int, stop: int) -> Tensor:
        """A view of a row's keys and values of tokens start..stop-1."""
        return self.kv[:, :, row, :, start:stop]

    def copy_rows(self, source: Tensor, target: Tensor | slice, width: int) -> None:
        """Copy the first `width` columns of rows `source` to rows `target`."""
        self.kv[:, :, target, :, :width] = self.kv[:, :, source, :, :width]
        self.mask[target] = self.mask[source]

    def begin(self, rows: slice, row_index: Tensor, columns: Tensor, width: int) -> None:
        """Announce a forward pass over the rows of a slice.

        Args:
            rows: which rows take part, B of them.
            row_index: (B, 1) int64, their indices.
            columns: (B, T) int64, where each new token goes.
            width: columns that the pass attends to.
        """
        self._rows, self._row_index, self._columns, self._width = rows, row_index, columns, width

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Called by the model: (B, heads, T, head_dim) in, everything (B, heads, width, head_dim) out."""
        keys, values = self.kv[layer_idx, 0], self.kv[layer_idx, 1]
        keys[self._row_index, :, self._columns] = key_states.transpose(1, 2)
        values[self._row_index, :, self._columns] = value_states.transpose(1, 2)
        return keys[self._rows, :, : self._width], values[self._rows, :, : self._width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen; models ask only where positions or masks are not given, and both always are."""
        return self._width
