r"""What kind of answer a normalised text is: a number, words, a tuple, an interval, a set, a matrix, an
equation, ...

Reading conventions (those of GSM8K and MATH):
- "(a, b)", "[a, b)" are ordered, and the brackets count; "{a, b}", "a, b" and "a \pm b" are unordered.
- "10,080" is one number; "10, 080" inside brackets is two.
- "x = 5" and "x \in [1, 2]" name the value 5 and the interval; "1 < x \le 2" is the interval (1, 2].
- "(C)" is C; "{5}" is 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from elpo_envs.grading.expression import (
    TooLargeError,
    UndefinedError,
    UnreadableError,
    evaluate,
)
from elpo_envs.grading.matrix import read_matrix
from elpo_envs.grading.units import Quantity, split_unit

_MAX_DEPTH = 12


@dataclass(frozen=True)
class Scalar:
    """One value: an expression, perhaps with a unit."""

    text: str
    quantity: Quantity


@dataclass(frozen=True)
class Words:
    """A text answer; compared without regard to case and spaces."""

    key: str


@dataclass(frozen=True)
class Ordered:
    """A tuple, point, interval or ratio; `brackets` is "()", "[)", ..., or ":" for a ratio."""

    brackets: str
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Unordered:
    """A set, a list of solutions (kind "set") or a union of intervals (kind "union").

    `written` has the items in order, repetitions included, where no brackets show that the order is nothing.
    """

    kind: str
    items: tuple[Node, ...]
    written: tuple[Node, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Matrix:
    """Rows of entries; `kind` is "matrix", or "vmatrix" for a determinant."""

    kind: str
    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Based:
    """Digits in a stated base, such as 2516_8."""

    digits: str
    base: str


@dataclass(frozen=True)
class Named:
    """`name = value`, or `name \\in value`; `equation` holds the sides of an equation, else it is None."""

    name: str
    value: Node
    equation: tuple[str, str] | None = None


@dataclass(frozen=True)
class Relation:
    """An equation or inequality that names no single value: sides and the operators between them."""

    operators: tuple[str, ...]
    sides: tuple[Node, ...]
    texts: tuple[str, ...]


Node = Scalar | Words | Ordered | Unordered | Matrix | Based | Named | Relation

_AND = re.compile(r"\s*,?\s*(?:\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<=[\s\d)}\]])\b(?:and|or)\b)\s*(?=\S)")
_THOUSANDS = re.compile(r"[-+]?(?:US)?\$?-?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?!\s*,)")
_RELATION = re.compile(r"<=|>=|!=|==|=|<|>|\\(?:le|ge|ne|in|lt|gt)(?![A-Za-z])")
_RELATION_NAMES = {
    "<=": "<=", ">=": ">=", "!=": "!=", "==": "=", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\in": "in",
    "\\lt": "<", "\\gt": ">",
}  # fmt: skip
_FLIPPED = {">": "<", ">=": "<="}
_IDENTIFIER = re.compile(
    r"(?:\\?[A-Za-z]+|\\text\s*\{[A-Za-z ]+\}"
    r"|\\(?:angle|overline|overrightarrow|widehat)\s*\{?\s*[A-Za-z]+\}?)'?"
    r"(?:_(?:\w|\{\w+\}))?(?:\^\{?-1\}?)?(?:\([A-Za-z](?:,\s*[A-Za-z])*\))?"
)
_NAME = r"\\?[A-Za-z]+(?:_(?:\w|\{\w+\}))?"
_VARIABLE = re.compile(_NAME + r"(?:\([A-Za-z]\))?")
_NAMES_OF_ONE_VALUE = re.compile(  # the length |AB|, ratios of named things, a point (x, y)
    rf"\|[A-Z]{{1,3}}\||{_NAME}(?:\s*[:/]\s*{_NAME})+|\\frac\s*\{{{_NAME}\}}\s*\{{{_NAME}\}}|\({_NAME}(?:,\s*{_NAME})+\)"
)
_BASED = re.compile(r"(-?[0-9][0-9A-Za-z]*)_(?:\{\s*(\d+|\\text\s*\{[a-z]+\})\s*\}|(\d+))")
_LETTERS = re.compile(r"[A-Za-z][A-Za-z' .-]*")
_COMMON_WORDS = frozenset({"yes", "no", "true", "false", "odd", "even", "none", "red", "all"})
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_REALS = re.compile(
    r"\\mathbb\s*\{?R\}?|\\mathbb\s+R|\\text\s*\{\s*[Aa]ll real(?: number)?s\s*\}|all real(?: number)?s"
)
_CUP = "\u222a"
_OPEN, _CLOSE = "([{⦃", ")]}⦄"


@lru_cache(maxsize=1024)
def parse(text: str) -> Node:
    """The structure of a normalised, non-empty text. Never raises."""
    return _parse(text, 0)


def _parse(text: str, depth: int) -> Node:
    text = text.strip()
    text = text.removeprefix(r"\approx").removeprefix(r"\sim").strip()
    if r"\approx" in text:
        exact, _, rounded = (part.strip() for part in text.partition(r"\approx"))
        # A value followed by its approximation, or a name by its value.
        text = f"{exact}={rounded}" if _IDENTIFIER.fullmatch(exact) else exact
    if text.startswith("+") and not text.startswith(("+-", "+/-")):
        text = text[1:].lstrip()
    if depth > _MAX_DEPTH or not text:
        return Words(text.casefold())
    if (match := _TEXT.fullmatch(text)) and any(char == "," or char.isdigit() for char in match[1]):
        text = match[1].strip()  # a number or a list, typeset as text or in bold
    if _REALS.fullmatch(text):
        return _parse(r"(-\infty,\infty)", depth)
    if text in (r"\emptyset", "⦃⦄", "⦃ ⦄", r"\text{empty set}", "empty set"):
        return Unordered("set", ())
    if words := _words(text):
        return words
    if len(text) < 3 or not any(mark in text for mark in ",;=<>\\([{⦃:|_"):
        return _list(text, depth) or _scalar(text)
    return (
        _list(text, depth)
        or _relation(text, depth)
        or _union(text, depth)
        or _plus_minus(text, depth)
        or _bracketed(text, depth)
        or _matrix(text, depth)
        or _based_or_ratio(text, depth)
        or _scalar(text)
    )


def _words(text: str) -> Words | None:
    plain = _TEXT.sub(r"\1", text).strip()
    if not _LETTERS.fullmatch(plain) and not (len(plain) == 3 and plain[0] == "(" and plain[2] == ")"):
        return None
    typeset = text.startswith("\\text") and plain != text
    longest = max((len(word) for word in re.findall(r"[A-Za-z]+", plain)), default=0)
    if typeset or longest >= 4 or plain.casefold() in _COMMON_WORDS:
        return Words(word_key(plain))
    return None


def word_key(text: str) -> str:
    """Letters and digits only, case folded."""
    return re.sub(r"[^0-9a-z]", "", _TEXT.sub(r"\1", text).casefold())


def _scalar(text: str) -> Scalar:
    return Scalar(text, split_unit(text))


def split_top(text: str, separators: str) -> list[str]:
    """Split at any of the single characters `separators` that are outside all brackets."""
    parts: list[str] = []
    depth = start = 0
    for at, char in enumerate(text):
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth -= 1
        elif depth == 0 and char in separators:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return parts


def _list(text: str, depth: int) -> Node | None:
    if "and" in text or "or" in text:
        pieces = _AND.split(text)
        if len(pieces) > 1 and all(piece.strip() for piece in pieces):
            text = ";".join(pieces)
    if "," not in text and ";" not in text:
        return None
    if _THOUSANDS.match(text) and ";" not in text:
        plain = text[_THOUSANDS.match(text).end() :]  # type: ignore[union-attr]
        if "," not in plain:
            return None
    parts = [part.strip() for part in split_top(text, ",;")]
    if len(parts) == 1 or not all(parts) or len(parts) > 64:
        return None
    if points := _points(text, depth):
        return points
    items = [_parse(part, depth + 1) for part in parts]
    if isinstance(items[0], Named) and not any(isinstance(item, (Named, Relation)) for item in items[1:]):
        name = items[0].name
        return Named(name, Unordered("set", (items[0].value, *items[1:])))
    if all(isinstance(item, Named) and _is_interval(item.value) for item in items):
        named = [item for item in items if isinstance(item, Named)]
        if len({item.name for item in named}) == 1:
            return Named(named[0].name, Unordered("union", tuple(item.value for item in named)))
    return replace(_unordered("set", items), written=tuple(items))


def _points(text: str, depth: int) -> Node | None:
    """`p=5, q=2; p=7, q=2`: two points."""
    groups = [split_top(group, ",") for group in split_top(text, ";")]
    if len(groups) < 2 or len(groups[0]) < 2 or any(len(group) != len(groups[0]) for group in groups):
        return None
    points: list[Node] = []
    for group in groups:
        coordinates = tuple(_parse(part.strip(), depth + 1) for part in group)
        if not all(isinstance(coordinate, (Named, Scalar)) for coordinate in coordinates):
            return None
        points.append(Ordered("()", coordinates))
    return _unordered("set", points)


def _is_interval(node: Node) -> bool:
    return isinstance(node, Ordered) and len(node.items) == 2 and node.brackets != ":"


def _unordered(kind: str, items: list[Node]) -> Unordered:
    """Nested lists (from \\pm) are flattened; literal repetitions are dropped."""
    flat: list[Node] = []
    for item in items:
        flat.extend(item.items if isinstance(item, Unordered) and item.kind == "set" == kind else [item])
    return Unordered(kind, tuple(dict.fromkeys(flat)))


def _relation(text: str, depth: int) -> Node | None:
    if not any(mark in text for mark in ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\lt", r"\gt")):
        return None
    operators: list[str] = []
    sides: list[str] = []
    start = nesting = at = 0
    while at < len(text):
        char = text[at]
        nesting += (char in _OPEN) - (char in _CLOSE)
        if nesting == 0 and (match := _RELATION.match(text, at)):
            sides.append(text[start:at].strip())
            operators.append(_RELATION_NAMES.get(match[0], match[0]))
            start = at = match.end()
        else:
            at += 1
    sides.append(text[start:].strip())
    if not operators or len(sides) > 8 or not all(sides):
        return None
    if operators == ["in"] and _VARIABLE.fullmatch(sides[0]):
        return Named(sides[0], _parse(sides[1], depth + 1))
    if all(operator == "=" for operator in operators):
        if _IDENTIFIER.fullmatch(sides[0]) or _NAMES_OF_ONE_VALUE.fullmatch(sides[0]):
            name = word_key(sides[0]) if sides[0].startswith("\\text") else sides[0].replace(" ", "")
            return Named(name, _parse(sides[-1], depth + 1), (sides[0], sides[-1]))
        if _is_arithmetic(sides):
            return _parse(sides[-1], depth + 1)
        if len(sides) > 2 and _IDENTIFIER.fullmatch(sides[-2]):
            return Named(sides[-2].replace(" ", ""), _parse(sides[-1], depth + 1), (sides[-2], sides[-1]))
    if all(operator in (">", ">=") for operator in operators):
        sides, operators = sides[::-1], [_FLIPPED[operator] for operator in operators[::-1]]
    if all(operator in ("<", "<=") for operator in operators) and (interval := _interval(sides, operators, depth)):
        return interval
    return Relation(tuple(operators), tuple(_parse(side, depth + 1) for side in sides), tuple(sides))


def _is_arithmetic(sides: list[str]) -> bool:
    """Whether all sides are numbers, as in "240/5 = 48"; what is claimed is the last one, right or wrong."""
    try:
        return not any(evaluate(split_unit(side).body)[1] for side in sides)
    except (UnreadableError, UndefinedError, TooLargeError):
        return False


def _interval(sides: list[str], operators: list[str], depth: int) -> Node | None:
    """a < x <= b as the interval of the single variable x."""
    left, right, name = r"-\infty", r"\infty", ""
    left_open, right_open = "(", ")"
    if len(sides) == 3 and _VARIABLE.fullmatch(sides[1]):
        left, name, right = sides
        left_open = "(" if operators[0] == "<" else "["
        right_open = ")" if operators[1] == "<" else "]"
    elif len(sides) == 2 and _VARIABLE.fullmatch(sides[0]) and not _VARIABLE.fullmatch(sides[1]):
        name, right = sides
        right_open = ")" if operators[0] == "<" else "]"
    elif len(sides) == 2 and _VARIABLE.fullmatch(sides[1]) and not _VARIABLE.fullmatch(sides[0]):
        left, name = sides
        left_open = "(" if operators[0] == "<" else "["
    else:
        return None
    return Named(name, Ordered(left_open + right_open, (_parse(left, depth + 1), _parse(right, depth + 1))))


def _union(text: str, depth: int) -> Node | None:
    if r"\cup" not in text and " U " not in text and not re.search(r"[\])]\s*U\s*[\[(]", text):
        return None
    marked = re.sub(r"\\cup(?![A-Za-z])|(?<=[\])])\s*U\s*(?=[\[(])", _CUP, text)
    parts = [part.strip() for part in split_top(marked, _CUP)]
    if len(parts) < 2 or not all(parts):
        return None
    items = [_parse(part, depth + 1) for part in parts]
    if all(isinstance(item, Unordered) and item.kind == "set" for item in items):
        return _unordered("set", items)
    return _unordered("union", items)


def _plus_minus(text: str, depth: int) -> Node | None:
    if r"\pm" not in text and r"\mp" not in text and "+/-" not in text and "+-" not in text:
        return None
    marked = re.sub(r"\\pm(?![A-Za-z])|\+/-|\+-", "±", text)
    marked = re.sub(r"\\mp(?![A-Za-z])", "∓", marked)
    if marked[0] in "([⦃" and _closes_at_end(marked) and split_top(marked[1:-1], ",;")[1:]:
        return None
    upper = marked.replace("±", "+").replace("∓", "-")
    lower = marked.replace("±", "-").replace("∓", "+")
    return _unordered("set", [_parse(upper.removeprefix("+"), depth + 1), _parse(lower.removeprefix("+"), depth + 1)])


def _closes_at_end(text: str) -> bool:
    """Whether the bracket that opens `text` is closed by its last character."""
    depth = 0
    for at, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if depth == 0:
            return at == len(text) - 1
    return False


def _bracketed(text: str, depth: int) -> Node | None:
    if text[0] not in _OPEN or text[-1] not in _CLOSE or not _closes_at_end(text):
        return None
    inner = text[1:-1].strip()
    if not inner:
        return None
    if text[0] in "⦃{" and (text[0] == "⦃" or len(split_top(inner, ",;")) > 1):
        found = _parse(inner, depth + 1)
        if isinstance(found, Unordered) and found.kind == "set":
            return replace(found, written=()) if text[0] == "⦃" else found
        parts = [part.strip() for part in split_top(inner, ",;")]
        if len(parts) > 1 and all(parts):
            return _unordered("set", [_parse(part, depth + 1) for part in parts])
        return found
    parts = [part.strip() for part in split_top(inner, ",;")]
    if len(parts) == 1:
        return _parse(inner, depth + 1) if text[0] + text[-1] in ("()", "{}") else None
    if not all(parts) or len(parts) > 64:
        return None
    return Ordered(text[0] + text[-1], tuple(_parse(part, depth + 1) for part in parts))


def _matrix(text: str, depth: int) -> Node | None:
    matrix = read_matrix(text)
    if matrix is None:
        return None
    rows = tuple(tuple(_parse(cell, depth + 1) for cell in row) for row in matrix.rows)
    return Matrix("vmatrix" if matrix.determinant else "matrix", rows)


def _based_or_ratio(text: str, depth: int) -> Node | None:
    if match := _BASED.fullmatch(text.replace(" ", "")):
        base = _TEXT.sub(r"\1", match[2] or match[3])
        return Based(re.sub(r"\A(-?)0+(?=.)", r"\1", match[1]).upper(), base)
    if ":" in text:
        parts = [part.strip() for part in split_top(text, ":")]
        if 2 <= len(parts) <= 4 and all(parts):
            return Ordered(":", tuple(_parse(part, depth + 1) for part in parts))
    return None
