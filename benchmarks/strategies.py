"""What the scheduler of rollouts costs beside the engine, and how full it keeps the engine's batch during tree search.

    python -m benchmarks.strategies [--quick] [--repeats 5] [--threads 1] [--json PATH]

128 prompts are rolled out side by side with 8 rollouts each, at temperature 1 from the tiny model; round r uses
seed r for both strategies. `grpo` samples independently; `elpo` searches failures by bisection, many small steps.

*Scheduler* is all CPU time of the event loop's own thread outside the policy (batching, seeds, budgets, trees, resuming
coroutines, and turning text into ids and back: the codec, shown by itself too), and all CPU time of the tool threads
outside the environments' own work, their `reset` and `step` and `elpo_envs.snapshot` and `restore` (queues, handing
results over; shown by itself, too). *Engine* is the CPU time of the loop's thread while the policy
samples; what the policy does beside that, keeping and freeing its cache, counts as neither. CPU time of single threads
is counted, so that other work on the machine enters little. Wall time beside it says what waiting for tools costs.

*Fill* of an engine call is its rows over the 128 prompts, at most 1; means are weighted by the calls' time in the
engine. "During search" are calls while some prompt continues from a step; "before any prompt is done" leaves out the
tail, in which prompts that are finished ask for nothing any more. *Slots* are tokens generated over rows times the
longest turn of a call: what is lost because turns end at different lengths (the engine closes the gaps).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import torch

import elpo_envs
from benchmarks.measure import Contestant, Figures, Ratio, Report, Row, Sample, interleave, parse_options
from elpo_agent.algorithms import registry
from elpo_agent.config import EnvConfig, ModelConfig, RolloutConfig
from elpo_agent.engines.transformers_engine import TransformersPolicy
from elpo_agent.policy import SampledTurn, SampleRequest
from elpo_agent.rollout.base import Allowance, Expander, RolloutStrategy, SearchResult
from elpo_agent.rollout.expander import Codec
from elpo_agent.rollout.runner import Progress, Runner, TaskRef
from elpo_agent.training.session import MAX_ENVS, TINY_MODEL, Session, env_factory
from elpo_agent.tree import RolloutTree

TASK_STEPS = 4
LIMITS = RolloutConfig(max_new_tokens=48, max_context=1024)
NAMES = ("grpo", "elpo")
UNITS = {
    "scheduler CPU time": "s",
    "of which codec": "s",
    "of which in tool threads": "s",
    "engine CPU time": "s",
    "keeping and freeing the engine's cache": "s",
    "scheduler CPU time per rollout": "ms",
    "wall time": "s",
    "engine calls": "calls",
    "mean rows of a call": "rows",
    "fill": "",
    "slots": "",
}
SEARCH_UNITS = {
    "fill during search": "",
    "fill during search, before any prompt is done": "",
    "share of time in search": "",
}


@dataclass(frozen=True)
class Call:
    """One call of the policy: its rows, what they used, and the CPU seconds it took."""

    rows: int
    tokens: int
    longest: int
    seconds: float


class WatchedPolicy:
    """A policy that keeps a record of its calls."""

    def __init__(self, policy: TransformersPolicy) -> None:
        self.entropy_kind = policy.entropy_kind
        self.calls: list[Call] = []
        self._policy = policy
        self.keeping_s = 0.0

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        began = time.thread_time()
        turns = self._policy.sample(requests)
        seconds = time.thread_time() - began
        lengths = [len(turn.ids) for own in turns for turn in own]
        self.calls.append(Call(len(lengths), sum(lengths), max(lengths), seconds))
        return turns

    def reset_cache(self) -> None:
        with self._keeping():
            self._policy.reset_cache()

    def hold(self, prefix: tuple[int, ...]) -> None:
        with self._keeping():
            self._policy.hold(prefix)

    def release(self, prefix: tuple[int, ...]) -> None:
        with self._keeping():
            self._policy.release(prefix)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        began = time.thread_time()
        yield
        self.keeping_s += time.thread_time() - began


class WatchedCodec:
    """A codec that adds up the CPU time spent in it."""

    def __init__(self, codec: Codec) -> None:
        self.seconds = 0.0
        self.stop_ids = codec.stop_ids
        self._codec = codec

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        began = time.thread_time()
        ids = self._codec.prompt_ids(messages, tools)
        self.seconds += time.thread_time() - began
        return ids

    def feedback_ids(
        self, messages_new: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], *, closed: bool
    ) -> tuple[int, ...]:
        began = time.thread_time()
        ids = self._codec.feedback_ids(messages_new, tools, closed=closed)
        self.seconds += time.thread_time() - began
        return ids

    def turn_text(self, ids: Sequence[int]) -> str:
        began = time.thread_time()
        text = self._codec.turn_text(ids)
        self.seconds += time.thread_time() - began
        return text


class ToolThreads:
    """CPU time of the runner's tool threads, and how much of it is spent in the environments themselves."""

    def __init__(self) -> None:
        self._own: defaultdict[int, float] = defaultdict(float)  # seconds in environments, by thread

    @property
    def outside(self) -> float:
        """Seconds since the threads began that are not the environments' own."""
        threads = [t.ident for t in threading.enumerate() if t.name.startswith("elpo-env")]
        clocks = [(ident, time.pthread_getcpuclockid(ident)) for ident in threads if ident is not None]
        return sum(time.clock_gettime(clock) - self._own[ident] for ident, clock in clocks)

    def watching(self, make_env: Callable[[], gym.Env[str, str]]) -> Callable[[], gym.Env[str, str]]:
        """Environments like those of `make_env`, whose time is noted."""

        def make() -> gym.Env[str, str]:
            env = make_env()
            for name in ("reset", "step"):
                setattr(env, name, self._noting(getattr(env, name)))
            return env

        return make

    @contextmanager
    def watching_snapshots(self) -> Iterator[None]:
        """Note the time of snapshots and restores, too."""
        before = elpo_envs.snapshot, elpo_envs.restore
        elpo_envs.snapshot, elpo_envs.restore = self._noting(before[0]), self._noting(before[1])
        try:
            yield
        finally:
            elpo_envs.snapshot, elpo_envs.restore = before

    def _noting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                self._own[threading.get_ident()] += time.thread_time() - began

        return noted


