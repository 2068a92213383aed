"""The real benchmark files in the folder ELPO_DATA: sizes, order, and well-formed answers in every row."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from elpo_envs.grading.choice import format_choices
from elpo_envs.tasks.base import Task
from elpo_envs.tasks.benchmarks import BENCHMARKS

pytestmark = pytest.mark.skipif(
    not os.environ.get("ELPO_DATA"), reason="ELPO_DATA is not set: it names the folder with the real data sets"
)

SLOW = {("gsm8k", "train"), ("math", "train"), ("openbookqa", "train")}

# name, split -> file, rows, first and last id
REAL = {
    ("gsm8k", "test"): ("gsm8k_test", 1319, "0", "1318"),
    ("gsm8k", "train"): ("gsm8k_train", 7473, "0", "7472"),
    ("math", "train"): ("math_train", 7498, "0", "7499"),
    ("math500", "test"): ("math500", 500, "precalculus/807.json", "geometry/615.json"),
    ("aime24", "test"): ("aime24", 30, "60", "89"),
    ("aime25", "test"): ("aime25", 30, "0", "29"),
    ("amc23", "test"): ("amc23", 40, "0", "49"),
    ("arc_challenge", "test"): ("arc_challenge_test", 1172, "Mercury_7175875", "MEA_2013_8_15"),
    ("arc_challenge", "train"): ("arc_challenge_train", 1119, "Mercury_SC_415702", "Mercury_SC_412487"),
    ("openbookqa", "test"): ("openbookqa_test", 500, "0", "499"),
    ("openbookqa", "train"): ("openbookqa_train", 4957, "0", "4956"),
    ("mmlu_stem", "test"): ("mmlu_stem_test", 3018, "abstract_algebra/0", "machine_learning/111"),
    ("mmlu_stem", "validation"): ("mmlu_stem_val", 321, "abstract_algebra/0", "machine_learning/10"),
    ("mmlu_stem", "dev"): ("mmlu_stem_dev", 90, "abstract_algebra/0", "machine_learning/4"),
    ("scibench", "test"): ("scibench", 580, "atkins/0", "diff/49"),
    ("scibench", "train"): ("scibench", 112, "atkins_sol/0", "diff_sol/4"),
    ("humaneval", "test"): ("humaneval", 164, "HumanEval/0", "HumanEval/163"),
    ("mbpp", "prompt"): ("mbpp", 10, "1", "10"),
    ("mbpp", "test"): ("mbpp", 500, "11", "510"),
    ("mbpp", "validation"): ("mbpp", 90, "511", "600"),
    ("mbpp", "train"): ("mbpp", 374, "601", "974"),
    ("mbpp_sanitized", "prompt"): ("mbpp_sanitized", 7, "2", "9"),
    ("mbpp_sanitized", "test"): ("mbpp_sanitized", 257, "11", "479"),
    ("mbpp_sanitized", "validation"): ("mbpp_sanitized", 43, "554", "600"),
    ("mbpp_sanitized", "train"): ("mbpp_sanitized", 120, "602", "809"),
    ("livecodebench", "test"): ("lcb_v1_public", 400, "1873_A", "abc343_e"),
}

CASES = [
    pytest.param(name, split, id=f"{name}-{split}", marks=[pytest.mark.slow] if (name, split) in SLOW else [])
    for name, split in REAL
]


@pytest.mark.filterwarnings("ignore:.*invalid escape sequence")  # of published programs
@pytest.mark.parametrize(("name", "split"), CASES)
def test_every_row_is_well_formed(name: str, split: str, data_dir: Path) -> None:
    file, rows, first, last = REAL[name, split]
    if not (data_dir / f"{file}.jsonl.gz").is_file():
        pytest.skip(f"ELPO_DATA has no file {file}.jsonl.gz")
    source = BENCHMARKS[name].open(split, data_dir=data_dir)
    assert source.size == rows
    found = [source.get(index) for index in range(rows)]
    assert found[0].task_id == f"{name}/{split}/{first}"
    assert found[-1].task_id == f"{name}/{split}/{last}"
    assert len({task.task_id for task in found}) == rows
    assert source.by_id(found[-1].task_id) == found[-1]
    for index, task in enumerate(found):
        assert (task.index, task.split) == (index, split)
        assert task.question.strip()
        assert json.loads(json.dumps(task.metadata)) == task.metadata
        CHECKS[task.metadata["kind"]](task)
        if name.startswith("aime"):
            assert 0 <= int(task.answer) <= 999 and str(int(task.answer)) == task.answer
        if name in ("gsm8k", "amc23"):
            float(task.answer)


def check_math(task: Task) -> None:
    assert task.answer.strip() == task.answer != ""


def check_choice(task: Task) -> None:
    choices = task.metadata["choices"]
    assert 2 <= len(choices) <= 5
    assert task.answer in "ABCDE"[: len(choices)]
    assert task.question.endswith("\n\n" + format_choices(choices))


def check_number(task: Task) -> None:
    float(task.answer)
    assert task.metadata["tolerance"] == 0.05
    unit = task.metadata["unit"]
    assert task.question.endswith(f"number in {unit}." if unit else "number.")


def check_program(task: Task) -> None:
    entry_point, tests = task.metadata["entry_point"], task.metadata["tests"]
    if task.answer:
        tree = ast.parse(task.answer)
        assert entry_point in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert entry_point or tests["type"] == "stdin"
    assert entry_point in task.question
    TESTS[tests["type"]](tests, entry_point)
    if tests["type"] in ("stdin", "functional"):
        assert task.metadata["public_tests"] == tests
        assert task.metadata["starter_code"].strip() in task.question


def humaneval_tests(tests: Mapping[str, Any], entry_point: str) -> None:
    assert tests["entry_point"] == entry_point
    assert "check" in {node.name for node in ast.parse(tests["code"]).body if isinstance(node, ast.FunctionDef)}


def assert_tests(tests: Mapping[str, Any], entry_point: str) -> None:
    ast.parse(tests["setup"]), ast.parse(tests["setup_after"])
    for text in tests["asserts"]:
        assert isinstance(ast.parse(text.strip()).body[0], ast.Assert)
    assert entry_point in tests["asserts"][0]


def stdin_tests(tests: Mapping[str, Any], entry_point: str) -> None:
    assert tests["cases"]
    assert all(isinstance(case["input"], str) and isinstance(case["output"], str) for case in tests["cases"])


def functional_tests(tests: Mapping[str, Any], entry_point: str) -> None:
    stdin_tests(tests, entry_point)
    assert tests["entry_point"] == entry_point
    for case in tests["cases"]:
        json.loads(case["output"])
        for line in case["input"].split("\n"):
            json.loads(line)


CHECKS = {"math": check_math, "choice": check_choice, "number": check_number, "program": check_program}
TESTS = {"humaneval": humaneval_tests, "asserts": assert_tests, "stdin": stdin_tests, "functional": functional_tests}
