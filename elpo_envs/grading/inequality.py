"""Does an inequality in one real variable describe a given set of numbers?

It is tried, not proved: at the ends of the set's intervals, wherever the sides of the inequality cross, at the numbers
that are written in it, close beside all of these, and at a few hundred numbers near and far.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from elpo_envs.grading.expression import TooLargeError, UndefinedError, UnreadableError, Value, evaluate, evaluate_at
from elpo_envs.grading.structure import Named, Node, Ordered, Relation, Scalar, Unordered

_SAME = 1e-9
_BESIDE = (Fraction(1, 10_000), Fraction(1, 50))
_FAR = (Fraction(301, 7), Fraction(1001, 3), Fraction(100_001, 7), Fraction(10_000_019, 3))
_MAX_ENDS = 32
_ENOUGH = 100
_INEQUALITIES = frozenset({"<", "<=", ">", ">=", "!="})
_LITERAL = re.compile(r"\d+(?:\.\d+)?")
_LETTER = re.compile(r"(?<!\\)(?<!\\[A-Za-z])(?<![A-Za-z])[A-Za-z](?![A-Za-z])")


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`; None is the infinity of that side. A single number is closed on both sides."""

    low: Value | None
    high: Value | None
    low_closed: bool
    high_closed: bool

    def holds(self, x: Value) -> bool:
        """Whether the real number `x` is in it."""
        if (self.low_closed and _equal(x, self.low)) or (self.high_closed and _equal(x, self.high)):
            return True
        above = self.low is None or (_real(self.low) < _real(x) and not _equal(x, self.low))
        return above and (self.high is None or (_real(x) < _real(self.high) and not _equal(x, self.high)))


def describes(operators: Sequence[str], sides: Sequence[str], name: str, region: Sequence[Interval]) -> bool | None:
    """Whether `sides[0] operators[0] sides[1] ...` holds for just those values of `name` that are in `region`.

    `operators` are "<", "<=", ">", ">=" or "!="; the sides are normalised text. None where a side cannot be read, has
    other variables, or an end of the region is not real.
    """
    ends = [end for part in region for end in (part.low, part.high) if end is not None]
    if len(ends) > _MAX_ENDS or any(isinstance(end, complex) and abs(end.imag) > _SAME for end in ends):
        return None
    decided = 0
    try:
        tried = [*_tried([*ends, *_written(sides)]), *ends]
        for x in [*tried, *_crossings(sides, name, sorted(tried, key=_real))]:
            held = _holds(operators, sides, name, x)
            if held is not None and held != any(part.holds(x) for part in region):
                return False
            decided += held is not None
    except UnreadableError:
        return None
    return True if decided > _ENOUGH else None


def compare_region(relation: Relation, other: Node) -> bool | None:
    """Whether an inequality describes the interval or union `other`, alone or as `x = ...`; None as `describes`."""
    names = {name for side in relation.texts for name in _LETTER.findall(side)} - {"e", "i"}
    if not set(relation.operators) <= _INEQUALITIES or len(names) != 1:
        return None
    (name,) = names
    if isinstance(other, Named):
        if other.name != name:
            return None
        other = other.value
    region = _intervals(other)
    return None if region is None else describes(relation.operators, relation.texts, name, region)


def _intervals(node: Node) -> list[Interval] | None:
    """A union of intervals and numbers."""
    parts: list[Interval] = []
    for item in node.items if isinstance(node, Unordered) else (node,):
        if isinstance(item, Unordered):
            nested = _intervals(item)
        elif isinstance(item, Ordered) and len(item.items) == 2 and item.brackets != ":":
            nested = _interval(item)
        elif isinstance(item, Scalar) and (value := _constant(item)) is not None and isinstance(node, Unordered):
            nested = [Interval(value, value, True, True)]
        else:
            nested = None
        if nested is None:
            return None
        parts += nested
    return parts


def _interval(node: Ordered) -> list[Interval] | None:
    low, high = node.items
    if not isinstance(low, Scalar) or not isinstance(high, Scalar):
        return None
    left = None if low.text == r"-\infty" else _constant(low)
    right = None if high.text == r"\infty" else _constant(high)
    if (left is None and low.text != r"-\infty") or (right is None and high.text != r"\infty"):
        return None
    return [Interval(left, right, node.brackets[0] == "[", node.brackets[1] == "]")]


