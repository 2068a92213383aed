"""Reading "36 km/h": a number and the units behind it, with nothing computed and no unit looked up."""

from __future__ import annotations

import re
from collections import Counter

from elpo_envs.tools.expressions import MAX_CHARS, ExpressionError, Tree, read_expression

Units = list[tuple[str, int]]
"""Names with their powers: m/s^2 is [("m", 1), ("s", -2)]."""

MAX_UNITS = 12
MAX_POWER = 12

_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_QUANTITY = re.compile(
    rf"\s*(?P<value>[-+\u2212]?\s*{_NUMBER}(?:\s*[*x\u00d7·]\s*10\s*(?:\^|\*\*)\s*\(?[-+]?[0-9]+\)?)?(?:\s*/\s*{_NUMBER})?)?"
    r"\s*[*·]?\s*(?P<units>.*)",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"\s*(?:(?P<name>[^\W\d]+|[°%][A-Za-z]*)|(?P<power>(?:\^|\*\*)\s*\(?\s*[-+]?[0-9]{1,4}\s*\)?|[²³]"
    r"|(?<=[A-Za-z])-?[1-9](?![0-9.]))"
    r"|(?P<one>1)|(?P<op>[*·⋅/()])|(?P<bad>\S))"
)
_NAMES = {"°C": "degC", "°F": "degF", "°": "degree", "%": "percent", "Celsius": "degC", "Fahrenheit": "degF"}
_NAMES |= {"Kelvin": "kelvin", "celsius": "degC", "fahrenheit": "degF", "l": "L"}
_WORDS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def read_quantity(text: str) -> tuple[Tree, Units]:
    """The value (1 where none stands) and the units of text such as "36 km/h", "1.5 x 10^3 J/(mol K)".

    Raises ExpressionError.
    """
    if len(text) > MAX_CHARS:
        raise ExpressionError(f"the expression has {len(text)} characters; give at most {MAX_CHARS}")
    match = _QUANTITY.fullmatch(text)
    assert match is not None  # every text fits
    value = (match["value"] or "1").replace("x", "*")
    return read_expression(value), read_units(match["units"])


def read_units(text: str) -> Units:
    """The units of text such as "km/h" or "kg*m^2/s^2". Raises ExpressionError."""
    if len(text) > MAX_CHARS:
        raise ExpressionError(f"the unit has {len(text)} characters; give at most {MAX_CHARS}")
    reader = _UnitReader(text)
    units = [(name, power) for name, power in reader.product().items() if power]
    reader.expect_end()
    if len(units) > MAX_UNITS or any(abs(power) > MAX_POWER for _, power in units):
        raise ExpressionError(f"a unit may have {MAX_UNITS} factors with powers up to {MAX_POWER}")
    return units


class _UnitReader:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        for match in _TOKEN.finditer(text):
            kind = str(match.lastgroup)
            if kind == "bad":
                raise ExpressionError(
                    f"{match[kind]!a} is not part of a unit; write one number and one unit, such as 36 km/h or "
                    "5 J/(mol*K)"
                )
            self._tokens.append((kind, match[kind]))
        if not self._tokens:
            raise ExpressionError("a unit is missing; write a number and a unit, such as 36 km/h")
        self._next = 0
        self._depth = 0

    def expect_end(self) -> None:
        if self._next < len(self._tokens):
            raise ExpressionError(f"unexpected {self._tokens[self._next][1]!a} in the unit")

    def product(self) -> Counter[str]:
        self._depth += 1
        if self._depth > MAX_UNITS:
            raise ExpressionError(f"the unit is nested more than {MAX_UNITS} deep")
        total = self._factor()
        while self._next < len(self._tokens):
            kind, text = self._tokens[self._next]
            if text == ")":
                break
            sign = 1
            if kind == "op" and text != "(":
                self._next += 1
                sign = -1 if text == "/" else 1
            elif kind == "name" and text == "per":
                self._next += 1
                sign = -1
            _add(total, self._factor(), sign)
        self._depth -= 1
        return total

    def _factor(self) -> Counter[str]:
        kind, text = self._take()
        found: Counter[str] = Counter()
        if text == "(":
            found = self.product()
            if self._take()[1] != ")":
                raise ExpressionError("a ( in the unit is never closed")
        elif kind == "name" and text in _WORDS:
            kind, name = self._take()
            if kind != "name":
                raise ExpressionError(f"a unit must follow {text!r}")
            return Counter({_NAMES.get(name, name): _WORDS[text]})
        elif kind == "name":
            found[_NAMES.get(text, text)] = 1
        elif kind != "one":
            raise ExpressionError(f"unexpected {text!a} in the unit")
        if self._next < len(self._tokens) and self._tokens[self._next][0] == "power":
            power = _power(self._take()[1])
            found = Counter({name: count * power for name, count in found.items()})
        return found

    def _take(self) -> tuple[str, str]:
        if self._next == len(self._tokens):
            raise ExpressionError("the unit ends too early")
        self._next += 1
        return self._tokens[self._next - 1]


def _add(total: Counter[str], more: Counter[str], sign: int) -> None:
    for name, power in more.items():
        total[name] += sign * power


def _power(text: str) -> int:
    return {"²": 2, "³": 3}.get(text) or int(text.strip("^*() "))
