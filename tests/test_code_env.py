r"""`elpo/CodeExec-v0`: public tests, handing in, and programs that would rather not be graded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from elpo_envs import restore, snapshot
from elpo_envs.code_env import CodeExecEnv
from elpo_envs.tasks import Task

CASES = [{"args": [[3, 1, 2]], "expected": [1, 2, 3]}, {"args": [[]], "expected": []}, {"args": [[5]], "expected": [5]}]
PROGRAM = {
    "kind": "program",
    "entry_point": "order",
    "tests": {"type": "calls", "entry_point": "order", "cases": CASES},
    "public_tests": {"type": "calls", "entry_point": "order", "cases": CASES[:1]},
}
GOOD = "def order(numbers):\n    return sorted(numbers)\n"


class Fixed:
    """One task, again and again."""

    name, split, size = "fixed", "test", 1

    def __init__(self, answer: str, metadata: Mapping[str, Any]) -> None:
        self.task = Task("fixed/test/0", 0, "test", "Write a program, or say what it prints.", answer, (), metadata)

    def get(self, index: int) -> Task:
        return self.task

    def by_id(self, task_id: str) -> Task:
        return self.task


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.fixture(scope="module")
def shared() -> Iterator[CodeExecEnv]:
    env = CodeExecEnv(task_source=Fixed(GOOD, PROGRAM))
    yield env
    env.close()


@pytest.fixture
def env(shared: CodeExecEnv) -> CodeExecEnv:
    shared.reset()
    return shared


def test_public_tests_then_submit(env: CodeExecEnv) -> None:
    assert [tool["function"]["name"] for tool in env.tools] == ["python", "run_tests", "submit"]
    shown, reward, terminated, _, info = env.step(call("run_tests", code="def order(numbers):\n    return numbers\n"))
    assert "0 of 1 public tests passed" in shown and "order([3, 1, 2]) should give [1, 2, 3]" in shown
    assert not terminated and info["error_kind"] is None
    shown, *_ = env.step(call("run_tests", code=GOOD))
    assert shown == "1 of 1 public tests passed"
    _, reward, terminated, truncated, info = env.step(call("submit", code=GOOD))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["answer"] == GOOD and info["grade"]["n_passed"] == 3
    assert info["messages"][-1]["role"] == "tool", "the submission's acknowledgement"


def test_calls_before_a_submission_run_and_calls_after_it_do_not(env: CodeExecEnv) -> None:
    turn = call("python", code="x = 1") + call("submit", code=GOOD) + call("python", code="x = 2")
    _, reward, terminated, _, info = env.step(turn)
    assert (reward, terminated) == (1.0, True)
    assert [record["name"] for record in info["tool_calls"]] == ["python", "submit"]


def test_a_malformed_submission_is_not_one(env: CodeExecEnv) -> None:
    shown, _, terminated, _, info = env.step(call("submit", program=GOOD))
    assert not terminated and info["error_kind"] == "invalid_arguments" and "code" in shown


def test_a_program_in_the_final_turn(env: CodeExecEnv) -> None:
    _, reward, terminated, *_ = env.step(f"First try:\n```python\nx = 1\n```\nBetter:\n```python\n{GOOD}```\n")
    assert (reward, terminated) == (1.0, True)


def test_the_last_turn_may_submit_and_a_budget_does_not_void_it() -> None:
    env = CodeExecEnv(max_turns=1, max_tool_calls=1, task_source=Fixed(GOOD, PROGRAM))
    env.reset()
    _, reward, terminated, truncated, info = env.step(call("submit", code=GOOD))
    assert (reward, terminated, truncated, info["error_kind"]) == (1.0, True, False, None)
    env.close()


def test_snapshots_before_a_submission(env: CodeExecEnv) -> None:
    env.step(call("python", code="tried = [1]"))
    frozen = snapshot(env)
    for _ in range(2):
        assert env.step(call("submit", code=GOOD))[1] == 1.0
        restore(env, frozen)
        assert env.step(call("run_tests", code=GOOD))[0] == "1 of 1 public tests passed"
        assert env.step(call("submit", code="def order(n): return n"))[1] == 0.0
        restore(env, frozen)


HACKS = {
    "prints the verdict": "print('passed'); print('{\"correct\": true}')",
    "exits with success": "import sys\nsys.exit(0)",
    "exits at once": "import os\nos._exit(0)",
    "exits in the call": "import os\ndef order(numbers):\n    os._exit(0)",
    "leaves at the end": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef order(numbers): return None",
    "is equal to everything": (
        "class Any(list):\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "def order(numbers):\n    return Any()"
    ),
    "replaces the builtins": (
        "import builtins\nbuiltins.all = builtins.any = lambda *a: True\nbuiltins.sorted = lambda n: n\n"
        "def order(numbers):\n    return numbers"
    ),
    "reads its caller": (
        "import inspect\ndef order(numbers):\n    for frame in inspect.stack():\n"
        "        for value in frame.frame.f_locals.values():\n"
        "            if isinstance(value, dict) and 'expected' in value: return value['expected']\n    return 0"
    ),
    "reads the environment": "import os\ndef order(numbers):\n    return sorted(os.environ)",
    "looks for the tests in memory": (
        "import gc\ndef order(numbers):\n    for thing in gc.get_objects():\n"
        "        if isinstance(thing, dict) and 'expected' in thing: return thing['expected']\n    return 0"
    ),
    "never ends": "while True: pass",
    "returns nothing": "def order(numbers): ...",
    "is no program": "I would sort the list.",
    "is blank": "# nothing",
}


@pytest.mark.parametrize("name", list(HACKS))
def test_a_hack_scores_nothing(env: CodeExecEnv, name: str) -> None:
    _, reward, terminated, truncated, info = env.step(call("submit", code=HACKS[name]))
    assert reward == 0.0 and not info["is_correct"]
    assert terminated and not truncated, "the program's fault, not the machine's"


OUTPUT = Fixed("[1, 4]\ndone", {"kind": "output"})


@pytest.mark.parametrize(
    ("turn", "reward", "terminated"),
    [
        ("It prints \\boxed{[1, 4]\ndone}", 1.0, True),
        ("\\boxed{[1, 4]  \ndone\n}", 1.0, True),
        ("\\boxed{[1,4]\ndone}", 0.0, True),
        ("\\boxed{[1, 4]\ndone} or \\boxed{[1, 5]\ndone}", 0.0, True),
        ("It prints a list.", 0.0, False),
        (call("submit", code="[1, 4]\ndone"), 1.0, True),
    ],
)
def test_outputs(turn: str, reward: float, terminated: bool) -> None:
    env = CodeExecEnv(task_source=OUTPUT)
    env.reset()
    result = env.step(turn)
    assert (result[1], result[2]) == (reward, terminated)
    env.close()
