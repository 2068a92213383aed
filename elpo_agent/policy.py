"""The seam between rollouts and inference engines: token ids in; ids, log-probabilities and entropies out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

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


class OpenDecode(Protocol):
    """A decode that requests join and leave while it runs. A request's turns are those that `Policy.sample` gives.

    To the last bits of the logits, that is, which depend on what else is in the batch.
    """

    @property
    def live_rows(self) -> int:
        """Samples that are being decoded."""

    @property
    def queued_rows(self) -> int:
        """Samples that wait for room among them."""

    def add(self, requests: Sequence[SampleRequest]) -> list[int]:
        """Let requests join with the next step, in this order; their tickets, which are different for all requests.

        Raises:
            ValueError: as `Policy.sample` for a bad request, and then none of them joins; or the weights changed while
                requests were unfinished.
        """

    def step(self, max_steps: int) -> list[tuple[int, list[SampledTurn]]]:
        """Draw up to `max_steps` >= 1 tokens for every live sample, while there are any.

        Returns:
            Each request all of whose samples are finished now, by its ticket, with its `n` turns. They have left.
        Raises:
            ValueError: the logits are NaN, or the weights changed while requests were unfinished. The decode cannot be
                used any more then.
        """

    def cancel(self, ticket: int) -> int:
        """Drop an unfinished request; returns the tokens that were drawn for it.

        Raises:
            ValueError: the ticket is not that of an unfinished request.
        """


@runtime_checkable
class StepwisePolicy(Protocol):
    """A `Policy` whose decodes can be joined while they run."""

    entropy_kind: EntropyKind

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        """See `Policy.sample`."""

    def open_decode(self) -> OpenDecode:
        """A decode without requests, with the weights that the policy has by then."""
