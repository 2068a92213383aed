"""Runs strategies against an engine and environments: all prompts side by side, one batch at a time."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, get_args, runtime_checkable

import gymnasium as gym

from elpo_agent.interrupts import run_coroutine
from elpo_agent.policy import Policy, StepwisePolicy
from elpo_agent.rollout.base import RolloutStrategy, SearchResult
from elpo_agent.rollout.batcher import Batcher
from elpo_agent.rollout.budget import NO_LIMITS, Budget, BudgetLimits
from elpo_agent.rollout.continuous import ContinuousBatcher
from elpo_agent.rollout.env_pool import EnvPool
from elpo_agent.rollout.expander import Codec, PromptExpander, TurnLimits, run_all
from elpo_agent.rollout.progress import Progress, TreeMetrics, Watch, tree_metrics
from elpo_agent.rollout.waiting import Batching, TurnBatcher
from elpo_agent.tree import RolloutTree

__all__ = ["Codec", "Progress", "Runner", "TaskRef", "TreeMetrics", "tree_metrics"]

logger = logging.getLogger(__name__)

_QUIET_S = 0.005  # between two looks at tools' results, where nobody waits for other tools


@runtime_checkable
class _Caching(Protocol):
    def reset_cache(self) -> None: ...


@runtime_checkable
class _Holding(Protocol):
    """A policy that is told which prefixes a tree will go on from, and when no more."""

    def hold(self, prefix: tuple[int, ...]) -> None: ...

    def release(self, prefix: tuple[int, ...]) -> None: ...


@dataclass(frozen=True)
class TaskRef:
    """Which task: its index in the environment's source, or its id. Exactly one of the two."""

    index: int | None = None
    task_id: str | None = None

    def __post_init__(self) -> None:
        if (self.index is None) == (self.task_id is None):
            raise ValueError(f"index={self.index}, task_id={self.task_id!r}: give exactly one of them")

    @property
    def options(self) -> dict[str, Any]:
        """Options for the environment's `reset`."""
        return {"index": self.index} if self.index is not None else {"task_id": self.task_id}

    @property
    def key(self) -> int:
        """A number that stands for the task in seeds; >= 0, the same in every process."""
        if self.index is not None:
            return self.index
        return int.from_bytes(hashlib.sha256(str(self.task_id).encode()).digest()[:4], "big")


