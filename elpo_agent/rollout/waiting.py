"""What batchers have in common: requests that wait for their turns, and the tokens reserved for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from elpo_agent.policy import SampledTurn, SampleRequest
from elpo_agent.rollout.budget import Account

WalkerKey = tuple[int, ...]
Batching = Literal["rounds", "continuous"]
"""Which batcher: `Batcher` or `ContinuousBatcher`."""


class TurnBatcher(Protocol):
    """What brings the requests of many coroutines to an engine; `Batcher` and `ContinuousBatcher` are such."""

    def walker(self) -> AbstractContextManager[None]:
        """Register a walker: while inside, it counts as about to sample unless it is sampling."""

    def admitted(self, key: WalkerKey) -> AbstractAsyncContextManager[None]:
        """Register a walker, once there is room for it; `key` is its place among those that wait."""

    async def sample(self, key: WalkerKey, request: SampleRequest, tokens: Account | None = None) -> list[SampledTurn]:
        """The request's `n` turns, or fewer where the tokens for more are not to be had now."""


@dataclass(frozen=True, eq=False)
class Waiting:
    """A request on its way.

    Attributes:
        key: its place among the others.
        answer: what its caller waits for.
        tokens: what its turns are charged to.
    """

    key: WalkerKey
    request: SampleRequest
    answer: asyncio.Future[list[SampledTurn]]
    tokens: Account

    @property
    def prepaid(self) -> int:
        """Tokens that the request takes at most."""
        return self.request.n * self.request.max_new_tokens


def reserve(batch: Sequence[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
    """The requests that can be served now, as far as their tokens reach, and those that must wait for others.

    Tokens are reserved for the former, in the order of `batch`; requests may come out smaller. A request for which
    none are left is answered with no turns.
    """
    served: list[Waiting] = []
    put_off: list[Waiting] = []
    for w in batch:
        left = w.tokens.left
        if left is not None and left < w.prepaid:
            turns, limit = left // w.request.max_new_tokens, w.request.max_new_tokens
            if turns == 0 and w.tokens.reserved:
                put_off.append(w)
                continue
            if turns == 0:
                turns, limit = min(1, left), max(1, left)
            w = replace(w, request=replace(w.request, n=turns, max_new_tokens=limit))
        if w.request.n == 0:
            w.answer.set_result([])
            continue
        w.tokens.reserve(w.prepaid)
        served.append(w)
    return served, put_off


def check_turns(requests: Sequence[SampleRequest], turns: Sequence[Sequence[SampledTurn]]) -> None:
    """Raises RuntimeError where an engine's turns are not as many, or not as short, as was asked for."""
    given, wanted = [len(own) for own in turns], [r.n for r in requests]
    if given != wanted:
        raise RuntimeError(f"the policy returned {given} turns for requests of n={wanted}; these must be equal")
    for request, own in zip(requests, turns, strict=True):
        longest = max(len(turn.ids) for turn in own)
        if longest > request.max_new_tokens:
            raise RuntimeError(
                f"the policy returned a turn of {longest} tokens for max_new_tokens={request.max_new_tokens}"
            )
