"""Wrong settings, unusable data and folders in use: one clear sentence each, and nothing touched."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from _command_line import command_line, said
from _runs import WORKED, micro, train, write_rows

from elpo_agent.config import EnvConfig, EvalConfig
from elpo_agent.runs.run_folder import RunFolder
from elpo_agent.training.session import TINY_MODEL

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
