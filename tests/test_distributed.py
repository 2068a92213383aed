"""Two ranks take the step of one: same losses, same weights, same checkpoints, whatever is sharded."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from _fork_watch import children, wait_until
from _ranks_program import CASES, run_config
from _runs import REPOSITORY, Silent, environment, metrics, micro, records, summary
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from elpo_agent.config import AlgorithmConfig, ColdStartConfig
from elpo_agent.ranks import ALONE, Ranks
from elpo_agent.runs.saved_config import write_config
from elpo_agent.training.collection import owned
from elpo_agent.training.trainer import Trainer

Results = dict[str, tuple[Any, list[Any]]]

SAME = ("sharded packed", "replicated", "adapters")
SAME_SLOW = ("sharded", "replicated packed", "sharded recomputed")
HALF = ("sharded half", "replicated half")


def torchrun_command(ranks: int, *args: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *args]


def torchrun(ranks: int, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = torchrun_command(ranks, *args)
    path = {"PYTHONPATH": str(REPOSITORY / "tests"), **(env or {})}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=environment(path), cwd=REPOSITORY, check=False
    )


def both(folder: Path, names: tuple[str, ...]) -> Results:
    """For each case what one rank gets, and what each of two gets."""
    done = torchrun(2, "tests/_ranks_program.py", str(folder), *names)
    assert done.returncode == 0, done.stderr
    out = {}
    for name in names:
        of_two = [torch.load(folder / f"{name} {rank}.pt") for rank in (0, 1)]
        out[name] = (CASES[name](ALONE, folder), of_two)
    return out


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("ranks")
    CASES["saved"](ALONE, folder)  # two ranks go on from it
    return both(folder, (*SAME, "saved", "resumed", "held"))


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("more")
    CASES["saved"](ALONE, folder)
    return both(folder, (*SAME_SLOW, *HALF, "saved", "resumed replicated", "scored"))


def assert_same_training(one: Any, two: list[Any], rtol: float) -> None:
    for rank, other in enumerate(two):
        assert len(other["stats"]) == len(one["stats"])
        for ours, theirs in zip(other["stats"], one["stats"], strict=True):
            assert ours == pytest.approx(theirs, rel=max(rtol, 1e-5), abs=1e-6)  # sums of float32 among them
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=max(rtol, 1e-7), abs=1e-9)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=max(rtol, 1e-7))
            assert theirs["grad_norm"] > 1e-3
        assert other["engine"].keys() == one["engine"].keys()
        for name, value in one["engine"].items():
            torch.testing.assert_close(other["engine"][name], value, rtol=rtol, atol=rtol)
            assert torch.equal(other["engine"][name], two[0]["engine"][name]), f"rank {rank} parted from rank 0"
    assert two[0]["weights"].keys() == one["weights"].keys()
    for name, value in one["weights"].items():
        assert two[0]["weights"][name].dtype == value.dtype
        torch.testing.assert_close(two[0]["weights"][name], value, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", SAME)
def test_two_ranks_train_as_one(results: Results, name: str) -> None:
    """In float64, to 1e-7: AdamW divides by gradients' sizes, which lends weight to the last bits of small ones."""
    assert_same_training(*results[name], rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME_SLOW)
