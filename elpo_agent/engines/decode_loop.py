"""A running batch: rows are prefilled into it, one step draws a token for each, and rows that end leave at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elpo_agent.engines.cached_forward import CachedForward
from elpo_agent.engines.draws import Draws, Row
from elpo_agent.engines.kv_batch import KVBatch
from elpo_agent.engines.prefix_cache import PrefixCache
from elpo_agent.policy import SampledTurn

_DECODE_ROOM = 64  # columns set aside for new tokens at first; a turn is usually far shorter than allowed


class DecodeLoop:
    """Decodes rows side by side. All methods are to be called in inference mode, with the model in eval mode.

    Args:
        forward: the model.
        cache: keys and values of prefixes; what is computed here goes into it. It must not be evicted from during
            a call, and may be at any other time.
        stop: (n,) int64, ids that end a turn.
        batch: a batch of an earlier loop, whose memory is used again where it is large enough.
        max_rows: rows that will be live at a time, where rows join others later: room for them is then made and kept
            in larger parts. None where each `admit` waits for the last one's rows to end.
    """

    def __init__(
        self,
        forward: CachedForward,
        cache: PrefixCache,
        stop: Tensor,
        batch: KVBatch | None = None,
        max_rows: int | None = None,
    ) -> None:
        self._forward, self._cache = forward, cache
        self.batch = batch
        self._max_rows = max_rows
        self._draws = Draws(stop)
        self._rows: list[Row] = []  # row r of the batch is `self._rows[r]`
        self._lengths = torch.zeros(0, dtype=torch.long)  # (B,) tokens in each row
        self._lengths_host = np.zeros(0, dtype=np.int64)
        self._logits = torch.zeros(0)  # (B, V) that the next tokens are drawn from

    @property
    def live(self) -> int:
        """Rows in the batch."""
        return len(self._rows)

    def admit(self, rows: Sequence[Row]) -> None:
        """Prefill rows, one or more, into the batch behind those that are in it."""
        first, device = self.live, self._forward.device
        prefixes = list(dict.fromkeys(row.prefix for row in rows))
        matches = {p: self._cache.match(p, len(p) - 1) for p in prefixes}
        # Rows with similar work side by side; the first row of a prefix computes it, the others copy it.
        prefixes.sort(key=lambda p: len(p) - matches[p][0])
        leader = {p: r for r, p in enumerate(prefixes)}
        order: list[int | None] = [None] * len(prefixes)
        followers: list[int] = []
        for i, row in enumerate(rows):
            if order[leader[row.prefix]] is None:
                order[leader[row.prefix]] = i
            else:
                followers.append(i)
        placed = [rows[i] for i in [i for i in order if i is not None] + followers]

        longest = max(map(len, prefixes))
        batch = self._room(len(rows), longest + min(_DECODE_ROOM, max(row.limit for row in rows)))
        for r, prefix in enumerate(prefixes):
            batch.load(first + r, matches[prefix][1])
        cached = [matches[prefix][0] for prefix in prefixes]
        logits = self._forward.prefill(batch, first, prefixes, cached)
        for r, (prefix, n) in enumerate(zip(prefixes, cached, strict=True)):
            self._cache.insert(prefix, batch.tokens(first + r, n, len(prefix)), n)
        if followers:
            sources = torch.tensor([leader[row.prefix] for row in placed], device=device)
            behind = slice(first + len(prefixes), first + len(rows))
            batch.copy_rows(first + sources[len(prefixes) :], behind, longest)
            logits = logits[sources]

        lengths = torch.tensor([len(row.prefix) for row in placed], device=device)
        self._draws.add(placed, first)
        self._logits = torch.cat([self._logits, logits]) if first else logits
        self._lengths = torch.cat([self._lengths, lengths]) if first else lengths
        self._lengths_host = np.append(self._lengths_host, [len(row.prefix) for row in placed])
        self._rows += placed

    def step(self) -> list[tuple[Row, SampledTurn]]:
        """Draw a token for every row; the rows that ended with it, and their turns. They have left the batch.

        Raises:
            ValueError: the model's logits are NaN; the loop is of no more use then.
        """
        if not self._rows:
            return []
        token, ended = self._draws.step(self._logits)
        finished: list[tuple[Row, SampledTurn]] = []
        if ended.any():
            at = np.flatnonzero(ended)
            finished = [(self._rows[r], turn) for r, turn in zip(at.tolist(), self._draws.turns(at), strict=True)]
            for r, (row, turn) in zip(at.tolist(), finished, strict=True):
                self._remember(r, row.prefix, turn.ids[:-1])
            token = token[self._remove(ended)]
        if self._rows:
            self._feed(token)
        return finished

    def drop(self, rows: Collection[Row]) -> int:
        """Take rows out of the batch that nobody wants any more; returns the tokens drawn for them."""
        unwanted = np.array([row in rows for row in self._rows], dtype=np.bool_)
        if not unwanted.any():
            return 0
        drawn = sum(self._draws.count(r) for r in np.flatnonzero(unwanted).tolist())
        self._logits = self._logits[self._remove(unwanted)]
        return drawn

    def _room(self, rows: int, width: int) -> KVBatch:
        """The batch, with blank rows of `width` tokens behind those that are live."""
        live = self.live
        needed = live + rows
        if self.batch is not None and self._max_rows is not None and needed > self.batch.rows:
            needed = min(max(needed, self.batch.rows * 3 // 2), self._max_rows)
        if live:
            assert self.batch is not None
            self.batch.reserve(width, live, max(needed, self.batch.rows))
            self.batch.hide(slice(live, live + rows))
        else:
            self._blank(needed, width)
        assert self.batch is not None
        return self.batch

    def _blank(self, rows: int, width: int) -> None:
        """A batch with nothing in it; the last one's memory is used again where it is large enough."""
        held, wide = (0, 0) if self.batch is None else (self.batch.rows, self.batch.width)
        if self.batch is not None and held >= rows and wide >= width:
            self.batch.hide(slice(0, held))
            return
        self.batch = None  # free before allocating
        width = max(-(-width // 32) * 32, wide)
        self.batch = KVBatch(self._forward.shape, max(rows, held), width, self._forward.device)

    def _feed(self, token: Tensor) -> None:
        """The forward pass over each row's new token (B,)."""
        batch, live, lengths = self.batch, self.live, self._lengths
        assert batch is not None
        width = int(self._lengths_host.max()) + 1
        batch.reserve(width, live, live if self._max_rows is None else batch.rows)
        row_index = torch.arange(live, device=token.device)[:, None]
        batch.mask[row_index[:, 0], lengths] = 0
        batch.begin(slice(0, live), row_index, lengths[:, None], width)
        mask = batch.mask[:live, None, None, :width]
        self._logits = self._forward(token[:, None], lengths[:, None], mask, batch)
        self._lengths, self._lengths_host = lengths + 1, self._lengths_host + 1

    def _remember(self, row: int, prefix: tuple[int, ...], fed: tuple[int, ...]) -> None:
        """Keep a finished row's keys and values; its last token was never fed, so it has none."""
        if fed:
            assert self.batch is not None
            ids = prefix + fed
            # From the first token on: what the cache had of the prefix may have been evicted meanwhile.
            self._cache.insert(ids, self.batch.tokens(row, 0, len(ids)), 0)

    def _remove(self, gone: NDArray[np.bool_]) -> Tensor:
        """Fill the rows that are `gone` (B,) with others from the back; returns every row's old index, int64."""
        live = int((~gone).sum())
        keep = np.arange(live)
        holes = np.flatnonzero(gone[:live])
        movers = live + np.flatnonzero(~gone[live:])
        keep[holes] = movers
        device = self._lengths.device
        if len(holes):
            assert self.batch is not None
            source, target = torch.from_numpy(movers).to(device), torch.from_numpy(holes).to(device)
            self.batch.copy_rows(source, target, int(self._lengths_host.max()))
            self._draws.move(source, target)
        keep_t = torch.from_numpy(keep).to(device)
        self._rows = [self._rows[r] for r in keep.tolist()]
        self._lengths, self._lengths_host = self._lengths[keep_t], self._lengths_host[keep]
        return keep_t
