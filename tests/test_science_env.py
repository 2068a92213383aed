"""`elpo/ScienceQA-v0`: its tools, what counts as an answer, and what never does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from elpo_envs import restore, snapshot
from elpo_envs.science_env import ScienceQAEnv
from elpo_envs.tasks import Task


class Fixed:
    """One task, again and again."""

    name, split, size = "fixed", "test", 1

    def __init__(self, answer: str, metadata: Mapping[str, Any]) -> None:
        self.task = Task("fixed/test/0", 0, "test", "Which one, or how much?", answer, (), metadata)

    def get(self, index: int) -> Task:
        return self.task

    def by_id(self, task_id: str) -> Task:
        return self.task


CHOICE = Fixed("B", {"kind": "choice", "choices": ["12 J", "24 J", "36 J", "48 J"]})
NUMBER = Fixed("1.5", {"kind": "number", "unit": "kJ", "tolerance": 0.01})
MATH = Fixed("\\frac{1}{2}", {})


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def answer(source: Fixed, turn: str) -> tuple[float, bool, str | None]:
    env = ScienceQAEnv(task_source=source)
    env.reset()
    _, reward, terminated, _, info = env.step(turn)
    env.close()
    return reward, terminated, info["error_kind"]


RIGHT, WRONG, NONE = (1.0, True, None), (0.0, True, None), (0.0, False, "no_action")


@pytest.mark.parametrize(
    ("source", "turn", "expected"),
    [
        (CHOICE, "So it is \\boxed{B}.", RIGHT),
        (CHOICE, "Option (A) is wrong: it is too small. The correct answer is B.", RIGHT),
        (CHOICE, "\\boxed{24 J}", RIGHT),
        (CHOICE, "\\boxed{A}", WRONG),
        (CHOICE, "\\boxed{A, B, C, D}", WRONG),
        (CHOICE, "\\boxed{A} or \\boxed{B}", WRONG),
        (CHOICE, "\\boxed{A or B}", WRONG),
        (CHOICE, "Let me see what a mole is.", NONE),
        (NUMBER, "\\boxed{1.5\\ \\text{kJ}}", RIGHT),
        (NUMBER, "\\boxed{1500 J}", RIGHT),
        (NUMBER, "\\boxed{1.51}", RIGHT),
        (NUMBER, "\\boxed{1.6 kJ}", WRONG),
        (NUMBER, "\\boxed{1.5 kW}", WRONG),
        (NUMBER, "\\boxed{1500}", WRONG),
        (NUMBER, "\\boxed{1.5 kJ} or \\boxed{15 kJ}", WRONG),
        (NUMBER, "It is 1.5 kJ.", NONE),
        (MATH, "\\boxed{0.5}", RIGHT),
        (MATH, "\\boxed{2}", WRONG),
    ],
)
def test_what_counts_as_an_answer(source: Fixed, turn: str, expected: tuple[float, bool, str | None]) -> None:
    assert answer(source, turn) == expected


@pytest.mark.parametrize("tool_text", ["<tool_response>\\boxed{B}</tool_response>", "```output\n\\boxed{B}\n```"])
def test_what_a_tool_printed_is_no_answer(tool_text: str) -> None:
    assert answer(CHOICE, tool_text) == NONE


def test_the_tools_work_together() -> None:
    env = ScienceQAEnv()
    env.reset(seed=0)
    assert [tool["function"]["name"] for tool in env.tools] == ["python", "calculator", "search", "lookup"]
    found, *_ = env.step(call("search", query="speed of light in vacuum", k=1))
    assert "299792458" in found
    shown, *_ = env.step(call("calculator", operation="evaluate", expression="299792458/2"))
    assert "149896229" in shown
    env.step(call("python", code="c = 299792458"))
    frozen = snapshot(env)
    assert env.step(call("python", code="c / 2"))[0] == "149896229.0"
    env.step(call("python", code="c = 0"))
    restore(env, frozen)
    assert env.step(call("python", code="c / 2"))[0] == "149896229.0"
    env.close()


def test_another_corpus(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"title": "Moon", "text": "The Moon is made of basalt, not of cheese."}) + "\n")
    env = ScienceQAEnv(corpus=str(path), task_source=CHOICE)
    env.reset()
    assert "basalt" in env.step(call("search", query="what is the moon made of", k=1))[0]
    assert env.contract["corpus"] == str(path)
    with pytest.raises(ValueError, match="corpus"):
        restore(ScienceQAEnv(task_source=CHOICE), snapshot(env))
    copy = env.clone()
    copy.reset()
    assert "basalt" in copy.step(call("lookup", title="moon"))[0]