def test_two_ranks_train_as_one_in_other_ways(more: Results, name: str) -> None:
    assert_same_training(*more[name], rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", HALF)
def test_in_bfloat16_but_for_rounding(more: Results, name: str) -> None:
    one, two = more[name]
    assert two[0]["weights"].keys() == one["weights"].keys()
    assert {value.dtype for value in two[0]["weights"].values()} == {torch.float32}
    first, theirs = two[0]["stats"][0], one["stats"][0]
    assert first["loss"] == pytest.approx(theirs["loss"], rel=0.05, abs=0.01)
    assert first["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=0.05)
    for rank in (0, 1):
        for key, value in two[rank]["engine"].items():
            assert value.dtype == torch.bfloat16
            assert torch.equal(value, two[0]["weights"][key].bfloat16())


def assert_resumed(results: Results, name: str) -> None:
    """Two updates by one rank and the third by two, and the other way round, are three by one."""
    whole = CASES["sharded"](ALONE, Path("unused"))
    expected = {**whole, "stats": whole["stats"][2:]}
    one, two = results[name]
    assert_same_training(expected, two, rtol=1e-7)
    assert_same_training(expected, [one], rtol=1e-7)


def test_checkpoints_are_those_of_one_rank(results: Results) -> None:
    assert_same_training(*results["saved"], rtol=1e-7)
    assert_resumed(results, "resumed")


@pytest.mark.slow
def test_checkpoints_are_the_same_replicated(more: Results) -> None:
    assert_resumed(more, "resumed replicated")


@pytest.mark.slow
def test_scoring_is_divided_too(more: Results) -> None:
    one, two = more["scored"]
    for other in two:
        assert other["weights"].keys() == one["weights"].keys()
        for name, value in one["weights"].items():
            torch.testing.assert_close(other["weights"][name], value, rtol=1e-6, atol=1e-6)


def test_a_rank_holds_half(results: Results) -> None:
    one, two = results["held"]
    assert sum(other["held"] for other in two) == one["held"]
    assert max(other["held"] for other in two) < 0.6 * one["held"]


@pytest.mark.slow
def test_a_lost_rank_ends_the_others_with_a_message(tmp_path: Path) -> None:
    done = torchrun(2, "tests/_ranks_program.py", str(tmp_path), "lost")
    assert done.returncode != 0
    assert "exitcode" in done.stderr
    said = torch.load(tmp_path / "lost 0.pt")["error"]
    assert said == "rank 0 of 2 lost the others: one has ended, and its own message says why"


def assert_near(ours: Any, theirs: Any) -> None:
    """Equal structures, whose numbers differ by float32 rounding."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_near(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_near(a, b)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    else:
        assert ours == theirs


def assert_same_run_but_for_rounding(folder: Path, reference: Path) -> None:
    """What was sampled is the same to the token; the machine's work was divided otherwise, so figures are near."""
    assert_near(metrics(folder), metrics(reference))
    assert_near(records(folder / "trees.jsonl"), records(reference / "trees.jsonl"))
    assert_near(summary(folder), summary(reference))
    ours, theirs = (load_file(path / "model" / "model.safetensors") for path in (folder, reference))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=2e-4)


@pytest.mark.slow
def test_a_run_by_two_ranks_is_that_of_one(tmp_path: Path) -> None:
    CASES["run"](ALONE, tmp_path)
    done = torchrun(2, "tests/_ranks_program.py", str(tmp_path), "run")
    assert done.returncode == 0, done.stderr
    one, two = tmp_path / "run of 1", tmp_path / "run of 2"
    assert sum(line.get("grad_norm", 0.0) > 0.0 for line in metrics(one)) > 1
    assert_same_run_but_for_rounding(two, one)
    assert {p.relative_to(two) for p in two.rglob("*") if "events" not in p.name} == {
        p.relative_to(one) for p in one.rglob("*") if "events" not in p.name
    }
    first, second = (torch.load(tmp_path / f"run {rank}.pt")["summary"] for rank in (0, 1))
    assert first.keys() == second.keys()
    assert first["after"] == second["after"]


@pytest.mark.slow
def test_a_run_that_lost_a_rank_goes_on_with_another_number(tmp_path: Path) -> None:
    done = torchrun(2, "tests/_ranks_program.py", str(tmp_path), "broken")
    assert done.returncode != 0
    said = torch.load(tmp_path / "broken 0.pt")["error"]
    assert said == "rank 0 of 2 lost the others: one has ended, and its own message says why"
    CASES["run"](ALONE, tmp_path)
    Trainer(run_config(tmp_path / "broken"), Silent(), resume=True).run()
    assert_same_run_but_for_rounding(tmp_path / "broken", tmp_path / "run of 1")


@pytest.mark.slow
def test_the_command_under_torchrun(tmp_path: Path) -> None:
    config = run_config(tmp_path / "run")
    write_config(tmp_path / "run.yaml", replace(config, updates=1, cold_start=ColdStartConfig()))
    command = ("-m", "elpo_agent.cli.main", "train", "--config", str(tmp_path / "run.yaml"))
    done = torchrun(2, *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"run folder: {tmp_path / 'run'}") == 1, "one rank speaks"
    again = torchrun(2, *command)
    assert again.returncode != 0
    assert f"elpo train (rank 0): output={tmp_path / 'run'} already holds a run" in again.stderr


def test_rollouts_ahead_are_refused(tmp_path: Path) -> None:
    config = micro(tmp_path, algorithm=AlgorithmConfig("reinforce_pp", {"loss": {"importance_cap": 2.0}}))
    ahead = replace(config, rollout=replace(config.rollout, ahead=True))
    with pytest.raises(ValueError, match=r"rollout\.ahead=True runs on one rank, not on 2"):
        Trainer(ahead, Silent(), ranks=Ranks(0, 2))


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 4))
def test_a_task_is_rolled_out_by_one_rank(tasks: list[int], count: int) -> None:
    parts = [owned(tasks, Ranks(rank, count)) for rank in range(count)]
    assert sorted(i for part in parts for i in part) == list(range(len(tasks)))
    for part, other in itertools.combinations(parts, 2):
        assert not {tasks[i] for i in part} & {tasks[i] for i in other}
    distinct = [len({tasks[i] for i in part}) for part in parts]
    assert max(distinct) - min(distinct) <= 1


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 5))
def test_shares_cover_everything_evenly(sizes: list[int], count: int) -> None:
    shares = Ranks(0, count).shares(sizes)
    assert [i for share in shares for i in share] == list(range(len(sizes)))
    assert len(shares) == count
    for share in shares:
        assert sum(sizes[i] for i in share) <= sum(sizes) / count + max(sizes, default=0)


