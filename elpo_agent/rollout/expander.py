"""Completes trajectories of one prompt: sample a turn, step the environment, until the episode ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from elpo_agent.policy import SampledTurn, SampleRequest
from elpo_agent.rollout.budget import Budget
from elpo_agent.rollout.env_pool import Conversation, EnvPool, InfrastructureError, StepResult
from elpo_agent.rollout.progress import Watch
from elpo_agent.rollout.waiting import TurnBatcher
from elpo_agent.tree import Outcome, RolloutTree, Step

logger = logging.getLogger(__name__)

T = TypeVar("T")

_STRATEGY = 2**31  # no rollout has this number: the strategy's own randomness is none that a turn is sampled with


class Codec(Protocol):
    """What the runner needs of a chat codec; `elpo_agent.chat.ChatCodec` is one."""

    @property
    def stop_ids(self) -> Sequence[int]: ...

    def prompt_ids(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> tuple[int, ...]: ...

    def feedback_ids(
        self,
        messages_new: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        closed: bool,
    ) -> tuple[int, ...]: ...

    def turn_text(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class TurnLimits:
    max_new_tokens: int
    temperature: float
    max_context: int

    def fits(self, prefix_tokens: int) -> bool:
        """Whether one more turn of full length fits."""
        return prefix_tokens + self.max_new_tokens <= self.max_context


@dataclass
class Walk:
    """One trajectory's own steps, from the node it started at."""

    steps: list[tuple[Step, Any | None, int]]
    outcome: Outcome


class PromptExpander:
    """The `Expander` of one prompt.

    It asks the budget before each turn is sampled (tokens, through the batcher, and time) and before each turn goes to
    the environment (tool calls). A trajectory that is refused ends there, and so does one whose turn was cut because
    fewer than `max_new_tokens` were left: its outcome is not valid and names the limit.
    """

    def __init__(
        self,
        *,
        tree: RolloutTree,
        budget: Budget,
        codec: Codec,
        tools: Sequence[Mapping[str, Any]],
        pool: EnvPool,
        batcher: TurnBatcher,
        limits: TurnLimits,
        position: int,
        seed_key: tuple[int, int, int],
        n_messages: int,
        keep_snapshots: bool,
        watch: Watch,
        count_calls: Callable[[str], int] | None = None,
    ) -> None:
        self.tree = tree
        self.budget = budget
        self._codec, self._tools, self._stops = codec, tools, frozenset(codec.stop_ids)
        self._pool, self._batcher, self._limits = pool, batcher, limits
        self._position, self._seed_key = position, seed_key
        self._n_messages = {0: n_messages}  # of the chat at a node
        self._keep = keep_snapshots
        self._watch = watch
        self._count_calls = count_calls  # of a turn; only where tool calls are limited
        self.seed = _seed(*seed_key, _STRATEGY)
        self._rollouts = 0
        self._last_commit: asyncio.Future[None] | None = None

    async def expand(self, node: int, n: int) -> list[int]:
        """See `Expander.expand`. Nodes are added in the order of the calls, whichever finishes first.

        Raises:
            ValueError: `node` is a finished trajectory, or holds no snapshot to continue from.
        """
        if not 0 <= node < len(self.tree.nodes) or self.tree.nodes[node].snapshot is None:
            raise ValueError(
                f"node={node} holds no snapshot to continue from; expand the prompt or a step before the "
                "last, with a strategy whose `branches` is not False"
            )
        n = self.budget.take(n)
        if n == 0:
            return []
        first, self._rollouts = self._rollouts, self._rollouts + n
        before = self._last_commit
        done = self._last_commit = asyncio.get_running_loop().create_future()
        try:
            walks = await self._walks(node, n, first)
            self.budget.give_back(n - len(walks))
            if before is not None:
                await before
            leaves = [self._commit(node, walk) for walk in walks]
        finally:
            if not done.done():
                done.set_result(None)
        self._watch.rollouts(
            len(leaves),
            sum(walk.outcome.success for walk in walks),
            sum(len(step.ids) for walk in walks for step, _, _ in walk.steps),
        )
        return leaves

    async def expand_each(self, requests: Sequence[tuple[int, int]]) -> list[list[int]]:
        """See `SideBySide.expand_each`."""
        return await run_all([self.expand(node, n) for node, n in requests])

    async def _walks(self, node: int, n: int, first: int) -> list[Walk]:
        prefix, depth = self.tree.prefix_ids(node), self.tree.nodes[node].depth + 1
        turns: list[SampledTurn] = []
        with self._batcher.walker():
            # One request for all siblings: their prefix is computed once. Several only where tokens are short.
            while len(turns) < n:
                more = await self._sample(prefix, n - len(turns), first + len(turns), depth)
                if not more:
                    break
                turns += more
        return await run_all([self._walk(node, prefix, depth, first + j, turn) for j, turn in enumerate(turns)])

    async def _walk(self, node: int, prefix: tuple[int, ...], depth: int, rollout: int, turn: SampledTurn) -> Walk:
        """Complete one trajectory whose first turn is already sampled."""
        conversation = Conversation(snapshot=self.tree.nodes[node].snapshot)
        n_messages = self._n_messages[node]
        steps: list[tuple[Step, Any | None, int]] = []
        async with self._batcher.admitted((self._position, rollout)):
            try:
                while True:
                    text = self._codec.turn_text(turn.ids)
                    refused = self._refused(turn, text)
                    if refused is not None:
                        steps.append((_step(turn, text), None, n_messages))
                        return Walk(steps, _cut(refused))
                    try:
                        result = await self._pool.step(conversation, text, self._keep)
                    except InfrastructureError as error:
                        logger.warning("task %s, rollout %d: %s", self.tree.task_id, rollout, error)
                        steps.append((_step(turn, text), None, n_messages))
                        return Walk(steps, Outcome(reward=0.0, success=False, truncated=True, valid=False))
                    messages = result.info["messages"]
                    outcome = _outcome(result)
                    feedback: tuple[int, ...] = ()
                    if outcome is None:
                        new = messages[n_messages + 1 :]  # after the assistant's own
                        closed = turn.ids[-1] in self._stops
                        feedback = self._codec.feedback_ids(new, self._tools, closed=closed)
                        prefix = prefix + turn.ids + feedback
                        if not self._limits.fits(len(prefix)):
                            outcome = Outcome(reward=0.0, success=False, truncated=True)
                    n_messages = len(messages)
                    depth += 1
                    more = [] if outcome is not None else await self._sample(prefix, 1, rollout, depth)
                    if outcome is None and not more:
                        outcome = _cut("seconds" if self.budget.out_of_time else "tokens")
                    if outcome is not None:
                        steps.append((_step(turn, text, (), result), None, n_messages))
                        return Walk(steps, outcome)
                    steps.append((_step(turn, text, feedback, result, last=False), result.snapshot, n_messages))
                    (turn,) = more
            finally:
                self._pool.release(conversation)

    async def _sample(self, prefix: tuple[int, ...], n: int, rollout: int, depth: int) -> list[SampledTurn]:
        """Up to `n` turns; none where the budget gives none."""
        if self.budget.out_of_time:
            return []
        request = SampleRequest(
            prefix, n, _seed(*self._seed_key, rollout, depth), self._limits.max_new_tokens, self._limits.temperature
        )
        return await self._batcher.sample((self._position, rollout, depth), request, self.budget.tokens)

    def _refused(self, turn: SampledTurn, text: str) -> str | None:
        """The limit that keeps a turn from the environment, if any; otherwise its tool calls are charged."""
        cut = turn.finish == "length" and len(turn.ids) < self._limits.max_new_tokens
        if cut and self.budget.tokens.used_up:
            return "tokens"
        if self._count_calls is not None and not self.budget.charge_calls(self._count_calls(text)):
            return "tool_calls"
        return None

    def _commit(self, node: int, walk: Walk) -> int:
        """Add a finished trajectory to the tree; returns its leaf."""
        for i, (step, snapshot, n_messages) in enumerate(walk.steps):
            last = i == len(walk.steps) - 1
            node = self.tree.add(node, step, snapshot, walk.outcome if last else None)
            self._n_messages[node] = n_messages
        return node


