"""Benchmarks through the package `datasets`, on local folders in the form in which the hub holds them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from _benchmark_fixtures import ARC_HUB, GSM8K, HUMANEVAL, MATH, MMLU_HUB, lines, put
from test_benchmark_files_sealed import FUNCTIONAL, GPQA_CSV, STDIN

from elpo_envs.tasks.benchmarks import BENCHMARKS
from elpo_envs.tasks.records import MissingExtraError

INSTALLED = importlib.util.find_spec("datasets") is not None
needs_datasets = pytest.mark.skipif(not INSTALLED, reason="the optional package datasets is not installed")


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    path.parent.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)


def card(folder: Path, configs: dict[str, dict[str, str]]) -> None:
    """A data set card that names the configurations and their files, as on the hub."""
    text = "---\nconfigs:\n"
    for config, splits in configs.items():
        text += f"- config_name: {config}\n  data_files:\n"
        text += "".join(f"  - split: {split}\n    path: {path}\n" for split, path in splits.items())
    put(folder / "README.md", f"{text}---\n".encode())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if INSTALLED:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def ids_and_answers(name: str, folder: Path, **options: Any) -> list[tuple[str, str]]:
    source = BENCHMARKS[name].open("test", options={"hub": str(folder), **options})
    assert source.size is not None
    found = [source.get(index) for index in range(source.size)]
    assert all(json.loads(json.dumps(task.metadata)) == task.metadata for task in found)
    return [(task.task_id, task.answer) for task in found]


@needs_datasets
@pytest.mark.usefixtures("cache")
def test_local_copies_of_hub_data_sets(tmp_path: Path) -> None:
    folder = tmp_path / "gsm8k"
    parquet(folder / "main/test-00000-of-00001.parquet", GSM8K)
    parquet(folder / "socratic/test-00000-of-00001.parquet", GSM8K[:1])
    card(folder, {config: {"test": f"{config}/test-*"} for config in ("main", "socratic")})
    assert ids_and_answers("gsm8k", folder) == [("gsm8k/test/0", "72"), ("gsm8k/test/1", "1200")]

    folder = tmp_path / "ai2_arc"
    for config in ("ARC-Challenge", "ARC-Easy"):
        parquet(folder / config / "test-00000-of-00001.parquet", ARC_HUB)
    card(folder, {config: {"test": f"{config}/test-*"} for config in ("ARC-Challenge", "ARC-Easy")})
    assert ids_and_answers("arc_easy", folder) == [("arc_easy/test/Made_2", "D")]

    folder = tmp_path / "mmlu"
    parquet(folder / "all/test-00000-of-00001.parquet", MMLU_HUB)
    card(folder, {"all": {"test": "all/test-*"}})
    assert [answer for _, answer in ids_and_answers("mmlu_stem", folder)] == ["A", "A"]

    folder = tmp_path / "humaneval"
    parquet(folder / "test-00000-of-00001.parquet", HUMANEVAL)
    assert [task_id for task_id, _ in ids_and_answers("humaneval", folder)] == ["humaneval/test/HumanEval/0"]

    folder = tmp_path / "gpqa"
    put(folder / "gpqa_diamond.csv", GPQA_CSV)
    card(folder, {"gpqa_diamond": {"train": "gpqa_diamond.csv"}})
    assert ids_and_answers("gpqa_diamond", folder) == [
        (task.task_id, task.answer) for task in map(BENCHMARKS["gpqa_diamond"].open("test", path=folder).get, range(12))
    ]


@needs_datasets
@pytest.mark.usefixtures("cache")
def test_all_configurations_of_math_are_joined(tmp_path: Path) -> None:
    folder = tmp_path / "math"
    configs = BENCHMARKS["math"].hub.configs
    for config in configs:
        parquet(folder / config / "test-00000-of-00001.parquet", MATH[:1])
    card(folder, {config: {"test": f"{config}/test-*"} for config in configs})
    assert ids_and_answers("math", folder) == [(f"math/test/{config}/0", "2") for config in configs]


@needs_datasets
@pytest.mark.usefixtures("cache")
def test_livecodebench_files_by_release(tmp_path: Path) -> None:
    put(tmp_path / "lcb/test.jsonl", lines(STDIN))
    put(tmp_path / "lcb/test2.jsonl", lines(FUNCTIONAL))
    first, second = "livecodebench/test/abc400_a", "livecodebench/test/3000"
    assert ids_and_answers("livecodebench", tmp_path / "lcb", release="release_v1") == [(first, "")]
    assert ids_and_answers("livecodebench", tmp_path / "lcb", release="v2") == [(second, "")]
    late = ids_and_answers("livecodebench", tmp_path / "lcb", release="release_v2", start_date="2024-01-01")
    assert late == [(first, "")]


@pytest.mark.skipif(INSTALLED, reason="the optional package datasets is installed")
def test_without_the_package_the_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="reading openai/gsm8k needs datasets: pip install"):
        BENCHMARKS["gsm8k"].open("test", options={"hub": str(tmp_path)})


def test_a_split_that_the_hub_lacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split='dev' of gsm8k does not exist"):
        BENCHMARKS["gsm8k"].open("dev", options={"hub": str(tmp_path)})
