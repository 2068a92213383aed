r"""Is this the right final answer? A cascade of small matchers, cheapest first.

The relation is symmetric and never raises, whatever the strings; a wrong answer costs microseconds, and only
two irrational expressions that agree numerically, or text that the cheap readers cannot read, reach the
symbolic stage, which is bounded (`SYMBOLIC_LIMIT_S` seconds of CPU time for one grade).

Rules where usage differs:
- Numbers are compared exactly: 0.5 is 1/2, but 0.333 is not 1/3 and 3.14 is not \pi, on either side.
- A percent sign may be left out, and "50%" may be written 0.5; so 50% equals 50%, 50 and 0.5 (but 50 is not
  0.5).
- A unit or currency may be left out; two different ones contradict, and units are never converted.
- A base may not be left out: 2516_8 is not 2516.
- Points, intervals and matrices are ordered and keep their brackets; sets and bare lists are unordered.
- Words are compared without regard to case and spaces; variables keep their case.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from elpo_envs.grading.expression import (
    POINTS,
    TooLargeError,
    UndefinedError,
    UnreadableError,
    Value,
    evaluate,
)
from elpo_envs.grading.extract import extract_boxed, without_tool_text
from elpo_envs.grading.inequality import compare_region
from elpo_envs.grading.normalise import MAX_LENGTH, normalise, squeeze
from elpo_envs.grading.structure import (
    Based,
    Matrix,
    Named,
    Node,
    Ordered,
    Relation,
    Scalar,
    Unordered,
    Words,
    parse,
    word_key,
)
from elpo_envs.grading.symbolic import Kind, compare_symbolically
from elpo_envs.grading.units import compatible

SYMBOLIC_LIMIT_S = 0.8
_SYMBOLIC_LENGTH = 300
_SYMBOLIC_QUESTIONS = 8
_SAME = 1e-6  # relative difference above which floats of equal expressions cannot differ
_ROUGHLY = 0.01  # relative difference above which a decimal is no rounding of the other number
_DECIMAL = re.compile(r"[0-9]\.[0-9]|\.[0-9]")
_MAX_ITEMS = 40
_COMMAND = re.compile(r"\\[A-Za-z]+")
_PLAIN = re.compile(r"-?[0-9]{1,300}(?:\.[0-9]{1,300})?")


@dataclass(frozen=True)
class Grade:
    """The verdict on one answer.

    Attributes:
        correct: whether it equals the gold answer.
        method: the matcher that decided: "exact", "number", "rounded", "percent", "units", "algebra", "numeric",
            "words", "structure", "region", "base", "symbolic", "kind" (different kinds of answer), "too_large",
            "too_long", "unreadable", "undefined", "no_answer", "ambiguous"; for choices also "letter", "text",
            "outside" (no option of the task); for quantities "converted"; "bad_gold" where the data is wrong.
        timed_out: the symbolic stage reached its bound on work; `correct` is then False, whatever the machine.
        answer: the answer that was judged, in normalised spelling; None if there was none.
        note: more about the decision, for people.
        failed_infrastructure: the machine was too busy to grade: `correct` is False, but nothing is known.
    """

    correct: bool
    method: str
    timed_out: bool = False
    answer: str | None = None
    note: str = ""
    failed_infrastructure: bool = False


@dataclass
class _Work:
    """The rules of one grade, and what it has spent on the symbolic stage."""

    places: int | None
    left_s: float
    questions: int = 0
    timed_out: bool = False
    overdue: bool = False
    note: str = ""
    method: str = "exact"

    def decide(self, method: str, equal: bool) -> bool:
        self.method = method
        return equal


def grade_math(answer: str, gold: str, places: int | None = None) -> Grade:
    """Whether the final answer `answer` equals `gold`. Symmetric; never raises for any two strings.

    Args:
        answer: the answer to judge.
        gold: the reference answer.
        places: decimals are taken as rounded: where a side is written with a decimal point, constants that differ by
            at most half a unit of this decimal place (and by no more than 1%) are equal. None: all numbers are exact.

    Raises SymbolicUnavailableError only where the symbolic stage is needed and this machine cannot run it.
    """
    return _grade(answer, gold, _Work(places, SYMBOLIC_LIMIT_S))


def _grade(answer: str, gold: str, work: _Work) -> Grade:
    """One comparison; what it spends is taken from `work`."""
    if len(answer) > MAX_LENGTH or len(gold) > MAX_LENGTH:
        same = answer.strip() == gold.strip()
        return Grade(same, "exact" if same else "too_long", answer=answer.strip()[:MAX_LENGTH])
    left, right = normalise(answer), normalise(gold)
    if not left or not right:
        return Grade(False, "no_answer", answer=left or None)
    if left == right or squeeze(left) == squeeze(right):
        return Grade(True, "exact", answer=left)
    if _PLAIN.fullmatch(left) and _PLAIN.fullmatch(right):
        if (a := Fraction(left)) == (b := Fraction(right)):
            return Grade(True, "number", answer=left)
        rounded = _rounds_to(left, right, a, b, work.places)
        return Grade(rounded, "number" if work.places is None else "rounded", answer=left)
    first, second = sorted((left, right))  # one order for both directions makes the relation symmetric
    correct = _equal(parse(first), parse(second), work)
    if work.timed_out:
        correct = False
    return Grade(correct, work.method, work.timed_out, left, work.note, work.overdue)


def grade_response(response: str, gold: str) -> Grade:
    r"""Grade an assistant turn by the content of its `\boxed{}`; text of tool calls and tool output is not
    read.

    Without a box the turn has no answer ("no_answer"). Several boxes must agree with each other, else the
    turn is "ambiguous" and incorrect.
    """
    boxes = [box for box in extract_boxed(without_tool_text(response)) if box.strip()]
    if not boxes:
        return Grade(False, "no_answer", note=r"no \boxed{} answer in the turn")
    different = list(dict.fromkeys(boxes))
    work = _Work(None, SYMBOLIC_LIMIT_S)  # one bound for the turn, however many boxes it has
    for other in different[1:]:
        if not _grade(different[0], other, work).correct:
            note = f"the turn boxes different answers: {different[0][:100]} and {other[:100]}"
            return Grade(False, "ambiguous", work.timed_out, None, note, work.overdue)
    grades = [_grade(box, gold, work) for box in different]
    return next((grade for grade in grades if not grade.correct), grades[-1])


def _equal(a: Node, b: Node, work: _Work) -> bool:
    if a == b:
        return work.decide("structure", True)
    if isinstance(a, Relation) != isinstance(b, Relation):
        relation, other = (a, b) if isinstance(a, Relation) else (b, a)
        assert isinstance(relation, Relation)
        if (described := compare_region(relation, other)) is not None:
            return work.decide("region", described)
    if isinstance(a, Named) or isinstance(b, Named):
        return _equal_named(a, b, work)
    if isinstance(a, Words) or isinstance(b, Words):
        return work.decide("words", _words(a) is not None and _words(a) == _words(b))
    if isinstance(a, Unordered) or isinstance(b, Unordered):
        if (listed := _as_tuple(a, b) or _as_tuple(b, a)) is not None:
            return work.decide("structure", _equal_all(*listed, work))
        return _equal_unordered(a, b, work)
    if type(a) is not type(b):
        return work.decide("kind", False)
    if isinstance(a, Scalar) and isinstance(b, Scalar):
        return _equal_scalars(a, b, work)
    if isinstance(a, Ordered) and isinstance(b, Ordered):
        same = a.brackets == b.brackets and _equal_all(a.items, b.items, work)
    elif isinstance(a, Matrix) and isinstance(b, Matrix):
        same = (
            a.kind == b.kind
            and len(a.rows) == len(b.rows)
            and all(_equal_all(row, other, work) for row, other in zip(a.rows, b.rows, strict=True))
        )
    elif isinstance(a, Relation) and isinstance(b, Relation):
        if a.operators == b.operators == ("=",):
            return _equal_equations((a.texts[0], a.texts[1]), (b.texts[0], b.texts[1]), work)
        same = a.operators == b.operators and (_equal_all(a.sides, b.sides, work) or _same_direction(a, b))
    else:
        return work.decide("base", isinstance(a, Based) and a == b)
    return work.decide("structure", same)


def _as_tuple(listed: Node, point: Node) -> tuple[tuple[Node, ...], tuple[Node, ...]] | None:
    """A bare list beside a tuple: "1, 3" is (1, 3), but not (3, 1)."""
    if isinstance(listed, Unordered) and listed.written and isinstance(point, Ordered) and point.brackets == "()":
        return listed.written, point.items
    return None


def _equal_all(left: tuple[Node, ...], right: tuple[Node, ...], work: _Work) -> bool:
    return len(left) == len(right) and all(_equal(a, b, work) for a, b in zip(left, right, strict=True))


def _equal_named(a: Node, b: Node, work: _Work) -> bool:
    """`x = 5` equals 5 and `x = 5`, not `y = 5`; two equations may also be the same one rearranged."""
    if isinstance(a, Named) and isinstance(b, Named):
        if a.name == b.name:
            return _equal(a.value, b.value, work)
        if a.equation and b.equation:
            return _equal_equations(a.equation, b.equation, work)
        return work.decide("structure", False)
    named, other = (a, b) if isinstance(a, Named) else (b, a)
    assert isinstance(named, Named)
    if isinstance(other, Relation):
        if named.equation and other.operators == ("=",):
            return _equal_equations(named.equation, (other.texts[0], other.texts[1]), work)
        return work.decide("kind", False)
    return _equal(named.value, other, work)


def _equal_unordered(a: Node, b: Node, work: _Work) -> bool:
    """Whether the items can be paired off; a set of one item is that item."""
    left = a.items if isinstance(a, Unordered) else (a,)
    right = b.items if isinstance(b, Unordered) else (b,)
    if len(left) != len(right) or len(left) > _MAX_ITEMS:
        return work.decide("structure", False)
    if len(left) == 1 and left != (a,) and right == (b,):
        return _equal(left[0], b, work)
    if len(left) == 1 and right != (b,) and left == (a,):
        return _equal(a, right[0], work)
    if isinstance(a, Unordered) and isinstance(b, Unordered) and a.kind != b.kind:
        return work.decide("structure", False)
    edges = [[at for at, other in enumerate(right) if _equal(item, other, work)] for item in left]
    return work.decide("structure", _perfect_matching(edges))


def _perfect_matching(edges: list[list[int]]) -> bool:
    """Whether every left item can have a right item of its own (augmenting paths)."""
    partner: dict[int, int] = {}

    def place(item: int, tried: set[int]) -> bool:
        for at in edges[item]:
            if at not in tried:
                tried.add(at)
                if at not in partner or place(partner[at], tried):
                    partner[at] = item
                    return True
        return False

    return all(place(item, set()) for item in range(len(edges)))


def _words(node: Node) -> str | None:
    if isinstance(node, Words):
        return node.key or None
    return (word_key(node.text) or None) if isinstance(node, Scalar) else None


def _equal_scalars(a: Scalar, b: Scalar, work: _Work) -> bool:
    left, right = a.quantity, b.quantity
    if left.is_percent != right.is_percent and not (left.unit and right.unit):
        percent, plain = (left, right) if left.is_percent else (right, left)
        if _equal_expressions(percent.body, plain.body, work):
            return work.decide("percent", True)
        scaled = f"({percent.body})/100"
        return work.decide("percent", _equal_expressions(scaled, plain.body, work))
    if not compatible(left, right):
        return work.decide("units", False)
    return _equal_expressions(left.body, right.body, work)


def _value(text: str, point: int) -> tuple[Value | str | None, bool]:
    """A value, or "unreadable", "too_large", or None where undefined; and whether it depends on the point."""
    try:
        return evaluate(text, point)
    except UnreadableError:
        return "unreadable", False
    except TooLargeError:
        return "too_large", False
    except UndefinedError:
        return None, False


def _equal_expressions(a: str, b: str, work: _Work) -> bool:
    """Exact where both are rational; floats only refute; the symbolic stage decides what is left."""
    if a == b or squeeze(a) == squeeze(b):
        return work.decide("exact", True)
    exact, compared, varies = True, 0, False
    for point in range(POINTS):
        (left, left_varies), (right, right_varies) = _value(a, point), _value(b, point)
        if "too_large" in (left, right):
            return work.decide("too_large", False)
        if isinstance(left, str) or isinstance(right, str):
            return _ask(a, b, "value", work)
        varies = varies or left_varies or right_varies
        if left is not None and right is not None and not (varies and _off_the_reals(a, b, left, right)):
            compared += 1
            if not varies and left != right and _rounds_to(a, b, left, right, work.places):
                return work.decide("rounded", True)
            if isinstance(left, Fraction) and isinstance(right, Fraction):
                if left != right:
                    return work.decide("algebra" if varies else "number", False)
            elif not _close(left, right):
                return work.decide("numeric", False)
            else:
                exact = False
        if not varies:
            break
    if not compared and not varies:
        return work.decide("undefined", False)
    if exact and compared:
        return work.decide("algebra" if varies else "number", True)
    return _ask(a, b, "value", work)


def _off_the_reals(a: str, b: str, left: Value, right: Value) -> bool:
    """A point outside the real domain, such as negative p for p*sqrt(p); no matter where i is written."""
    imaginary = any(isinstance(value, complex) and abs(value.imag) > _SAME * abs(value) for value in (left, right))
    return imaginary and "i" not in _COMMAND.sub("", a + " " + b)


def _close(left: Value, right: Value) -> bool:
    try:
        a, b = complex(left), complex(right)
    except OverflowError:  # one is a fraction beyond all floats, the other a float
        return False
    scale = max(abs(a.real), abs(a.imag), abs(b.real), abs(b.imag))
    return abs(a.real / 2 - b.real / 2) + abs(a.imag / 2 - b.imag / 2) <= _SAME * scale


def _rounds_to(a: str, b: str, left: Value, right: Value, places: int | None) -> bool:
    """Whether two constants are equal but for the rounding of a decimal."""
    if places is None or not (_DECIMAL.search(a) or _DECIMAL.search(b)):
        return False
    try:
        first, second = complex(left), complex(right)
    except OverflowError:
        return False
    gap = abs(first - second)
    return gap <= 0.5000001 * 10.0**-places and gap <= _ROUGHLY * max(abs(first), abs(second))


def _same_direction(a: Relation, b: Relation) -> bool:
    """Whether two rational inequalities such as x - y < 2 are positive multiples of each other."""
    if a.operators not in (("<",), ("<=",)):
        return False
    left, right = (f"({node.texts[0]})-({node.texts[1]})" for node in (a, b))
    pairs = [(_value(left, point)[0], _value(right, point)[0]) for point in range(POINTS)]
    ratios = {
        top / bottom for top, bottom in pairs if isinstance(top, Fraction) and isinstance(bottom, Fraction) and bottom
    }
    return len(ratios) == 1 and all(isinstance(top, Fraction) for top, _ in pairs) and ratios.pop() > 0


def _equal_equations(a: tuple[str, str], b: tuple[str, str], work: _Work) -> bool:
    """Whether two equations are constant multiples of each other."""
    left, right = (f"({pair[0]})-({pair[1]})" for pair in (a, b))
    ratios: list[Value] = []
    for point in range(POINTS):
        top, bottom = _value(left, point)[0], _value(right, point)[0]
        if "too_large" in (top, bottom):
            return work.decide("too_large", False)
        if isinstance(top, str) or isinstance(bottom, str):
            return _ask(left, right, "equation", work)
        if top is None or bottom is None or (top == 0 and bottom == 0) or _off_the_reals(left, right, top, bottom):
            continue
        if top == 0 or bottom == 0:
            return work.decide("algebra", False)
        ratios.append(_ratio(top, bottom))
    if all(isinstance(ratio, Fraction) for ratio in ratios):
        return work.decide("algebra", len(set(ratios)) == 1)
    if not all(_close(ratio, ratios[0]) for ratio in ratios):
        return work.decide("numeric", False)
    return _ask(left, right, "equation", work)


def _ratio(top: Value, bottom: Value) -> Value:
    if isinstance(top, Fraction) and isinstance(bottom, Fraction):
        return top / bottom
    try:
        return complex(top) / complex(bottom)
    except OverflowError:
        return complex(math.nan)  # close to nothing: beyond all floats


def _ask(a: str, b: str, kind: Kind, work: _Work) -> bool:
    """The symbolic stage, for text that could be mathematics."""
    if len(a) > _SYMBOLIC_LENGTH or len(b) > _SYMBOLIC_LENGTH:
        return work.decide("too_long", False)
    if not _could_be_mathematics(a) or not _could_be_mathematics(b):
        return work.decide("unreadable", False)
    if work.timed_out or work.left_s <= 0 or work.questions >= _SYMBOLIC_QUESTIONS:
        return work.decide("symbolic", False)
    work.questions += 1
    verdict = compare_symbolically(a, b, kind, work.left_s)
    work.left_s -= verdict.work_s
    work.timed_out |= verdict.timed_out
    work.overdue |= verdict.overdue
    work.note = verdict.note
    return work.decide("symbolic", bool(verdict.equal))


_OPAQUE = re.compile(r"\\(?:text|overline|begin)(?![A-Za-z])")
_UNREADABLE = frozenset('@#$%&?"`\t\n')


def _could_be_mathematics(text: str) -> bool:
    """Balanced, free of prose and foreign marks, and with something in it to compute."""
    if not text.isascii() or any(char in _UNREADABLE for char in text) or _OPAQUE.search(text):
        return False
    depth = 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        if depth < 0:
            return False
    return depth == 0 and any(char.isalnum() for char in text)
