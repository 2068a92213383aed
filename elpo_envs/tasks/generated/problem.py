"""Draw a problem from a family: numbers that keep every step exact, and the right code for each step."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from elpo_envs.tasks.generated.story import NAMES, Family, Move, divides_evenly, exact_value

VARIABLES = "abcdefghijkl"
MAX_STEPS = len(VARIABLES)
LARGEST = 2000
_TRIES = 40


@dataclass(frozen=True)
class ProblemStep:
    """One dependent step.

    Attributes:
        sentence: its sentence in the question.
        variable: the Python name it defines.
        expr: the right expression; `pitfall`: the tempting wrong one, or None.
        value: the exact result.
    """

    sentence: str
    variable: str
    expr: str
    pitfall: str | None
    value: Fraction


@dataclass(frozen=True)
class Problem:
    """A word problem of `len(steps)` dependent steps."""

    family: str
    question: str
    steps: tuple[ProblemStep, ...]

    @property
    def answer(self) -> str:
        return plain(self.steps[-1].value)


def plain(value: Fraction) -> str:
    """A whole number or a finite decimal, as people write it: 12, 7.5."""
    return str(value.numerator) if value.denominator == 1 else str(float(value))


def _fits(value: Fraction, halves: bool) -> bool:
    return 1 <= value <= LARGEST and (value * (2 if halves else 1)).denominator == 1


def _draw_numbers(
    move: Move, x: Fraction, a: Fraction, halves: bool, rng: np.random.Generator
) -> tuple[int, int, Fraction] | None:
    """Numbers under which both the right expression and the pitfall stay exact, in range, and differ."""
    for n, m in zip(
        rng.integers(move.n[0], move.n[1] + 1, _TRIES).tolist(),
        rng.integers(move.m[0], move.m[1] + 1, _TRIES).tolist(),
        strict=True,
    ):
        value = exact_value(move.expr, x=x, a=a, n=n, m=m)
        if not _fits(value, halves) or not divides_evenly(move.expr, x=x, a=a, n=n, m=m) or value == x:
            continue
        if move.pitfall is not None:
            wrong = exact_value(move.pitfall, x=x, a=a, n=n, m=m)
            if wrong == value or not divides_evenly(move.pitfall, x=x, a=a, n=n, m=m):
                continue
        return n, m, value
    return None


def draw_problem(family: Family, n_steps: int, rng: np.random.Generator) -> Problem:
    """A problem with exactly `n_steps` dependent steps (2 to 12)."""
    while True:
        problem = _try_draw(family, n_steps, rng)
        if problem is not None:
            return problem


def _try_draw(family: Family, n_steps: int, rng: np.random.Generator) -> Problem | None:
    people = [str(p) for p in rng.permutation(NAMES)]
    person = people.pop()
    steps: list[ProblemStep] = []
    x = a = Fraction(0)
    last: Move | None = None
    for i in range(n_steps):
        pool = family.openings if i == 0 else family.moves
        for j in rng.permutation(len(pool)):
            move = pool[int(j)]
            if move is last or (move.recalls_start and i < 2):
                continue
            drawn = _draw_numbers(move, x, a, family.halves, rng)
            if drawn is not None:
                break
        else:
            return None
        n, m, value = drawn
        newcomer = people.pop() if move.renames else person
        names = {"x": VARIABLES[i - 1] if i else "", "a": VARIABLES[0], "n": n, "m": m}
        steps.append(
            ProblemStep(
                sentence=move.text.format(p=person, q=newcomer, **names),
                variable=VARIABLES[i],
                expr=move.expr.format(**names),
                pitfall=None if move.pitfall is None else move.pitfall.format(**names),
                value=value,
            )
        )
        person, x, last = newcomer, value, move
        a = value if i == 0 else a
    question = " ".join([*(s.sentence for s in steps), family.question.format(p=person)])
    return Problem(family.name, question, tuple(steps))
