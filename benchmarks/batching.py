"""Rounds beside continuous batching, on the same tasks with tools of uneven duration.

    python -m benchmarks.batching [--quick] [--repeats 5] [--threads 1] [--json PATH]

With rounds (`Batcher`) the engine samples when every trajectory waits for it, or when those missing have kept it
waiting for `patience_s`; with continuous batching (`ContinuousBatcher`) a trajectory joins the running batch as soon
as its tool is done. Both complete N_total rollouts for each of the same prompts, through the same engine and
environments, sampled at temperature 1 from the tiny model; round r uses seed r for both, so that both say the same
but for rounding.

A tool call takes what Python takes for it, and in the uneven workload one in ten sleeps for a second more; which ones
depends on what was said, so it is the same in both. Rollouts and generated tokens are counted over the time of
`Runner.run`. "Rows of a pass" is the mean over the forward passes that feed one token a row, and "fill" what share
that is of the trajectories there are. "Passes" are all forward passes, those over prefixes too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch

from benchmarks.measure import (
    Contestant,
    Figures,
    Ratio,
    Report,
    Role,
    Row,
    Stopwatch,
    interleave,
    parse_options,
)
from elpo_agent.algorithms import registry
from elpo_agent.config import EnvConfig, ModelConfig, RolloutConfig
from elpo_agent.rollout.base import RolloutStrategy
from elpo_agent.rollout.runner import Runner, TaskRef, tree_metrics
from elpo_agent.rollout.waiting import Batching
from elpo_agent.training.session import TINY_MODEL, Session, env_factory

TASK_STEPS = 4
ONE_IN = 10  # tool calls is slow
TOOL_THREADS = 64  # so many that calls that sleep keep no others from running
ROLES: dict[Batching, Role] = {"continuous": "ours", "rounds": "peer"}
UNITS = {
    "rollouts/s": "rollouts/s",
    "generated tokens/s": "tokens/s",
    "wall time": "s",
    "CPU time": "s",
    "passes": "passes",
    "rows of a pass": "rows",
    "fill": "",
    "slow calls": "calls",
}


@dataclass(frozen=True)
class Workload:
    """What is rolled out: one in `ONE_IN` tool calls takes `slow_s` seconds longer."""

    algorithm: str
    slow_s: float

    @property
    def name(self) -> str:
        return f"{self.algorithm}, " + (f"1 call in {ONE_IN} takes {self.slow_s:g} s" if self.slow_s else "even tools")


class UnevenTools(gym.Wrapper[str, str, str, str]):
    """Some tool calls take longer; which ones is a function of the conversation alone."""

    calls = 0  # slow ones, of all environments

    def __init__(self, env: gym.Env[str, str], slow_s: float) -> None:
        super().__init__(env)
        self._slow_s = slow_s

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        result = super().step(action)
        info = result[-1]
        said = repr((info["task_id"], info["messages"])).encode()
        if info["tool_calls"] and self._slow_s and hashlib.sha256(said).digest()[0] % ONE_IN == 0:
            UnevenTools.calls += 1
            time.sleep(self._slow_s)
        return result


class Passes:
    """Counts a model's forward passes, and the rows of those that feed one token to each."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.begin()
        model.register_forward_pre_hook(self._seen, with_kwargs=True)

    def begin(self) -> None:
        self.all = self.decoding = self.rows = 0

    def _seen(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        rows, columns = kwargs["input_ids"].shape
        self.all += 1
        if columns == 1:
            self.decoding += 1
            self.rows += rows


def run_once(runner: Runner, passes: Passes, strategy: RolloutStrategy, prompts: int, seed: int) -> Figures:
    """Grow a tree for each prompt and say what it took."""
    passes.begin()
    UnevenTools.calls = 0
    watch = Stopwatch.start()
    grown = runner.run(strategy, [TaskRef(index) for index in range(prompts)], seed)
    spent = watch.read()
    outcomes = [tree.outcome(leaf) for tree, _ in grown for leaf in tree.leaves]
    if len(outcomes) != prompts * strategy.n_total or not all(outcome.valid for outcome in outcomes):
        raise RuntimeError(f"{len(outcomes)} of {prompts * strategy.n_total} rollouts came back, or the sandbox failed")
    tokens = sum(tree_metrics(tree).generated_tokens for tree, _ in grown)
    rows = passes.rows / passes.decoding
    return {
        "rollouts/s": len(outcomes) / spent.wall,
        "generated tokens/s": tokens / spent.wall,
        "wall time": spent.wall,
        "CPU time": spent.cpu,
        "passes": passes.all,
        "rows of a pass": rows,
        "fill": rows / len(outcomes),
        "slow calls": UnevenTools.calls,
    }


def measure(
    report: Report, session: Session, passes: Passes, workload: Workload, size: tuple[int, int], repeats: int
) -> None:
    """Add the figures of one workload for both ways, alternately."""
    prompts, n_total = size
    make = env_factory(
        EnvConfig(kwargs={"dataset_options": {"min_steps": TASK_STEPS, "max_steps": TASK_STEPS}}), evaluating=False
    )
    strategy = registry.load(workload.algorithm, n_total=n_total).strategy

    def contestant(batching: Batching) -> tuple[Runner, Contestant]:
        limits = RolloutConfig(max_new_tokens=48, max_context=1024, tool_threads=TOOL_THREADS, batching=batching)
        runner = session.runner(limits, lambda: UnevenTools(make(), workload.slow_s), 1.0, prompts * n_total)
        return runner, lambda number: run_once(runner, passes, strategy, prompts, seed=number + 1)

    runners = {batching: contestant(batching) for batching in ROLES}
    try:
        result = interleave({batching: run for batching, (_, run) in runners.items()}, repeats)
    finally:
        for runner, _ in runners.values():
            runner.close()
    for figure, unit in UNITS.items():
        if figure == "slow calls" and not workload.slow_s:
            continue
        for batching, role in ROLES.items():
            report.add(Row(f"{figure}: {batching}", role, unit, result[batching][figure], workload.name))
        ratio = result["continuous"][figure].over(result["rounds"][figure])
        report.ratios.append(Ratio(f"{figure}: continuous / rounds", ratio, workload.name))


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options("Rollouts per second of continuous batching beside rounds.", argv)
    torch.set_num_threads(options.threads)
    prompts, n_total = (2, 8) if options.quick else (16, 16)
    slow_s = 0.1 if options.quick else 1.0
    algorithms = ("grpo",) if options.quick else ("grpo", "elpo")
    session = Session.open(ModelConfig())
    report = Report(
        "batching",
        {
            "threads": options.threads,
            "device": session.device.type,
            "weights_sha256": hashlib.sha256((TINY_MODEL / "model.safetensors").read_bytes()).hexdigest()[:12],
            "prompts": prompts,
            "n_total": n_total,
            "task_steps": TASK_STEPS,
            "patience_s": RolloutConfig().patience_s,
            "slow_call_s": slow_s,
            "one_call_in": ONE_IN,
            "tool_threads": TOOL_THREADS,
        },
    )
    passes = Passes(session.model)
    for algorithm in algorithms:
        for seconds in (slow_s, 0.0):
            measure(report, session, passes, Workload(algorithm, seconds), (prompts, n_total), options.repeats)
    report.finish(options)


if __name__ == "__main__":
    main()
