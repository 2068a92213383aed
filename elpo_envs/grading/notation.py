r"""Numbers in the notations of science: `1.6 \times 10^{-19}`, 1.6e-19, `\frac{3}{4}`, 1,234.5, `2\sqrt{3}`.

A text becomes a short list of tokens; a reader takes the number from its front and leaves the tokens of the
unit. Nothing is evaluated but these forms, and lengths, depths and exponents are bounded.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

MAX_LENGTH = 400  # characters of one quantity
_MAX_DEPTH = 12
_MAX_EXPONENT = 320
_LARGEST = 1e300  # larger magnitudes, and smaller ones than its inverse, are no answers

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_SPELLINGS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2010": "-", "\u2011": "-", "\uff0d": "-",
        "\u00d7": "*", "\u2715": "*", "\u2a2f": "*", "\u00b7": "*", "\u22c5": "*", "\u2219": "*", "\u2022": "*",
        "\u00f7": "/", "\u2044": "/", "\u2215": "/",
        "\u03bc": "\u00b5", "\u2126": "\u03a9", "\u212b": "\u00c5", "\u212a": "K",
        "\u2103": "\u00b0C", "\u2109": "\u00b0F", "\u00ba": "\u00b0", "\u02da": "\u00b0", "\uff05": "%",
        "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}",
        "\u03c0": r"\pi ", "\u221a": r"\sqrt ", "\u00a0": " ", "\u3000": " ",
        "\u2009": r"\,", "\u202f": r"\,", "\u2007": r"\,", "\u200b": "", "\ufeff": "", "\uff0c": ",",
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
    }
)  # fmt: skip
_DEGREE = re.compile(r"\^\s*(?:\{\s*(?:\\circ|\\degree|°)\s*\}|\\circ(?![A-Za-z])|\\degree(?![A-Za-z])|°)")
_EMPTY_GROUP = re.compile(r"\{\s*\}")
_HAT = re.compile(r"\\hat\s*(?:\{\s*(?:\\(?:math[a-z]*|text)\s*\{\s*[A-Za-z]\s*\}|\\[ij]math|[A-Za-z])\s*\}|[A-Za-z])")
_LAST_STOP = re.compile(r"(?<!\\)[.;,]\s*(?=[}$\s]*\Z)")
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*([0-9])\s*([0-9])")
_TOKEN = re.compile(
    r"(?P<space>(?:\s|~|\\(?:[,;:!> ()\[\]]|\Z)|\\(?:quad|qquad|thinspace|left|right|rm|displaystyle)(?![A-Za-z]))+)"
    r"|(?P<number>(?:[1-9][0-9]{0,2}(?:(?:,|\{,\}|\\[,! ]|,\\!)[0-9]{3})+(?![0-9])(?:\.[0-9]+)?"
    r"|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<open>\\(?:text|math|operatorname|mbox|hbox|unit|si|boldsymbol)[a-z]*\*?\s*\{)"
    r"|(?P<command>\\[A-Za-z]+)"
    r"|(?P<word>[^\W\d_]+|\\?[%$]|[°€£¥¢‰])"
    r"|(?P<power>\^|\*\*)"
    r"|(?P<mark>[-+*/(){}])"
)
_GROUPING = re.compile(r"\{,\}|\\[,! ]|,(?:\\!)?")
_COMMANDS = {
    "frac": "frac", "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "sqrt": "sqrt", "pi": "pi",
    "cdot": "*", "times": "*", "ast": "*", "bullet": "*", "cdotp": "*", "div": "/",
}  # fmt: skip
_SYMBOLS = {
    "circ": "°", "degree": "°", "degrees": "°", "mu": "µ", "micro": "µ", "Omega": "Ω", "ohm": "Ω", "AA": "Å",
    "angstrom": "Å", "alpha": "\u03b1", "ell": "l", "percent": "%", "celsius": "°C", "pounds": "£", "euro": "€",
}  # fmt: skip
_TIMES = frozenset({"x", "X", "times"})


class NotAQuantityError(ValueError):
    """The text is not a number with an optional unit. `reason` is "unreadable", "too_large" or "too_long"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Token(NamedTuple):
    """One token: its kind ("number", "word", "frac", "sqrt", "pi", or the mark itself), text, and whether
    space stands before it."""

    kind: str
    text: str
    spaced: bool


def unreadable(message: str) -> NotAQuantityError:
    """The error of text that is no quantity."""
    return NotAQuantityError("unreadable", message)


