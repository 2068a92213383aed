"""Make the tiny model from nothing: `python -m elpo_agent.tiny.build --output DIR`.

About half an hour on one CPU core with the defaults; a GPU is used where there is one. The folder it writes is what the
package ships.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from elpo_agent.chat import ChatCodec
from elpo_agent.cli.display import TerminalDisplay
from elpo_agent.cli.settings import parse
from elpo_agent.config import EnvConfig, RolloutConfig
from elpo_agent.engines.transformers_engine import TransformersPolicy
from elpo_agent.evaluation.evaluate import evaluate
from elpo_agent.evaluation.scores import summarize
from elpo_agent.learner.sft import SftConfig, SftProgress, train_sft
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.tiny.architecture import new_model
from elpo_agent.tiny.tokenizer import train_tokenizer
from elpo_agent.tiny.traces import student_rows, student_texts
from elpo_agent.training.session import Session, env_factory
from elpo_envs.tasks.generated import MistakeRates

_DESCRIPTION = "Build the tiny model: tokenizer, random weights, SFT on student traces, figures."


@dataclass(frozen=True)
class BuildConfig:
    """How the tiny model is made.

    Attributes:
        output: folder to write; must not exist yet.
        traces: student conversations to learn from.
        min_steps, max_steps: dependent steps per problem.
        layers, width: the model's shape.
        vocab_size: upper bound on the tokenizer's size.
        threads: CPU threads; 0 = torch's own choice.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        optimization: the training.
    """

    output: str = "runs/tiny"
    traces: int = 36_000
    min_steps: int = 2
    max_steps: int = 5
    layers: int = 4
    width: int = 128
    vocab_size: int = 1024
    threads: int = 0
    device: str = "auto"
    optimization: SftConfig = field(default_factory=lambda: SftConfig(lr=3e-3, optimizer="muon", batch_tokens=4096))


def build(config: BuildConfig, display: TerminalDisplay) -> dict[str, object]:
    """Make the model folder; returns the figures that are saved as metrics.json beside the weights."""
    if config.threads:
        torch.set_num_threads(config.threads)
    rates = MistakeRates()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    display.note("training the tokenizer")
    tokenizer = train_tokenizer(student_texts(1500, rates, seed=1), config.vocab_size)
    model = new_model(tokenizer, layers=config.layers, width=config.width).to(device)
    codec = ChatCodec(tokenizer)
    display.phase("playing student traces", config.traces)
    rows = []
    for row in student_rows(codec, config.traces, rates, 5, config.min_steps, config.max_steps):
        rows.append(row)
        display.advance(len(rows), {})

    def show(progress: SftProgress) -> None:
        if progress.update == 1:
            display.phase("SFT", progress.total)
        display.advance(progress.update, {"loss": progress.loss})

    train_sft(model, rows, config.optimization, pad_id=tokenizer.pad_token_id, on_update=show)
    output = Path(config.output)
    partial = output.with_name(f".{output.name}.partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    policy = TransformersPolicy(model, stop_ids=codec.stop_ids, pad_id=tokenizer.pad_token_id)
    metrics = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_trained": sum(len(r.ids) for r in rows),
        "mistakes": asdict(rates),
        "build": {k: v for k, v in asdict(config).items() if k not in ("output", "threads", "device")},
        "held_out": held_out_figures(Session(model, tokenizer, codec, policy), display),
    }
    (partial / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    partial.rename(output)
    return metrics


def held_out_figures(session: Session, display: TerminalDisplay, tasks: int = 200) -> dict[str, dict[str, float]]:
    """pass@1 on test problems of 2 to 6 steps, sampled at temperature 1 and greedy."""
    out: dict[str, dict[str, float]] = {}
    limits = RolloutConfig(max_new_tokens=48, max_context=1024)
    for steps in range(2, 7):
        options = {"min_steps": steps, "max_steps": steps}
        make_env = env_factory(EnvConfig(kwargs={"dataset_options": options}), evaluating=True)
        scores = {}
        for name, temperature in (("sampled", 1.0), ("greedy", 0.0)):
            with session.runner(limits, make_env, temperature) as runner:
                attempts = evaluate(runner, [TaskRef(i) for i in range(tasks)], samples=1, seed=0, batch=128)
            scores[name] = summarize(attempts).get("pass@1", 0.0)
        display.note(f"{steps} steps: {scores}")
        out[f"{steps} steps"] = scores
    return out


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    config, _ = parse(
        BuildConfig,
        argv,
        program="python -m elpo_agent.tiny.build",
        description=_DESCRIPTION,
        flags={},
        default_preset=None,
    )
    if Path(config.output).exists():
        print(f"output={config.output} exists already; choose another folder", file=sys.stderr)
        return 1
    with TerminalDisplay(Console()) as display:
        build(config, display)
    print(f"model folder: {config.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
