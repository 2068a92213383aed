"""Starting vLLM inside this process without disturbing it."""

from __future__ import annotations

import copy
import importlib.util
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

# In this process, so that the learner's weights can be copied to it; the runner that lets `full_entropies` in.
_REQUIRED = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}
_WISHED = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}


def check_installed() -> None:
    """Raises ImportError where vLLM is missing."""
    if importlib.util.find_spec("vllm") is None:
        raise ImportError("the vllm engine needs vLLM; install the extra: pip install 'elpo[vllm]'")


def start(model: Any, settings: Mapping[str, Any]) -> Any:
    """A `vllm.LLM` of the shape of `model`, in this process; its weights are arbitrary until they are streamed.

    Args:
        model: a transformers causal LM; its configuration is what vLLM reads.
        settings: further keyword arguments of `vllm.LLM`.
    Raises:
        ImportError: vLLM is not installed.
        ValueError: vLLM cannot run such a model, or not with these settings.
    """
    check_installed()
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    threads = torch.set_num_threads
    with tempfile.TemporaryDirectory(prefix="elpo-vllm-") as folder, _environment(), generators_left_alone():
        config.save_pretrained(folder)
        from vllm import LLM

        try:
            return LLM(
                model=folder, load_format="dummy", skip_tokenizer_init=True, generation_config="vllm", **settings
            )
        finally:
            torch.set_num_threads = threads  # vLLM for CPUs replaces it by a function that does nothing


def full_entropies(worker: Any) -> None:
    """Let a vLLM worker report, beside each sampled token, the entropy of the distribution that it was drawn from.

    vLLM itself would only say all log-probabilities, one Python number for each token of the vocabulary. From here on
    a request for one log-probability more gets the entropy in nats in its place.

    Raises:
        ValueError: this version of vLLM samples in another way.
    """
    sampler = worker.model_runner.sampler
    if not hasattr(sampler, "gather_logprobs"):
        raise ValueError("this version of vLLM cannot be made to report entropies; give engine.options entropies=top_k")
    from vllm.v1.outputs import LogprobsTensors

    def gather(logprobs: Tensor, num_logprobs: int, token_ids: Tensor) -> Any:
        """In place of `Sampler.gather_logprobs`: from log-probabilities (B, V), (token's own, entropy) (B, 2)."""
        if num_logprobs != 1:
            raise ValueError(f"num_logprobs={num_logprobs}: this engine reports one figure beside a token's own")
        own = logprobs.gather(-1, token_ids[:, None])
        # The floor only turns 0 * -inf (tokens that cannot be drawn) into 0.
        entropy = -(logprobs.exp() * logprobs.clamp_min(torch.finfo(logprobs.dtype).min)).sum(-1, keepdim=True)
        ids = token_ids[:, None].expand(-1, 2).to(torch.int32)
        return LogprobsTensors(ids, torch.cat((own, entropy), dim=1), torch.zeros_like(token_ids))

    sampler.gather_logprobs = gather


@contextmanager
def generators_left_alone() -> Iterator[None]:
    """Put the global random generators back afterwards; vLLM seeds them, and draws from torch's."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def _environment() -> Iterator[None]:
    """The environment variables that vLLM reads as it starts; what the user has set of the wished ones stays."""
    before = {name: os.environ.get(name) for name in (*_REQUIRED, *_WISHED)}
    os.environ.update(_REQUIRED)
    for name, value in _WISHED.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del os.environ[name]
            else:
                os.environ[name] = old
