"""Every algorithm by name trains the shipped model in every domain, within its budget, and says what it used."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _command_line import NO_EVAL, command_line
from _runs import EASY, metrics, micro, records, summary

from elpo_agent.algorithms import load, names
from elpo_agent.config import AlgorithmConfig, EnvConfig, LearnerConfig, RolloutConfig, TrainConfig
from elpo_agent.rollout.serialization import tree_from_json
from elpo_agent.runs.saved_config import write_config

UPDATES, PROMPTS, N_TOTAL = 2, 2, 4

# Questions of the other domains are longer, for a tokenizer that knows word problems; the model fails at them.
DOMAINS: dict[str, tuple[EnvConfig, RolloutConfig]] = {
    "Math": (
        EnvConfig("elpo/Math-v0", EASY),
        RolloutConfig(prompts=PROMPTS, max_new_tokens=40, max_context=400, temperature=1.3, tool_threads=2),
    ),
    "ScienceQA": (
        EnvConfig("elpo/ScienceQA-v0", {"max_turns": 3}),
        RolloutConfig(prompts=PROMPTS, max_new_tokens=24, max_context=800, temperature=1.3, tool_threads=2),
    ),
    "CodeExec": (
        EnvConfig("elpo/CodeExec-v0", {"max_turns": 3}),
        RolloutConfig(prompts=PROMPTS, max_new_tokens=24, max_context=1200, temperature=1.3, tool_threads=2),
    ),
}
# Beside n_total: what must be smaller for so small a group.
OPTIONS: dict[str, dict[str, Any]] = {
    "arpo": {"initial": 2},
    "tree_grpo": {"chains": 2, "expansions": 1},
    "elpo_plus": {"fresh": 2, "most_fresh": 4},
}
QUICK = {("elpo_plus", "Math"), ("reinforce_pp", "ScienceQA"), ("arpo", "CodeExec")}


def configured(name: str, domain: str, output: Path) -> TrainConfig:
    env, rollout = DOMAINS[domain]
    return replace(
        micro(output),
        seed=2,  # whose first problems are both solved and failed
        updates=UPDATES,
        checkpoint_every=UPDATES,
        algorithm=AlgorithmConfig(options={"n_total": N_TOTAL, **OPTIONS.get(name, {})}),
        env=env,
        rollout=rollout,
        learner=LearnerConfig(lr=1e-3, mini_batches=2),
        eval=NO_EVAL,
    )


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        pytest.param(name, domain, marks=() if (name, domain) in QUICK else pytest.mark.slow)
        for name in names()
        for domain in DOMAINS
    ],
)
def test_it_trains_and_prints_its_budget(
    name: str, domain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    config = configured(name, domain, folder)
    write_config(tmp_path / "run.yaml", config)
    assert command_line("train", "--config", str(tmp_path / "run.yaml"), "--algorithm", name) == 0
    printed = capsys.readouterr().out
    algorithm = load(name, **config.algorithm.options)
    updates = metrics(folder)
    assert len(updates) == UPDATES
    for record in updates:
        assert all(math.isfinite(value) for value in record.values() if isinstance(value, float))
        trees = [
            tree_from_json(line)[0] for line in records(folder / "trees.jsonl") if line["update"] == record["update"]
        ]
        assert record["rollouts"] == sum(len(tree.leaves) for tree in trees)
        rounds = 1 + algorithm.selection.refill_rounds
        assert 0 < record["rollouts"] <= N_TOTAL * PROMPTS * rounds
        assert all(len(tree.leaves) <= algorithm.strategy.n_total for tree in trees)
        assert record["invalid"] == 0
    if domain == "Math":
        assert any(record["grad_norm"] > 0 for record in updates), "there was something to learn from"
    spent = summary(folder)["spent"]
    assert f"budget used by {algorithm.name}" in printed
    for label, key in (
        ("prompts used", "prompts"),
        ("rollouts completed", "rollouts"),
        ("rollouts discarded", "discarded"),
        ("rollouts handed on", "handed_on"),
        ("tokens generated", "generated_tokens"),
        ("tool calls in training", "tool_calls"),
    ):
        assert spent[key] == sum(record[key] for record in updates)
        assert re.search(rf"{label}\W+{spent[key]:,}\W", printed), label
    assert re.search(r"seconds of rollouts\W+[\d.]+", printed)


def test_names_are_short_for_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["--algorithm", "grop"], ["--algorithm=grop"], ["--algorithm", "{name: grop}"]):
        assert command_line("train", "--output", str(tmp_path / "run"), *given) == 1
        assert "algorithm 'grop' is unknown; known are elpo, grpo" in capsys.readouterr().err
