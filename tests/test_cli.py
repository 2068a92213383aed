"""The command line as a newcomer meets it."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from _runs import EASY, WORKED, elpo, micro, python, records, write_rows

from elpo_agent.cli.main import COMMANDS, main
from elpo_agent.runs.saved_config import write_config


def command_line(*args: str) -> int:
    try:
        return main(list(args))
    except SystemExit as stop:
        return int(stop.code or 0)


def test_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == main(["-h"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("usage: elpo COMMAND [options]") == 3
    for name, text in COMMANDS.items():
        assert re.search(rf"  {name} +{re.escape(text)}", shown)
    assert main(["trian"]) == 2
    choices = "train, eval, sft, envs, grade, sandbox"
    assert capsys.readouterr().err == f"elpo: there is no command 'trian'; choose one of {choices}\n"


@pytest.mark.parametrize(
    ("command", "phrases"),
    [
        (
            "train",
            ["Without options: the quickstart", "--resume", "preset: gsm8k, paper, quickstart", "--learner.lr LR"],
        ),
        ("eval", ["expert-replay", "--data DATA", "pass@k and major@k", "--samples SAMPLES"]),
        ("sft", ["Writes a model folder", "--optimization.lr LR"]),
        ("envs", ["List the environments, or play one.", "--expert", "--index"]),
    ],
)
def test_help(command: str, phrases: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(command, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: elpo {command} [")
    assert len(shown.split("\n\n")[0]) < 200, "the usage is a line or two; the options are explained below it"
    text = " ".join(shown.split())
    for phrase in phrases:
        assert phrase in text
    options = re.findall(r"\n  --[\w.]+(?: \S+)*(?:\n {20,}|  +)\S", shown)
    assert len(options) == len(re.findall(r"\n  --", shown)) >= 3, "every option is explained"


BLOCK = "import sys\nfor name in {names}: sys.modules[name] = None\nfrom elpo_agent.cli.main import main\n"
TRAINER = ("torch", "transformers", "tokenizers", "safetensors", "jsonargparse", "yaml", "rich", "tensorboard")


def test_environments_need_none_of_the_trainers_packages() -> None:
    code = BLOCK.format(names=TRAINER) + (
        "assert main(['--help']) == 0\n"
        "assert main(['envs']) == 0\n"
        "assert main(['envs', 'elpo/Math-v0', '--expert', '--index', '7', '--kwargs', '{\"split\": \"test\"}']) == 0\n"
    )
    shown = python(code)
    assert re.search(r"elpo/Math-v0 +endless tasks\nelpo/ScienceQA-v0", shown)
    assert re.search(r"elpo/HumanEval-v0 +the benchmark humaneval\n", shown)
    assert "\n\nTry one: elpo envs elpo/Math-v0 --expert" in shown
    assert "task generated/test/" in shown
    assert re.search(r'assistant> <tool_call>\n\{"name": "python"', shown)
    assert re.search(r"environment> \d+\n", shown)
    assert re.search(r"assistant> \\boxed\{\d+\}\nend: reward 1\.0, answer '\d+'\n$", shown)


def test_a_missing_package_is_named_with_its_extra() -> None:
    code = (
        BLOCK.format(names=("rich",))
        + "sys.stderr = sys.stdout\nfor c in ('train', 'eval', 'sft'): assert main([c]) == 1"
    )
    assert python(code).splitlines() == [
        f"elpo {command} needs the package 'rich', which is not installed: pip install 'elpo[train]'"
        for command in ("train", "eval", "sft")
    ]


@pytest.mark.parametrize(
    ("options", "package", "extra"),
    [
        (["--env.kwargs", "{dataset: rows.parquet}"], "pyarrow", "elpo[parquet]"),
        (["--wandb_project", "mine"], "wandb", "elpo[wandb]"),
    ],
)
def test_a_missing_optional_package(
    options: list[str],
    package: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, package, None)
    assert command_line("train", "--output", "run", *options) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(rf"elpo train: .*{package}.*pip install '{re.escape(extra)}'\n", err)


def test_playing_by_hand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call = '<tool_call>{"name": "python", "arguments": {"code": "6 * 7"}}</tool_call>'
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{call}\n\n\\boxed{{-1}}\n\n"))
    assert main(["envs", "elpo/Math-v0"]) == 0
    shown = capsys.readouterr().out
    assert "Type a turn and end it with an empty line" in shown
    assert "environment> 42\n" in shown
    assert "end: reward 0.0, answer '-1'" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["elpo/Maths-v0"], r"elpo envs: .*Maths"),
        (["elpo/Math-v0", "--index", "-1"], r"elpo envs: .*-1"),
        (["elpo/Math-v0", "--kwargs", '{"dataset": "gsm9k"}'], r"elpo envs: .*dataset='gsm9k' is unknown"),
    ],
)
def test_what_cannot_be_played(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", *arguments]) == 1
    err = capsys.readouterr().err
    assert re.match(message, err) and err.count("\n") == 1


def figures(shown: str) -> dict[str, str]:
    """The rows of a table of two columns."""
    return dict(re.findall(r"│ (\S[^│]*?) +│ +(\S[^│]*?) +│", shown))


def test_replaying_experts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_rows(tmp_path / "worked.jsonl", WORKED), tmp_path / "deep" / "attempts.jsonl"
    options = ["--data", str(data), "--tasks", "0", "--output", str(out)]
    assert command_line("eval", "--model.path", "expert-replay", *options) == 0
    shown = capsys.readouterr().out
    assert figures(shown)["pass@1"] == "100.0%"
    assert figures(shown)["tasks"] == "5"
    assert f"attempts: {out}" in shown
    lines = records(out)
    assert [r["task_id"] for r in lines] == [f"worked/test/{i}" for i in range(5)]
    assert [r["answer"] for r in lines] == ["18", "5", "90", "30", "170"]
    assert [m["role"] for m in lines[0]["messages"]][1:] == ["user", *["assistant", "tool"] * 2, "assistant"]
    assert list(out.parent.iterdir()) == [out], "no partial file is left"


def test_evaluating_the_tiny_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "attempts.jsonl"
    options = ["--tasks", "8", "--samples", "4", "--env.kwargs", json.dumps(EASY), "--output", str(out)]
    assert command_line("eval", "--model.path", "tiny", *options) == 0
    table = figures(capsys.readouterr().out)
    assert (table["tasks"], table["attempts"]) == ("8", "32")
    scores = [float(table[name].rstrip("%")) for name in ("pass@1", "pass@2", "pass@4")]
    assert scores == sorted(scores) and scores[0] > 0
    assert {"major@2", "major@4"} <= table.keys()
    lines = records(out)
    assert len(lines) == 32
    assert sum(r["success"] for r in lines) / 32 == pytest.approx(scores[0] / 100, abs=1e-3)
    for r in lines:
        roles = [m["role"] for m in r["messages"]]
        assert roles[:2] == ["system", "user"]
        assert roles.count("assistant") == r["turns"]
        assert roles.count("tool") == r["tool_calls"]
        assert not any("<|im_" in m["content"] for m in r["messages"]), "messages, not the template around them"
        if r["answer"] is not None:
            assert f"\\boxed{{{r['answer']}}}" in r["messages"][-1]["content"]
    assert command_line("eval", "--model.path", "tiny", *options) == 0
    assert records(out) == lines, "the same seed gives the same attempts"


def test_an_evaluation_that_fails_leaves_the_old_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "attempts.jsonl"
    out.write_text("old\n")
    assert command_line("eval", "--model.path", "./nowhere", "--output", str(out)) == 1
    assert command_line("eval", "--tasks", "0", "--output", str(out)) == 1
    err = capsys.readouterr().err
    assert "model folder './nowhere' does not exist" in err
    assert "tasks=0 means all tasks, but this data set is endless; give --tasks N" in err
    assert command_line("eval", "--output", str(tmp_path)) == 1
    assert "is a folder; give the name of a file" in capsys.readouterr().err
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old\n"]


def test_fine_tuning_on_experts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tuned"
    options = ["--tasks", "8", "--env.kwargs", json.dumps(EASY), "--output", str(out), "--optimization.lr", "1e-5"]
    assert command_line("sft", *options) == 0
    assert f"model folder: {out}" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["tuned"]
    assert command_line("sft", *options) == 1
    assert "exists already; choose another folder" in capsys.readouterr().err
    assert command_line("eval", "--model.path", str(out), "--tasks", "2", "--env.kwargs", json.dumps(EASY)) == 0


def test_a_run_says_what_it_does_and_nothing_else(tmp_path: Path) -> None:
    folder, file = tmp_path / "a run", tmp_path / "micro.yaml"
    write_config(file, micro(folder, updates=1))
    done = elpo("train", "--config", str(file), "--algorithm.name", "grpo")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("evaluating before")]
    assert any(re.match(r"training 1/1 success=\S+ .*loss=\S+ entropy=\S+$", line) for line in lines)
    assert re.search(r"pass@1, sampled at temperature 1 +│ +\d+\.\d% │ +\d+\.\d% │", done.stdout)
    assert lines[-1] == f"run folder: {folder}"
    for noise in ("Loading weights", "Writing model", "it/s", "Warning"):
        assert noise not in done.stdout
