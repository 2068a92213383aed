"""Whole updates of our trainer beside TRL's `GRPOTrainer` with an `environment_factory`, and trees beside no trees.

    python -m benchmarks.peers [--quick] [--repeats 5] [--threads 1] [--json PATH] [--trl-python PATH]
        [--prompts 16] [--trl-rows 32] [--trl-continuous-batching]

PATH is an interpreter that has TRL 1.16 and this project's requirements installed (or in ELPO_TRL_PYTHON); without it
the peer is left out, and the report says so.

Each contestant is a trainer in a process of its own that does one update when it is its turn and waits otherwise: our
`grpo`, our `elpo`, and TRL. All start from the shipped tiny model and roll out the same prompts of `elpo/Math-v0`
(generated four-step problems, update r of each takes the same ones), the same number of rollouts for each, at the same
temperature and with the same bounds on a turn's tokens, on the context and on turns; then comes one optimiser step
(AdamW, learning rate 1e-6, so that the work stays alike) on all of them. Prompts are the same tokens. Tools run in the
same sandbox, one session for each rollout; ours run in 8 threads, TRL's loop calls one after the other. The first
update of each is not counted.

Seconds of an update are wall time from one update's end to the next one's, all of it: resetting environments, turns,
tools, grading, advantages, forward and backward passes, optimiser, logging. Nothing is evaluated or saved.

* Ours: `Trainer.run` with the settings of the quickstart, but one mini-batch; old log-probabilities are the engine's.
* TRL: `GRPOTrainer.train`, float32, generation by `transformers` (or its continuous batching), `steps_per_generation`
  equal to `gradient_accumulation_steps`, which spares it a forward pass for the old log-probabilities; no checkpointing
  of activations (its default, slower); rows of a forward pass by `--trl-rows` (by default about our 8,192 tokens).
  Its environment has only the Python tool and no protocol, budgets or records, so it does less there than ours; the
  grader is the same. A turn that has neither a call nor an answer ends a rollout with TRL and is told so with us.

Figures:

* tool-using rollouts/s: rollouts that called a tool at least once, over the time in which an update rolls out
  (reset to grade), and over the whole update.
* trained tokens/s: agent tokens of the rows in the loss, over the whole update; what rows share counts in each.
  "with an advantage": only those whose advantage is not 0; neither side learns from others, and ours leaves them out.
* CPU time of the trainer's process: without the sandbox's processes, which do the same work on both sides.
* generated tokens (ours): each node of a tree once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

import elpo_envs
from benchmarks.measure import Contestant, Figures, Options, Ratio, Report, Role, Row, Sample, interleave, parse_options
from benchmarks.sandbox_peers import Absent, Peer, PeerSession, interpreter
from elpo_agent.config import ModelConfig
from elpo_agent.training.session import TINY_MODEL, Session
from elpo_agent.training.tasks import task_indices

gym.register_envs(elpo_envs)
ENV_ID = "elpo/Math-v0"
ENV_KWARGS = {"dataset": "generated", "split": "train", "dataset_options": {"min_steps": 4, "max_steps": 4}}
MAX_TURNS = 8
TRL = "TRL's GRPOTrainer"
FOLDER = Path(__file__).parent
CPU = "CPU time of the trainer's process"
UNITS = {
    "tool-using rollouts/s of rolling out": "rollouts/s",
    "tool-using rollouts/s of the update": "rollouts/s",
    "trained tokens/s of the update": "tokens/s",
    "trained tokens/s with an advantage": "tokens/s",
    "update": "s",
    "rolling out": "s",
    "learning": "s",
    CPU: "s",
    "rollouts": "",
    "share that used tools": "",
    "tool calls a rollout": "",
    "turns a rollout": "",
    "trained tokens a rollout": "",
    "sampled success": "",
}
RATES = tuple(UNITS)[:4]
TREE_RATIOS = (*RATES, "update", "rolling out", "learning", CPU, "trained tokens a rollout", "generated tokens")


@dataclass(frozen=True)
class Side:
    """A contestant's program.

    Attributes:
        name: in the report.
        python: its interpreter.
        program: its file.
        extra: arguments of its own.
    """

    name: str
    role: Role
    python: Path
    program: str
    extra: Mapping[str, Any]


def derived(answer: Mapping[str, Any]) -> Figures:
    """The reported figures of an update, from what a program answered."""
    seconds, rolling, rollouts = answer["seconds"], answer["rollout_seconds"], answer["rollouts"]
    figures = {
        "tool-using rollouts/s of rolling out": answer["tool_rollouts"] / rolling,
        "tool-using rollouts/s of the update": answer["tool_rollouts"] / seconds,
        "trained tokens/s of the update": answer["trained_tokens"] / seconds,
        "trained tokens/s with an advantage": answer["live_tokens"] / seconds,
        "update": seconds,
        "rolling out": rolling,
        "learning": seconds - rolling,
        CPU: answer["cpu_seconds"],
        "rollouts": rollouts,
        "share that used tools": answer["tool_rollouts"] / rollouts,
        "tool calls a rollout": answer["tool_calls"] / rollouts,
        "turns a rollout": answer["turns"] / rollouts,
        "trained tokens a rollout": answer["trained_tokens"] / rollouts,
        "sampled success": answer["successes"] / rollouts,
    }
    if "generated_tokens" in answer:
        figures["generated tokens"] = answer["generated_tokens"]
    return figures


def common_arguments(options: Options, prompts: int, n_total: int) -> dict[str, Any]:
    """What all programs are told: the settings, and for the peer the prompts with their answers."""
    updates = options.repeats + 1
    kwargs: dict[str, Any] = {**ENV_KWARGS, "max_turns": MAX_TURNS}
    session = Session.open(ModelConfig(device="cpu"))
    tasks, lengths = [], []
    first: tuple[int, ...] = ()
    with closing(gym.make(ENV_ID, disable_env_checker=True, **kwargs)) as env:
        source = env.get_wrapper_attr("task_source")
        for index in task_indices(0, updates * prompts, source.size, 0):
            _, info = env.reset(options={"index": index})
            ids = session.codec.prompt_ids(info["messages"], env.get_wrapper_attr("tools"))
            first = first or ids
            lengths.append(len(ids))
            tasks.append({"index": index, "prompt": info["messages"], "answer": source.get(index).answer})
    return {
        "model": str(TINY_MODEL),
        "threads": options.threads,
        "seed": 0,
        "updates": updates,
        "env": ENV_ID,
        "env_kwargs": kwargs,
        "prompts": prompts,
        "n_total": n_total,
        "temperature": 1.0,
        "max_new_tokens": 48,
        "max_context": 512,
        "max_turns": MAX_TURNS,
        "lr": 1e-6,
        "tasks": tasks,
        "first_prompt_ids": list(first),
        "prompt_lengths": lengths,
    }


@contextmanager
def running(sides: Sequence[Side], given: Mapping[str, Any]) -> Iterator[tuple[dict[str, PeerSession], list[Absent]]]:
    """The programs that start here, each in a scratch folder of its own, and the others.

    Raises:
        RuntimeError: a program of ours does not start.
    """
    sessions: dict[str, PeerSession] = {}
    absent: list[Absent] = []
    with ExitStack() as stack:
        for side in sides:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            path = Path(folder) / "arguments.json"
            path.write_text(json.dumps({**given, **side.extra}))
            peer = Peer(str(path), side.name, side.python, side.role)
            try:
                sessions[side.name] = stack.enter_context(closing(PeerSession(peer, folder, FOLDER / side.program)))
            except RuntimeError as error:
                if side.role == "ours":
                    raise
                absent.append(Absent(side.name, str(error)))
        yield sessions, absent


def measure(report: Report, sides: Sequence[Side], given: Mapping[str, Any], options: Options) -> list[Absent]:
    """Run all rounds and add the figures; which sides could not be measured."""
    with running(sides, given) as (sessions, absent):

        def contestant(session: PeerSession) -> Contestant:
            return lambda _: derived(session.ask({}))

        contestants = {name: contestant(session) for name, session in sessions.items()}
        result = interleave(contestants, options.repeats)
        versions = {name: session.version for name, session in sessions.items()}
    report.settings = {**report.settings, "versions": versions}
    roles = {side.name: side.role for side in sides}
    add_figures(report, result, roles)
    return absent


def add_figures(report: Report, result: Mapping[str, Mapping[str, Sample]], roles: Mapping[str, Role]) -> None:
    """Rows by contestant, and the ratios."""
    for name, figures in result.items():
        for figure, unit in UNITS.items():
            report.add(Row(figure, roles[name], unit, figures[figure], name))
        if "generated tokens" in figures:
            report.add(Row("generated tokens", roles[name], "tokens", figures["generated tokens"], name))
    grpo = result["our grpo"]
    if TRL in result:
        for figure in (*RATES, CPU, "tool calls a rollout", "turns a rollout", "trained tokens a rollout"):
            report.ratios.append(Ratio(figure, grpo[figure].over(result[TRL][figure]), f"our grpo / {TRL}"))
    for figure in TREE_RATIOS:
        report.ratios.append(Ratio(figure, result["our elpo"][figure].over(grpo[figure]), "our elpo / our grpo"))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--trl-python", type=Path)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--trl-rows", type=int, default=32)
    parser.add_argument("--trl-continuous-batching", action="store_true")
    own, rest = parser.parse_known_args(argv)
    options = parse_options(f"{(__doc__ or '').splitlines()[0]} Also: {parser.format_usage().partition(' ')[2]}", rest)
    os.environ.update({"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"})
    prompts, n_total = (2, 4) if options.quick else (own.prompts, 16)
    ours = Path(sys.executable)
    sides = [Side(f"our {name}", "ours", ours, "peers_ours.py", {"algorithm": name}) for name in ("grpo", "elpo")]
    python = interpreter(own.trl_python, "ELPO_TRL_PYTHON")
    absent = []
    if python is None:
        absent.append(Absent(TRL, "no interpreter given (--trl-python or ELPO_TRL_PYTHON)"))
    else:
        rows_at_once = min(own.trl_rows, prompts * n_total)
        extra = {"rows_at_once": rows_at_once, "continuous_batching": own.trl_continuous_batching}
        sides.append(Side(TRL, "peer", python, "peers_trl.py", extra))
    given = common_arguments(options, prompts, n_total)
    shown = {name: value for name, value in given.items() if name not in ("model", "tasks", "first_prompt_ids")}
    weights = hashlib.sha256((TINY_MODEL / "model.safetensors").read_bytes()).hexdigest()[:12]
    settings = {
        **shown,
        "weights_sha256": weights,
        **{f"{side.name}: {k}": v for side in sides for k, v in side.extra.items()},
    }
    report = Report("peers", settings)
    absent += measure(report, sides, given, options)
    report.settings = {**report.settings, "skipped": {peer.label: peer.reason for peer in absent}}
    report.finish(options)
    for peer in absent:
        print(f"left out: {peer.label}: {peer.reason}")


if __name__ == "__main__":
    main()
