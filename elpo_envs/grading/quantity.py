r"""Numbers with units: is the boxed quantity the gold one, within a tolerance and after conversion?

Rules where usage differs:
- A decimal comma is refused; "1,234" and `1\,234` are 1234.
- An answer without a unit is in the gold answer's unit. Where that unit carries a power of ten ("10^3 J"), the
  number may be the one before the power or the whole one.
- A gold answer without a unit is a pure number: a unit with a dimension contradicts it. A percent or degree
  sign may be left out there, so that 50% answers both 50 and 0.5.
- °C, °F and K are points on a scale, never differences, when they stand alone.
- "a = b" is a quantity if b is and a is a symbol; where both sides are quantities, both are judged.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from elpo_envs.grading.dimension import Unit, UnknownUnitError, read_unit
from elpo_envs.grading.extract import extract_boxed, without_tool_text
from elpo_envs.grading.grade import Grade
from elpo_envs.grading.notation import MAX_LENGTH, NotAQuantityError, Token, read_number, tokens

ZERO_TOLERANCE = 1e-9  # for a gold answer of 0 where no absolute tolerance is given
_ROUNDING = 1e-12  # relative; what float arithmetic may lose
_MAX_BOX = 4 * MAX_LENGTH  # characters of a box that is read as several sides of an equation
_EQUALS = re.compile(r"(?<![<>!:=])=(?!=)|≈|≃|\\(?:approx|simeq|cong)(?![A-Za-z])")
_TEXT_ONLY = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_CURRENCIES = frozenset("$€£¥")


@dataclass(frozen=True)
class Quantity:
    """A number and the readings of its unit (empty: none was written).

    `unknown` is the unit's spelling where it is not understood, without spaces.
    """

    value: float
    units: tuple[Unit, ...] = ()
    unknown: str = ""


@dataclass(frozen=True)
class Refusal:
    """Why a text is no quantity: `reason` is "unreadable", "too_large" or "too_long"."""

    reason: str
    note: str


@dataclass(frozen=True)
class _Gold:
    """The gold answer: `value * scale` in `units`, where `scale` is the unit's power of ten."""

    value: float
    scale: float
    units: tuple[Unit, ...]
    unknown: str


@lru_cache(maxsize=1024)
def read_quantity(text: str) -> Quantity | Refusal:
    r"""The quantity that `text` (the contents of a box) writes, or why it is none. Never raises."""
    try:
        return _read(tokens(text))
    except NotAQuantityError as error:
        return Refusal(error.reason, str(error))


def grade_quantity(
    response: str, gold: str, unit: str = "", relative_tolerance: float = 0.01, absolute_tolerance: float = 0.0
) -> Grade:
    r"""Whether the quantity that an assistant turn boxes is `gold` in `unit`.

    It is right within `relative_tolerance * |gold|` or `absolute_tolerance` (in the gold's unit), whichever is
    larger; for a gold of 0 without an absolute tolerance, within 1e-9. Other units of the same dimension are
    converted. Tool calls and tool output are not read. Thread-safe; never raises for any text.

    Methods: "number", "converted" (the answer's unit differs from the gold's), "no_answer"; "ambiguous" for
    boxes that disagree; "units" for a unit that contradicts or is not known; "unreadable", "too_large" and
    "too_long" for what is no quantity; "bad_gold" where the gold answer is none, an error in the data.

    Args:
        response: the assistant turn.
        gold: the number as text, in `unit`.
        unit: such as "m/s", "kJ mol^{-1}" or "10^{-19} J", plain or in LaTeX; "" for a pure number.
        relative_tolerance: at least 0.
        absolute_tolerance: at least 0, in `unit`.

    Raises:
        ValueError: a tolerance is negative or not a number.
    """
    for name, value in (("relative_tolerance", relative_tolerance), ("absolute_tolerance", absolute_tolerance)):
        if not value >= 0:
            raise ValueError(f"{name} is {value}; it must be a number of at least 0")
    target = _read_gold(gold, unit)
    if isinstance(target, Refusal):
        return Grade(
            False, "bad_gold", note=f"the gold answer {gold[:60]!r} {unit[:60]!r} is no quantity: {target.note}"
        )
    boxes = [box for box in extract_boxed(without_tool_text(response)) if box.strip()]
    if not boxes:
        return Grade(False, "no_answer", note=r"no \boxed{} answer in the turn")
    allowed = max(relative_tolerance * abs(target.value), absolute_tolerance)
    if target.value == 0 and absolute_tolerance == 0:
        allowed = ZERO_TOLERANCE
    different = list(dict.fromkeys(boxes))
    grades = [_grade_box(box, target, allowed) for box in different]
    wrong = next((grade for grade in grades if not grade.correct), None)
    if wrong is None:
        return grades[0]
    for other in different[1:]:
        if not _agree(different[0], other, relative_tolerance):
            note = f"the turn boxes different answers: {different[0][:100]} and {other[:100]}"
            return Grade(False, "ambiguous", note=note)
    return wrong


