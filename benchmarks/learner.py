"""Learner steps on packed rows beside flat ones, for the trees that the strategies grow.

    python -m benchmarks.learner [--quick] [--repeats 5] [--threads 1] [--json PATH]

The tiny model grows the trees of one update on generated problems, and each algorithm credits its own. Every
contestant then takes the same step on them: forward and backward passes over all rows that the loss trains on,
clipping, the optimiser (learning rate 0). Once with the prompts as they are, once with each lengthened to about
1,000 tokens of its own, and of these a single rollout each, which share nothing.

* limit: the rows' tokens over the different ones among them, what a step could gain if it cost the same per token.
* flat: every row by itself, `learner.packing` "never".
* auto: the default; shared tokens once where the measured rule says that it pays. The report says whether it did.

Given are the speed-ups over flat, round by round, and their share of the limit. Not counted: rollouts and credit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.measure import (
    Contestant,
    Figures,
    Options,
    Ratio,
    Report,
    Role,
    Row,
    Sample,
    Stopwatch,
    interleave,
    parse_options,
)
from elpo_agent.algorithms import Algorithm, load
from elpo_agent.config import EnvConfig, LearnerConfig, ModelConfig, RolloutConfig
from elpo_agent.credit import leaf_credits
from elpo_agent.learner.learner import Learner
from elpo_agent.learner.logprobs import forward_passes, row_logprobs
from elpo_agent.learner.packing import Packing, pack
from elpo_agent.learner.rows import TrainingRow, tree_rows
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.training.session import Session, env_factory

ALGORITHMS = ("elpo", "grpo", "elpo_plus")
LONG_PROMPT = 1000
TEMPERATURE = 1.2
TASKS = {"dataset": "generated", "dataset_options": {"min_steps": 3, "max_steps": 3}, "max_turns": 6}
MODES: dict[Packing, Role] = {"never": "peer", "auto": "ours"}
NAMES: dict[Packing, str] = {"never": "flat", "auto": "auto"}

Groups = list[list[TrainingRow]]


def grow(session: Session, algorithm: Algorithm, prompts: int) -> Groups:
    """One update's rows, prompt by prompt."""
    config = RolloutConfig(prompts=prompts, max_new_tokens=48, max_context=1024, temperature=TEMPERATURE)
    with session.runner(config, env_factory(EnvConfig(kwargs=TASKS), evaluating=False), TEMPERATURE) as runner:
        pairs = runner.run(algorithm.strategy, [TaskRef(i) for i in range(prompts)], seed=0)
    credits = leaf_credits(algorithm.credit, [tree for tree, _ in pairs], None)
    return [
        tree_rows(tree, credit, algorithm.objective.bounds(tree, result))
        for (tree, result), credit in zip(pairs, credits, strict=True)
    ]


def lengthened(session: Session, groups: Groups, length: int) -> Groups:
    """The same rows, with arbitrary tokens put before each prompt, which is of about `length` tokens then."""
    out: Groups = []
    for number, rows in enumerate(groups):
        rng = np.random.default_rng(number)
        extra = rng.integers(0, 256, max((length - _prompt(row) for row in rows), default=0))
        out.append([_after(row, extra) for row in rows])
    flat = [row for rows in out for row in rows]
    old = row_logprobs(
        session.model, flat, pad_id=session.pad_id, temperature=TEMPERATURE, micro_batch_tokens=8192, packing="auto"
    )
    values = iter(old)
    return [[replace(row, old_logprobs=next(values)) for row in rows] for rows in out]


def _prompt(row: TrainingRow) -> int:
    return int(np.flatnonzero(row.mask)[0])


def _after(row: TrainingRow, extra: np.ndarray[Any, np.dtype[np.int64]]) -> TrainingRow:
    nothing = np.zeros(len(extra), dtype=np.float32)
    return replace(
        row,
        ids=np.concatenate([extra, row.ids]),
        mask=np.concatenate([nothing > 0, row.mask]),
        old_logprobs=np.concatenate([nothing, row.old_logprobs]),
        advantages=np.concatenate([nothing, row.advantages]),
        eps_low=np.concatenate([nothing, row.eps_low]),
        eps_high=np.concatenate([nothing, row.eps_high]),
    )


