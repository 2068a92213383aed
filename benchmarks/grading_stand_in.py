"""Our grader behind the names of Math-Verify's Python API, so that its own tests can run against it.

A pytest plug-in (`-p benchmarks.grading_stand_in`): it must be loaded before the tests import `math_verify`. Only what
is spelled differently is translated. What has no counterpart is left out, and the tests that use it fail: replaceable
normalisation rules, comparison of sympy objects, variables that may be renamed, a comparison that depends on which
side is the gold one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import sympy

from elpo_envs.grading import answer_in_prose, choice_in_prose, grade_math


@dataclass(frozen=True)
class LatexExtractionConfig:
    """Boxes and formulas are read."""

    boxed_match_priority: int = 50


@dataclass(frozen=True)
class ExprExtractionConfig:
    """Bare numbers are read."""


@dataclass(frozen=True)
class StringExtractionConfig:
    """One of a few strings is the answer."""

    strings: tuple[str, ...] = ("A", "B", "C", "D")
    lowercase: bool = True


Target = LatexExtractionConfig | ExprExtractionConfig | StringExtractionConfig


def parse(pred: str, extraction_config: Sequence[Target] | None = None, **options: object) -> list[str]:
    """The answer in `pred` as a list of one, or nothing; for a choice its two spellings."""
    targets = extraction_config or (LatexExtractionConfig(), ExprExtractionConfig())
    if isinstance(targets[0], StringExtractionConfig):
        letter = choice_in_prose(pred, targets[0].strings)
        if letter is None:
            return []
        return [letter.lower() if targets[0].lowercase else letter, letter]
    formulas = any(isinstance(target, LatexExtractionConfig) for target in targets)
    numbers = any(isinstance(target, ExprExtractionConfig) for target in targets)
    answer = answer_in_prose(pred, formulas, numbers)
    return [] if answer is None else [answer]


def verify(gold: Sequence[str], target: Sequence[str], float_rounding: int = 6, **options: object) -> bool:
    """Whether an answer of one side equals one of the other."""
    return any(grade_math(answer, other, places=float_rounding).correct for answer in target for other in gold)


def sympy_expr_eq(a: sympy.Expr, b: sympy.Expr, float_rounding: int = 6, **options: object) -> bool:
    """Sympy's objects by their LaTeX."""
    return grade_math(sympy.latex(a), sympy.latex(b), places=float_rounding).correct


def _register() -> None:
    names = (
        "sympy_expr_eq",
        "parse",
        "verify",
        "ExprExtractionConfig",
        "LatexExtractionConfig",
        "StringExtractionConfig",
    )
    for name in ("math_verify", "math_verify.grader", "math_verify.parser"):
        module = ModuleType(name)
        for public in names:
            setattr(module, public, globals()[public])
        sys.modules[name] = module


_register()
