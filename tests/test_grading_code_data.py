"""The reference programs of HumanEval and MBPP pass their tests in the code grader, and hollow ones do not."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elpo_envs.grading.code import CodeGrader, CodeLimits
from elpo_envs.sandbox import IsolationWarning

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{IsolationWarning.__module__}.{IsolationWarning.__name__}"),
    pytest.mark.filterwarnings("ignore:invalid escape sequence"),
]
COUNTS = {"humaneval": 164, "mbpp": 974, "mbpp_sanitized": 427}
# Functions that are meant to return None for what the tests give them, by the tests that cannot tell.
RIGHTLY_NONE: dict[str, set[str]] = {"humaneval": set(), "mbpp": set(), "mbpp_sanitized": set()}


@pytest.fixture(scope="module")
def grader() -> Iterator[CodeGrader]:
    with CodeGrader(CodeLimits(per_test_s=60, total_s=240)) as grader:
        yield grader


def rows(data_dir: Path, name: str) -> list[dict[str, Any]]:
    path = data_dir / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    assert len(found) == COUNTS[name]
    return found


def as_tests(row: dict[str, Any]) -> dict[str, Any]:
    tests = row["tests"]
    if tests["type"] == "humaneval":
        return {
            "type": "humaneval", "prompt": row["question"], "code": tests["code"], "entry_point": row["entry_point"],
        }  # fmt: skip
    asserts = [*tests["asserts"], *tests["challenge_asserts"]]
    return {"type": "asserts", "setup": tests["imports"], "setup_after": tests["setup_after"], "asserts": asserts}


def hollow(source: str) -> str:
    """The same program, but every function returns None."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            node.body = [ast.Return(ast.Constant(None))]
    return ast.unparse(ast.fix_missing_locations(tree))


def failures(grader: CodeGrader, programs: list[tuple[dict[str, Any], str]]) -> list[str]:
    graded = [(row["id"], grader.grade(program, as_tests(row))) for row, program in programs]
    return [f"{name}: {grade}" for name, grade in graded if not grade.correct]


def passing(grader: CodeGrader, found: list[dict[str, Any]]) -> set[str]:
    """Ids of the rows that a hollow program passes."""
    grades = {row["id"]: grader.grade(hollow(row["solution"]), as_tests(row)) for row in found}
    assert not [name for name, grade in grades.items() if grade.failed_infrastructure]
    return {name for name, grade in grades.items() if grade.correct}


@pytest.mark.parametrize("name", COUNTS)
def test_a_sample_of_the_reference_programs(grader: CodeGrader, data_dir: Path, name: str) -> None:
    sample = rows(data_dir, name)[7::40][:12]
    assert failures(grader, [(row, row["solution"]) for row in sample]) == []
    assert passing(grader, sample[:4]) <= RIGHTLY_NONE[name]


def test_rows_that_need_more_than_values(grader: CodeGrader, data_dir: Path) -> None:
    """Helpers in the prompt, classes and trees in the tests, a function named `sum`, a body that goes on a prompt."""
    humaneval = {row["id"]: row for row in rows(data_dir, "humaneval")}
    mbpp = {row["id"]: row for row in rows(data_dir, "mbpp")}
    chosen = [humaneval[f"HumanEval/{n}"] for n in (32, 33, 38, 50, 53)] + [
        mbpp[f"mbpp/{n}"] for n in (126, 367, 596, 601)
    ]
    programs = [(row, row["solution"]) for row in chosen]
    programs += [(humaneval["HumanEval/38"], humaneval["HumanEval/38"]["answer"])]
    assert failures(grader, programs) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", COUNTS)
def test_every_reference_program_passes(grader: CodeGrader, data_dir: Path, name: str) -> None:
    assert failures(grader, [(row, row["solution"]) for row in rows(data_dir, name)]) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", COUNTS)
def test_no_hollow_program_passes(grader: CodeGrader, data_dir: Path, name: str) -> None:
    assert passing(grader, rows(data_dir, name)) == RIGHTLY_NONE[name]