def _constant(node: Scalar) -> Value | None:
    try:
        value, varies = evaluate(node.text)
    except (UnreadableError, TooLargeError, UndefinedError):
        return None
    return None if varies else value


def _real(value: Value) -> float | Fraction:
    return value.real if isinstance(value, complex) else value


def _written(sides: Sequence[str]) -> list[Fraction]:
    numbers = {Fraction(text) for side in sides for text in _LITERAL.findall(side) if len(text) < 12}
    return [sign * number for number in sorted(numbers)[:_MAX_ENDS] for sign in (1, -1)]


def _tried(marks: Sequence[Value]) -> list[Value]:
    """The numbers near and far, the marks that are exact, and what is beside and between the marks."""
    near = sorted({Fraction(_real(mark)) for mark in marks})
    tried = [Fraction(at, 6) for at in range(-90, 91)]
    tried += [sign * far for far in _FAR for sign in (1, -1)]
    tried += [(a + b) / 2 for a, b in pairwise(near)]
    for mark in near:
        tried += [mark + sign * step * max(Fraction(1), abs(mark)) for step in _BESIDE for sign in (1, -1)]
    return list({*tried, *(mark for mark in marks if isinstance(mark, Fraction))})


def _crossings(sides: Sequence[str], name: str, tried: Sequence[Value]) -> list[Value]:
    """What is close beside the places where two neighbouring sides cross, and the places themselves where exact."""
    found: list[Value] = []
    for left, right in pairwise(sides):

        def above(x: Value, left: str = left, right: str = right) -> int | None:
            try:
                gap = complex(evaluate_at(left, name, x)) - complex(evaluate_at(right, name, x))
            except (UndefinedError, TooLargeError, OverflowError):
                return None
            return (gap.real > 0) - (gap.real < 0) if abs(gap.imag) <= _SAME * max(1.0, abs(gap)) else None

        signs = [above(x) for x in tried]
        for (low, low_sign), (high, high_sign) in pairwise(zip(tried, signs, strict=True)):
            if low_sign and high_sign and low_sign == -high_sign and len(found) < 6 * _MAX_ENDS:
                root = _bisected(above, Fraction(_real(low)), Fraction(_real(high)))
                found += [root - _BESIDE[0], root + _BESIDE[0]]
                if above(simple := root.limit_denominator(10_000)) == 0:
                    found.append(simple)
    return found


def _bisected(above: Callable[[Value], int | None], low: Fraction, high: Fraction) -> Fraction:
    """The place between `low` and `high` where the sign changes, to about 12 digits."""
    sign = above(low)
    for _ in range(40):
        middle = Fraction(float(low + high) / 2)
        if above(middle) == sign:
            low = middle
        else:
            high = middle
    return high


def _holds(operators: Sequence[str], sides: Sequence[str], name: str, x: Value) -> bool | None:
    """Whether the inequality holds at `x`; not where a side has no value there; None where it is beyond all floats."""
    try:
        values = [evaluate_at(side, name, x) for side in sides]
    except TooLargeError:
        return None
    except UndefinedError as error:
        return False if isinstance(error.__cause__, ZeroDivisionError) else None
    return all(_compare(operator, a, b) for operator, a, b in zip(operators, values, values[1:], strict=False))


def _compare(operator: str, a: Value, b: Value) -> bool:
    same = _equal(a, b)
    if operator == "!=":
        return not same
    if any(isinstance(side, complex) and abs(side.imag) > _SAME * max(1.0, abs(side)) for side in (a, b)):
        return False
    if same:
        return operator in ("<=", ">=")
    less = _real(a) < _real(b)
    return less if operator in ("<", "<=") else not less


def _equal(a: Value, b: Value | None) -> bool:
    if b is None:
        return False
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    try:
        first, second = complex(a), complex(b)
    except OverflowError:
        return False
    return abs(first - second) <= _SAME * max(1.0, abs(first), abs(second))
