"""Pass@K, Major@K and the summary over attempts."""

from __future__ import annotations

from itertools import combinations

import pytest

from elpo_agent.evaluation.scores import Attempt, major_at_k, pass_at_k, summarize


def attempt(answer: str | None, success: bool, task: str = "t", valid: bool = True) -> Attempt:
    return Attempt(task, success, answer, tool_calls=2, tool_errors=1, turns=3, tokens=10, valid=valid)


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_the_average_over_all_subsets(n: int) -> None:
    for correct in range(n + 1):
        marks = [1] * correct + [0] * (n - correct)
        for k in range(1, n + 1):
            subsets = list(combinations(marks, k))
            assert pass_at_k(n, correct, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_pass_at_k_refuses_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="k=3"):
        pass_at_k(2, 1, 3)


def test_majority_votes() -> None:
    assert major_at_k([attempt("1", True), attempt("2", False), attempt("1", True)], 3) == 1.0
    assert major_at_k([attempt("1", True), attempt("2", False), attempt("2", False)], 3) == 0.0
    assert major_at_k([attempt("1", True), attempt("2", False)], 2) == 0.5
    assert major_at_k([attempt(None, False), attempt(None, False), attempt("1", True)], 3) == 1.0
    assert major_at_k([attempt(None, False)], 1) == 0.0


def test_summary_counts_only_valid_attempts() -> None:
    scores = summarize(
        [
            attempt("1", True, "a"),
            attempt("2", False, "a"),
            attempt("5", False, "b"),
            attempt("6", False, "b"),
            attempt(None, False, "b", valid=False),
        ]
    )
    assert scores["tasks"] == 2
    assert scores["invalid"] == 1
    assert scores["pass@1"] == pytest.approx(0.25)
    assert scores["pass@2"] == pytest.approx(0.5)
    assert scores["major@2"] == pytest.approx(0.25)
    assert "pass@4" not in scores
    assert scores["tool_calls_per_solved"] == pytest.approx(8.0)


def test_an_empty_summary_says_so() -> None:
    assert summarize([]) == {"tasks": 0, "attempts": 0, "invalid": 0}
