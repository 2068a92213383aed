"""Token ids and log-probabilities in a completion's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elpo_agent.engines.openai.failures import EndpointError
from elpo_agent.engines.top_k import top_k_entropies

_NAME = "token_id:"
_CLOSE = 1e-3


@dataclass(frozen=True)
class SampledLogprobs:
    """One completion.

    Attributes:
        ids: T >= 1 sampled ids.
        logprobs: float64 (T,), of the ids as the server gave them.
        top: of each position, the log-probabilities of the most probable ids, as the server gave them.
    """

    ids: tuple[int, ...]
    logprobs: NDArray[np.float64]
    top: tuple[Mapping[int, float], ...]

    def statistics(self, temperature: float, k: int | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Log-probabilities and entropies in nats, float32 (T,) each.

        Args:
            temperature: applied here; other than 1 only where `top` holds the whole vocabulary.
            k: entropies are `top_k_entropies`; None where `top` holds the whole vocabulary.
        """
        width = max(map(len, self.top))
        ranked = np.full((len(self.ids), width), -np.inf)
        for row, top in zip(ranked, self.top, strict=True):
            row[: len(top)] = sorted(top.values(), reverse=True)
        if k is not None:
            return self.logprobs.astype(np.float32), top_k_entropies(ranked[:, :k])
        scaled = ranked / temperature
        norm = np.logaddexp.reduce(scaled, axis=1)
        logp = scaled - norm[:, None]
        # The floor only turns 0 * -inf into 0.
        entropies = -(np.exp(logp) * np.maximum(logp, np.finfo(np.float64).min)).sum(axis=1)
        return (self.logprobs / temperature - norm).astype(np.float32), entropies.astype(np.float32)


def read_choice(answer: Mapping[str, Any], endpoint: str) -> SampledLogprobs:
    """The only choice of an answer.

    Raises:
        EndpointError: the answer lacks token ids or log-probabilities, or they do not fit together; it says what a
            server must support.
    """
    try:
        (choice,) = answer["choices"]
        ids, told = choice["token_ids"], choice["logprobs"]
        logprobs, top = told["token_logprobs"], told["top_logprobs"]
        if not ids or not all(type(token) is int for token in ids) or not len(ids) == len(logprobs) == len(top):
            raise ValueError
        if not all(entries for entries in top):
            raise ValueError
        return SampledLogprobs(
            tuple(ids),
            np.array(logprobs, np.float64),
            tuple({int(name.removeprefix(_NAME)): float(p) for name, p in entries.items()} for entries in top),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise EndpointError(
            f"{endpoint} gives no token ids with log-probabilities: token-exact sampling needs a server that knows "
            "return_token_ids and return_tokens_as_token_ids, such as vLLM's; leave endpoint.tokenizer empty to use "
            "chat completions"
        ) from None


def same_logprobs(one: SampledLogprobs, other: SampledLogprobs) -> bool:
    """Whether the first token's distribution is the same in both, as far as both show it."""
    a, b = one.top[0], other.top[0]
    return all(abs(a[token] - b[token]) < _CLOSE for token in a.keys() & b.keys())
