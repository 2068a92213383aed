"""What the README shows works as shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elpo_agent.algorithms import Algorithm, names
from elpo_agent.algorithms.registry import BUILT_IN
from elpo_agent.cli.main import COMMANDS
from elpo_agent.cli.settings import preset_names
from elpo_agent.tree import Outcome, RolloutTree, Step

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_environment_example_prints_what_its_comments_say(tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_text(blocks("python")[0])
    done = subprocess.run(
        [sys.executable, str(example)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
    )
    promised = re.findall(r"print\(.*\)  # (\d+)", blocks("python")[0])
    assert done.stdout.split() == promised == ["42", "43"]


def test_the_sandbox_example_prints_what_its_comments_say(capsys: pytest.CaptureFixture[str]) -> None:
    example = blocks("python")[1]
    exec(example, {"__name__": "example"})
    promised = re.search(r"# (\(1, .*\))", example)
    assert promised is not None
    assert capsys.readouterr().out.splitlines() == [promised[1]] * 2


def test_the_algorithm_example_is_an_algorithm() -> None:
    scope: dict[str, object] = {"__name__": "example"}
    exec(blocks("python")[2], scope)
    algorithm = scope["mine"](n_total=4)  # type: ignore[operator]
    assert isinstance(algorithm, Algorithm)
    tree = RolloutTree("t", (1,))
    step = Step((5,), np.zeros(1, np.float32), np.zeros(1, np.float32))
    first = tree.add(0, step, outcome=Outcome(1.0, True))
    second = tree.add(0, step, outcome=Outcome(0.0, False))
    credit = algorithm.credit.assign(tree)
    assert credit.advantage[first] == pytest.approx(1.0)
    assert credit.advantage[second] == pytest.approx(-1.0)


def test_the_laboratory_example_learns_from_where_its_comment_says(capsys: pytest.CaptureFixture[str]) -> None:
    exec(blocks("python")[3], {"__name__": "example"})
    success = [float(value) for value in capsys.readouterr().out.strip(" []\n").split()]
    assert len(success) == 21
    assert success[0] == pytest.approx(0.06)
    assert success[-1] > 0.3


@pytest.mark.parametrize("example", blocks("python"))
def test_examples_stay_short(example: str) -> None:
    assert len([line for line in example.splitlines() if line.strip()]) <= 24


def test_commands_presets_and_names_exist() -> None:
    for command in re.findall(r"elpo (\w+)", " ".join(blocks("bash"))):
        assert command in COMMANDS
    for preset in re.findall(r"--config (\w+)", " ".join(blocks("bash"))):
        assert preset in preset_names()
    assert {"elpo", "grpo"} <= set(names())
    assert [name for name in BUILT_IN if f"`{name}`" not in README] == []


def test_paths_in_the_layout_exist() -> None:
    layout = README.split("## Layout")[1]
    for path in re.findall(r"`([a-z_]+/(?:[a-z_]+/)*(?:[a-z_]+\.py)?)`", layout):
        assert (
            (ROOT / path).exists() or (ROOT / "elpo_envs" / path).exists() or (ROOT / "elpo_agent" / path).exists()
        ), path
