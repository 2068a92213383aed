"""What an update trains on: its prompts, in one round or several, and which of their trees are kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np

from elpo_agent.algorithms import Algorithm
from elpo_agent.algorithms.selection import is_mixed, shares
from elpo_agent.config import EnvConfig, RolloutConfig, TrainConfig
from elpo_agent.ranks import ALONE, Ranks
from elpo_agent.rollout.base import SearchResult
from elpo_agent.rollout.budget import BudgetLimits
from elpo_agent.rollout.runner import Runner, TaskRef, tree_metrics
from elpo_agent.training.session import Session, env_factory
from elpo_agent.training.stopping import Stopping
from elpo_agent.training.tasks import task_indices
from elpo_agent.tree import RolloutTree

Pair = tuple[RolloutTree, SearchResult]


@dataclass(frozen=True)
class Collected:
    """One update's rollouts.

    Attributes:
        pairs: a tree and what its strategy found, for each prompt used, in the order of the prompts.
        kept: indices of those that are trained on.
        handed_on: rollouts completed from what other prompts of the update had left.
    """

    pairs: tuple[Pair, ...]
    kept: tuple[int, ...]
    handed_on: int


def training_env(config: EnvConfig, algorithm: Algorithm, done: float) -> EnvConfig:
    """The environment to train in when the share `done` of the run, in [0, 1], is behind it."""
    if algorithm.tool_budget is None:
        return config
    return replace(config, kwargs={**config.kwargs, "max_tool_calls": algorithm.tool_budget(done)})


class Collector:
    """Rolls out what updates train on; a pure function of the weights, the update and the prompts used before it.

    Args:
        session: the model that samples.
        config: of the run.
        algorithm: its strategy, selection and tool budget.
        tasks: how many there are, None where endless.
        ranks: each rolls out a part of the prompts with its own engine, and gets what the others made. Which rank
            a prompt falls to changes nothing of what is drawn for it.
        stopping: how these ranks end together; None where they do not.
    """

    def __init__(
        self,
        session: Session,
        config: TrainConfig,
        algorithm: Algorithm,
        tasks: int | None,
        ranks: Ranks = ALONE,
        stopping: Stopping | None = None,
    ) -> None:
        self._session, self._config, self._algorithm, self._tasks = session, config, algorithm, tasks
        self._ranks, self._stopping = ranks, stopping or Stopping(ranks)
        self._stack = ExitStack()
        self._runner: Runner | None = None
        self._env: EnvConfig | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def cancel(self) -> None:
        """From another thread than the one that is in `collect`: make it raise `asyncio.CancelledError` soon."""
        if self._runner is not None:
            self._runner.cancel()

    def collect(self, update: int, used: int) -> Collected:
        """Roll out one update.

        Args:
            update: from 0.
            used: prompts that earlier updates took.
        """
        runner = self._runner_for(update)
        rounds = _Rounds(runner, self._config, self._algorithm, self._tasks, update, used, self._ranks, self._stopping)
        selection, prompts = self._algorithm.selection, self._config.rollout.prompts
        n_total = self._algorithm.strategy.n_total
        budget = prompts * (selection.n_total or n_total)
        rounds.run(shares(budget, n_total))
        handed_on = 0
        while selection.hand_on and rounds.last_spent > 0 and rounds.spent < budget:
            handed_on += rounds.run(shares(budget - rounds.spent, n_total))
        for _ in range(selection.refill_rounds):
            missing = prompts - sum(is_mixed(tree) for tree, _ in rounds.pairs)
            if missing <= 0:
                break
            rounds.run([n_total] * missing)
        kept = (i for i, (tree, _) in enumerate(rounds.pairs) if not selection.mixed_only or is_mixed(tree))
        return Collected(tuple(rounds.pairs), tuple(kept), handed_on)

    def _runner_for(self, update: int) -> Runner:
        """The runner, a new one where the tool budget has changed."""
        env = training_env(self._config.env, self._algorithm, update / self._config.updates)
        if self._runner is None or env != self._env:
            self._stack.close()
            rollout = self._config.rollout
            self._runner = self._stack.enter_context(
                self._session.runner(
                    rollout,
                    env_factory(env, evaluating=False),
                    rollout.temperature,
                    rollout.prompts * self._algorithm.strategy.n_total,
                )
            )
            self._env = env
        return self._runner


class _Rounds:
    """One update's rounds of fresh prompts, as they are made."""

    def __init__(
        self,
        runner: Runner,
        config: TrainConfig,
        algorithm: Algorithm,
        tasks: int | None,
        update: int,
        used: int,
        ranks: Ranks,
        stopping: Stopping,
    ) -> None:
        self._ranks, self._stopping = ranks, stopping
        self.pairs: list[Pair] = []
        self.spent = 0
        self.last_spent = 0
        self._runner, self._config, self._strategy = runner, config, algorithm.strategy
        self._tasks, self._update, self._used = tasks, update, used
        self._number = 0
        self._began = time.monotonic()

    def run(self, budgets: Sequence[int]) -> int:
        """Grow a tree with each number of rollouts; returns the rollouts completed, 0 where a limit allows none."""
        seconds = self._stopping.gathered(time.monotonic() - self._began)[0]
        limits = remaining(self._config.rollout, self.pairs, len(budgets), seconds)
        self.last_spent = 0
        if limits is None:
            return 0
        config = self._config
        key = [config.seed, 3, self._update] + ([self._number] if self._number else [])
        indices = task_indices(self._used + len(self.pairs), len(budgets), self._tasks, config.seed)
        own = owned(indices, self._ranks)
        self._stopping.break_off(self._runner.cancel)
        try:
            grown = self._runner.run(
                self._strategy,
                [TaskRef(indices[i]) for i in own],
                int(np.random.SeedSequence(key).generate_state(1)[0]),
                limits=limits,
                rollouts=[budgets[i] for i in own],
            )
        except asyncio.CancelledError:
            if not self._stopping.asked:
                raise
            grown, own = [], []  # of no use any more
        parts = self._stopping.gathered(list(zip(own, grown, strict=True)))
        new = [pair for _, pair in sorted((p for part in parts for p in part), key=lambda p: p[0])]
        self._number += 1
        self.pairs += new
        self.last_spent = sum(len(tree.leaves) for tree, _ in new)
        self.spent += self.last_spent
        return self.last_spent


def owned(tasks: Sequence[int], ranks: Ranks) -> list[int]:
    """Which of `tasks`, by position, this rank rolls out.

    A task that comes up several times is one rank's, since a runner numbers its trees by how often it has seen it.
    """
    number = {task: i for i, task in enumerate(dict.fromkeys(tasks))}
    return [i for i, task in enumerate(tasks) if number[task] % ranks.size == ranks.rank]


def remaining(config: RolloutConfig, grown: Sequence[Pair], prompts: int, seconds: float) -> BudgetLimits | None:
    """What each of the next `prompts` may use up, after an update has grown trees for `seconds`.

    Returns:
        None where limits on the whole update leave nothing.
    """
    limits = config.budget.limits
    if config.budget.per == "prompt":
        return limits
    metrics = [tree_metrics(tree) for tree, _ in grown]
    tokens = None if limits.tokens is None else limits.tokens - sum(m.generated_tokens for m in metrics)
    calls = None if limits.tool_calls is None else limits.tool_calls - sum(m.tool_calls for m in metrics)
    left = None if limits.seconds is None else limits.seconds - seconds
    if any(v is not None and v < prompts for v in (tokens, calls)) or (left is not None and left <= 0.0):
        return None
    return BudgetLimits(tokens, calls, left).divided(prompts)
