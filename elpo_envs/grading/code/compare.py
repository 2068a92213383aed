"""When the output or the value of a program is the expected one: the rules of LiveCodeBench."""

from __future__ import annotations

from decimal import Decimal, DecimalException
from typing import Any

_SEQUENCES = ("l", "t")
_MAPPINGS = ("d", "O", "C")


def same_output(printed: str, expected: str) -> bool:
    """Whether two outputs have as many lines, and each line the same text, or the same numbers, as its counterpart.

    Outputs and lines are stripped first. Numbers are compared as decimals: "1.50 2" is "1.5 2.0".
    """
    ours, theirs = _lines(printed), _lines(expected)
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    try:
        return [Decimal(word) for word in ours.split()] == [Decimal(word) for word in theirs.split()]
    except (DecimalException, ValueError):
        return False


def same_value(tree: Any, expected: Any) -> bool:
    """Whether an encoded value is `expected`, made of JSON values.

    As with Python's `==`, `2` is `2.0`, and `True` is `1`; floats must agree exactly. A tuple is the list of its
    items, at every depth. A set, or anything else that JSON cannot hold, is nothing that could be expected.

    Args:
        tree: from `in_session.values.encode`, or whatever a hostile program sent in its place.
        expected: trusted.
    """
    if isinstance(expected, list):
        return (
            _is_tagged(tree, _SEQUENCES) and len(tree) == len(expected) + 1 and all(map(same_value, tree[1:], expected))
        )
    if isinstance(expected, dict):
        return _is_tagged(tree, _MAPPINGS) and _same_items(tree[1:], expected)
    if isinstance(expected, str) or expected is None:
        return not isinstance(tree, list) and bool(tree == expected)
    number = _number(tree)
    return number is not None and bool(number == expected)


def _is_tagged(tree: Any, tags: tuple[str, ...]) -> bool:
    return isinstance(tree, list) and bool(tree) and tree[0] in tags


def _same_items(pairs: list[Any], expected: dict[str, Any]) -> bool:
    found = set()
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and pair[0] in expected):
            return False
        if not same_value(pair[1], expected[pair[0]]):
            return False
        found.add(pair[0])
    return len(found) == len(pairs) == len(expected)


def _number(tree: Any) -> int | float | None:
    if isinstance(tree, int | float):  # booleans too
        return tree
    if isinstance(tree, list) and len(tree) == 2 and tree[0] in ("i", "f") and isinstance(tree[1], str):
        try:
            return int(tree[1], 16) if tree[0] == "i" else float(tree[1])
        except ValueError:
            return None
    return None
