"""JSON as RFC 8259 has it: what Python's decoder reads beyond it is refused, in words that a model can be shown."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

_SPACE = re.compile(r"[ \t\r\n]*")
_STARTS = frozenset('{["-0123456789tfnNI')
_TYPES = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
_MAX_QUOTED = 40
_UNTERMINATED = "Unterminated string"


class RefusedJSONError(ValueError):
    """Text that is not one strict JSON value.

    Attributes:
        reason: what is wrong, without any text of the model's but a quoted key.
        place: " at line 1, column 2", or "" where it has none.
        unterminated: the text ends inside a string, so more of it might read.
    """

    def __init__(self, reason: str, place: str = "", *, unterminated: bool = False) -> None:
        super().__init__(f"invalid JSON{place}: {reason}")
        self.reason = reason
        self.place = place
        self.unterminated = unterminated

    def sentence(self, what: str) -> str:
        """The message for a model; `what` names the thing that was read, such as "the tool call"."""
        return f"invalid JSON in {what}{self.place}: {self.reason}"


def _no_constant(text: str) -> NoReturn:
    raise RefusedJSONError(f"{text} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise RefusedJSONError("a number is too large")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    obj = dict(pairs)
    if len(obj) < len(pairs):
        counts = Counter(k for k, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise RefusedJSONError(f"the key {quote(twice)} occurs twice in one object")
    return obj


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_duplicates)


def read_value(text: str) -> tuple[Any, int]:
    """The JSON value that `text` begins with, space before it aside, and the index behind it.

    Takes time linear in the length of `text`.

    Raises:
        RefusedJSONError: it does not begin with one; or with one that has NaN, an infinity, a key twice, a number
            beyond the range of a double or of thousands of digits, or nesting beyond Python's recursion limit.
    """
    body = skip_space(text)
    if body < len(text) and text[body] not in _STARTS:
        raise RefusedJSONError("Expecting value", _place(text, body))
    try:
        return _DECODER.raw_decode(text, body)
    except json.JSONDecodeError as error:
        unterminated = error.msg.startswith(_UNTERMINATED)
        raise RefusedJSONError(error.msg, _place(text, error.pos), unterminated=unterminated) from None
    except RecursionError:
        raise RefusedJSONError("it is nested too deeply") from None
    except RefusedJSONError:
        raise
    except ValueError:  # int() refuses numbers of thousands of digits
        raise RefusedJSONError("a number is too long") from None


def write(value: Any, what: str) -> str:
    """`value` as JSON text that `read_value` accepts. Raises ValueError, naming `what`, for what JSON cannot say."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be written as JSON: {error}") from error


def skip_space(text: str, start: int = 0) -> int:
    """The index of the first character from `start` on that is no JSON white space."""
    match = _SPACE.match(text, start)
    return match.end() if match else start


def kind(value: Any) -> str:
    """What a decoded value is in the words of JSON, such as "an object"."""
    return _TYPES.get(type(value), "a number")


def quote(text: str) -> str:
    """A key or value of the model's as shown back to it: short, and never a tag."""
    shown = text.replace("<", "").replace(">", "")
    return json.dumps(shown if len(shown) <= _MAX_QUOTED else shown[:_MAX_QUOTED] + "...", ensure_ascii=False)


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    column = position - (text.rfind("\n", 0, position) + 1) + 1
    return f" at line {line}, column {column}"
