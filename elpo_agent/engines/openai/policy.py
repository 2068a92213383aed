"""Sampling by token ids from a server that takes and returns them, as vLLM's OpenAI-compatible server does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from elpo_agent.engines.openai.failures import EndpointError
from elpo_agent.engines.openai.http import Endpoint
from elpo_agent.engines.openai.settings import EndpointConfig
from elpo_agent.engines.openai.tokens import SampledLogprobs, read_choice, same_logprobs
from elpo_agent.engines.requests import check_request, check_stop_ids
from elpo_agent.policy import EntropyKind, SampledTurn, SampleRequest

_Result = TypeVar("_Result")
_PROBE_TEMPERATURE = 0.5


class OpenAIPolicy:
    """A `Policy` over `/v1/completions`, for evaluation: the weights are the server's.

    Every sample is a request of its own, with a seed of its own, so that sample j depends on (seed, j) whatever the
    server makes of `n`; the server's prefix cache computes a shared prefix once. What else the server is doing can
    change log-probabilities in their last bits.

    Servers report log-probabilities before temperature or after it (vLLM's `--logprobs-mode`). This engine finds out
    which, and turns the former into the latter where it has the whole vocabulary's (`config.top_logprobs=-1`).

    vLLM 0.32 on a CPU breaks down over seeded requests whose prompts it computes in pieces: serve there with
    `--no-enable-chunked-prefill` and `--max-num-batched-tokens` of at least the context's length.

    Use it in a `with` block, or `close()` it: it has a thread for its connections.

    Args:
        config: the endpoint; its `tokenizer` is not used here.
        model: the name under which the server has the model.
        stop_ids: token ids that end a turn.
        vocab: ids are 0 to vocab - 1; None leaves the check to the server.
        seed: of the waits before requests are tried again.
    Attributes:
        entropy_kind: "full" with `config.top_logprobs=-1`; otherwise "top_k" (see `top_k_entropies`).
    Raises:
        ValueError: no stop ids, or no base URL.
    """

    def __init__(
        self,
        config: EndpointConfig,
        model: str,
        *,
        stop_ids: Sequence[int],
        vocab: int | None = None,
        seed: int = 0,
    ) -> None:
        check_stop_ids(stop_ids)
        self.entropy_kind: EntropyKind = "full" if config.top_logprobs == -1 else "top_k"
        self._model = model
        self._stop_ids = sorted(set(stop_ids))
        self._vocab = vocab
        self._top = config.top_logprobs
        self._positions: int | None = None
        self._after_temperature: bool | None = None
        self._loop = _LoopThread()
        try:
            self._endpoint = self._loop.run(_opened(config, seed))
        except BaseException:
            self._loop.close()
            raise
        self._asked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections and their thread. Idempotent."""
        if self._loop.running:
            self._loop.run(self._endpoint.__aexit__(None, None, None))
            self._loop.close()

    @property
    def positions(self) -> int | None:
        """The most tokens of prefix and turn, as the server says; None where it does not, or was not asked yet."""
        return self._positions

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        """For each request, in order, its `n` sampled turns; all are under way at once, as far as the limits let them.

        A turn that reaches the server's last position ends there with finish "length".

        Raises:
            ValueError: a bad request (see `check_request`), or a temperature whose log-probabilities this server cannot
                give; the message names the server's option that mends it.
            EndpointError: the server refused a request or went on failing, or gives no token ids.
        """
        return self._loop.run(self._sample(requests))

    async def _sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        if not self._asked:
            self._positions = await self._context_length()
            self._asked = True
        for request in requests:
            check_request(request, self._vocab, self._positions, "the server's max_model_len")
            if len(request.prefix_ids) == self._positions:
                raise ValueError(
                    f"prefix_ids has {self._positions} tokens, all that the server's max_model_len allows; "
                    "shorten the prefix, or serve the model with a longer context"
                )
        odd = next((r for r in requests if r.n and r.temperature not in (0.0, 1.0)), None)
        if odd is not None:
            await self._check_temperature(odd)
        async with asyncio.TaskGroup() as group:
            rows = [[group.create_task(self._turn(r, j)) for j in range(r.n)] for r in requests]
        return [[task.result() for task in row] for row in rows]

    async def _context_length(self) -> int | None:
        """The context length that the server's list of models gives; None where there is no such list."""
        try:
            listed = (await self._endpoint.get("/models")).get("data")
        except EndpointError as error:
            if error.status in (404, 405, 501):
                return None
            raise
        models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        lengths = {m.get("id"): m.get("max_model_len") for m in models}
        if lengths and self._model not in lengths:
            raise ValueError(
                f"{self._endpoint.url} has no model {self._model!r}; it serves {', '.join(map(str, lengths))}"
            )
        length = lengths.get(self._model)
        return length if isinstance(length, int) else None

    async def _check_temperature(self, request: SampleRequest) -> None:
        """Find out whether log-probabilities come after temperature; refuse where they can be had neither way."""
        if self._after_temperature is None:
            probe = replace(request, max_new_tokens=1)
            warm, cold = [
                await self._ask(replace(probe, temperature=t), 0, top=max(2, self._top))
                for t in (1.0, _PROBE_TEMPERATURE)
            ]
            self._after_temperature = not same_logprobs(warm, cold)
        if not self._after_temperature and self._top != -1:
            raise ValueError(
                f"temperature={request.temperature}, but {self._endpoint.url} reports log-probabilities before "
                "temperature; serve with --logprobs-mode processed_logprobs, or give endpoint.top_logprobs=-1 and "
                "serve with --max-logprobs -1"
            )

    async def _turn(self, request: SampleRequest, sample: int) -> SampledTurn:
        sampled = await self._ask(request, sample, self._top)
        unscaled = request.temperature not in (0.0, 1.0) and not self._after_temperature
        logprobs, entropies = sampled.statistics(
            request.temperature if unscaled else 1.0, k=None if self._top == -1 else self._top
        )
        return SampledTurn(sampled.ids, logprobs, entropies, "stop" if sampled.ids[-1] in self._stop_ids else "length")

    async def _ask(self, request: SampleRequest, sample: int, top: int) -> SampledLogprobs:
        room = None if self._positions is None else self._positions - len(request.prefix_ids)
        limit = request.max_new_tokens if room is None else min(request.max_new_tokens, room)
        body = {
            "model": self._model,
            "prompt": list(request.prefix_ids),
            "max_tokens": limit,
            "temperature": request.temperature,
            "seed": _seed(request.seed, sample),
            # Nothing of the server's own defaults, which may come from the model's generation_config.json.
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            # The ids given here end a turn and no others do.
            "stop_token_ids": self._stop_ids,
            "ignore_eos": True,
            "logprobs": top,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,  # names of tokens that differ, unlike their texts
            "add_special_tokens": False,
        }
        answer = await self._endpoint.post("/completions", body, tokens=len(request.prefix_ids) + limit)
        return read_choice(answer, f"{self._endpoint.url}/completions")


def _seed(seed: int, sample: int) -> int:
    """53 bits, which every JSON reader keeps."""
    return int(np.random.SeedSequence([seed, sample]).generate_state(1, np.uint64)[0] >> np.uint64(11))


async def _opened(config: EndpointConfig, seed: int) -> Endpoint:
    return await Endpoint(config, seed).__aenter__()


class _LoopThread:
    """An event loop in a thread of its own: `sample` is called from within another loop, which it must not enter."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="elpo-openai", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return not self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """What the coroutine gives; it is cancelled when the wait for it is broken off."""
        if not self.running:
            work.close()
            raise RuntimeError("this engine is closed; open a new one")
        future = asyncio.run_coroutine_threadsafe(_unwrapped(work), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _unwrapped(work: Coroutine[Any, Any, _Result]) -> _Result:
    """The first failure itself, not the group that a TaskGroup makes of it."""
    try:
        return await work
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
