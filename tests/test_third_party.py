"""An algorithm that another distribution brings: found by its name, and trained with, without a change here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _runs import elpo, metrics, micro, python

from elpo_agent.algorithms.registry import BUILT_IN
from elpo_agent.runs.saved_config import write_config

PACKAGE = Path(__file__).parent / "third_party_algorithm"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process for which the package is installed beside ours."""
    root = tmp_path_factory.mktemp("third_party")
    shutil.copytree(PACKAGE, root / "source")  # building writes into the source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", root / "site", root / "source"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": str(root / "site")}


def test_it_takes_no_more_than_forty_lines() -> None:
    assert len((PACKAGE / "leave_one_out.py").read_text().splitlines()) <= 40


def test_it_is_found_by_name(installed: dict[str, str]) -> None:
    code = """
import json, sys
from elpo_agent import algorithms
names = algorithms.names()
assert "leave_one_out" not in sys.modules, "listing imports nothing"
made = algorithms.load("others_mean", n_total=6)
print(json.dumps([names, list(algorithms.options("others_mean")), made.name, made.strategy.n_total]))
"""
    assert json.loads(python(code, installed)) == [[*BUILT_IN, "others_mean"], ["n_total", "eps"], "others_mean", 6]


def test_its_credit_is_the_reward_less_the_mean_of_the_others(installed: dict[str, str]) -> None:
    code = """
import json
from tests._scripted import broken, lost, tree_of, won
from elpo_agent import algorithms
tree = tree_of([-1, 0, 1, 0, 0, 0], {2: won(), 3: lost(), 4: lost(), 5: broken()})
print(json.dumps(algorithms.load("others_mean").credit.assign(tree).advantage.tolist()))
"""
    assert json.loads(python(code, installed)) == [0.0, 1.0, 1.0, -0.5, -0.5, 0.0]


def test_it_trains(installed: dict[str, str], tmp_path: Path) -> None:
    file, folder = tmp_path / "micro.yaml", tmp_path / "run"
    write_config(file, micro(folder, updates=2))
    options = ["--algorithm.name", "others_mean", "--algorithm.options", "{n_total: 8}"]
    done = elpo("train", "--config", str(file), *options, env=installed)
    assert done.returncode == 0, done.stderr
    assert "others_mean, seed 0" in done.stdout
    lines = [r for r in metrics(folder) if r["kind"] == "train"]
    assert [r["rollouts"] for r in lines] == [16, 16]
    assert any(r["grad_norm"] > 0 for r in lines)
    refused = elpo("train", "--config", str(file), "--output", str(tmp_path / "x"), *options)
    assert refused.returncode == 1
    assert refused.stderr == f"elpo train: algorithm 'others_mean' is unknown; known are {', '.join(BUILT_IN)}\n"
