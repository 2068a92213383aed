"""`elpo eval`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from elpo_agent.cli.display import TerminalDisplay
from elpo_agent.cli.failures import EXPECTED
from elpo_agent.cli.settings import parse
from elpo_agent.evaluation.evaluate import evaluate, tree_attempts
from elpo_agent.evaluation.expert_replay import replay_expert
from elpo_agent.evaluation.scores import Attempt, summarize
from elpo_agent.evaluation.transcripts import Transcripts
from elpo_agent.rollout.base import SearchResult
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.training.checkpoint import naming_full_disk
from elpo_agent.training.config import EnvConfig, ModelConfig, RolloutConfig
from elpo_agent.training.session import Session, env_factory, task_count
from elpo_agent.tree import RolloutTree

_DESCRIPTION = """Score a policy on an environment or a data file: pass@k, major@k, tool calls and errors, with every
attempt as a line of JSON. `--model.path expert-replay` runs the data's own expert calls instead of a model."""


@dataclass(frozen=True)
class EvalRunConfig:
    """An evaluation.

    Attributes:
        model: the policy; its path may also be "expert-replay".
        env: the environment; `eval_kwargs` are applied on top of `kwargs`.
        data: a JSONL(.gz) or Parquet file to use as data set (sets env.kwargs.dataset).
        tasks: how many tasks from the start of the split; 0 = all of a finite data set.
        samples: attempts per task; pass@k and major@k are given for k = 1, 2, 4, ... up to it.
        temperature: sampling temperature; 0 = greedy.
        seed: fixes every sample.
        batch: rollouts that run side by side.
        rollout: limits on turns and context (its `prompts` and `temperature` are not used here).
        output: JSONL file for the attempts; "" writes none.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    data: str = ""
    tasks: int = 200
    samples: int = 1
    temperature: float = 1.0
    seed: int = 0
    batch: int = 128
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    output: str = ""

    def __post_init__(self) -> None:
        if self.tasks < 0 or self.samples < 1 or self.batch < 1:
            raise ValueError("tasks must be 0 or larger, samples and batch at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} must be 0 (greedy) or larger")


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    config, _ = parse(EvalRunConfig, argv, program="elpo eval", description=_DESCRIPTION, flags={}, default_preset=None)
    console = Console()
    try:
        with TerminalDisplay(console) as display, _trace_file(config.output) as write:
            attempts = _attempts(config, display, write)
    except EXPECTED as error:
        print(f"elpo eval: {error}", file=sys.stderr)
        return 1
    scores = summarize(attempts)
    console.print(_table(config, scores))
    if config.output:
        console.print(f"attempts: {config.output}", highlight=False, soft_wrap=True)
    return 0


def _attempts(
    config: EvalRunConfig, display: TerminalDisplay, write: Callable[[dict[str, Any]], None]
) -> list[Attempt]:
    env_config = config.env
    if config.data:
        env_config = replace(env_config, kwargs={**env_config.kwargs, "dataset": config.data})
    make_env = env_factory(env_config, evaluating=True)
    tasks = _indices(task_count(make_env), config.tasks)
    display.phase("evaluating", len(tasks))
    if config.model.path == "expert-replay":
        done = 0

        def played(attempt: Attempt, info: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            display.advance(done, {})
            write({**asdict(attempt), "messages": list(info["messages"])})

        env = make_env()
        try:
            return replay_expert(env, tasks, played)
        finally:
            env.close()
    session = Session.open(config.model)
    transcripts = Transcripts(make_env)

    def sampled(tree: RolloutTree, result: SearchResult) -> None:
        for attempt, messages in zip(tree_attempts(tree), transcripts.take(tree), strict=True):
            write({**asdict(attempt), "messages": messages})

    with session.runner(config.rollout, transcripts.make_env, config.temperature) as runner:
        return evaluate(
            runner,
            [TaskRef(i) for i in tasks],
            samples=config.samples,
            seed=config.seed,
            batch=config.batch,
            on_tree=sampled,
            on_progress=lambda finished: display.advance(finished, {}),
        )


def _indices(size: int | None, wanted: int) -> range:
    if size is None:
        if wanted == 0:
            raise ValueError("tasks=0 means all tasks, but this data set is endless; give --tasks N")
        return range(wanted)
    return range(size if wanted == 0 else min(size, wanted))


@contextmanager
def _trace_file(path: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A writer of JSON lines; the file gets its name only when all of it is there."""
    if not path:
        yield lambda record: None
        return
    final = Path(path)
    if final.is_dir():
        raise ValueError(f"output={path} is a folder; give the name of a file")
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.partial")
    try:
        with naming_full_disk(final), partial.open("w") as file:
            yield lambda record: print(json.dumps(record), file=file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


def _table(config: EvalRunConfig, scores: dict[str, float]) -> Table:
    table = Table(title=f"{config.model.path} on {config.data or config.env.id}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in scores.items():
        text = f"{value:.1%}" if "@" in name or name == "truncated" else f"{value:,.2f}".rstrip("0").rstrip(".")
        table.add_row(name.replace("_", " "), text)
    return table
