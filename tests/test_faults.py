"""What breaks during a run has a defined outcome: one clear sentence, and nothing lost that was saved."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from _command_line import NO_EVAL, command_line, said
from _runs import EASY, WORKED, Silent, metrics, micro, records, train, write_rows
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from elpo_agent.config import EnvConfig, EvalConfig, ModelConfig, RolloutConfig
from elpo_agent.learner.learner import NonFiniteLossError
from elpo_agent.objective import clipping
from elpo_agent.policy import EntropyKind, SampledTurn, SampleRequest
from elpo_agent.runs.checkpoint import list_checkpoints
from elpo_agent.runs.saved_config import write_config
from elpo_agent.tiny.architecture import new_model
from elpo_agent.training.session import TINY_MODEL, Session
from elpo_agent.training.trainer import Trainer
from elpo_agent.tree import RolloutTree
from elpo_envs.math_env import MathEnv
from elpo_envs.sandbox import SandboxError

# --- Models ---------------------------------------------------------------------------------------------------------


def test_a_model_that_emits_garbage(tmp_path: Path) -> None:
    """Nothing to learn from, so nothing is learnt: no weight moves in a single bit."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_MODEL)
    new_model(tokenizer, layers=1, width=64).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    path = str(tmp_path / "model")
    train(micro(tmp_path / "run", updates=2, model=ModelConfig(path=path), eval=NO_EVAL))
    lines = metrics(tmp_path / "run")
    assert [(r["rollouts"], r["success"], r["loss"], r["grad_norm"]) for r in lines] == [(8, 0.0, 0.0, 0.0)] * 2
    before, after = (load_file(tmp_path / f / "model.safetensors") for f in ("model", "run/model"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("temperature", ["1", "0"])
def test_weights_that_are_not_numbers(temperature: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = shutil.copytree(TINY_MODEL, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    next(t for name, t in weights.items() if "mlp" in name)[0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert command_line("eval", "--model.path", str(broken), "--tasks", "2", "--temperature", temperature) == 1
    assert said(capsys) == (
        "elpo eval: the model's logits are NaN or infinite, so no token can be drawn; check its weights\n"
    )


def test_a_loss_that_is_not_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = clipping._weighted_loss, 0

    def breaks_down(*args: Any) -> tuple[Tensor, dict[str, float]]:
        nonlocal calls
        calls += 1
        loss, stats = real(*args)
        return (
            loss * float("nan") if list_checkpoints(folder / "checkpoints")[-1].name > "update_000001" else loss
        ), stats

    folder, file = tmp_path / "run", tmp_path / "micro.yaml"
    write_config(file, micro(folder, eval=NO_EVAL))
    monkeypatch.setattr(clipping, "_weighted_loss", breaks_down)
    assert command_line("train", "--config", str(file)) == 1
    assert calls
    assert re.search(r"loss=nan, .*this step was not taken; the last checkpoint is from before", said(capsys))
    kept = list_checkpoints(folder / "checkpoints")[-1]
    assert kept.name == "update_000002"
    assert all(torch.isfinite(t).all() for t in torch.load(kept / "model.pt").values())


def test_a_learning_rate_that_destroys_the_weights(tmp_path: Path) -> None:
    config = micro(tmp_path / "run", eval=NO_EVAL)
    with pytest.raises(NonFiniteLossError, match=r"start a new run with a smaller learner\.lr"):
        train(replace(config, learner=replace(config.learner, lr=1e30)))
    for kept in list_checkpoints(tmp_path / "run" / "checkpoints"):
        assert all(torch.isfinite(t).all() for t in torch.load(kept / "model.pt").values())


class Scripted:
    """A policy that says what `say(first turn?, sample)` tells it to."""

    entropy_kind: EntropyKind = "full"

    def __init__(self, session: Session, say: Callable[[bool, int], str]) -> None:
        self._codec, self._say = session.codec, say
        self._prompts: set[tuple[int, ...]] = set()

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        return [[self._turn(r, j) for j in range(r.n)] for r in requests]

    def _turn(self, request: SampleRequest, j: int) -> SampledTurn:
        ids = self._codec.turn_ids(self._say(b"tool_response" not in self._text(request), j))
        values = np.full(len(ids), 0.1, dtype=np.float32)
        return SampledTurn(ids, -values, values, "stop")

    def _text(self, request: SampleRequest) -> bytes:
        return self._codec.turn_text(request.prefix_ids).encode()

    def weights_updated(self) -> None:
        pass


def call(code: str) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'python', 'arguments': {'code': code}})}\n</tool_call>"


def test_a_tool_that_hangs_costs_its_time_out_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rollout in four hangs, for 1 s each: eight prompts' worth in turn would take 8 s."""
    session = Session.open(ModelConfig())
    session.policy = Scripted(  # type: ignore[assignment]
        session, lambda first, j: "\\boxed{1}" if not first else call("while True: pass" if j == 0 else "1 + 1")
    )
    monkeypatch.setattr(Session, "open", lambda *_: session)
    config = micro(
        tmp_path / "run",
        updates=1,
        env=EnvConfig(kwargs={**EASY, "tool_timeout_s": 1.0}),
        rollout=RolloutConfig(prompts=8, max_new_tokens=60, max_context=600),
        eval=NO_EVAL,
    )
    config = replace(config, algorithm=replace(config.algorithm, name="grpo"))
    train(config)
    (line,) = records(tmp_path / "run" / "metrics.jsonl")
    assert (line["rollouts"], line["tool_calls"], line["tool_errors"]) == (32, 32, 8)
    assert (line["invalid"], line["truncated"], line["turns"]) == (0, 0.0, 2.0)
    assert line["seconds_rollout"] < 7.0


# --- Prompts and environments ---------------------------------------------------------------------------------------


class EndsBadly(MathEnv):
    """A sandbox that begins every episode and survives none."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        raise SandboxError("the sandbox died")


class NeverBegins(MathEnv):
    def reset(self, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        raise SandboxError("no sandbox on this machine")


@pytest.fixture
def test_ids() -> Iterator[None]:
    for name, kind in (("EndsBadly", EndsBadly), ("NeverBegins", NeverBegins)):
        gym.register(f"elpo-test/{name}-v0", entry_point=kind)
    yield
    for name in ("EndsBadly", "NeverBegins"):
        del gym.registry[f"elpo-test/{name}-v0"]


@pytest.mark.parametrize("algorithm", ["elpo", "grpo"])
@pytest.mark.usefixtures("test_ids")
def test_every_rollout_is_lost_to_infrastructure(algorithm: str, tmp_path: Path) -> None:
    config = micro(tmp_path / "run", updates=2, env=EnvConfig(id="elpo-test/EndsBadly-v0", kwargs=EASY), eval=NO_EVAL)
    train(replace(config, algorithm=replace(config.algorithm, name=algorithm)))
    for line in metrics(tmp_path / "run"):
        assert line["rollouts"] == line["invalid"] > 0
        assert (line["success"], line["success_fresh"], line["loss"], line["live_rows"]) == (0.0, 0.0, 0.0, 0.0)
    before, after = (load_file(f / "model.safetensors") for f in (TINY_MODEL, tmp_path / "run" / "model"))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.usefixtures("test_ids")
def test_no_episode_can_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    write_config(
        tmp_path / "c.yaml", micro(folder, env=EnvConfig(id="elpo-test/NeverBegins-v0", kwargs=EASY), eval=NO_EVAL)
    )
    assert command_line("train", "--config", str(tmp_path / "c.yaml")) == 1
    err = capsys.readouterr().err.splitlines()
    assert re.search(r"elpo train: reset\(.*\) failed twice: SandboxError: no sandbox on this machine", err[-1])


@pytest.mark.parametrize("algorithm", ["elpo", "grpo"])
def test_prompts_too_long_for_the_context_are_skipped_and_counted(
    algorithm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = {"question": "Count the words: " + "word " * 400, "answer": "400"}
    data = write_rows(tmp_path / "rows.jsonl", [WORKED[0], long])
    config = micro(tmp_path / "run", updates=2, env=EnvConfig(kwargs={"dataset": str(data)}), eval=EvalConfig(tasks=2))
    train(replace(config, algorithm=replace(config.algorithm, name=algorithm)))
    lines = metrics(tmp_path / "run")
    assert [(r["skipped"], r["rollouts"]) for r in lines if r["kind"] == "train"] == [(1, 4)] * 2
    assert "rows/train/1" in caplog.text and "leave no room" in caplog.text
    scores = [r for r in lines if r["kind"].startswith("eval")]
    assert len(scores) == 4
    assert all(r["attempts"] == 2 and r["pass@1"] <= 0.5 and r["truncated"] >= 0.5 for r in scores), (
        "a task that was skipped is a task that was not solved"
    )


def test_nothing_but_prompts_that_are_too_long(tmp_path: Path) -> None:
    class Fragile:
        def assign(self, tree: RolloutTree) -> Any:
            raise AssertionError("no rule should have to deal with a tree without rollouts")

    config = micro(
        tmp_path / "run", updates=2, eval=NO_EVAL, rollout=RolloutConfig(prompts=2, max_context=50, max_new_tokens=20)
    )
    trainer = Trainer(config, Silent())
    trainer.algorithm = replace(trainer.algorithm, credit=Fragile())
    trainer.run()
    assert [(r["skipped"], r["rollouts"], r["loss"]) for r in metrics(tmp_path / "run")] == [(2, 0, 0.0)] * 2