class Runner:
    """Grows one tree per task, all tasks side by side, so that the engine sees full batches.

    Equal arguments give equal trees: what is sampled depends on the run's seed, the task, the rollout's
    number and the turn; nodes are numbered in the order in which the strategy asked for them. (Logits of an
    in-process engine can differ in their last bits with the batch; `Batcher` names the one case in which
    timing matters. With continuous batching it always does.)

    Environments and threads are kept between runs; `close()` or a `with` block releases them.

    Args:
        policy: the engine.
        codec: between messages and ids.
        make_env: makes one environment; all must be alike.
        max_new_tokens: longest turn, in tokens; >= 1.
        temperature: >= 0; 0 is greedy.
        max_context: longest prefix plus turn, in tokens. A trajectory with no room for a full turn left ends
            as truncated, with reward 0.
        tool_threads: environment calls at a time.
        max_envs: environments at most; more conversations than that take turns, through snapshots.
        max_active: trajectories that go on at a time; others wait after their first turn until one has ended. Fewer
            than `max_envs` need no snapshots to take turns. None is no bound.
        patience_s: see `Batcher`. While tools run, the results of others are looked at when no new one has come for a
            quarter of it, 0.25 s at most.
        batching: "rounds", see `Batcher`; or "continuous", see `ContinuousBatcher`, with which `patience_s` is of no
            use and results of tools are looked at at once.

    Raises:
        ValueError: numbers that leave nothing to do, or a policy that cannot decode step by step is to be used so.
    """

    def __init__(
        self,
        policy: Policy,
        codec: Codec,
        make_env: Callable[[], gym.Env[Any, Any]],
        *,
        max_new_tokens: int,
        temperature: float,
        max_context: int,
        tool_threads: int = 8,
        max_envs: int = 128,
        max_active: int | None = None,
        patience_s: float = 1.0,
        batching: Batching = "rounds",
    ) -> None:
        if max_new_tokens < 1 or max_context <= max_new_tokens:
            raise ValueError(
                f"max_new_tokens={max_new_tokens} and max_context={max_context} leave no room for a prompt; "
                "give max_context > max_new_tokens >= 1"
            )
        if not temperature >= 0:
            raise ValueError(f"temperature={temperature} must be 0 (greedy) or more")
        if batching not in get_args(Batching):
            raise ValueError(f"batching={batching!r} is unknown; choose rounds or continuous")
        if batching == "continuous" and not isinstance(policy, StepwisePolicy):
            raise ValueError(
                f"batching='continuous' needs an engine whose decode can be joined, and {type(policy).__name__} has "
                "none (no open_decode); choose batching='rounds' or the transformers engine"
            )
        self._batching = batching
        self.policy = policy
        self.codec = codec
        self.batch_sizes: list[int] = []
        self._limits = TurnLimits(max_new_tokens, temperature, max_context)
        quiet_s = min(0.25, patience_s / 4) if batching == "rounds" else _QUIET_S
        self._pool = EnvPool(make_env, tool_threads, max_envs, quiet_s)
        self._patience_s = patience_s
        self._max_active = max_active
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release environments and threads. Idempotent."""
        self._pool.close()

    def cancel(self) -> None:
        """From another thread than the one that is in `run`: make it raise `asyncio.CancelledError` soon.

        It does nothing where nothing runs. A call of the policy is not broken off.
        """
        running = self._running
        if running is not None:
            loop, task = running
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(task.cancel)

    def run(
        self,
        strategy: RolloutStrategy,
        tasks: Sequence[TaskRef],
        seed: int,
        on_progress: Callable[[Progress], None] | None = None,
        *,
        limits: BudgetLimits = NO_LIMITS,
        rollouts: Sequence[int] | None = None,
    ) -> list[tuple[RolloutTree, SearchResult]]:
        """Grow a tree for each task; results in the order of `tasks`.

        A task may come up several times; its trees differ. A prompt that leaves no room for a turn within
        `max_context` gives a tree without trajectories, and a warning. Snapshots are released, with the environments'
        sessions and what the engine keeps of prefixes.

        Args:
            strategy: one `grow` per task. If it has an attribute `branches` that is False, it never expands a
                node but the prompt, and no snapshots are taken after steps.
            tasks: what to reset the environments to.
            seed: >= 0.
            on_progress: called after every expansion and every finished prompt, in the calling thread.
            limits: of each prompt's budget, beside its rollouts. `seconds` makes equal runs differ.
            rollouts: completed rollouts that each task may have; `strategy.n_total` for all of them by default.
        Raises:
            Exception: whatever the policy, the strategy or a bug raised. A failing sandbox raises only when
                it cannot even begin an episode; later it makes the trajectory's outcome invalid.
        """
        return run_coroutine(lambda: self.arun(strategy, tasks, seed, on_progress, limits=limits, rollouts=rollouts))

    async def arun(
        self,
        strategy: RolloutStrategy,
        tasks: Sequence[TaskRef],
        seed: int,
        on_progress: Callable[[Progress], None] | None = None,
        *,
        limits: BudgetLimits = NO_LIMITS,
        rollouts: Sequence[int] | None = None,
    ) -> list[tuple[RolloutTree, SearchResult]]:
        """`run` for callers that are inside an event loop already."""
        if seed < 0:
            raise ValueError(f"seed={seed} must be 0 or more")
        totals = [strategy.n_total] * len(tasks) if rollouts is None else list(rollouts)
        if len(totals) != len(tasks):
            raise ValueError(f"rollouts has {len(totals)} numbers for {len(tasks)} tasks; give one for each")
        if isinstance(self.policy, _Caching):
            self.policy.reset_cache()  # an equal run must find an equal cache
        self._pool.begin()
        batcher = self._batcher()
        watch = Watch(len(tasks), on_progress)
        seen: Counter[TaskRef] = Counter()
        prompts = []
        for position, (task, total) in enumerate(zip(tasks, totals, strict=True)):
            seed_key = (seed, task.key, seen[task])
            seen[task] += 1
            prompts.append(self._prompt(strategy, task, position, seed_key, batcher, watch, total, limits))
        current = asyncio.current_task()
        assert current is not None
        self._running = (asyncio.get_running_loop(), current)
        try:
            return await run_all(prompts)
        finally:
            self._running = None
            self.batch_sizes = batcher.batch_sizes
            self._pool.rest()
            if isinstance(self.policy, _Caching):
                self.policy.reset_cache()  # what is kept of finished searches is of no use, and the learner needs room

    def _batcher(self) -> Batcher | ContinuousBatcher:
        if self._batching == "continuous":
            assert isinstance(self.policy, StepwisePolicy)
            return ContinuousBatcher(self.policy, self._pool.hand_over, self._max_active)
        return Batcher(self.policy, self._patience_s, self._pool.hand_over, self._max_active)

    @contextmanager
    def _held(self, prompt: tuple[int, ...]) -> Iterator[None]:
        """While inside, the engine keeps what it has of this prompt's tree."""
        if not isinstance(self.policy, _Holding):
            yield
            return
        self.policy.hold(prompt)
        try:
            yield
        finally:
            self.policy.release(prompt)

    async def _prompt(
        self,
        strategy: RolloutStrategy,
        task: TaskRef,
        position: int,
        seed_key: tuple[int, int, int],
        batcher: TurnBatcher,
        watch: Watch,
        total: int,
        limits: BudgetLimits,
    ) -> tuple[RolloutTree, SearchResult]:
        with batcher.walker():
            info, tools, snapshot = await self._pool.reset(task.options)
        messages = info["messages"]
        tree = RolloutTree(str(info["task_id"]), self.codec.prompt_ids(messages, tools))
        tree.nodes[0].snapshot = snapshot
        expander = PromptExpander(
            tree=tree,
            budget=Budget(total, limits),
            codec=self.codec,
            tools=tools,
            pool=self._pool,
            batcher=batcher,
            limits=self._limits,
            position=position,
            seed_key=seed_key,
            n_messages=len(messages),
            keep_snapshots=bool(getattr(strategy, "branches", True)),
            watch=watch,
            count_calls=None if limits.tool_calls is None else self._pool.call_counter(),
        )
        if self._limits.fits(len(tree.prompt_ids)):
            with self._held(tree.prompt_ids):
                result = await strategy.grow(expander)
                tree.release()
        else:
            logger.warning(
                "task %s: %d prompt tokens leave no room for max_new_tokens=%d in max_context=%d; skipped",
                tree.task_id,
                len(tree.prompt_ids),
                self._limits.max_new_tokens,
                self._limits.max_context,
            )
            result = SearchResult()
            tree.release()
        watch.prompt_done()
        return tree, result