def _seed(*words: int) -> int:
    """64 bits that depend on all of `words` alone."""
    # An array of the words it would make of the list itself, in half the time.
    entropy = np.array(words, np.uint32) if max(words) < 2**32 else list(words)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def _step(
    turn: SampledTurn,
    text: str,
    feedback: tuple[int, ...] = (),
    result: StepResult | None = None,
    last: bool = True,
) -> Step:
    calls = () if result is None else result.info["tool_calls"]
    errors = sum(call["kind"] not in ("ok", "empty") for call in calls)
    kinds = tuple(call["kind"] for call in calls)
    if result is not None and result.info.get("error_kind") == "no_action":
        kinds = ("no_action",)
    reward = 0.0 if result is None or last else result.reward
    return Step(turn.ids, turn.logprobs, turn.entropies, feedback, text, len(calls), errors, kinds, reward)


def _outcome(result: StepResult) -> Outcome | None:
    """How the episode ended, or None while it goes on."""
    if not (result.terminated or result.truncated):
        return None
    return Outcome(
        reward=result.reward,
        success=bool(result.info["is_correct"]),
        truncated=result.truncated,
        answer=result.info["answer"],
        valid=bool(result.info.get("valid", True)),
    )


def _cut(limit: str) -> Outcome:
    return Outcome(reward=0.0, success=False, truncated=True, valid=False, limit=limit)


async def run_all(work: Sequence[Awaitable[T]]) -> list[T]:
    """Results in order. When one fails, the others are cancelled and waited for, then it surfaces."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
