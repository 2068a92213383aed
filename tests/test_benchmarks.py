"""The benchmarks run and report what they promise. What they measure is never asserted: that is no test's business."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # the benchmarks are not part of the installed packages

from benchmarks.measure import Options, Ratio, Report, Row, Sample, interleave, parse_options  # noqa: E402


def quick(name: str, folder: Path) -> dict[str, Any]:
    """The report of a smoke run, after checking the form that all reports share."""
    path = folder / "results" / f"{name}.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "ratios within each round" in done.stdout
    report: dict[str, Any] = json.loads(path.read_text())
    assert report["benchmark"] == name
    assert report["machine"]["cores"] >= 1 and report["machine"]["python"]
    assert report["rows"] and report["ratios"]
    for entry in (*report["rows"], *report["ratios"]):
        assert len(entry["values"]) == 2
        assert entry["low"] <= entry["median"] <= entry["high"]
        # Chance decides whether a tiny smoke run succeeds at or localizes anything.
        if entry["name"].split(":")[0] not in ("share of successful rollouts", "localized steps"):
            assert entry["low"] > 0, entry["name"]
    assert {row["role"] for row in report["rows"]} <= {"ours", "limit", "peer"}
    return report


def names(report: dict[str, Any], group: str) -> set[str]:
    return {row["name"] for row in report["rows"] if row["group"] == group}


def test_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELPO_GEM_PYTHON", sys.executable)  # which has no GEM
    report = quick("environments", tmp_path)
    assert "ended with exit code 1" in report["settings"]["skipped"]["GEM, its default (no isolation)"]
    for turns in (4, 16):
        told = names(report, f"steps without tools, {turns} turns an episode")
        assert {"ours", "Gymnasium's FrozenLake-v1", "trivial, a constant text", "trivial, a sampled text"} <= told
    for calls in (2, 8):
        for at_once in (1, 8):
            assert "ours" in names(report, f"{calls} tool calls and the answer, {at_once} at once")


def test_environment_branches(tmp_path: Path) -> None:
    report = quick("environment_branches", tmp_path)
    assert {"step without a call", "step with a python call", "bare sandbox round trip"} <= names(report, "steps")
    for workload in ("arithmetic", "computing"):
        assert names(report, f"branch after 4 calls: {workload}") == {
            "snapshot",
            "restore",
            "fork",
            "restore + first call",
            "bare sandbox restore + call",
            "os.fork of a bare child + call",
            "subprocess, one script",
            "subprocess, call by call",
        }


def test_engine(tmp_path: Path) -> None:
    report = quick("engine", tmp_path)
    scripts = report["settings"]["scripts"]
    assert [script["rows"] for script in scripts] == [1, 4]
    for group, script in zip(("1 row", "4 rows"), scripts, strict=True):
        contestants = 3 + (importlib.util.find_spec("vllm") is not None)
        assert len(names(report, group)) == contestants
        assert sum(row["group"] == group for row in report["rows"]) == 2 * contestants  # on the clock and in CPU time
        ours, bare, peer, *_ = script["generated_tokens"].values()
        # The same turns for all: the peer's may differ where rounding breaks a tie, the loop's are means.
        assert script["turns_equal_ours_and_generate"] > 0.9
        assert peer == pytest.approx(ours, rel=0.1) and bare == pytest.approx(ours, rel=0.1)


def test_learner(tmp_path: Path) -> None:
    report = quick("learner", tmp_path)
    packed = {told["group"]: told["packed_by_auto"] for told in report["settings"]["rows"]}
    assert packed.pop("grpo, one rollout of each long prompt") is False
    assert packed == {
        f"{name}, {length} prompts": True for name in ("elpo", "grpo", "elpo_plus") for length in ("short", "long")
    }
    for told in report["settings"]["rows"]:
        assert names(report, told["group"]) == {"flat", "auto"}
        assert told["tokens"] == pytest.approx(told["limit"] * told["unique_tokens"])
        flat, auto = told["gradient_norms"].values()
        assert auto == pytest.approx(flat, rel=1e-3), "the same step"


def test_rollout_tree(tmp_path: Path) -> None:
    report = quick("rollout_tree", tmp_path)
    median = {row["name"]: row["median"] for row in report["rows"]}
    shared, apart = median["generated tokens: elpo"], median["tokens without sharing: elpo"]
    assert shared <= apart
    assert median["generated tokens: grpo"] == median["tokens without sharing: grpo"]
    assert median["largest batch: grpo"] == report["settings"]["prompts"] * report["settings"]["n_total"]


def test_batching(tmp_path: Path) -> None:
    report = quick("batching", tmp_path)
    for group in ("grpo, 1 call in 10 takes 0.1 s", "grpo, even tools"):
        median = {row["name"]: row["median"] for row in report["rows"] if row["group"] == group}
        for batching in ("rounds", "continuous"):
            assert median[f"rollouts/s: {batching}"] > 0.0
            assert 0.0 < median[f"fill: {batching}"] <= 1.0


def test_strategies(tmp_path: Path) -> None:
    report = quick("strategies", tmp_path)
    for name in ("grpo", "elpo"):
        median = {row["name"]: row["median"] for row in report["rows"] if row["group"] == name}
        assert 0.0 < median["of which codec"] < median["scheduler CPU time"]
        assert 0.0 < median["fill"] <= 1.0 and 0.0 < median["slots"] <= 1.0
    assert {ratio["name"] for ratio in report["ratios"]} >= {"scheduler / engine CPU time", "codec / engine CPU time"}


def test_contestants_take_turns_and_the_first_round_is_not_counted() -> None:
    played: list[tuple[str, int]] = []

    def contestant(name: str) -> Any:
        def run(number: int) -> dict[str, float]:
            played.append((name, number))
            return {"figure": float(number)}

        return run

    result = interleave({"a": contestant("a"), "b": contestant("b")}, repeats=2)
    assert played == [("a", -1), ("b", -1), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert result["b"]["figure"].values == (0.0, 1.0)


def test_ratios_are_taken_round_by_round() -> None:
    ratio = Sample((2.0, 30.0, 8.0)).over(Sample((1.0, 10.0, 2.0)))
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 3.0, 4.0)


def test_report_without_a_path_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    report = Report("example", {})
    report.add(Row("work", "ours", "s", Sample((1.0,)), "group"))
    report.ratios.append(Ratio("work / limit", Sample((1234.5,)), "group"))
    report.finish(Options(repeats=1, threads=1, quick=False, json_path=None))
    assert "1,234" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [["--repeats", "0"], ["--threads", "0"]])
def test_options_out_of_range_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options("example", argv)
    assert "at least 1" in capsys.readouterr().err
