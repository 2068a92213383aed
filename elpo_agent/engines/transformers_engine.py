"""Sampling from a Hugging Face causal language model in process, its keys and values kept across turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from elpo_agent.engines.cached_forward import CachedForward
from elpo_agent.engines.decode_loop import DecodeLoop
from elpo_agent.engines.draws import Row
from elpo_agent.engines.joined_decode import JoinedDecode
from elpo_agent.engines.kv_batch import KVBatch
from elpo_agent.engines.prefix_cache import PrefixCache
from elpo_agent.engines.requests import check_request, check_stop_ids
from elpo_agent.policy import EntropyKind, SampledTurn, SampleRequest


class TransformersPolicy:
    """A `StepwisePolicy` over any causal LM of `transformers` with full attention and rotary positions.

    One call of `sample` decodes all requests as one batch; requests may also join and leave a running one
    (`open_decode`). The keys and values of a prefix are computed once for all its samples, and kept for later calls
    whose prefix extends it (the next turn of the same conversation, branches from a shared node), until the weights
    change or whoever held the prefix releases it. Finished rows leave the batch at once.

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
        self.model = model if device is None else model.to(device)
        self.max_batch = max_batch
        self.version = 0
        self._forward = CachedForward(self.model, pad_id)
        self._cache = PrefixCache(prefix_cache_tokens)
        self._weights = self._fingerprint()
        self._batch: KVBatch | None = None
        self._stop = torch.tensor(sorted(set(stop_ids)), device=self.device)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._forward.device

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values are held at present."""
        return self._cache.tokens

    def reset_cache(self) -> None:
        """Forget all keys and values and give their memory back, but for those of an open decode's own rows."""
        self._cache.clear()
        self._batch = None

    def hold(self, prefix: tuple[int, ...]) -> None:
        """What begins with `prefix` will be asked for, until it is released; see `PrefixCache`."""
        self._cache.hold(prefix)

    def release(self, prefix: tuple[int, ...]) -> None:
        """Take back a `hold`: drop the keys and values that no other held prefix needs.

        Raises:
            ValueError: it is not held.
        """
        self._cache.release(prefix)

    def weights_updated(self) -> None:
        """Say that the module's weights changed in place; nothing computed before is used again.

        Ordinary in-place updates (an optimizer step, `load_state_dict`) are noticed without this call; writes
        through `Tensor.data` are not. An open decode with unfinished turns is lost: its next use raises.
        """
        self.version += 1
        self.reset_cache()
        self._weights = self._fingerprint()

    def load_weights(self, state: dict[str, Tensor]) -> None:
        """Load a state dict into the model (strictly) and forget what the old weights computed."""
        self.model.load_state_dict(state)
        self.weights_updated()

    def notice_updates(self) -> int:
        """Forget what old weights computed where they changed since; how often they have, as far as is known."""
        if self._fingerprint() != self._weights:
            self.weights_updated()
        return self.version

    def rows(self, request: SampleRequest, number: int) -> list[Row]:
        """The request's samples as rows of request `number`; a turn ends at the model's last position at the latest.

        Raises:
            ValueError: see `sample`.
        """
        forward, prefix = self._forward, request.prefix_ids
        check_request(request, forward.vocab, forward.max_positions, "the model's max_position_embeddings")
        limit = min(request.max_new_tokens, forward.max_positions - len(prefix) + 1)
        return [Row(number, j, prefix, limit, request.seed, request.temperature) for j in range(request.n)]

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        """For each request, in order, its `n` sampled turns.

        A turn that reaches the model's last position ends there with finish "length".

        Raises:
            ValueError: a request with an empty or too long prefix, an id outside the vocabulary, n < 0,
                max_new_tokens < 1, or a negative seed or temperature; or the model's logits are NaN.
        """
        rows = [row for i, request in enumerate(requests) for row in self.rows(request, i)]
        self.notice_updates()
        turns: dict[tuple[int, int], SampledTurn] = {}
        loop = DecodeLoop(self._forward, self._cache, self._stop, self._workspace())
        with torch.inference_mode(), self._forward.evaluating():
            for start in range(0, len(rows), self.max_batch):
                loop.admit(rows[start : start + self.max_batch])
                while loop.live:
                    turns.update(((row.request, row.sample), turn) for row, turn in loop.step())
        self._batch = loop.batch
        self._cache.evict()
        return [[turns[i, j] for j in range(request.n)] for i, request in enumerate(requests)]

    def open_decode(self) -> JoinedDecode:
        """A decode that requests join and leave, of `max_batch` rows at a time; the others queue, in order."""
        return JoinedDecode(self, DecodeLoop(self._forward, self._cache, self._stop, max_rows=self.max_batch))

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """What a decode's steps run in; the cache is brought within its bound at the end."""
        with torch.inference_mode(), self._forward.evaluating():
            yield
        self._cache.evict()

    def _workspace(self) -> KVBatch | None:
        """The last batch's memory; nothing else refers to it then."""
        batch, self._batch = self._batch, None
        return batch

    def _fingerprint(self) -> tuple[tuple[int, int], ...]:
        """Changes whenever a weight is replaced or written in place by PyTorch."""
        return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.model.parameters())
