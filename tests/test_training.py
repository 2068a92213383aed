"""Training runs from end to end: what they write, and that it is true."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _runs import EASY, WORKED, Silent, assert_same_run, metrics, micro, records, summary, train, write_rows
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from elpo_agent.config import (
    AlgorithmConfig,
    ColdStartConfig,
    EnvConfig,
    EvalConfig,
    LearnerConfig,
    ModelConfig,
    RolloutConfig,
    TrainConfig,
)
from elpo_agent.evaluation.evaluate import evaluate
from elpo_agent.evaluation.scores import summarize
from elpo_agent.learner.sft import SftConfig
from elpo_agent.rollout.base import Localization, SearchResult
from elpo_agent.rollout.runner import TaskRef, tree_metrics
from elpo_agent.rollout.serialization import tree_from_json
from elpo_agent.training.figures import rollout_figures
from elpo_agent.training.session import TINY_MODEL, Session, env_factory
from elpo_agent.training.trainer import Trainer, output_folder
from elpo_agent.tree import Outcome, RolloutTree, Step

NO_EVAL = EvalConfig(tasks=0)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, dict[str, Any]]:
    """A finished run of GRPO, and what it returned."""
    config = micro(tmp_path_factory.mktemp("run") / "run", algorithm=AlgorithmConfig("grpo", {"n_total": 6}))
    return config, train(config)


def test_the_model_it_writes_scores_what_it_says(run: tuple[TrainConfig, dict[str, Any]]) -> None:
    config, returned = run
    folder = Path(config.output)
    assert not same(weights(folder / "model"), weights(TINY_MODEL))
    session = Session.open(ModelConfig(path=str(folder / "model")))
    make_env = env_factory(config.env, evaluating=True)
    with session.runner(config.rollout, make_env, config.eval.temperature) as runner:
        attempts = evaluate(runner, [TaskRef(i) for i in range(3)], samples=1, seed=config.seed + 10_000, batch=128)
    assert summarize(attempts) == returned["after"]["sampled"]
    assert {a.task_id.split("/")[1] for a in attempts} == {"test"}


def test_the_summary_adds_up_what_the_logs_say(run: tuple[TrainConfig, dict[str, Any]]) -> None:
    config, returned = run
    folder = Path(config.output)
    lines = metrics(folder)
    updates = [r for r in lines if r["kind"] == "train"]
    spent = summary(folder)["spent"]
    assert spent["update"] == len(updates) == 4
    for name in ("rollouts", "generated_tokens", "tool_calls", "tool_errors", "localized"):
        assert spent[name] == sum(r[name] for r in updates)
    scores = {r["when"]: r for r in lines if r["kind"] == "eval_sampled"}
    assert list(scores) == ["before", "update 3", "after"]
    for when, record in scores.items():
        assert {k: record[k] for k in returned[when]["sampled"]} == returned[when]["sampled"]
    assert [r["lr"] for r in updates] == pytest.approx([1e-3, 7e-4, 4e-4, 1e-4])
    assert all(r["mismatch_max"] < 1e-4 for r in updates if r["grad_norm"] > 0), "engine and learner agree"


def test_the_trees_are_those_that_were_trained_on(run: tuple[TrainConfig, dict[str, Any]]) -> None:
    folder = Path(run[0].output)
    lines = records(folder / "trees.jsonl")
    for record in (r for r in metrics(folder) if r["kind"] == "train"):
        trees = [tree_from_json(line)[0] for line in lines if line["update"] == record["update"]]
        assert len(trees) == 2 == len({tree.task_id for tree in trees})
        totals = [tree_metrics(tree) for tree in trees]
        for name in ("rollouts", "generated_tokens", "tool_calls", "tool_errors"):
            assert record[name] == sum(getattr(t, name) for t in totals)
        outcomes = [tree.outcome(leaf) for tree in trees for leaf in tree.leaves]
        assert record["success"] == pytest.approx(np.mean([o.success for o in outcomes]))


def test_tensorboard_has_the_same_figures(run: tuple[TrainConfig, dict[str, Any]]) -> None:
    folder = Path(run[0].output)
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    logged = [(r["update"], r["success"]) for r in metrics(folder) if r["kind"] == "train"]
    assert [(s.step, pytest.approx(s.value)) for s in board.Scalars("train/success")] == logged
    assert [s.step for s in board.Scalars("eval_sampled/pass@1")] == [0, 3, 4]


def test_seeds_and_algorithms_make_different_runs(run: tuple[TrainConfig, dict[str, Any]], tmp_path: Path) -> None:
    config = replace(run[0], output=str(tmp_path / "run"), seed=1, updates=1, eval=NO_EVAL)
    train(config)
    own = [line["task_id"] for line in records(tmp_path / "run" / "trees.jsonl")]
    assert not set(own) & {line["task_id"] for line in records(Path(run[0].output) / "trees.jsonl")}


def test_no_updates(tmp_path: Path) -> None:
    out = train(micro(tmp_path / "run", updates=0))
    assert out["before"] == out["after"]
    assert out["spent"]["update"] == out["spent"]["rollouts"] == 0
    assert same(weights(tmp_path / "run" / "model"), weights(TINY_MODEL))
    assert [r["kind"] for r in metrics(tmp_path / "run")] == ["eval_sampled"] * 2


def test_no_evaluation(tmp_path: Path) -> None:
    out = train(micro(tmp_path / "run", updates=1, eval=EvalConfig(tasks=0, every=1)))
    assert "before" not in out and "after" not in out
    assert [r["kind"] for r in metrics(tmp_path / "run")] == ["train"]


def test_output_folders() -> None:
    assert output_folder(TrainConfig(seed=3, algorithm=AlgorithmConfig("grpo"))) == Path("runs/grpo-seed3")
    assert output_folder(TrainConfig(output="here")) == Path("here")


def test_a_cold_start_comes_first_and_can_be_repeated(tmp_path: Path) -> None:
    cold = ColdStartConfig(tasks=8, optimization=SftConfig(lr=1e-3, batch_tokens=1024))
    display = Silent()
    config = micro(tmp_path / "a", updates=1, cold_start=cold, eval=EvalConfig(tasks=2, greedy=False))
    Trainer(config, display).run()
    assert display.phases[:3] == ["playing expert traces", "cold start (SFT)", "evaluating before (sampled)"]
    assert "cold start: 8 expert traces from 8 tasks" in display.notes
    first = torch.load(tmp_path / "a" / "checkpoints" / "update_000000" / "model.pt")
    assert not same({k: v for k, v in first.items() if k in weights(TINY_MODEL)}, weights(TINY_MODEL))
    train(replace(config, output=str(tmp_path / "b")))
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_worked_solutions_in_the_gsm8k_format(tmp_path: Path) -> None:
    """The path of real data: expert traces from annotations, cold start on them, then ELPO."""
    data = write_rows(tmp_path / "worked.jsonl", WORKED)
    display = Silent()
    config = micro(
        tmp_path / "run",
        updates=2,
        env=EnvConfig(kwargs={"dataset": str(data), "max_turns": 6}),
        cold_start=ColdStartConfig(tasks=5, optimization=SftConfig(lr=1e-4)),
        eval=EvalConfig(tasks=100, greedy=False),
    )
    out = Trainer(config, display).run()
    assert "cold start: 5 expert traces from 5 tasks" in display.notes
    assert out["before"]["sampled"]["tasks"] == out["after"]["sampled"]["tasks"] == 5, "as many as there are"
    asked = [line["task_id"] for line in records(tmp_path / "run" / "trees.jsonl")]
    assert len(set(asked)) == 4 and all(a.startswith("worked/train/") for a in asked)


def step(tokens: int, calls: int = 0, errors: int = 0) -> Step:
    values = np.full(tokens, 0.5, dtype=np.float32)
    return Step(tuple(range(tokens)), -values, values, tool_calls=calls, tool_errors=errors)


def test_figures_of_one_update() -> None:
    tree = RolloutTree("a", (1, 2))
    top = tree.add(0, step(4, calls=2, errors=1))
    tree.add(top, step(2), outcome=Outcome(0.0, False, truncated=True))
    tree.add(top, step(2), outcome=Outcome(1.0, True))  # a suffix: it joins the first rollout's step
    tree.add(0, step(3), outcome=Outcome(1.0, True))
    tree.add(0, step(1), outcome=Outcome(0.0, False, valid=False))
    found = SearchResult((Localization(2, 1, 1, top), Localization(2, 1, 1, top, closed=False)))
    out = rollout_figures([(tree, found), (RolloutTree("too long", (1,)), SearchResult())])
    assert out == {
        "skipped": 1,
        "rollouts": 4,
        "invalid": 1,
        "success": pytest.approx(2 / 3),
        "success_fresh": pytest.approx(1 / 2),
        "truncated": pytest.approx(1 / 3),
        "turns": pytest.approx(5 / 3),
        "generated_tokens": 12,
        "tool_calls": 2,
        "tool_errors": 1,
        "entropy": pytest.approx(0.5),
        "localized": 1,
        "mixed_groups": 0.5,
    }


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["elpo", "grpo"])
def test_a_short_run_improves_the_model(algorithm: str, tmp_path: Path) -> None:
    config = TrainConfig(
        output=str(tmp_path / "run"),
        updates=10,
        threads=1,
        env=EnvConfig(kwargs=EASY),
        algorithm=AlgorithmConfig(algorithm, {"n_total": 16}),
        rollout=RolloutConfig(prompts=8, max_new_tokens=48, max_context=512),
        learner=LearnerConfig(lr=1e-3, schedule="linear", mini_batches=2),
        eval=EvalConfig(tasks=200, greedy=False),
    )
    out = train(config)
    before, after = (out[when]["sampled"]["pass@1"] for when in ("before", "after"))
    print(json.dumps({"algorithm": algorithm, "before": before, "after": after, **asdict(config.learner)}))
    assert after >= before + 0.1
