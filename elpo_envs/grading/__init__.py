"""Grading of final answers: mathematics, multiple choice and quantities here, programs in `elpo_envs.grading.code`."""

from __future__ import annotations

from elpo_envs.grading.choice import choice_letters, choice_order, format_choices, grade_choice
from elpo_envs.grading.extract import extract_boxed
from elpo_envs.grading.grade import Grade, grade_math, grade_response
from elpo_envs.grading.prose import answer_in_prose, choice_in_prose
from elpo_envs.grading.quantity import grade_quantity
from elpo_envs.grading.symbolic import SymbolicUnavailableError

__all__ = [
    "Grade",
    "SymbolicUnavailableError",
    "answer_in_prose",
    "choice_in_prose",
    "choice_letters",
    "choice_order",
    "extract_boxed",
    "format_choices",
    "grade_choice",
    "grade_math",
    "grade_quantity",
    "grade_response",
]
