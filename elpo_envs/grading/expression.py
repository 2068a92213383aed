r"""A small exact reader of mathematical expressions in LaTeX or plain text.

An expression is evaluated while it is read, at given values of its variables: exactly as a `Fraction` as long
as it is rational, as a `complex` once a root, a constant or a function makes it irrational. Two rational
expressions in variables that agree at several unrelated rational points are the same expression
(Schwartz-Zippel: an accidental agreement of different polynomials has probability about degree/1800 at each
point).

All work is bounded: nesting, factorials and the size of powers are limited before anything is computed.
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache

Value = Fraction | complex

POINTS = 5
_MAX_DEPTH = 40
_MAX_BITS = 20_000
_MAX_FACTORIAL = 500


class UnreadableError(ValueError):
    """The text is not an expression this reader knows."""


class UndefinedError(ValueError):
    """The expression has no value at this point (division by zero, overflow of floats)."""


class TooLargeError(ValueError):
    """The value, or the nesting of the text, is too large to be worth computing."""


_NUMBER = re.compile(
    r"(?:[1-9]\d{0,2}(?:,\d{3})+(?![\d,])|\d{1,3}(?: \d{3})+(?![\d ,.])|\d+)?(?:\.(\d*)(\\overline\{\d+\})?)?"
)
_EXPONENT = re.compile(r"[eE]([+-]?\d{1,6})(?![\d.A-Za-z])")
_MIXED = re.compile(r"\s*\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))|\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_NAME = re.compile(r"\\?[A-Za-z]+")
_SUBSCRIPT = re.compile(r"_(?:\{[A-Za-z0-9]+\}|[A-Za-z0-9])")
_GREEK = frozenset(
    "\\" + name
    for name in (
        *(
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "varepsilon",
            "zeta",
            "eta",
            "theta",
            "vartheta",
            "kappa",
        ),
        *("lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "ell"),
    )
)
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": lambda z: 1 / cmath.tan(z),
    "sec": lambda z: 1 / cmath.cos(z),
    "csc": lambda z: 1 / cmath.sin(z),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "ln": cmath.log,
    "exp": cmath.exp,
}
_CONSTANTS: dict[str, complex] = {"\\pi": math.pi, "pi": math.pi, "e": math.e, "i": 1j, "\\i": 1j}
_SPELLED = ("sqrt", "pi", "log", *sorted(_FUNCTIONS, key=len, reverse=True))


@lru_cache(maxsize=1024)
def evaluate(text: str, point: int = 0) -> tuple[Value, bool]:
    """The value of normalised `text` at sample point `point` (0 to POINTS - 1), and whether it has variables.

    Raises UnreadableError, UndefinedError or TooLargeError; nothing else.
    """
    reader = _Reader(text, point)
    return _evaluated(reader), reader.used_variable


def evaluate_at(text: str, name: str, value: Value) -> Value:
    """The value of normalised `text` where its only variable `name` is `value`; errors as `evaluate`."""
    return _evaluated(_Reader(text, 0, {name: value}))


def _evaluated(reader: _Reader) -> Value:
    text = reader.text
    try:
        value = reader.sum(0)
        reader.skip()
        if reader.at != len(text):
            raise UnreadableError(text[reader.at :])
    except (ZeroDivisionError, OverflowError) as error:
        raise UndefinedError(str(error)) from error
    if isinstance(value, complex) and not cmath.isfinite(value):
        raise UndefinedError("not finite")
    return value


def _sample(name: str, point: int) -> Fraction:
    """A variable's value at a sample point: 0.1 to 1.9 in size; all positive, all negative, then mixed."""
    code = 0
    for char in name:
        code = (code * 131 + ord(char)) % 1_000_003
    mixed = (code * 7_919 + point * 104_729 + code * code * (point + 3)) % 1_000_003
    negative = point == 1 or (point > 1 and mixed // 7 % 2)
    return Fraction((-1 if negative else 1) * (100 + mixed % 1_800), 997)


class _Reader:
    """Recursive descent over the characters of one expression."""

    def __init__(self, text: str, point: int, values: Mapping[str, Value] | None = None) -> None:
        self.text = text
        self.point = point
        self.values = values
        self.at = 0
        self.used_variable = False

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1

    def peek(self, *options: str) -> str | None:
        """The first of `options` that comes next (a `\\name` must end there), or None."""
        self.skip()
        for option in options:
            if self.text.startswith(option, self.at):
                after = self.text[self.at + len(option) : self.at + len(option) + 1]
                if option[0] != "\\" or not option[-1].isalpha() or not after.isalpha():
                    return option
        return None

    def take(self, *options: str) -> str | None:
        found = self.peek(*options)
        if found is not None:
            self.at += len(found)
        return found

    def expect(self, option: str) -> None:
        if self.take(option) is None:
            raise UnreadableError(f"{option} expected")

    def sum(self, depth: int) -> Value:
        if depth > _MAX_DEPTH:
            raise TooLargeError("nested too deeply")
        sign = self.take("+", "-")
        value = self.product(depth)
        if sign == "-":
            value = -value
        while operator := self.take("+", "-"):
            right = self.product(depth)
            value = _bounded(_add(value, -right if operator == "-" else right))
        return value

    def product(self, depth: int) -> Value:
        value = self.power(depth)
        while True:
            if self.peek("**"):
                raise UnreadableError("**")
            if self.take("*", r"\cdot", r"\times"):
                value = _multiply(value, self.signed_power(depth))
            elif self.take("/", r"\div"):
                value = _divide(value, self.signed_power(depth))
            elif self.starts_factor():
                value = _multiply(value, self.power(depth))
            else:
                return value

    def signed_power(self, depth: int) -> Value:
        sign = self.take("+", "-")
        value = self.power(depth)
        return -value if sign == "-" else value

    def starts_factor(self) -> bool:
        self.skip()
        rest = self.text[self.at : self.at + 1]
        if not rest or rest in "+-*/^_)]},;:!=<>|&'":
            return False
        if rest.isdigit() or rest == ".":
            # "2 3" is a typing slip, not a product; "x2" and ")2" are products.
            before = self.text[: self.at].rstrip()[-1:]
            return not (before.isdigit() or before == ".")
        return True

    def power(self, depth: int) -> Value:
        value = self.atom(depth)
        while self.take("!"):
            value = _factorial(value)
        if self.take("^", "**"):
            value = _power(value, self.exponent(depth + 1))
            while self.take("!"):
                value = _factorial(value)
        return value

    def exponent(self, depth: int) -> Value:
        if depth > _MAX_DEPTH:
            raise TooLargeError("nested too deeply")
        sign = self.take("-", "+")
        value = self.power(depth)
        return -value if sign == "-" else value

    def argument(self, depth: int) -> Value:
        """One TeX argument: a brace group, or a single digit, letter or command."""
        self.skip()
        if self.peek("{"):
            return self.atom(depth)
        digit = self.text[self.at : self.at + 1]
        if digit.isdigit() and digit.isascii():
            self.at += 1
            return Fraction(int(digit))
        return self.atom(depth)

    def atom(self, depth: int) -> Value:
        if depth > _MAX_DEPTH:
            raise TooLargeError("nested too deeply")
        self.skip()
        char = self.text[self.at : self.at + 1]
        if char and (char in "0123456789" or char == "."):
            return self.number()
        if opener := self.take("(", "[", "{", "|"):
            closer = {"(": ")", "[": "]", "{": "}", "|": "|"}[opener]
            value = self.sum(depth + 1)
            self.expect(closer)
            return _absolute(value) if opener == "|" else value
        return self.named(depth)

    def number(self) -> Value:
        match = _NUMBER.match(self.text, self.at)
        if match is None or match.end() == self.at or match[0] == ".":
            raise UnreadableError("not a number")
        self.at = match.end()
        digits = match[0].replace(",", "").replace(" ", "")
        if len(digits) * 3 > _MAX_BITS:
            raise TooLargeError("too many digits")
        if match[2]:
            period = match[2][len("\\overline{") : -1]
            head = digits[: digits.index("\\")]
            scale = 10 ** len(match[1])
            return Fraction(head.rstrip(".") or "0") + Fraction(int(period), scale * (10 ** len(period) - 1))
        value = Fraction(digits.rstrip(".") if digits.endswith(".") else digits)
        if exponent := _EXPONENT.match(self.text, self.at):
            self.at = exponent.end()
            return _multiply(value, _power(Fraction(10), Fraction(int(exponent[1]))))
        if match[1] is None and (mixed := _MIXED.match(self.text, self.at)):
            top, bottom = mixed[1] or mixed[2] or mixed[5], mixed[3] or mixed[4] or mixed[6]
            self.at = mixed.end()
            return value + Fraction(int(top), int(bottom))
        return value

    def named(self, depth: int) -> Value:
        match = _NAME.match(self.text, self.at)
        if match is None:
            raise UnreadableError(self.text[self.at : self.at + 8])
        name = match[0]
        if name[0] != "\\":
            spelled = next((word for word in _SPELLED if name.startswith(word)), name[0])
            name = spelled if len(spelled) > 1 else name[0]
        self.at += len(name)
        bare = name.lstrip("\\")
        if bare in _CONSTANTS or name in _CONSTANTS:
            return complex(_CONSTANTS.get(name, _CONSTANTS.get(bare, 0)))
        if bare == "frac":
            return _divide(self.argument(depth + 1), self.argument(depth + 1))
        if bare == "sqrt":
            return self.root(depth)
        if bare == "binom":
            return _binomial(self.argument(depth + 1), self.argument(depth + 1))
        if bare in _FUNCTIONS or bare == "log":
            return self.function(bare, depth)
        if len(name) == 1 or name in _GREEK:
            if subscript := _SUBSCRIPT.match(self.text, self.at):
                self.at = subscript.end()
                name += subscript[0].replace("{", "").replace("}", "")
            self.used_variable = True
            if self.values is None:
                return _sample(name, self.point)
            if name in self.values:
                return self.values[name]
        raise UnreadableError(name)

    def root(self, depth: int) -> Value:
        index: Value = Fraction(2)
        if self.take("["):
            index = self.sum(depth + 1)
            self.expect("]")
        return _root(self.argument(depth + 1), index)

    def function(self, name: str, depth: int) -> Value:
        if depth > _MAX_DEPTH:
            raise TooLargeError("nested too deeply")
        base: Value | None = None
        if self.take("_"):
            base = self.argument(depth + 1)
        outer = self.exponent(depth + 1) if self.take("^") else Fraction(1)
        if outer == -1:
            raise UnreadableError("inverse function")
        if self.peek("(", "{", "["):
            value = self.atom(depth + 1)
        else:
            value = self.power(depth + 1)
            while self.starts_factor() and not self.peek("(", "\\sin", "\\cos", "\\tan", "\\cot", "\\sec", "\\csc"):
                value = _multiply(value, self.power(depth + 1))
        z = complex(value)
        try:
            if name == "log":
                result = cmath.log(z) / (cmath.log(complex(base)) if base is not None else math.log(10))
            else:
                result = _FUNCTIONS[name](z)
        except ValueError as error:
            raise UndefinedError(str(error)) from error
        return _power(result, outer)


def _bounded(value: Value) -> Value:
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > 4 * _MAX_BITS:
        raise TooLargeError("too many digits")
    return value


def _add(a: Value, b: Value) -> Value:
    return a + b if isinstance(a, Fraction) and isinstance(b, Fraction) else complex(a) + complex(b)


def _multiply(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a * b)
    return complex(a) * complex(b)


def _divide(a: Value, b: Value) -> Value:
    return a / b if isinstance(a, Fraction) and isinstance(b, Fraction) else complex(a) / complex(b)


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if abs(exponent.numerator) * max(bits, 1) > _MAX_BITS:
                if base in (0, 1, -1):
                    return Fraction(base) if base != -1 or exponent.numerator % 2 else Fraction(1)
                raise TooLargeError("power too large")
            return base ** int(exponent)
        if exponent.denominator == 2 and abs(exponent.numerator) <= 64:
            return _power(_root(base, Fraction(2)), Fraction(exponent.numerator))
    return complex(base) ** complex(exponent)


def _root(value: Value, index: Value) -> Value:
    """The root of that index: exact where rational, and the real root of a negative number if it is odd."""
    if isinstance(value, Fraction) and isinstance(index, Fraction) and index in range(2, 65):
        n = int(index)
        if value >= 0 or n % 2:
            top, bottom = _whole_root(abs(value.numerator), n), _whole_root(value.denominator, n)
            if top is not None and bottom is not None:
                return Fraction(top if value >= 0 else -top, bottom)
            if value < 0:
                return complex(-(float(-value) ** (1 / n)))
    if index == 2:
        return cmath.sqrt(complex(value))
    return complex(value) ** (1 / complex(index))


def _whole_root(value: int, n: int) -> int | None:
    """The n-th root of a natural number, where it is one."""
    if value.bit_length() > 900:
        return None
    root = math.isqrt(value) if n == 2 else round(value ** (1 / n))
    return root if root**n == value else None


def _factorial(value: Value) -> Value:
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        raise UnreadableError("factorial of something that is not a whole number")
    if value > _MAX_FACTORIAL:
        raise TooLargeError("factorial too large")
    return Fraction(math.factorial(int(value)))


def _binomial(n: Value, k: Value) -> Value:
    if not (isinstance(n, Fraction) and isinstance(k, Fraction)) or n.denominator != 1 or k.denominator != 1:
        raise UnreadableError("binomial of something that is not a whole number")
    if n < 0 or k < 0:
        raise UnreadableError("binomial of a negative number")
    if n > 2 * _MAX_FACTORIAL:
        raise TooLargeError("binomial too large")
    return Fraction(math.comb(int(n), int(k)))


def _absolute(value: Value) -> Value:
    return abs(value) if isinstance(value, Fraction) else complex(abs(value))
