"""The seam between rollouts and inference engines: token ids in; ids, log-probabilities and entropies out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Finish = Literal["stop", "length"]
EntropyKind = Literal["full", "top_k"]


@dataclass(frozen=True)
class SampleRequest:
    """Ask for `n` continuations of one prefix, each one assistant turn long.

    Attributes:
        prefix_ids: token ids of everything before the turn.
        n: number of independent samples; the prefix is computed once for all of them.
        seed: sample j depends on (seed, j) and the policy alone, not on what else is in the batch.
        max_new_tokens: a turn longer than this is cut (finish "length").
        temperature: > 0; 0 means greedy.
    """

    prefix_ids: tuple[int, ...]
    n: int
    seed: int
    max_new_tokens: int
    temperature: float = 1.0


@dataclass(frozen=True)
class SampledTurn:
    """One sampled assistant turn, exactly as sampled.

    Attributes:
        ids: sampled token ids, the stop token included when there is one. Length T >= 1.
        logprobs: float32 (T,), log-probability of each id under the distribution it was drawn from (after
            temperature; for greedy, at temperature 1).
        entropies: float32 (T,), entropy in nats of the full next-token distribution at sampling time.
        finish: "stop" or "length".
    """

    ids: tuple[int, ...]
    logprobs: NDArray[np.float32]
    entropies: NDArray[np.float32]
    finish: Finish


class Policy(Protocol):
    """An inference engine. One call handles many requests as one batch."""

    entropy_kind: EntropyKind

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        """For each request, in order, its `n` sampled turns."""