def test_each_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [Ranks(3, 4).device(asked) for asked in ("auto", "cuda", "cpu")] == ["cuda:3", "cuda:3", "cpu"]
    assert ALONE.device("cuda:1") == "cuda:1"
    with pytest.raises(ValueError, match=r"model\.device='cuda:1' is one device for 4 ranks"):
        Ranks(3, 4).device("cuda:1")


def trained_updates(folder: Path) -> list[int]:
    logged = folder / "metrics.jsonl"
    lines = logged.read_text().splitlines() if logged.exists() else []
    return [line["update"] for line in map(json.loads, lines) if line["kind"] == "train"]


@pytest.mark.slow
@pytest.mark.parametrize("told", ["all", "one"])
def test_ranks_that_are_told_to_end_save_together(tmp_path: Path, told: str) -> None:
    folder, updates = tmp_path / "run", 12
    config = replace(run_config(folder), updates=updates, checkpoint_every=updates, cold_start=ColdStartConfig())
    write_config(tmp_path / "run.yaml", config)
    train = ("-m", "elpo_agent.cli.main", "train")
    with subprocess.Popen(
        torchrun_command(2, *train, "--config", str(tmp_path / "run.yaml")),
        stderr=subprocess.PIPE,
        text=True,
        env=environment({}),
        cwd=REPOSITORY,
    ) as process:
        assert wait_until(lambda: len(trained_updates(folder)) >= 2, 120)
        ranks = children(process.pid)
        assert len(ranks) == 2
        os.kill(process.pid if told == "all" else ranks[1], signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
    done = len(trained_updates(folder))
    assert 2 <= done < updates
    assert said.count(f"terminated; update {done} is saved, continue with: elpo train") == 1, said
    resumed = torchrun(2, *train, "--output", str(folder), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert trained_updates(folder) == list(range(1, updates + 1))
