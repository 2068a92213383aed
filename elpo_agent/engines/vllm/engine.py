"""Sampling with vLLM in this process, its weights streamed from the learner's module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elpo_agent.engines.requests import check_request, check_stop_ids
from elpo_agent.engines.top_k import top_k_entropies
from elpo_agent.engines.vllm.start import check_installed, full_entropies, generators_left_alone, start
from elpo_agent.engines.vllm.weights import checkpoint_weights
from elpo_agent.policy import EntropyKind, SampledTurn, SampleRequest

_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_ROUNDING = 1e-4  # what float32 may take a sum of many terms below 0
_LOWEST_TEMPERATURE = 0.01  # vLLM samples at this temperature where it is asked for a lower one


class VllmPolicy:
    """A `Policy` over vLLM, in process, for the transformers module that is being trained.

    vLLM has a copy of the weights of its own, made from the module's when the engine opens and after every
    `weights_updated`; adapters of peft are added to it. Keys and values of prefixes are kept from call to call, until
    then. Log-probabilities are those of the distribution that was drawn from: after temperature, and for greedy turns
    at temperature 1.

    Sample j of a request depends on (seed, j), the prefix and the weights. What else is in the batch, and what is
    cached, can change the logits in their last bits only, and so a sample where two tokens are nearly as likely.

    In this process vLLM makes itself a process group of torch.distributed with one rank; so it does not go together
    with a learner on several ranks.

    Args:
        model: the module, a causal LM that vLLM knows.
        stop_ids: token ids that end a turn.
        entropies: "full", of the whole next-token distribution, computed where vLLM samples; or "top_k", a lower bound
            from the `top_k` most probable tokens (see `top_k_entropies`), which needs vLLM's public interface only.
        top_k: see `entropies`.
        max_model_len: most tokens of prefix and turn together; None is the model's own limit, or what `kv_cache_bytes`
            has room for where that is less.
        kv_cache_bytes: memory for keys and values.
        max_batch: sequences decoded at once; more wait.
        max_batch_tokens: tokens of one forward pass, prefill included. On a CPU, where vLLM fails over seeded requests
            whose prompts it computes in pieces, at least as many as the longest prompt may have.
        block_size: tokens whose keys and values are kept or dropped together; only whole blocks are shared.
        dtype: of vLLM's weights; None is the module's.
        enforce_eager: run without CUDA graphs; None does so on CPUs only.

    Raises:
        ImportError: vLLM is not installed.
        ValueError: no stop ids, an option out of its range, a learner on several ranks, or a model or
            settings that vLLM cannot run.
    """

    entropy_kind: EntropyKind

    def __init__(
        self,
        model: Any,
        *,
        stop_ids: Sequence[int],
        entropies: EntropyKind = "full",
        top_k: int = 20,
        max_model_len: int | None = None,
        kv_cache_bytes: int = 1 << 30,
        max_batch: int = 256,
        max_batch_tokens: int = 8192,
        block_size: int = 32,
        dtype: str | None = None,
        enforce_eager: bool | None = None,
    ) -> None:
        check_stop_ids(stop_ids)
        if entropies not in ("full", "top_k"):
            raise ValueError(f"entropies={entropies!r} is unknown; choose full or top_k")
        if top_k < 1 or max_batch < 1 or kv_cache_bytes < 1:
            raise ValueError(f"top_k={top_k}, max_batch={max_batch}, kv_cache_bytes={kv_cache_bytes}: give at least 1")
        check_installed()
        _check_alone()
        self.model = model
        self.entropy_kind = entropies
        self.version = 0
        self._stop_ids = sorted(set(stop_ids))
        self._logprobs = 1 if entropies == "full" else top_k
        self._vocab = int(self.model.get_input_embeddings().weight.shape[0])
        weight = next(model.parameters())
        on_cpu = weight.device.type == "cpu"
        if on_cpu:
            longest = max_model_len or int(getattr(model.config, "max_position_embeddings", 0) or 0)
            max_batch_tokens = max(max_batch_tokens, longest)
        self._llm = start(
            model,
            {
                "dtype": dtype or _DTYPES[weight.dtype],
                "max_model_len": -1 if max_model_len is None else max_model_len,
                "kv_cache_memory_bytes": kv_cache_bytes,
                "max_num_seqs": max_batch,
                "max_num_batched_tokens": max_batch_tokens,
                "enable_chunked_prefill": not on_cpu,
                "block_size": block_size,
                "enforce_eager": on_cpu if enforce_eager is None else enforce_eager,
                "enable_prefix_caching": True,
                "logprobs_mode": "processed_logprobs",
                "max_logprobs": self._logprobs,
                "seed": 0,
            },
        )
        self._positions = int(self._llm.llm_engine.vllm_config.model_config.max_model_len)
        if entropies == "full":
            self._llm.collective_rpc(full_entropies)
        self._stream()

    def reset_cache(self) -> None:
        """Forget all keys and values."""
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache, as it still has requests under way")

    def weights_updated(self) -> None:
        """Copy the module's weights to vLLM, and forget what the old ones computed.

        Changes that nobody told of are noticed by `sample`, but for writes through `Tensor.data`.
        """
        self.version += 1
        self._stream()

    def load_weights(self, state: dict[str, Tensor]) -> None:
        """Load a state dict into the module (strictly), and the module's weights into vLLM."""
        self.model.load_state_dict(state)
        self.weights_updated()

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        """For each request, in order, its `n` sampled turns.

        A turn that reaches the last position (`max_model_len`) ends there with finish "length".

        Raises:
            ValueError: a request with an empty prefix or one that leaves no room for a token, an id outside the
                vocabulary, n < 0, max_new_tokens < 1, a negative seed or temperature, or a temperature above 0 and
                below 0.01, which vLLM does not sample at; or the model's logits are NaN.
        """
        longest = f"the longest prefix for max_model_len={self._positions}"
        for request in requests:
            check_request(request, self._vocab, self._positions - 1, longest)
            if 0 < request.temperature < _LOWEST_TEMPERATURE:
                raise ValueError(
                    f"temperature={request.temperature} is lower than vLLM samples at; give 0 for greedy, or at least "
                    f"{_LOWEST_TEMPERATURE}"
                )
        if self._fingerprint() != self._weights:
            self.weights_updated()
        # One request a sample: vLLM's own n gives sample j the seed + j, which is sample j - 1 of the next seed.
        prompts = [{"prompt_token_ids": list(r.prefix_ids)} for r in requests for _ in range(r.n)]
        params = [self._params(r, j) for r in requests for j in range(r.n)]
        turns = iter([self._turn(output.outputs[0]) for output in self._generate(prompts, params)])
        return [[next(turns) for _ in range(r.n)] for r in requests]

    def _generate(self, prompts: list[Any], params: list[Any]) -> list[Any]:
        """vLLM's outputs in the order of `prompts`; when interrupted, it is left with nothing to do."""
        if not prompts:
            return []
        with generators_left_alone():
            try:
                return list(self._llm.generate(prompts, params, use_tqdm=False))
            except BaseException:
                engine = self._llm.llm_engine
                engine.abort_request(list(engine.output_processor.request_states), internal=True)
                raise

    def _params(self, request: SampleRequest, sample: int) -> Any:
        """vLLM's parameters for one sample of a request."""
        from vllm import SamplingParams

        low, high = np.random.SeedSequence([request.seed, sample]).generate_state(2)
        return SamplingParams(
            seed=int(low) | int(high) >> 1 << 32,  # 63 bits
            temperature=request.temperature,
            max_tokens=request.max_new_tokens,
            stop_token_ids=self._stop_ids,
            ignore_eos=True,  # only the stop ids end a turn
            logprobs=self._logprobs,
            flat_logprobs=True,
            detokenize=False,
        )

    def _turn(self, output: Any) -> SampledTurn:
        ids = tuple(output.token_ids)
        # At each position: the sampled token's log-probability, then the entropy, or those of the most probable tokens.
        figures = np.array(output.logprobs.logprobs, dtype=np.float32).reshape(len(ids), -1)
        logprobs = figures[:, 0].copy()
        if not np.isfinite(logprobs).all():
            raise ValueError("the model's logits are NaN or infinite, so no token can be drawn; check its weights")
        entropies = figures[:, 1].copy() if self.entropy_kind == "full" else top_k_entropies(figures[:, 1:])
        if (entropies < -_ROUNDING).any():
            raise RuntimeError("vLLM gave something else for entropies; give engine.options entropies=top_k")
        return SampledTurn(ids, logprobs, entropies, "stop" if ids[-1] in self._stop_ids else "length")

    def _stream(self) -> None:
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": checkpoint_weights(self.model)})
        self.reset_cache()
        self._weights = self._fingerprint()

    def _fingerprint(self) -> tuple[tuple[int, int], ...]:
        """Changes whenever a weight is replaced or written in place by PyTorch."""
        return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.model.parameters())


def _check_alone() -> None:
    """Raises ValueError beside other ranks."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        ranks = torch.distributed.get_world_size()
        if ranks > 1:
            raise ValueError(f"the vllm engine runs with one learner rank, not {ranks}; use the transformers engine")
