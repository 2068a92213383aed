"""Grading of final answers in mathematics: `grade_math`, `grade_response`, `extract_boxed`."""

from __future__ import annotations

from elpo_envs.grading.extract import extract_boxed
from elpo_envs.grading.grade import Grade, grade_math, grade_response
from elpo_envs.grading.symbolic import SymbolicUnavailableError

__all__ = ["Grade", "SymbolicUnavailableError", "extract_boxed", "grade_math", "grade_response"]
