"""`elpo sft`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from elpo_agent.cli.display import TerminalDisplay
from elpo_agent.cli.failures import EXPECTED
from elpo_agent.cli.settings import parse
from elpo_agent.config import EnvConfig, ModelConfig
from elpo_agent.learner.sft import SftConfig, SftProgress, train_sft
from elpo_agent.training.demonstrations import expert_rows
from elpo_agent.training.session import Session, env_factory, task_count
from elpo_agent.training.tasks import update_indices

_DESCRIPTION = """Fine-tune a model on the expert traces of an environment's training tasks, played in the environment
so that tool results are real. Only the agent's own tokens are trained on. Writes a model folder."""


@dataclass(frozen=True)
class SftRunConfig:
    """A supervised run.

    Attributes:
        output: folder for the resulting model and tokenizer; must not exist yet.
        tasks: how many training tasks' expert traces to use.
        max_context: longer traces are left out, in tokens.
        reasoning: keep the free text before tool calls.
        seed: which tasks of an endless source, and their order.
        model: where to start from.
        env: the environment whose experts are imitated.
        optimization: how.
    """

    output: str = "runs/sft"
    tasks: int = 2000
    max_context: int = 4096
    reasoning: bool = True
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    optimization: SftConfig = field(default_factory=SftConfig)


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    config, _ = parse(SftRunConfig, argv, program="elpo sft", description=_DESCRIPTION, flags={}, default_preset=None)
    console = Console()
    output = Path(config.output)
    try:
        if output.exists():
            raise ValueError(f"output={output} exists already; choose another folder")
        with TerminalDisplay(console) as display:
            _train(config, output, display)
    except EXPECTED as error:
        print(f"elpo sft: {error}", file=sys.stderr)
        return 1
    console.print(f"model folder: {output}", highlight=False, soft_wrap=True)
    return 0


def _train(config: SftRunConfig, output: Path, display: TerminalDisplay) -> None:
    make_env = env_factory(config.env, evaluating=False)
    size = task_count(make_env)
    session = Session.open(config.model)
    count = config.tasks if size is None else min(config.tasks, size)
    display.note(f"playing {count} expert traces")
    env = make_env()
    indices = update_indices(0, count, size, config.seed)
    rows = expert_rows(env, session.codec, indices, config.max_context, reasoning=config.reasoning)
    env.close()
    if not rows:
        raise ValueError(
            f"tasks={config.tasks}: none of these tasks has an expert trace of at most max_context="
            f"{config.max_context} tokens; use other data"
        )

    def show(progress: SftProgress) -> None:
        if progress.update == 1:
            display.phase("SFT", progress.total)
        display.advance(progress.update, {"loss": progress.loss})

    train_sft(session.model, rows, config.optimization, pad_id=session.pad_id, on_update=show)
    session.save(output)
