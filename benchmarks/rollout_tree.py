"""What BEL's trees save in generated tokens, and what its sequential rounds cost in time, beside independent rollouts.

    python -m benchmarks.rollout_tree [--quick] [--repeats 5] [--threads 1] [--json PATH]

Both strategies complete N_total rollouts for each of the same prompts, through the same runner, engine and
environments, sampled at temperature 1 from the tiny model; round r uses seed r for both. Independent sampling
(`grpo`) is the peer: all its rollouts start at once. `elpo` samples up to three, looks at them, and goes on from
where they failed, so later rounds are smaller batches.

Generated tokens count every tree node once. "Tokens without sharing" counts each rollout from the prompt on, as
if nothing were shared: what the same trajectories would have cost one by one. Wall time is that of
`Runner.run`, tools included; engine time is the part spent in the policy. CPU time is this process's: tool
sessions are not in it. Every conversation has an environment of its own (`max_envs`), so that independent sampling,
which has all of them open at once, does not pay for sharing.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence

import torch

from benchmarks.measure import (
    Contestant,
    Figures,
    Ratio,
    Report,
    Role,
    Row,
    Sample,
    Stopwatch,
    interleave,
    parse_options,
)
from elpo_agent.algorithms import registry
from elpo_agent.config import EnvConfig, ModelConfig, RolloutConfig
from elpo_agent.engines.transformers_engine import TransformersPolicy
from elpo_agent.policy import SampledTurn, SampleRequest
from elpo_agent.rollout.base import RolloutStrategy
from elpo_agent.rollout.runner import Runner, TaskRef, tree_metrics
from elpo_agent.training.session import TINY_MODEL, Session, env_factory
from elpo_agent.tree import RolloutTree

TASK_STEPS = 4
LIMITS = RolloutConfig(max_new_tokens=48, max_context=1024)
ROLES: dict[str, Role] = {"elpo": "ours", "grpo": "peer"}
UNITS = {
    "wall time": "s",
    "engine time": "s",
    "CPU time": "s",
    "engine CPU time": "s",
    "generated tokens": "tokens",
    "tokens without sharing": "tokens",
    "tokens/s of wall time": "tokens/s",
    "tokens/s of engine CPU time": "tokens/s",
    "assistant turns": "turns",
    "tool calls": "calls",
    "engine calls": "calls",
    "mean batch": "rows",
    "median batch": "rows",
    "largest batch": "rows",
    "share of successful rollouts": "",
}
RATIOS = (
    "generated tokens",
    "wall time",
    "engine time",
    "CPU time",
    "engine CPU time",
    "tokens/s of wall time",
    "tokens/s of engine CPU time",
    "engine calls",
    "mean batch",
)


class TimedPolicy:
    """A policy that adds up the time spent in it."""

    def __init__(self, policy: TransformersPolicy) -> None:
        self.entropy_kind = policy.entropy_kind
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self._policy = policy

    def reset_clock(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        watch = Stopwatch.start()
        turns = self._policy.sample(requests)
        spent = watch.read()
        self.seconds += spent.wall
        self.cpu_seconds += spent.cpu
        return turns

    def reset_cache(self) -> None:
        self._policy.reset_cache()


def tokens_without_sharing(tree: RolloutTree) -> int:
    """Generated tokens if every trajectory of the tree had been sampled from the prompt on its own."""
    steps = [tree.nodes[index].step for leaf in tree.leaves for index in tree.path(leaf)]
    return sum(len(step.ids) for step in steps if step is not None)


def run_once(runner: Runner, policy: TimedPolicy, strategy: RolloutStrategy, prompts: int, seed: int) -> Figures:
    """Grow a tree for each prompt and say what it took."""
    policy.reset_clock()
    watch = Stopwatch.start()
    grown = runner.run(strategy, [TaskRef(index) for index in range(prompts)], seed)
    spent = watch.read()
    metrics = [tree_metrics(tree) for tree, _ in grown]
    tokens = sum(m.generated_tokens for m in metrics)
    outcomes = [tree.outcome(leaf) for tree, _ in grown for leaf in tree.leaves]
    if len(outcomes) != prompts * strategy.n_total or not all(outcome.valid for outcome in outcomes):
        raise RuntimeError(f"{len(outcomes)} of {prompts * strategy.n_total} rollouts came back, or the sandbox failed")
    sizes = runner.batch_sizes
    return {
        "wall time": spent.wall,
        "engine time": policy.seconds,
        "CPU time": spent.cpu,
        "engine CPU time": policy.cpu_seconds,
        "generated tokens": tokens,
        "tokens without sharing": sum(tokens_without_sharing(tree) for tree, _ in grown),
        "tokens/s of engine CPU time": tokens / policy.cpu_seconds,
        "tokens/s of wall time": tokens / spent.wall,
        "assistant turns": sum(m.turns for m in metrics),
        "tool calls": sum(m.tool_calls for m in metrics),
        "engine calls": len(sizes),
        "mean batch": statistics.mean(sizes),
        "median batch": statistics.median(sizes),
        "largest batch": max(sizes),
        "share of successful rollouts": statistics.mean(outcome.success for outcome in outcomes),
        "localized steps": sum(
            found.critical_node is not None for _, result in grown for found in result.localizations
        ),
    }


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options("Tokens and time of tree search beside independent rollouts.", argv)
    torch.set_num_threads(options.threads)
    prompts, n_total = (2, 6) if options.quick else (16, 16)
    session = Session.open(ModelConfig())
    policy = TimedPolicy(session.policy)
    env = EnvConfig(kwargs={"dataset_options": {"min_steps": TASK_STEPS, "max_steps": TASK_STEPS}})
    report = Report(
        "rollout_tree",
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
    with Runner(
        policy,
        session.codec,
        env_factory(env, evaluating=False),
        max_new_tokens=LIMITS.max_new_tokens,
        temperature=1.0,
        max_context=LIMITS.max_context,
        max_envs=max(prompts * n_total, LIMITS.tool_threads),
        tool_threads=LIMITS.tool_threads,
    ) as runner:

        def contestant(strategy: RolloutStrategy) -> Contestant:
            return lambda number: run_once(runner, policy, strategy, prompts, seed=number + 1)

        strategies = {name: registry.load(name, n_total=n_total).strategy for name in ROLES}
        result = interleave({name: contestant(strategy) for name, strategy in strategies.items()}, options.repeats)
    add_figures(report, result)
    report.finish(options)


def add_figures(report: Report, result: dict[str, dict[str, Sample]]) -> None:
    """Rows by figure, ours above the peer's, and the ratios."""
    elpo, grpo = result["elpo"], result["grpo"]
    for figure, unit in UNITS.items():
        for name, role in ROLES.items():
            report.add(Row(f"{figure}: {name}", role, unit, result[name][figure]))
    report.add(Row("localized steps: elpo", "ours", "steps", elpo["localized steps"]))
    for figure in RATIOS:
        report.ratios.append(Ratio(f"{figure}: elpo / grpo", elpo[figure].over(grpo[figure])))
    shared = elpo["generated tokens"].over(elpo["tokens without sharing"])
    report.ratios.append(Ratio("elpo: generated tokens / tokens without sharing", shared))
    for name in ROLES:
        engine = result[name]["engine time"].over(result[name]["wall time"])
        report.ratios.append(Ratio(f"{name}: engine time / wall time", engine))


if __name__ == "__main__":
    main()
