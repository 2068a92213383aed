"""What can go wrong around a run has a defined outcome: one clear sentence, and nothing lost that was saved."""

from __future__ import annotations

import errno
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from _runs import EASY, WORKED, Silent, metrics, micro, records, train, write_rows
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from elpo_agent.cli.main import main
from elpo_agent.objective import clipping
from elpo_agent.policy import EntropyKind, SampledTurn, SampleRequest
from elpo_agent.tiny.architecture import new_model
from elpo_agent.training import checkpoint
from elpo_agent.training.checkpoint import DiskFullError, list_checkpoints
from elpo_agent.training.config import EnvConfig, EvalConfig, ModelConfig, RolloutConfig
from elpo_agent.training.interrupts import uninterrupted
from elpo_agent.training.learner import NonFiniteLossError
from elpo_agent.training.run_folder import RunFolder
from elpo_agent.training.saved_config import write_config
from elpo_agent.training.session import TINY_MODEL, Session
from elpo_agent.training.trainer import Trainer
from elpo_agent.tree import RolloutTree
from elpo_envs.math_env import MathEnv
from elpo_envs.sandbox import SandboxError

NO_EVAL = EvalConfig(tasks=0)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.count("\n") == 1, err
    return err


def command_line(*args: str) -> int:
    try:
        return main(list(args))
    except SystemExit as stop:
        return int(stop.code or 0)


# --- Settings -------------------------------------------------------------------------------------------------------

WRONG = [
    (["--algorithm.name", "elpoo"], 1, r"algorithm 'elpoo' is unknown; known are elpo, grpo"),
    (["--algorithm.options", "{n_totl: 4}"], 1, r"'elpo' has no option n_totl; it accepts: n_total=16"),
    (["--algorithm.options", "{n_total: many}"], 1, r"algorithm\.options=\{'n_total': 'many'\}"),
    (["--algorithm.options", "{lambda_tree: 2}"], 1, r"lambda_tree=2 .* from 0 to 1"),
    (["--env.id", "elpo/Maths-v0"], 1, r"env\.id='elpo/Maths-v0' .*cannot be made.*Maths"),
    (["--env.id", "CartPole-v1", "--env.kwargs", "{}"], 1, r"'CartPole-v1' is no environment of conversations"),
    (["--env.kwargs", "{dataste: generated}"], 1, r"unexpected keyword argument 'dataste'"),
    (["--env.kwargs", "{dataset: nowhere.jsonl}"], 1, r"there is no file nowhere\.jsonl"),
    (["--env.kwargs", "{dataset: gsm9k}"], 1, r"dataset='gsm9k' is unknown; choose generated, gsm8k"),
    (["--model.path", "./nowhere"], 1, r"model folder '\./nowhere' does not exist"),
    (["--model.dtype", "float7"], 1, r"dtype='float7' is not one of float32, bfloat16"),
    (["--rollout.max_context", "40"], 2, r"max_new_tokens=48 and rollout\.max_context=40 leave no room"),
    (["--learner.schedule", "cosine"], 2, r"learner\.schedule='cosine' is unknown; choose constant or linear"),
    (["--learner.mini_batches", "99"], 2, r"learner\.mini_batches=99 exceeds rollout\.prompts"),
    (["--learner.lr", "nan"], 2, r"learner\.lr"),
    (["--eval.samples", "0"], 2, r"eval\.samples=0 must be at least 1"),
    (["--updates", "-1"], 2, r"updates=-1 must be 0 or larger"),
    (["--updates", "many"], 2, r"--updates: must be int, not 'many'"),
    (["--updatez", "3"], 2, r"unrecognized arguments: --updatez 3"),
    (["--config", "nowhere.yaml"], 2, r"--config nowhere\.yaml: there is no such file; presets are .*quickstart"),
]


