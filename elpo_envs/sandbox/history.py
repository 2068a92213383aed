"""A session as the list of its calls: in which order to repeat them, and a digest of what they gave."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from elpo_envs.sandbox.base import SandboxSnapshot
from elpo_envs.sandbox.frames import Reply


def items_of(state: SandboxSnapshot) -> Iterator[str | int]:
    """The calls (code) and reseeds (integers) of `state` in the order they were made."""
    reseeds = iter((*state.reseeds, (-1, 0)))
    position, seed = next(reseeds)
    for index in range(len(state.calls) + 1):
        while position == index:
            yield seed
            position, seed = next(reseeds)
        if index < len(state.calls):
            yield state.calls[index]


def pending_reseeds(state: SandboxSnapshot) -> list[int]:
    """The reseeds since the last call, which take effect with the next one."""
    return [seed for position, seed in state.reseeds if position == len(state.calls)]


def extend_digest(digest: str, replies: Sequence[Reply]) -> str:
    """Chain executions onto a digest: hex of 16 bytes, "" before the first call."""
    for text, kind in replies:
        digest = hashlib.blake2b(f"{digest} {kind} {text}".encode(), digest_size=16).hexdigest()
    return digest
