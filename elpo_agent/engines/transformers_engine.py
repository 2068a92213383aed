"""Sampling from a Hugging Face causal language model in process, its keys and values kept across turns."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from elpo_agent.engines.attention import MASKED_ATTENTION
from elpo_agent.engines.decoding import draw, uniforms
from elpo_agent.engines.kv_batch import KVBatch, KVShape
from elpo_agent.engines.prefix_cache import PrefixCache
from elpo_agent.engines.requests import check_request, check_stop_ids
from elpo_agent.policy import EntropyKind, SampledTurn, SampleRequest

_PREFILL_TOKENS = 8192  # tokens of one prefill pass over all its rows
_PREFILL_COLUMNS = 1024  # tokens of one row in one prefill pass: bounds the mask and the scores
_DECODE_ROOM = 64  # columns set aside for new tokens at first; a turn is usually far shorter than allowed


@dataclass(frozen=True)
class _Row:
    """One sample to draw: sample `sample` of request number `request`, at most `limit` tokens."""

    request: int
    sample: int
    prefix: tuple[int, ...]
    limit: int


class TransformersPolicy:
    """A `Policy` over any causal LM of `transformers` with full attention and rotary positions.

    One call decodes all requests as one batch. The keys and values of a prefix are computed once for all its
    samples, and kept for later calls whose prefix extends it (the next turn of the same conversation,
    branches from a shared node), until the weights change. Finished rows leave the batch at once.

    Sample j of a request depends on (seed, j), the prefix and the weights. What else is in the batch, and
    what is cached, can change the logits in their last bits only; for bit-equal repetition repeat the calls
    from `reset_cache()`.

    Args:
        model: the module; its own device and weights are used, and its train/eval state is left as found.
        stop_ids: token ids that end a turn.
        pad_id: any valid id, fed at padding positions; it has no influence.
        device: moves the model there first when given.
        max_batch: rows decoded at once; more are done in several batches.
        prefix_cache_tokens: bound on the tokens whose keys and values are kept between calls.

    Raises:
        ValueError: no stop ids, or a model this engine cannot run (sliding windows, recurrent layers,
            flash attention, which takes no explicit mask).
    """

    entropy_kind: EntropyKind = "full"

    def __init__(
        self,
        model: Any,
        *,
        stop_ids: Sequence[int],
        pad_id: int,
        device: str | torch.device | None = None,
        max_batch: int = 256,
        prefix_cache_tokens: int = 2_000_000,
    ) -> None:
        check_stop_ids(stop_ids)
        if max_batch < 1:
            raise ValueError(f"max_batch={max_batch} decodes nothing; give at least 1")
        attention = model.config._attn_implementation
        if attention not in MASKED_ATTENTION:
            raise ValueError(f"attn_implementation={attention!r} takes no explicit mask; load with 'sdpa'")
        self.model = model if device is None else model.to(device)
        self.max_batch = max_batch
        self.version = 0
        self._pad_id = pad_id
        self._cache = PrefixCache(prefix_cache_tokens)
        self._weights = self._fingerprint()
        self._batch: KVBatch | None = None
        self._vocab = int(model.get_input_embeddings().weight.shape[0])
        self._max_positions = int(getattr(model.config, "max_position_embeddings", 0) or 2**62)
        self._stop = torch.tensor(sorted(set(stop_ids)), device=self.device)
        self._last_only = (
            {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        )
        self._shape = self._probe()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device = next(self.model.parameters()).device
        assert isinstance(device, torch.device)
        return device

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values are held at present."""
        return self._cache.tokens

    def reset_cache(self) -> None:
        """Forget all keys and values and give their memory back."""
        self._cache.clear()
        self._batch = None

    def weights_updated(self) -> None:
        """Say that the module's weights changed in place; nothing computed before is used again.

        Ordinary in-place updates (an optimizer step, `load_state_dict`) are noticed without this call; writes
        through `Tensor.data` are not.
        """
        self.version += 1
        self.reset_cache()
        self._weights = self._fingerprint()

    def load_weights(self, state: dict[str, Tensor]) -> None:
        """Load a state dict into the model (strictly) and forget what the old weights computed."""
        self.model.load_state_dict(state)
        self.weights_updated()

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        """For each request, in order, its `n` sampled turns.

        A turn that reaches the model's last position ends there with finish "length".

        Raises:
            ValueError: a request with an empty or too long prefix, an id outside the vocabulary, n < 0,
                max_new_tokens < 1, or a negative seed or temperature; or the model's logits are NaN.
        """
        for request in requests:
            check_request(request, self._vocab, self._max_positions, "the model's max_position_embeddings")
        if self._fingerprint() != self._weights:
            self.weights_updated()
        rows = [
            _Row(i, j, r.prefix_ids, min(r.max_new_tokens, self._max_positions - len(r.prefix_ids) + 1))
            for i, r in enumerate(requests)
            for j in range(r.n)
        ]
        turns: list[list[SampledTurn]] = [[] for _ in requests]
        with torch.inference_mode(), self._evaluating():
            for start in range(0, len(rows), self.max_batch):
                group = rows[start : start + self.max_batch]
                for row, turn in zip(group, self._sample_group(group, requests), strict=True):
                    turns[row.request].append(turn)
        self._cache.evict()
        return turns

    def _sample_group(self, rows: Sequence[_Row], requests: Sequence[SampleRequest]) -> list[SampledTurn]:
        """Decode up to `max_batch` rows together; turns in the order of `rows`."""
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
        placed = [i for i in order if i is not None] + followers

        longest = max(map(len, prefixes))
        batch = self._workspace(len(rows), longest + min(_DECODE_ROOM, max(row.limit for row in rows)))
        logits = self._prefill(batch, prefixes, [matches[p] for p in prefixes])
        sources = torch.tensor([leader[rows[i].prefix] for i in placed], device=self.device)
        if followers:
            batch.copy_rows(sources[len(prefixes) :], slice(len(prefixes), len(rows)), longest)
            logits = logits[sources]
        decoded = self._decode(batch, [rows[i] for i in placed], requests, logits)
        turns: list[SampledTurn | None] = [None] * len(rows)
        for i, turn in zip(placed, decoded, strict=True):
            turns[i] = turn
        return [turn for turn in turns if turn is not None]

    def _workspace(self, rows: int, width: int) -> KVBatch:
        """A blank batch; the last one's memory is used again where it is large enough."""
        old = self._batch
        if old is None or old.kv.shape[2] < rows or old.width < width:
            self._batch = None  # free before allocating
            rows = max(rows, old.kv.shape[2] if old else 0)
            width = max(-(-width // 32) * 32, old.width if old else 0)
            self._batch = KVBatch(self._shape, rows, width, self.device)
        else:
            old.mask.fill_(torch.finfo(self._shape.dtype).min)
        assert self._batch is not None
        return self._batch

    def _prefill(
        self, batch: KVBatch, prefixes: Sequence[tuple[int, ...]], matches: Sequence[tuple[int, list[Tensor]]]
    ) -> Tensor:
        """Compute what is not cached of every prefix into the batch's first rows; last logits (P, V)."""
        for r, (_, pieces) in enumerate(matches):
            batch.load(r, pieces)
        todo = [len(p) - cached for p, (cached, _) in zip(prefixes, matches, strict=True)]
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
            out.append(self._prefill_rows(batch, slice(start, stop), prefixes[start:stop], todo[start:stop]))
            start = stop
        for r, (prefix, (cached, _)) in enumerate(zip(prefixes, matches, strict=True)):
            self._cache.insert(prefix, batch.tokens(r, cached, len(prefix)), cached)
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
        minimum = torch.finfo(self._shape.dtype).min
        logits = torch.zeros(0)
        for start in range(0, longest, _PREFILL_COLUMNS):
            cut = columns_t[:, start : start + _PREFILL_COLUMNS]
            # A token sees its row's columns up to its own; padding sees everything, and nobody sees padding.
            hidden = torch.arange(width, device=device) > cut[:, :, None]
            mask = torch.zeros(hidden.shape, dtype=self._shape.dtype, device=device).masked_fill_(hidden, minimum)
            positions = torch.where(cut == batch.width, torch.zeros_like(cut), cut)
            batch.begin(rows, row_index, cut, width)
            logits = self._forward(ids_t[:, start : start + _PREFILL_COLUMNS], positions, mask[:, None], batch)
        for r, prefix in enumerate(prefixes):
            batch.mask[rows.start + r, : len(prefix)] = 0
        return logits

    def _decode(
        self, batch: KVBatch, rows: Sequence[_Row], requests: Sequence[SampleRequest], logits: Tensor
    ) -> list[SampledTurn]:
        """Draw tokens until every row has stopped. Row r of the batch starts as `rows[r]`."""
        device, n, steps = self.device, len(rows), max(row.limit for row in rows)
        # A row's uniforms never depend on other rows: those beyond its own limit are not read.
        u_all = np.zeros((steps, n))
        for r, row in enumerate(rows):
            u_all[: row.limit, r] = uniforms(requests[row.request].seed, row.sample, row.limit)
        u = torch.from_numpy(u_all).to(device)
        temperature = torch.tensor(
            [requests[row.request].temperature for row in rows], dtype=torch.float32, device=device
        )
        limits = torch.tensor([row.limit for row in rows], device=device)
        lengths = torch.tensor([len(row.prefix) for row in rows], device=device)
        lengths_host = np.array([len(row.prefix) for row in rows])
        ids = torch.zeros((n, steps), dtype=torch.long, device=device)
        stats = torch.zeros((2, n, steps), device=device)
        slot = torch.arange(n, device=device)  # which of `rows` sits in each live row of the batch
        slot_host = np.arange(n)
        alive = n
        taken = np.zeros(n, dtype=np.int64)  # tokens drawn
        for t in range(steps):
            token, logp, entropy = draw(logits, temperature[slot], u[t][slot])
            ids[slot, t], stats[0, slot, t], stats[1, slot, t] = token, logp, entropy
            ended = (torch.isin(token, self._stop) | (limits[slot] == t + 1)).cpu().numpy()
            if ended.any():
                for r in np.flatnonzero(ended).tolist():
                    i = int(slot_host[r])
                    taken[i] = t + 1
                    self._remember(batch, r, rows[i].prefix, ids[i, :t].tolist())
                keep = self._compact(batch, ended, int(lengths_host[:alive].max()))
                alive = len(keep)
                if alive == 0:
                    break
                keep_t = torch.from_numpy(keep).to(device)
                slot, token, lengths = slot[keep_t], token[keep_t], lengths[keep_t]
                slot_host, lengths_host = slot_host[keep], lengths_host[keep]
            width = int(lengths_host.max()) + 1
            batch.reserve(width, alive)
            row_index = torch.arange(alive, device=device)[:, None]
            batch.mask[row_index[:, 0], lengths] = 0
            batch.begin(slice(0, alive), row_index, lengths[:, None], width)
            logits = self._forward(token[:, None], lengths[:, None], batch.mask[:alive, None, None, :width], batch)
            lengths, lengths_host = lengths + 1, lengths_host + 1
        stop = set(self._stop.tolist())
        ids_host, stats_host = ids.cpu().numpy(), stats.cpu().numpy()
        turns = []
        for i, count in enumerate(taken):
            own = tuple(ids_host[i, :count].tolist())
            logprobs, entropies = stats_host[0, i, :count].copy(), stats_host[1, i, :count].copy()
            if not np.isfinite(logprobs).all():
                raise ValueError("the model's logits are NaN or infinite, so no token can be drawn; check its weights")
            turns.append(SampledTurn(own, logprobs, entropies, "stop" if own[-1] in stop else "length"))
        return turns

    def _remember(self, batch: KVBatch, row: int, prefix: tuple[int, ...], fed: list[int]) -> None:
        """Keep a finished row's keys and values; its last token was never fed, so it has none."""
        if fed:
            ids = prefix + tuple(fed)
            self._cache.insert(ids, batch.tokens(row, len(prefix), len(ids)), len(prefix))

    @staticmethod
    def _compact(batch: KVBatch, ended: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
        """Fill the rows that ended with live rows from the back; returns the old index of every live row."""
        alive = int((~ended).sum())
        keep = np.arange(alive)
        holes = np.flatnonzero(ended[:alive])
        movers = alive + np.flatnonzero(~ended[alive:])
        keep[holes] = movers
        if len(holes) and alive:
            device = batch.kv.device
            batch.copy_rows(torch.from_numpy(movers).to(device), torch.from_numpy(holes).to(device), width)
        return keep

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor, batch: KVBatch) -> Tensor:
        """Logits (B, V) of the last column."""
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

    def _probe(self) -> KVShape:
        """Learn the layout of the model's keys and values from a pass over one token."""
        cache = DynamicCache(config=self.model.config)
        with torch.inference_mode(), self._evaluating():
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

    def _fingerprint(self) -> tuple[tuple[int, int], ...]:
        """Changes whenever a weight is replaced or written in place by PyTorch."""
        return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.model.parameters())

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Eval mode, every submodule's own state restored afterwards."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True
