"""The building blocks of a generated word problem: an opening, moves that change a quantity, a question."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from types import CodeType

NAMES = (
    "Ana",
    "Ben",
    "Cal",
    "Dora",
    "Eli",
    "Fay",
    "Gus",
    "Hana",
    "Ivan",
    "June",
    "Kim",
    "Leo",
    "Mia",
    "Nora",
)


@dataclass(frozen=True)
class Move:
    """One sentence that turns the running quantity into the next.

    Attributes:
        text: the sentence; `{n}` and `{m}` are its numbers, `{p}` the person the quantity belongs to so far,
            `{q}` the person it belongs to afterwards (a new one where the sentence names one).
        expr: the right Python expression over `{x}` (the running variable), `{a}` (the first variable),
            `{n}` and `{m}`. Division is written `//` and only used where it is exact.
        pitfall: the mistake people really make on this phrasing, as an expression; None for plain sentences.
        n, m: inclusive ranges of the numbers.
    """

    text: str
    expr: str
    pitfall: str | None = None
    n: tuple[int, int] = (2, 9)
    m: tuple[int, int] = (2, 5)

    @property
    def recalls_start(self) -> bool:
        return "{a}" in self.expr

    @property
    def renames(self) -> bool:
        return "{q}" in self.text


@dataclass(frozen=True)
class Family:
    """A kind of story.

    Attributes:
        name: stable identifier, also a key of `GeneratedSource(families=...)`.
        openings: sentences that give the first quantity, over `{n}` and `{m}`.
        moves: what can happen next.
        question: what is asked about the last quantity.
        halves: quantities may be multiples of one half instead of whole numbers.
    """

    name: str
    openings: tuple[Move, ...]
    moves: tuple[Move, ...]
    question: str
    halves: bool = False


@cache
def _compiled(expr: str, exact: bool) -> CodeType:
    """A template as code over x, a, n and m; `exact` reads `//` as true division and 1.5 as three halves."""
    filled = expr.format(x="x", a="a", n="n", m="m")
    if exact:
        filled = filled.replace("//", "/").replace("1.5", "three_halves")
    return compile(filled, "<template>", "eval")


def exact_value(expr: str, *, x: Fraction, a: Fraction, n: int, m: int) -> Fraction:
    """The value of one of our own expression templates in exact arithmetic (`//` counts as true division)."""
    scope = {"x": x, "a": a, "n": Fraction(n), "m": Fraction(m), "three_halves": Fraction(3, 2)}
    return Fraction(eval(_compiled(expr, True), {"__builtins__": {}}, scope))


def divides_evenly(expr: str, *, x: Fraction, a: Fraction, n: int, m: int) -> bool:
    """Whether `//` in the template, as Python computes it on these numbers, loses nothing."""
    if "//" not in expr:
        return True
    if x.denominator != 1 or a.denominator != 1:
        return False
    scope = {"x": int(x), "a": int(a), "n": n, "m": m}
    return Fraction(eval(_compiled(expr, False), {"__builtins__": {}}, scope)) == exact_value(expr, x=x, a=a, n=n, m=m)