@dataclass
class WatchedExpander:
    """An expander that notes between which calls of the policy it continued from a step."""

    inner: Expander
    policy: WatchedPolicy
    searched: set[int]

    @property
    def tree(self) -> RolloutTree:
        return self.inner.tree

    @property
    def budget(self) -> Allowance:
        return self.inner.budget

    @property
    def seed(self) -> int:
        return self.inner.seed

    async def expand(self, node: int, n: int) -> list[int]:
        first = len(self.policy.calls)
        leaves = await self.inner.expand(node, n)
        if node != 0:
            self.searched.update(range(first, len(self.policy.calls)))
        return leaves


@dataclass
class WatchedStrategy:
    """A strategy whose searches are noted: `searched` holds the calls during which some prompt was searched."""

    inner: RolloutStrategy
    policy: WatchedPolicy
    searched: set[int] = field(default_factory=set)

    @property
    def n_total(self) -> int:
        return self.inner.n_total

    @property
    def branches(self) -> bool:
        return bool(getattr(self.inner, "branches", True))

    async def grow(self, expander: Expander) -> SearchResult:
        return await self.inner.grow(WatchedExpander(expander, self.policy, self.searched))


def weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted mean; 0 without any weight."""
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights) if sum(weights) else 0.0


def run_once(
    runner: Runner,
    policy: WatchedPolicy,
    codec: WatchedCodec,
    threads: ToolThreads,
    strategy: RolloutStrategy,
    prompts: int,
    seed: int,
) -> Figures:
    """Grow a tree for each prompt and say what it took."""
    policy.calls.clear()
    policy.keeping_s = 0.0
    codec.seconds = 0.0
    watched = WatchedStrategy(strategy, policy)
    whole: list[int] = []  # calls made when the first prompt was done

    def note(progress: Progress) -> None:
        if progress.prompts and not whole:
            whole.append(len(policy.calls))

    in_threads, began, cpu = threads.outside, time.perf_counter(), time.thread_time()
    grown = runner.run(watched, [TaskRef(index) for index in range(prompts)], seed, note)
    wall, cpu = time.perf_counter() - began, time.thread_time() - cpu
    in_threads = threads.outside - in_threads
    rollouts = sum(len(tree.leaves) for tree, _ in grown)
    if rollouts != prompts * strategy.n_total:
        raise RuntimeError(f"{rollouts} of {prompts * strategy.n_total} rollouts came back")
    calls, searched = policy.calls, sorted(watched.searched)
    engine = sum(call.seconds for call in calls)
    scheduler = cpu - engine - policy.keeping_s + in_threads
    fills = [min(1.0, call.rows / prompts) for call in calls]

    def fill(chosen: Sequence[int]) -> float:
        return weighted([fills[i] for i in chosen], [calls[i].seconds for i in chosen])

    return {
        "scheduler CPU time": scheduler,
        "of which codec": codec.seconds,
        "of which in tool threads": in_threads,
        "engine CPU time": engine,
        "keeping and freeing the engine's cache": policy.keeping_s,
        "scheduler CPU time per rollout": 1e3 * scheduler / rollouts,
        "wall time": wall,
        "engine calls": len(calls),
        "mean rows of a call": sum(call.rows for call in calls) / len(calls),
        "fill": fill(range(len(calls))),
        "slots": weighted(
            [call.tokens / (call.rows * call.longest) for call in calls], [call.seconds for call in calls]
        ),
        "fill during search": fill(searched),
        "fill during search, before any prompt is done": fill([i for i in searched if i < whole[0]]),
        "share of time in search": sum(calls[i].seconds for i in searched) / engine,
    }


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options("The scheduler's cost beside the engine, and the fill of its batches.", argv)
    torch.set_num_threads(options.threads)
    prompts, n_total = (4, 6) if options.quick else (128, 8)
    session = Session.open(ModelConfig())
    policy, codec, threads = WatchedPolicy(session.policy), WatchedCodec(session.codec), ToolThreads()
    env = EnvConfig(kwargs={"dataset_options": {"min_steps": TASK_STEPS, "max_steps": TASK_STEPS}})
    report = Report(
        "strategies",
        {
            "threads": options.threads,
            "device": session.device.type,
            "weights_sha256": hashlib.sha256((TINY_MODEL / "model.safetensors").read_bytes()).hexdigest()[:12],
            "prompts": prompts,
            "n_total": n_total,
            "task_steps": TASK_STEPS,
            "temperature": 1.0,
            "max_new_tokens": LIMITS.max_new_tokens,
        },
    )
    runner = Runner(
        policy,
        codec,
        threads.watching(env_factory(env, evaluating=False)),
        max_new_tokens=LIMITS.max_new_tokens,
        temperature=1.0,
        max_context=LIMITS.max_context,
        max_envs=min(prompts * n_total, MAX_ENVS),
        max_active=LIMITS.max_active,
        tool_threads=LIMITS.tool_threads,
    )
    with runner, threads.watching_snapshots():

        def contestant(strategy: RolloutStrategy) -> Contestant:
            return lambda number: run_once(runner, policy, codec, threads, strategy, prompts, seed=number + 1)

        strategies = {name: registry.load(name, n_total=n_total).strategy for name in NAMES}
        result = interleave({name: contestant(strategy) for name, strategy in strategies.items()}, options.repeats)
    add_figures(report, result)
    report.finish(options)


def add_figures(report: Report, result: dict[str, dict[str, Sample]]) -> None:
    """Rows by strategy, and the scheduler's share."""
    for name in NAMES:
        own = result[name]
        for figure, unit in {**UNITS, **(SEARCH_UNITS if name == "elpo" else {})}.items():
            report.add(Row(figure, "ours", unit, own[figure], group=name))
        scheduler = own["scheduler CPU time"]
        report.ratios.append(Ratio("scheduler / engine CPU time", scheduler.over(own["engine CPU time"]), group=name))
        report.ratios.append(
            Ratio("codec / engine CPU time", own["of which codec"].over(own["engine CPU time"]), group=name)
        )
        report.ratios.append(
            Ratio("engine CPU time / wall time", own["engine CPU time"].over(own["wall time"]), group=name)
        )


if __name__ == "__main__":
    main()
