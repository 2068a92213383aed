"""Strategies driven side by side: each round, what all of them ask for is rolled out at once."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass
from types import coroutine
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elpo_agent.laboratory.tree import ExactTree, Sampled
from elpo_agent.rollout.base import Budget, RolloutStrategy, SearchResult
from elpo_envs.exact import ActionSampler, RolloutState, World, roll_out, start_state


@dataclass(frozen=True, eq=False)
class Tabular:
    """A policy as tables over its rows.

    Attributes:
        probabilities: float64 (rows, A).
        logprobs: float64 (rows, A).
        entropies: float64 (rows,), in nats.
    """

    probabilities: NDArray[np.float64]
    logprobs: NDArray[np.float64]
    entropies: NDArray[np.float64]

    @classmethod
    def of(cls, logits: NDArray[np.float64]) -> Tabular:
        """The softmax policy with these logits (rows, A)."""
        shifted = logits - logits.max(axis=1, keepdims=True)
        logprobs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        probabilities = np.exp(logprobs)
        return cls(probabilities, logprobs, -(probabilities * logprobs).sum(axis=1))


@dataclass(frozen=True)
class _Request:
    tree: ExactTree
    node: int
    n: int


class ExactExpander:
    """The `Expander` of one prompt; its strategy is driven by `grow_all`, not by an event loop."""

    def __init__(self, tree: ExactTree, budget: Budget, seed: int) -> None:
        self.tree = tree
        self.budget = budget
        self.seed = seed

    async def expand(self, node: int, n: int) -> list[int]:
        """See `Expander.expand`. Raises ValueError where `node` is a finished trajectory or no node."""
        if not 0 <= node < self.tree.size or self.tree.finished(node):
            raise ValueError(f"node={node} is a finished trajectory or no node of this tree; expand another one")
        n = self.budget.take(n)
        return await _ask(_Request(self.tree, node, n)) if n else []


@coroutine
def _ask(request: _Request) -> Generator[_Request, list[int], list[int]]:
    return (yield request)


def grow_all(
    strategy: RolloutStrategy,
    expanders: Sequence[ExactExpander],
    world: World,
    policy: Tabular,
    rng: np.random.Generator,
) -> list[SearchResult]:
    """Run `strategy` on every expander, to the end; results in their order.

    Args:
        world: in which the expanders' prompts are.
        policy: over the world's rows.
        rng: draws actions and noise. Equal arguments give equal trees; what one prompt draws depends on the others.
    """
    sampler = ActionSampler(policy.probabilities)
    results: list[SearchResult] = [SearchResult()] * len(expanders)
    going: list[tuple[int, Coroutine[Any, Any, SearchResult], list[int] | None]] = [
        (i, strategy.grow(expander), None) for i, expander in enumerate(expanders)
    ]
    while going:
        asked: list[tuple[int, Coroutine[Any, Any, SearchResult], _Request]] = []
        for i, growing, answer in going:
            try:
                request = growing.send(answer)
            except StopIteration as stop:
                results[i] = stop.value
            else:
                asked.append((i, growing, request))
        leaves = roll_out_requests([request for *_, request in asked], world, sampler, policy, rng)
        going = [(i, growing, own) for (i, growing, _), own in zip(asked, leaves, strict=True)]
    return results


def roll_out_requests(
    requests: Sequence[_Request], world: World, sampler: ActionSampler, policy: Tabular, rng: np.random.Generator
) -> list[list[int]]:
    """Complete the requested trajectories and add them to their trees; the new leaves of each request."""
    if not requests:
        return []
    counts = np.array([request.n for request in requests])
    prompts = np.repeat(np.array([request.tree.prompt for request in requests]), counts)
    rollouts = roll_out(world, sampler, prompts, rng, _starts(requests, counts, world))
    taken = rollouts.rows >= 0
    source = Sampled(
        rollouts,
        np.where(taken, policy.logprobs[rollouts.rows, rollouts.actions], 0.0),
        np.where(taken, policy.entropies[rollouts.rows], 0.0),
    )
    leaves, row = [], 0
    for request in requests:
        leaves.append([request.tree.add_rollout(request.node, source, r) for r in range(row, row + request.n)])
        row += request.n
    return leaves


def _starts(requests: Sequence[_Request], counts: NDArray[np.int64], world: World) -> RolloutState:
    state = start_state(world, int(counts.sum()))
    first = 0
    for request in requests:
        if request.node:
            source, row, column = request.tree.state_after(request.node)
            assert source is not None
            states, part = source.rollouts.states, slice(first, first + request.n)
            state.position[part] = states.position[row, column]
            state.spare[part] = states.spare[row, column]
            state.in_repair[part] = states.in_repair[row, column]
            state.alive[part] = states.alive[row, column]
        first += request.n
    return state