@pytest.mark.parametrize(("options", "status", "message"), WRONG)
def test_wrong_settings(
    options: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert command_line("train", "--output", str(folder), "--eval.tasks", "0", *options) == status
    assert re.search(message, said(capsys))
    assert not (folder / "config.yaml").exists(), "the next try may use the folder"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("updates: [1", r"is not valid YAML, line \d: "),
        ("updates: \x00", r"is not valid YAML: "),
        ("just words", r"holds no settings"),
        ("updates: 1\nupdatez: 3\n", r"there is no setting 'updatez'"),
        ("learner:\n  lrr: 0.1\n", r"'learner' does not accept option 'lrr'"),
    ],
)
def test_wrong_files_of_settings(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert command_line("train", "--config", str(file), "--output", str(tmp_path / "run")) == 2
    assert re.search(message, said(capsys))
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command_line("train", "--model.device", "cuda", "--output", str(tmp_path / "run")) == 1
    assert "model.device='cuda', but torch finds no GPU here; use auto or cpu" in said(capsys)


def test_a_model_without_chat_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = shutil.copytree(TINY_MODEL, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    assert command_line("train", "--model.path", str(bare), "--output", str(tmp_path / "run")) == 1
    assert re.search(r"tokenizer of '.*bare' has no chat template; use an instruction-tuned model", said(capsys))


def test_evaluation_beyond_the_last_task(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", WORKED)
    config = micro(tmp_path / "run", env=EnvConfig(kwargs={"dataset": str(data)}), eval=EvalConfig(first_index=5))
    with pytest.raises(ValueError, match=r"eval\.first_index=5 is past the last of the 5 tasks"):
        train(config)


# --- Data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"rows\.jsonl has no rows"),
        ([WORKED[0], {"question": "How many?"}], r"rows\.jsonl, line 2: no answer field \(fields found: question\)"),
        ([WORKED[0], {"question": " ", "answer": "3"}], r"line 2: field 'question' is ' '"),
    ],
)
@pytest.mark.parametrize("command", ["train", "eval", "sft"])
def test_unusable_data(
    rows: list[dict[str, Any]], message: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows)
    options = ["--data", str(data)] if command == "eval" else ["--env.kwargs", json.dumps({"dataset": str(data)})]
    assert command_line(command, *options, "--output", str(tmp_path / "out")) == 1
    assert re.search(message, said(capsys))
    assert not (tmp_path / "out" / "config.yaml").exists()


def test_evaluating_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "attempts.jsonl"
    assert command_line("eval", "--data", str(tmp_path / "no.jsonl"), "--output", str(out)) == 1
    assert re.search(r"elpo eval: .*there is no file .*no\.jsonl", said(capsys))
    assert list(tmp_path.iterdir()) == [], "no empty file of attempts either"


@pytest.mark.parametrize("command", ["train", "sft"])
def test_a_cold_start_without_experts(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(
        tmp_path / "rows.jsonl", [{"question": "1 + 1?", "answer": "2"}, {"question": "2?", "answer": "2"}]
    )
    tasks = ["--cold_start.tasks", "8"] if command == "train" else ["--tasks", "8"]
    given = json.dumps({"dataset": str(data)})
    assert command_line(command, *tasks, "--env.kwargs", given, "--output", str(tmp_path / "out")) == 1
    assert re.search(r"tasks=8: none of these tasks has an expert trace of at most", said(capsys))
    assert not (tmp_path / "out" / "config.yaml").exists()


# --- Run folders ----------------------------------------------------------------------------------------------------


def test_two_runs_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(tmp_path / "run"):
        assert command_line("train", "--output", str(tmp_path / "run")) == 1
        assert "is being written by another process; choose another --output or wait" in said(capsys)
    with RunFolder(tmp_path / "run"):
        pass  # given up with the block


def test_nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    assert command_line("train", "--output", str(tmp_path / "run"), "--resume") == 1
    assert "holds no run to resume; leave out --resume to start one" in said(capsys)


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert command_line("train", "--output", str(tmp_path / "file" / "run")) == 1
    assert "Not a directory" in said(capsys)


# --- A full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of that many bytes, or gives it another size."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: int) -> Path:
        option = f"size={size},remount" if place.is_mount() else f"size={size}"
        try:
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", option, "tmpfs", place], capture_output=True, text=True
            )
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", place], check=True)


def test_a_real_full_disk(
    small_disk: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second checkpoint does not fit; with more room the run goes on from the first as if nothing had been."""
    weights = (TINY_MODEL / "model.safetensors").stat().st_size
    disk = small_disk(int(3.3 * weights))  # a checkpoint takes one part for weights, two for the optimiser
    folder, file = disk / "run", tmp_path / "micro.yaml"
    config = micro(folder, updates=2, eval=NO_EVAL)
    write_config(file, config)
    assert command_line("train", "--config", str(file)) == 1
    message = said(capsys)
    assert message.startswith(f"elpo train: the disk that holds {folder}/checkpoints is full; what was saved before")
    assert message.endswith(f"continue with: elpo train --output {folder} --resume\n")
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["update_000000"]
    small_disk(20 * weights)
    train(config, resume=True)
    reference = replace(config, output=str(tmp_path / "reference"))
    train(reference)
    assert metrics(folder) == metrics(tmp_path / "reference")


def test_logs_on_a_full_disk(small_disk: Callable[[int], Path]) -> None:
    folder = RunFolder(small_disk(1 << 16) / "run")
    with pytest.raises(DiskFullError, match=r"the disk that holds .*run is full"), folder:
        folder.open_logs(metrics_bytes=0, trees_bytes=0)
        for update in range(10_000):
            folder.log_tree({"update": update, "text": "x" * 500})
    assert len(folder.trees_path.read_text().splitlines()) > 50
    with RunFolder(folder.path):
        pass  # the lock was given up


@pytest.mark.parametrize("what", ["optimizer.pt", "state.json"])
def test_a_checkpoint_is_all_or_nothing(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.save_checkpoint(tmp_path, model, optimizer, checkpoint.RunState(update=1), keep=2)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def full(path: Path, *args: Any) -> None:
        if path.name == what:
            path.touch()
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "_write", full)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFullError, match="is full; what was saved before is intact"):
        checkpoint.save_checkpoint(tmp_path, model, optimizer, checkpoint.RunState(update=2), keep=1)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_leftovers_are_neither_taken_for_checkpoints_nor_kept(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    whole = checkpoint.save_checkpoint(tmp_path, model, optimizer, checkpoint.RunState(update=1), keep=2)
    for name in (".partial-update_000002", "update_000000"):  # killed while writing, killed while removing
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").write_bytes(b"half")
    assert list_checkpoints(tmp_path) == [whole]
    checkpoint.discard_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [whole]


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


def test_interrupts_wait_for_the_end_of_a_block() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("the rest of the block")
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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
    real, calls = clipping._summed_loss, 0

    def breaks_down(*args: Any) -> tuple[Tensor, dict[str, float]]:
        nonlocal calls
        calls += 1
        loss, stats = real(*args)
        return (
            loss * float("nan") if list_checkpoints(folder / "checkpoints")[-1].name > "update_000001" else loss
        ), stats

    folder, file = tmp_path / "run", tmp_path / "micro.yaml"
    write_config(file, micro(folder, eval=NO_EVAL))
    monkeypatch.setattr(clipping, "_summed_loss", breaks_down)
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
    monkeypatch.setattr(Session, "open", lambda config: session)
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