def _read(found: tuple[Token, ...]) -> Quantity:
    at, sign = 0, 1.0
    currency: tuple[Token, ...] = ()
    if len(found) > 1 and found[0].kind in ("-", "+") and found[1].text in _CURRENCIES:
        at, sign = 1, -1.0 if found[0].kind == "-" else 1.0
    if at < len(found) and found[at].text in _CURRENCIES:
        currency = (found[at],)
        at += 1
    value, at = read_number(found, at)
    value *= sign
    if at < len(found) - 1 and found[at].kind == "*":
        at += 1
    rest = found[at:]
    if not rest and not currency:
        return Quantity(value)
    if any(token.kind in ("+", "pi", "sqrt") or token.text in ("and", "or") for token in rest):
        raise NotAQuantityError("unreadable", "more than a number and a unit")
    try:
        return Quantity(value, read_unit((*rest, *currency)))
    except UnknownUnitError:
        return Quantity(value, unknown="".join(token.text for token in rest))


@lru_cache(maxsize=1024)
def _read_gold(gold: str, unit: str) -> _Gold | Refusal:
    number = read_quantity(gold)
    if isinstance(number, Refusal):
        return number
    unit = unit.strip()
    if not unit:
        return _Gold(number.value, 1.0, number.units or (Unit(),), number.unknown)
    try:
        found = (Token("word", "$", False),) if unit == "$" else tokens(unit)
        if not found:
            return _Gold(number.value, 1.0, (Unit(),), "")
        if found[0].kind == "number":
            scaled = _read(found)
        else:
            scaled = _read((Token("number", "1", False), *found))
    except NotAQuantityError as error:
        return Refusal(error.reason, str(error))
    return _Gold(number.value, scaled.value, scaled.units or (() if scaled.unknown else (Unit(),)), scaled.unknown)


def _sides(box: str) -> list[Quantity | Refusal]:
    """The quantities of "v = 5 m/s = 18 km/h"; a first side that is a symbol or a formula is left out."""
    text = box.strip()
    if (whole := _TEXT_ONLY.fullmatch(text)) is not None:
        text = whole[1]
    parts = _EQUALS.split(text) if len(text) <= _MAX_BOX else [text]
    read = [read_quantity(part.strip()) for part in parts]
    if len(read) > 1 and isinstance(read[0], Refusal):
        return read[1:]
    return read


def _grade_box(box: str, target: _Gold, allowed: float) -> Grade:
    grades = [_grade_side(side, target, allowed) for side in _sides(box)]
    return next((grade for grade in grades if not grade.correct), grades[0])


def _grade_side(side: Quantity | Refusal, target: _Gold, allowed: float) -> Grade:
    if isinstance(side, Refusal):
        return Grade(False, side.reason, note=side.note)
    answer = f"{side.value:.12g}"
    values, method = _in_gold_unit(side, target)
    if not values:
        note = f"{side.unknown[:40]!r} is not a known unit" if side.unknown else "the unit has another dimension"
        return Grade(False, "units", answer=answer, note=note)
    room = allowed + _ROUNDING * abs(target.value)
    best = min(values, key=lambda value: abs(value - target.value))
    note = f"{best:.12g} in the gold answer's unit" if method == "converted" else ""
    return Grade(abs(best - target.value) <= room, method, answer=answer, note=note)


def _in_gold_unit(side: Quantity, target: _Gold) -> tuple[list[float], str]:
    """What the answer may be in the gold's unit (nothing: their units contradict) and how that was found."""
    if side.unknown or target.unknown:
        if not side.units and side.unknown in ("", target.unknown):
            return _with_scale(side.value, target.scale, bare=not side.unknown), "number"
        return [], "units"
    if not side.units:
        return _with_scale(side.value, target.scale, bare=True), "number"
    values = [side.value] if target.units == (Unit(),) and _is_plain(side.units) else []
    same = target.scale == 1 and bool(set(side.units) & set(target.units))
    for unit in side.units:
        for wanted in target.units:
            if unit == wanted:
                values.append(side.value / target.scale)
            elif unit.dimension == wanted.dimension:
                base = side.value * unit.factor + unit.offset
                values.append((base - wanted.offset) / wanted.factor / target.scale)
    finite = [value for value in values if math.isfinite(value)]
    return finite, "number" if same else "converted"


def _is_plain(units: tuple[Unit, ...]) -> bool:
    """Percent and degrees: signs that a pure number may carry."""
    return any(not unit.dimension and unit.factor < 1 for unit in units)


def _with_scale(value: float, scale: float, *, bare: bool) -> list[float]:
    whole = value / scale
    return [value, whole] if bare and math.isfinite(whole) else [whole]


def _agree(first: str, second: str, relative_tolerance: float) -> bool:
    """Whether two boxes that are not both right give one quantity."""
    left, right = _sides(first)[-1], _sides(second)[-1]
    if isinstance(left, Refusal) or isinstance(right, Refusal):
        return False
    target = _Gold(left.value, 1.0, left.units or right.units or (Unit(),), left.unknown or right.unknown)
    return _grade_side(right, target, relative_tolerance * abs(left.value)).correct
