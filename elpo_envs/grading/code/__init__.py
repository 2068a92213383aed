"""Grading of programs by tests that run outside them: `grade_code`, `CodeGrader`."""

from __future__ import annotations

from elpo_envs.grading.code.forms import read_tests
from elpo_envs.grading.code.grader import CodeGrader, grade_code
from elpo_envs.grading.code.outcome import CodeGrade, CodeLimits, Outcome, TestOutcome

__all__ = ["CodeGrade", "CodeGrader", "CodeLimits", "Outcome", "TestOutcome", "grade_code", "read_tests"]
