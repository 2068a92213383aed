"""The benchmark of the grader: its pairs are what they claim, it runs alone, and its adapter to Math-Verify works."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # the benchmarks are not part of the installed packages

import pytest  # noqa: E402

from benchmarks.grading_pairs import hostile, numbers, written_variants  # noqa: E402
from benchmarks.grading_suite import run_suite  # noqa: E402
from elpo_envs.grading import grade_math  # noqa: E402

SUITE = """
import pytest
from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify
from math_verify.grader import sympy_expr_eq
import sympy

@pytest.mark.parametrize("gold, answer, equal", [
    ("$2$", "So $x = 2$.", True), ("$2$", "it is 3", False), (r"$\\frac{1}{2}$", r"\\boxed{0.5}", True),
    ("$2$", "it is 2", False),
])
def test_pairs(gold, answer, equal):
    configs = [LatexExtractionConfig(boxed_match_priority=0)]
    assert verify(parse(gold, configs), parse(answer, configs)) is equal

def test_options():
    assert verify(parse("$1/3$"), parse("0.333"), float_rounding=3)
    assert not verify(parse("$1/3$"), parse("0.333"), float_rounding=5)
    assert parse("7", [ExprExtractionConfig()]) and not parse("7", [LatexExtractionConfig()])
    assert parse("The answer is B.", [StringExtractionConfig()]) == ["b", "B"]
    assert sympy_expr_eq(sympy.sqrt(8), 2 * sympy.sqrt(2))

def test_that_fails():
    assert verify(parse("$2$"), parse("$3$"))
"""


def test_numbers_are_equal_or_not_as_they_claim() -> None:
    pairs = numbers(3, 84)
    assert pairs == numbers(3, 84) != numbers(4, 84)
    assert sum(pair.equal for pair in pairs) == 42
    assert [pair for pair in pairs if grade_math(pair.answer, pair.gold).correct is not pair.equal] == []


def test_hostile_answers_are_unlike_their_golds() -> None:
    pairs = hostile()
    assert len({(pair.answer, pair.gold) for pair in pairs}) == len(pairs) > 40
    assert not any(pair.equal for pair in pairs)


def test_variants_of_a_data_set(tmp_path: Path) -> None:
    golds = ["12", r"\frac{3}{8}", "(3, 5)", "x=12", "0"]
    with gzip.open(tmp_path / "math500.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps({"answer": gold}) + "\n" for gold in golds)
    pairs = written_variants(tmp_path)
    kinds = {pair.name.partition(",")[0] for pair in pairs}
    assert {"the same", "as a sum", "not cancelled", "upside down", "swapped", "sized brackets", "other sign"} <= kinds
    assert [pair for pair in pairs if grade_math(pair.answer, pair.gold).correct is not pair.equal] == []


@pytest.mark.slow
def test_it_runs_without_a_peer(tmp_path: Path) -> None:
    path = tmp_path / "grading.json"
    environment = {
        name: value for name, value in os.environ.items() if name not in ("ELPO_DATA", "ELPO_MATH_VERIFY_PYTHON")
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.grading", "--quick", "--json", str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    assert report["benchmark"] == "grading" and len(report["settings"]["skipped"]) == 3
    assert {row["group"] for row in report["rows"]} == {"integers and fractions", "hostile answers, worst case"}
    figures = report["settings"]["integers and fractions"]
    assert figures["right: ours"] == figures["pairs"] > 0


@pytest.mark.slow
def test_a_suite_runs_against_our_grader(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_cases.py").write_text(SUITE)
    run = run_suite(tmp_path)
    assert len(run.passed) == 5
    assert [case.partition(" ")[0] for case in run.failed] == ["test_cases::test_that_fails"]


def test_a_suite_without_tests_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no folder tests; give a checkout of Math-Verify's repository"):
        run_suite(tmp_path)