def step(session: Session, algorithm: Algorithm, groups: Groups, mode: Packing, _round: int = 0) -> Figures:
    """The seconds that one optimiser step takes, and what it found."""
    config = LearnerConfig(lr=0.0, mini_batches=1, packing=mode)
    learner = Learner(session.model, algorithm.objective, config, pad_id=session.pad_id, temperature=TEMPERATURE)
    watch = Stopwatch.start()
    stats = learner.update(groups, lr=0.0, seed=0)
    spent = watch.read()
    return {"wall": spent.wall, "cpu": spent.cpu, "loss": stats["loss"], "grad_norm": stats["grad_norm"]}


def measure_trees(
    report: Report, session: Session, algorithm: Algorithm, groups: Groups, group: str, options: Options
) -> dict[str, Any]:
    """Add one group's figures; returns what its rows were."""
    rows = [row for rows in groups for row in rows if row.has_signal]
    total = sum(len(row.ids) for row in rows)
    unique = len(pack([row.ids for row in rows]).ids)
    limit = total / unique
    contestants: dict[str, Contestant] = {
        NAMES[mode]: partial(step, session, algorithm, groups, mode) for mode in MODES
    }
    result = interleave(contestants, options.repeats, warm_up=False)
    for mode, role in MODES.items():
        name = NAMES[mode]
        for clock in ("wall", "cpu"):
            rate = Sample(tuple(total / seconds for seconds in result[name][clock].values))
            report.add(Row(name, role, f"row tokens/s {clock}", rate, group))
        if mode != "never":
            faster = result["flat"]["cpu"].over(result[name]["cpu"])
            share = Sample(tuple(value / limit for value in faster.values))
            report.ratios.append(Ratio(f"{name} / flat, speed (limit {limit:.2f})", faster, group))
            report.ratios.append(Ratio(f"{name}: share of the limit", share, group))
    report.ratios.append(Ratio("limit: tokens / different tokens", Sample((limit,) * options.repeats), group))
    config = LearnerConfig()
    passes = forward_passes(session.model, rows, config.micro_batch_tokens, config.packing)
    norms = {name: result[name]["grad_norm"].median for name in result}
    return {
        "group": group,
        "prompts": len(groups),
        "rows": len(rows),
        "tokens": total,
        "unique_tokens": unique,
        "limit": limit,
        "mean_row_tokens": total / len(rows),
        "packed_by_auto": all(packed for _, packed in passes),
        "gradient_norms": norms,
    }


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options("Learner steps on packed rows beside flat ones.", argv)
    torch.set_num_threads(options.threads)
    session = Session.open(ModelConfig())
    prompts, n_total, long = (2, 4, 200) if options.quick else (4, 16, LONG_PROMPT)
    settings: dict[str, Any] = {
        "threads": options.threads,
        "device": session.device.type,
        "dtype": "float32",
        "micro_batch_tokens": LearnerConfig().micro_batch_tokens,
        "temperature": TEMPERATURE,
        "rollouts_a_prompt": n_total,
        "long_prompt_tokens": long,
        "rows": [],
    }
    report = Report("learner", settings)
    for name in ALGORITHMS:
        algorithm = load(name, n_total=n_total)
        short = grow(session, algorithm, prompts)
        for mode in MODES:
            step(session, algorithm, short, mode)  # not counted
        longer = lengthened(session, short, long)
        cases = {"short prompts": short, "long prompts": longer}
        if name == "grpo":
            cases["one rollout of each long prompt"] = [rows[:1] for rows in longer]
        for length, groups in cases.items():
            settings["rows"].append(measure_trees(report, session, algorithm, groups, f"{name}, {length}", options))
    report.finish(options)


if __name__ == "__main__":
    main()
