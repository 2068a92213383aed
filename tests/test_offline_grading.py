"""Grading recorded episodes again: the same verdicts as when they were played, and clear words about bad records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from elpo_agent.cli.main import main
from elpo_envs.offline import OfflineGrader
from elpo_envs.tasks.records import RecordError
from elpo_envs.wrappers import RecordTraces

PLAYED = ("elpo/Math-v0", "elpo/ScienceQA-v0", "elpo/CodeExec-v0")


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of every domain: the expert's, one with a wrong answer, and one that says nothing until the end."""
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    for env_id in PLAYED:
        env: Any = RecordTraces(gym.make(env_id, max_turns=12), str(path))
        for index in range(4):
            for script in ("expert", "wrong", "silent"):
                env.reset(options={"index": index})
                experts = env.unwrapped.expert_turns()
                turns = {"expert": experts, "wrong": ["\\boxed{-1}", "```python\nx = 1\n```"], "silent": ["Hm."] * 12}
                for turn in turns[script]:
                    _, _, terminated, truncated, _ = env.step(turn)
                    if terminated or truncated:
                        break
        env.close()
    return path


def test_the_verdicts_are_those_of_the_episodes(traces: Path) -> None:
    with OfflineGrader() as grader:
        graded = list(grader.grade_file(traces))
    assert len(graded) >= 33 and {one.env_id for one in graded} == set(PLAYED)
    assert all(one.recorded is one.correct for one in graded)
    assert sum(one.correct for one in graded) == 12
    assert any(one.verdict is None for one in graded)
    assert all(one.to_json()["is_correct"] == one.trace["is_correct"] for one in graded)


def test_the_command(traces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in traces.read_text().splitlines()]
    tampered = tmp_path / "tampered.jsonl"
    rows[0]["is_correct"] = not rows[0]["is_correct"]
    tampered.write_text("\n".join(map(json.dumps, rows)))
    output = tmp_path / "regraded.jsonl"
    assert main(["grade", str(tampered), "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "elpo/CodeExec-v0" in shown and "line 1: was wrong, is right" in shown
    regraded = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["is_correct"] for row in regraded] == [
        json.loads(x)["is_correct"] for x in traces.read_text().splitlines()
    ]
    assert list(tmp_path.glob("*.part")) == []


def test_traces_of_others_need_little() -> None:
    with OfflineGrader() as grader:
        chat = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "\\boxed{2.0}"}]
        assert grader.grade({"messages": chat, "gold": 2}).correct
        assert not grader.grade({"messages": chat, "gold": "3"}).correct
        assert grader.grade({"messages": chat, "gold": "x"}).recorded is None


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ({"gold": "1"}, "'messages' must be a list"),
        ({"gold": "1", "messages": [{"role": "user", "content": "?"}]}, "has no assistant turn"),
        ({"messages": [{"role": "assistant", "content": "1"}]}, "neither 'gold' nor 'task_id'"),
        (
            {"messages": [{"role": "assistant", "content": "1"}], "task_id": "nobody/knows/1"},
            "no task 'nobody/knows/1'",
        ),
        ({"messages": [], "gold": "1", "env_id": "elpo/NoSuch-v0"}, "cannot be made"),
        ({"messages": [], "gold": "1", "env_id": "CartPole-v1"}, "is no environment of this package"),
        ({"messages": [], "gold": "1", "protocol": "xml"}, "protocol='xml' is unknown"),
    ],
)
def test_bad_records(trace: dict[str, Any], message: str) -> None:
    with OfflineGrader() as grader, pytest.raises(RecordError, match=message):
        grader.grade(trace, "here")


def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(tmp_path / "missing.jsonl")]) == 1
    assert "missing.jsonl" in capsys.readouterr().err
    (tmp_path / "empty.jsonl").write_text("")
    assert main(["grade", str(tmp_path / "empty.jsonl")]) == 1
    assert "no records" in capsys.readouterr().err
