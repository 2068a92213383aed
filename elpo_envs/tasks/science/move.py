"""The building blocks of a generated science question: kinds of quantity, and moves from one to the next."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import CodeType

from elpo_envs.tasks.science.entries import Body, Element, Isotope, Substance
from elpo_envs.tasks.science.tables import FACTORS

Drawn = Element | Substance | Isotope | Body
Pitfall = tuple[str, str]

_SLOT = re.compile(r"\{([\w.]+)\}")


@dataclass(frozen=True)
class Kind:
    """A kind of quantity that a question can be about.

    Attributes:
        noun: what it is called, such as "mass".
        unit: the unit its values are in.
        low, high: the values that make sense in a question, inclusive.
    """

    noun: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True)
class Num:
    """The numbers a question may state: `low` to `high`, inclusive, in units of 10**-decimals."""

    low: int
    high: int
    decimals: int = 0

    def text(self, position: int) -> str:
        """The number at `position`, 0 to high - low, as decimal text."""
        value = self.low + position
        return str(value) if not self.decimals else f"{value / 10**self.decimals:.{self.decimals}f}"


@dataclass(frozen=True)
class Move:
    """One sentence that leads from one quantity to the next.

    Templates have slots: `{x}` is the quantity before, `{n}`, `{m}` and `{r}` the sentence's numbers, `{s.field}` a
    field of the entry drawn from `pool`, `{w.field}` one of another entry of it (for pitfalls), `{t.field}` one of the
    entry that the whole question is about, and a key of `tables.FACTORS`, such as `{R}`, that constant or unit.

    Attributes:
        name: unique in its family.
        source: the kind of quantity it starts from, None for an opening.
        target: the kind of quantity it leads to.
        text: the sentence; it ends by saying what the new quantity is.
        expr: the right Python expression.
        pitfalls: mistakes people really make, as (expression, what went wrong).
        pool: the entries `{s}` is drawn from.
        n, m, r: the numbers.
        needs: a condition on the numbers as a Python expression; "" for none.
    """

    name: str
    source: Kind | None
    target: Kind
    text: str
    expr: str
    pitfalls: tuple[Pitfall, ...]
    pool: tuple[Drawn, ...] = ()
    n: Num = Num(0, 0)
    m: Num = Num(0, 0)
    r: Num = Num(0, 0)
    needs: str = ""


@dataclass(frozen=True)
class Family:
    """A field of questions.

    Attributes:
        name: stable identifier, also a name in `ScienceSource(families=...)`.
        moves: openings (moves without a source) and all others; every target is the source of some move.
        theme: entries one of which, `{t}`, the whole question is about; empty where there is none.
    """

    name: str
    moves: tuple[Move, ...]
    theme: tuple[Drawn, ...] = ()


def fill(template: str, words: Mapping[str, str]) -> str:
    """The template with its slots replaced by text. Slots that `words` lacks are constants and units."""
    return _SLOT.sub(lambda slot: words[slot[1]] if slot[1] in words else repr(FACTORS[slot[1]].value), template)


def factors_in(template: str, words: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of the constants and units in a template, in order and once each."""
    return tuple(dict.fromkeys(key for key in _SLOT.findall(template) if key not in words and key != "x"))


@cache
def _compiled(template: str) -> tuple[CodeType, tuple[str, ...]]:
    names = tuple(dict.fromkeys(_SLOT.findall(template)))
    source = _SLOT.sub(lambda slot: slot[1].replace(".", "_"), template)
    return compile(source, "<template>", "eval"), names


def evaluate(template: str, words: Mapping[str, str], x: float) -> float:
    """The value of one of our own templates; the same as that of the filled template run as Python.

    Raises ArithmeticError or ValueError where the numbers do not allow it, such as the root of a negative.
    """
    code, names = _compiled(template)
    scope: dict[str, object] = {"math": math, "x": x}
    for name in names:
        if name in words:
            scope[name.replace(".", "_")] = float(words[name])
        elif name != "x":
            scope[name] = FACTORS[name].value
    return float(eval(code, {"__builtins__": {}}, scope))