def tokens(text: str) -> tuple[Token, ...]:
    r"""The tokens of `text`; `\text{}` and its like leave only their contents.

    Raises NotAQuantityError for more than MAX_LENGTH characters and for anything that has no place in a number
    or a unit.
    """
    if len(text) > MAX_LENGTH:
        raise NotAQuantityError("too_long", f"longer than {MAX_LENGTH} characters")
    text = _SUPERSCRIPT.sub(lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text).translate(_SPELLINGS)
    text = _EMPTY_GROUP.sub(" ", _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", _HAT.sub(" ", _DEGREE.sub("°", text))))
    text = _without_math_dollars(_LAST_STOP.sub("", text.strip()))
    found: list[Token] = []
    braces: list[bool] = []  # of each open brace, whether it is a group (and not the brace of \text)
    at, spaced = 0, False
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise unreadable(f"{text[at : at + 10]!r} has no place in a quantity")
        at, kind, spelled = match.end(), str(match.lastgroup), match[0]
        if kind == "space":
            spaced = True
            continue
        if kind == "open" or spelled == "{":
            braces.append(spelled == "{")
        if spelled == "}":
            if not braces:
                raise unreadable("a brace is closed that was not opened")
            if not braces.pop():
                continue
        if kind != "open":
            found.append(_token(kind, spelled, spaced))
            spaced = False
        elif found:
            spaced = True
    if braces:
        raise unreadable("a brace is not closed")
    return tuple(found)


def _without_math_dollars(text: str) -> str:
    r"""Drop `$` that delimit mathematics; one that is left over, or is written `\$`, is a currency."""
    plain = re.sub(r"(?<!\\)\$", "", text)
    dollars = len(text) - len(plain)
    if dollars % 2 == 0:
        return plain
    return "$" + plain if dollars == 1 else text


def _token(kind: str, spelled: str, spaced: bool) -> Token:
    if kind == "number":
        return Token("number", _GROUPING.sub("", spelled), spaced)
    if kind == "power":
        return Token("^", "^", spaced)
    if kind == "mark":
        return Token(spelled, spelled, spaced)
    if kind == "word":
        return Token("word", spelled.lstrip("\\"), spaced)
    name = spelled[1:]
    if name in _COMMANDS:
        return Token(_COMMANDS[name], name, spaced)
    if name in _SYMBOLS:
        return Token("word", _SYMBOLS[name], spaced)
    raise unreadable(f"{spelled} has no place in a quantity")


def read_number(found: tuple[Token, ...], at: int = 0) -> tuple[float, int]:
    """The number at the front of `found[at:]` and the index of the first token behind it.

    Raises NotAQuantityError where no number stands there, or one whose magnitude is beyond 1e300.
    """
    value, at = _NumberReader(found, at).signed(0)
    return _bounded(value), at


def read_exponent(found: tuple[Token, ...], at: int) -> tuple[int, int]:
    """The integer exponent at `found[at:]` (behind the caret), bare or in brackets, and the index behind it."""
    closing = {"{": "}", "(": ")"}.get(_kind(found, at))
    at += closing is not None
    negative = _kind(found, at) == "-"
    at += _kind(found, at) in ("-", "+")
    if _kind(found, at) != "number" or not found[at].text.isdigit():
        raise unreadable("an exponent is not an integer")
    if len(found[at].text) > 4 or int(found[at].text) > _MAX_EXPONENT:
        raise NotAQuantityError("too_large", f"an exponent is beyond {_MAX_EXPONENT}")
    size = int(found[at].text)
    at += 1
    if closing is not None:
        if _kind(found, at) != closing:
            raise unreadable("the bracket of an exponent is not closed")
        at += 1
    return (-size if negative else size), at


def _kind(found: tuple[Token, ...], at: int) -> str:
    return found[at].kind if at < len(found) else ""


def _bounded(value: float) -> float:
    if not math.isfinite(value) or abs(value) > _LARGEST or 0 < abs(value) < 1 / _LARGEST:
        raise NotAQuantityError("too_large", "the magnitude is beyond what is read")
    return value


class _NumberReader:
    """Recursive descent over signs, products, quotients, powers, fractions, roots and brackets; no sums."""

    def __init__(self, found: tuple[Token, ...], at: int) -> None:
        self._found = found
        self._at = at

    def signed(self, depth: int) -> tuple[float, int]:
        if depth > _MAX_DEPTH:
            raise unreadable("brackets are too deep")
        kind = _kind(self._found, self._at)
        self._at += kind in ("-", "+")
        value = self._product(depth)
        return (-value if kind == "-" else value), self._at

    def _product(self, depth: int) -> float:
        value = self._factor(depth)
        if value is None:
            raise unreadable("there is no number where one should stand")
        while True:
            start = self._at
            divide = _kind(self._found, start) == "/"
            explicit = divide or _kind(self._found, start) == "*" or self._is_times(start)
            self._at += explicit
            if not explicit and not self._may_follow(start):
                return value
            factor = self._factor(depth)
            if factor is None:
                self._at = start  # the sign belongs to the unit
                return value
            if divide and factor == 0:
                raise unreadable("division by zero")
            value = _bounded(value / factor if divide else value * factor)

    def _is_times(self, at: int) -> bool:
        return (
            _kind(self._found, at) == "word"
            and self._found[at].text in _TIMES
            and _kind(self._found, at + 1) == "number"
        )

    def _may_follow(self, at: int) -> bool:
        """Whether a factor may stand here without a sign: pi, a root, or a power of ten."""
        ten = _kind(self._found, at) == "number" and self._found[at].text == "10" and _kind(self._found, at + 1) == "^"
        return ten or _kind(self._found, at) in ("pi", "sqrt")

    def _factor(self, depth: int) -> float | None:
        """One factor with its power, or None (and nothing read) where none stands."""
        start = self._at
        kind = _kind(self._found, start)
        self._at += 1
        if kind == "number":
            value = self._mixed(_number(self._found[start].text), self._found[start].text)
        elif kind == "pi":
            value = math.pi
        elif kind == "sqrt":
            if _kind(self._found, self._at) not in ("{", "(", "number"):
                raise unreadable("a root of what is not a number")
            inner = self._factor(depth + 1)
            if inner is None or inner < 0:
                raise unreadable("a root of what is not a positive number")
            return math.sqrt(inner)
        elif kind == "frac":
            fraction = self._fraction(depth)
            if fraction is None:
                self._at = start
                return None
            value = fraction
        elif kind in ("(", "{") and _kind(self._found, self._at) in ("number", "-", "+", "frac", "sqrt", "pi", "("):
            value = self.signed(depth + 1)[0]
            if _kind(self._found, self._at) != {"(": ")", "{": "}"}[kind]:
                raise unreadable("a bracket holds more than a number")
            self._at += 1
        else:
            self._at = start
            return None
        if _kind(self._found, self._at) == "^":
            exponent, self._at = read_exponent(self._found, self._at + 1)
            try:
                value = value**exponent
            except (OverflowError, ZeroDivisionError) as error:
                raise NotAQuantityError("too_large", "a power is too large") from error
        return _bounded(value)

    def _mixed(self, whole: float, text: str) -> float:
        r"""A mixed number: `1\frac{1}{2}`, 1 1/2."""
        at = self._at
        if not text.isdigit():
            return whole
        if _kind(self._found, at) == "frac":
            self._at += 1
            fraction = self._fraction(_MAX_DEPTH - 1)
            if fraction is None:
                self._at = at
                return whole
            if not 0 < fraction < 1:
                raise unreadable("a number beside a fraction that is no part of a mixed number")
            return whole + fraction
        parts = self._found[at : at + 3]
        if [part.kind for part in parts] == ["number", "/", "number"]:
            above, below = _number(parts[0].text), _number(parts[2].text)
            if parts[0].text.isdigit() and parts[2].text.isdigit() and 0 < above < below:
                self._at += 3
                return whole + above / below
        return whole

    def _fraction(self, depth: int) -> float | None:
        r"""The value of `{a}{b}` behind `\frac`, or None where it is a fraction of units."""
        sides: list[float] = []
        for _ in range(2):
            if _kind(self._found, self._at) != "{":
                raise unreadable("a fraction lacks its braces")
            self._at += 1
            if not sides and _kind(self._found, self._at) == "word":
                return None
            sides.append(self.signed(depth + 1)[0])
            if _kind(self._found, self._at) != "}":
                raise unreadable("a fraction holds more than numbers")
            self._at += 1
        if sides[1] == 0:
            raise unreadable("division by zero")
        return sides[0] / sides[1]


def _number(text: str) -> float:
    return _bounded(float(text))
