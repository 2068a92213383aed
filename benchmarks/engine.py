"""Generated tokens per second of `TransformersPolicy`, beside a bare forward loop, `model.generate` and vLLM.

    python -m benchmarks.engine [--quick] [--repeats 5] [--threads 1] [--json PATH]

The tiny model plays tasks of the environment once, greedily; the turns it took are the script. Every contestant
then generates the same turns greedily, each turn from the script's prefix, all rows of a turn as one batch; rows
whose conversation is over drop out.

* ours: the engine from an empty cache, token probabilities and entropies included.
* limit: the model's forward passes alone. A fixed batch of rows of the script's mean lengths: no padding, no stop
  token, no probabilities; one pass over the new tokens of a turn, then one a token, with the model's own cache.
* peer: `model.generate` on left-padded prefixes, which it computes again every turn; it stops when every row has.
* vLLM, where it is installed (`.ci/vllm` makes an environment): `VllmPolicy`, our engine over it, from an empty cache,
  token probabilities and entropies included.

Counted: generated tokens up to and including the stop token, over the time of all turns, prefixes included.
Not counted: padding, tools, the tokenizer. Given per second on the clock and per second of CPU time: with one
thread the second is what an idle machine would show on its clock.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.measure import (
    Contestant,
    Figures,
    Options,
    Ratio,
    Report,
    Role,
    Row,
    Stopwatch,
    interleave,
    parse_options,
)
from elpo_agent.config import EngineConfig, EnvConfig, ModelConfig, RolloutConfig
from elpo_agent.engines.opening import TrainablePolicy
from elpo_agent.policy import SampleRequest
from elpo_agent.rollout.independent import IndependentSampling
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.training.session import TINY_MODEL, Session, env_factory

MAX_NEW_TOKENS = 48
LIMITS = RolloutConfig(max_new_tokens=MAX_NEW_TOKENS, max_context=1024)
OURS, LIMIT, PEER = "TransformersPolicy", "bare fixed-batch forward loop", "model.generate, every turn anew"
VLLM = "VllmPolicy"
ROLES: dict[str, Role] = {OURS: "ours", LIMIT: "limit", PEER: "peer"}


@dataclass(frozen=True)
class Turn:
    """A prefix and the tokens generated after it, the stop token included."""

    prefix: tuple[int, ...]
    ids: tuple[int, ...]


Script = list[list[Turn]]
"""Turn by turn, the rows that are still talking."""


@dataclass(frozen=True)
class MeanTurn:
    """What an average turn adds to an average row: tokens to read, then tokens to generate."""

    rows: int
    read: int
    generate: int


def write_script(session: Session, rows: int, steps: int) -> Script:
    """Greedy conversations on `rows` different tasks of `steps` steps each."""
    options = {"dataset_options": {"min_steps": steps, "max_steps": steps}}
    make_env = env_factory(EnvConfig(kwargs=options), evaluating=True)
    script: Script = []
    with session.runner(LIMITS, make_env, temperature=0.0) as runner:
        for tree, _ in runner.run(IndependentSampling(1), [TaskRef(i) for i in range(rows)], seed=0):
            for depth, index in enumerate(tree.path(tree.leaves[0])):
                node = tree.nodes[index]
                assert node.step is not None
                if depth == len(script):
                    script.append([])
                script[depth].append(Turn(tree.prefix_ids(node.parent), node.step.ids))
    return script


def mean_turns(script: Script) -> list[MeanTurn]:
    """The script with every row as long as the mean; each turn ends at a whole number of tokens."""
    out: list[MeanTurn] = []
    context = 0
    for turns in script:
        prefix = round(sum(len(turn.prefix) for turn in turns) / len(turns))
        generate = max(1, round(sum(len(turn.ids) for turn in turns) / len(turns)))
        out.append(MeanTurn(len(turns), max(1, prefix - context), generate))
        context += out[-1].read + generate - 1  # a turn's last token is read with the next one's
    return out


def figures(tokens: int, spent: Stopwatch) -> Figures:
    return {"tokens": float(tokens), "wall": spent.wall, "cpu": spent.cpu}


def run_policy(policy: TrainablePolicy, script: Script) -> tuple[Figures, list[tuple[int, ...]]]:
    policy.reset_cache()
    said: list[tuple[int, ...]] = []
    watch = Stopwatch.start()
    for turns in script:
        requests = [SampleRequest(turn.prefix, 1, 0, MAX_NEW_TOKENS, temperature=0.0) for turn in turns]
        said += [own[0].ids for own in policy.sample(requests)]
    return figures(sum(map(len, said)), watch.read()), said


def run_peer(session: Session, script: Script) -> tuple[Figures, list[tuple[int, ...]]]:
    model: Any = session.model
    stops = set(session.codec.stop_ids)
    said: list[tuple[int, ...]] = []
    watch = Stopwatch.start()
    for turns in script:
        width = max(len(turn.prefix) for turn in turns)
        padding = [width - len(turn.prefix) for turn in turns]
        ids = torch.tensor([[session.pad_id] * n + list(t.prefix) for n, t in zip(padding, turns, strict=True)])
        mask = torch.tensor([[0] * n + [1] * (width - n) for n in padding])
        out = model.generate(
            input_ids=ids.to(session.device),
            attention_mask=mask.to(session.device),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=sorted(stops),
            pad_token_id=session.pad_id,
        )
        for row in out[:, width:].tolist():
            end = next((i + 1 for i, token in enumerate(row) if token in stops), len(row))
            said.append(tuple(row[:end]))
    return figures(sum(map(len, said)), watch.read()), said


def run_limit(session: Session, turns: Sequence[MeanTurn]) -> Figures:
    """Feeds arbitrary tokens: a forward pass takes the same time whatever they are."""
    model: Any = session.model
    cache = DynamicCache(config=model.config)
    tokens = 0
    watch = Stopwatch.start()
    with torch.inference_mode():
        rows = turns[0].rows
        for turn in turns:
            if turn.rows < rows:
                rows = turn.rows
                cache.batch_select_indices(torch.arange(rows, device=session.device))
            new = torch.full((rows, turn.read), 65, device=session.device)
            for _ in range(turn.generate):
                logits = model(input_ids=new, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
                new = logits[:, -1].argmax(-1, keepdim=True)
            tokens += rows * turn.generate
        if session.device.type == "cuda":
            torch.cuda.synchronize()
    return figures(tokens, watch.read())


def agreement(session: Session, script: Script) -> float:
    """Share of turns in which the peer says what the engine says, token by token (rounding breaks ties)."""
    ours, peer = run_policy(session.policy, script)[1], run_peer(session, script)[1]
    return sum(a == b for a, b in zip(ours, peer, strict=True)) / len(ours)


def measure_rows(
    report: Report, session: Session, vllm: TrainablePolicy | None, rows: int, steps: int, options: Options
) -> dict[str, Any]:
    """Add the figures for `rows` conversations at a time; returns what the script was."""
    # A single conversation is short: play several, one after another.
    singles = 2 if options.quick else 4
    scripts = _singles(session, steps, singles) if rows == 1 else [write_script(session, rows, steps)]
    means = [mean_turns(script) for script in scripts]
    contestants: dict[str, Contestant] = {
        OURS: lambda _: _added([run_policy(session.policy, script)[0] for script in scripts]),
        LIMIT: lambda _: _added([run_limit(session, mean) for mean in means]),
        PEER: lambda _: _added([run_peer(session, script)[0] for script in scripts]),
    }
    roles = dict(ROLES)
    if vllm is not None:
        contestants[VLLM] = lambda _: _added([run_policy(vllm, script)[0] for script in scripts])
        roles[VLLM] = "peer"
    group = f"{rows} row{'s' if rows > 1 else ''}"
    result = interleave(contestants, options.repeats)
    for clock in ("wall", "cpu"):
        unit = f"tokens/s {clock}"
        rates = {name: result[name]["tokens"].over(result[name][clock]) for name in roles}
        for name, role in roles.items():
            report.add(Row(name, role, unit, rates[name], group))
        report.ratios.append(Ratio(f"ours / bare loop, {unit}", rates[OURS].over(rates[LIMIT]), group))
        report.ratios.append(Ratio(f"ours / model.generate, {unit}", rates[OURS].over(rates[PEER]), group))
        if vllm is not None:
            report.ratios.append(Ratio(f"ours / vLLM, {unit}", rates[OURS].over(rates[VLLM]), group))
    turns = [turn for script in scripts for row in script for turn in row]
    return {
        "rows": rows,
        "conversations": sum(len(script[0]) for script in scripts),
        "turns": len(turns),
        "generated_tokens": {name: result[name]["tokens"].median for name in roles},
        "mean_prefix_tokens": sum(len(turn.prefix) for turn in turns) / len(turns),
        "mean_turn_tokens": sum(len(turn.ids) for turn in turns) / len(turns),
        "turns_equal_ours_and_generate": sum(agreement(session, s) for s in scripts) / len(scripts),
    }


def _singles(session: Session, steps: int, conversations: int) -> list[Script]:
    """Scripts of one row each."""
    together = write_script(session, conversations, steps)
    scripts: list[Script] = []
    for prompt in (turn.prefix for turn in together[0]):
        own = [turn for turns in together for turn in turns if turn.prefix[: len(prompt)] == prompt]
        scripts.append([[turn] for turn in own])
    return scripts


def _added(parts: Sequence[Figures]) -> Figures:
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def _vllm(session: Session) -> TrainablePolicy | None:
    """vLLM over the same model, where it is installed."""
    if importlib.util.find_spec("vllm") is None:
        return None
    return replace(session, engine=EngineConfig("vllm", {"kv_cache_bytes": 1 << 28})).copy().policy


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options("Generated tokens per second of the in-process engine.", argv)
    torch.set_num_threads(options.threads)
    session = Session.open(ModelConfig())
    vllm = _vllm(session)
    steps, batches = (2, (1, 4)) if options.quick else (4, (1, 16, 32, 64, 128))
    settings: dict[str, Any] = {
        "threads": options.threads,
        "device": session.device.type,
        "dtype": "float32",
        "parameters": sum(p.numel() for p in session.model.parameters()),
        "weights_sha256": hashlib.sha256((Path(TINY_MODEL) / "model.safetensors").read_bytes()).hexdigest()[:12],
        "max_new_tokens": MAX_NEW_TOKENS,
        "task_steps": steps,
        "scripts": [],
    }
    report = Report("engine", settings)
    for rows in batches:
        settings["scripts"].append(measure_rows(report, session, vllm, rows, steps, options))
    report.finish(options)


if __name__ == "__main__":
    main()
