"""Reading the calculator's expressions and units: text to a tree of JSON values, with nothing computed.

The grammar is ours and small, so a model's text is never run as Python::

    sum     = product (("+" | "-") product)*
    product = unary (("*" | "/" | nothing) unary)*      2x and (x+1)(x-1) are products; 1/2x is (1/2)*x
    unary   = ("+" | "-")* power
    power   = postfix (("^" | "**") unary)?             right-associative; -2^2 is -(2^2)
    postfix = atom ("!" | "°")*
    atom    = number | name | function "(" sum ("," sum)* ")" | "(" sum ")"

A tree is ["num", text], ["name", text], ["+", [trees]], ["*", [trees]], ["neg", tree], ["inv", tree],
["^", tree, tree] or ["call", function, [trees]]. Text, nesting, numbers and names are bounded.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

MAX_CHARS = 1_000
MAX_DEPTH = 40
MAX_DIGITS = 100
MAX_EXPONENT = 400
MAX_EQUATIONS = 6
_MAX_NAME = 32

CONSTANTS = ("pi", "e", "i", "oo", "deg")
FUNCTIONS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("sqrt", "cbrt", "abs", "exp", "ln", "log2", "log10", "sign", "re", "im", "conjugate"), (1, 1)),
    **dict.fromkeys(("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan"), (1, 1)),
    **dict.fromkeys(("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"), (1, 1)),
    **dict.fromkeys(("factorial", "gamma", "erf", "floor", "ceiling"), (1, 1)),
    **dict.fromkeys(("root", "mod", "binomial", "atan2"), (2, 2)),
    **dict.fromkeys(("log", "round"), (1, 2)),
    **dict.fromkeys(("gcd", "lcm", "min", "max"), (2, 8)),
    **dict.fromkeys(("sum", "product"), (4, 4)),
    "limit": (3, 3),
}
"""Every function with the fewest and the most arguments it takes."""

_ALIASES = {
    **{f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{"ceil": "ceiling", "lg": "log10", "C": "binomial", "nCr": "binomial", "inf": "oo", "infinity": "oo"},
}
_SIGNS = str.maketrans(
    {
        # Signs that look like others are written by their names.
        **dict.fromkeys(
            ("\N{MULTIPLICATION SIGN}", "\N{MIDDLE DOT}", "\N{DOT OPERATOR}", "\N{ASTERISK OPERATOR}"), "*"
        ),
        **dict.fromkeys(("\N{DIVISION SIGN}", "\N{DIVISION SLASH}", "\N{FRACTION SLASH}"), "/"),
        **dict.fromkeys(("\N{MINUS SIGN}", "\N{EN DASH}"), "-"),
        **dict.fromkeys(("\N{NO-BREAK SPACE}", "\N{THIN SPACE}", "\n", "\t"), " "),
        **{"²": "^2", "³": "^3", "√": "sqrt ", "∞": "oo", "\N{MICRO SIGN}": "mu"},
        **{chr(code): unicodedata.name(chr(code)).split()[-1].lower() for code in range(0x3B1, 0x3CA)},
        **{
            "\N{GREEK SMALL LETTER FINAL SIGMA}": "sigma",
            "\N{GREEK SMALL LETTER LAMDA}": "lambda",
            "Δ": "Delta",
            "π": " pi ",
        },
    }
)
_TOKEN = re.compile(
    r" *(?:(?P<num>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*)|(?P<op>\*\*|==|[-+*/^()!°,;=])|(?P<bad>[^ ]))"
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*")
_HINTS = {
    "%": "write mod(a, b) for a remainder, and p/100 for a percentage",
    "|": "write abs(x)",
    "<": "only equations with = are solved",
    ">": "only equations with = are solved",
    "\\": "LaTeX is not read; write sqrt(x), (a)/(b), pi",
    "{": "use round brackets",
    "[": "use round brackets",
    ".": "a point belongs inside a number; there are no attributes",
    "_": "a name begins with a letter, and an underscore stands between letters or digits",
    '"': "there are no strings",
    "'": "there are no strings; name the variables to differentiate",
    "$": "write the expression alone",
}

Tree = list[Any]


class ExpressionError(ValueError):
    """The text is not an expression; the message says where, why, and what to write."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def check_name(name: str) -> str:
    """A variable's name, as it stands in trees. Raises ExpressionError for anything else."""
    text = name.translate(_SIGNS).strip()
    if len(text) > _MAX_NAME or not _NAME.fullmatch(text) or text in FUNCTIONS:
        raise ExpressionError(f"{_quote(name)} is no name of a variable; use letters, digits and _, such as x or v_0")
    return text


def read_expression(text: str) -> Tree:
    """The tree of one expression. Raises ExpressionError."""
    reader = _Reader(text)
    tree = reader.sum()
    reader.expect_end()
    return tree


def read_equations(text: str) -> list[tuple[Tree, Tree]]:
    """Both sides of each equation in `text`, which "," or ";" separate; the right one of an expression without
    "=" is zero. Raises ExpressionError."""
    reader = _Reader(text)
    found: list[tuple[Tree, Tree]] = []
    while True:
        left = reader.sum()
        right: Tree = ["num", "0"]
        if reader.take("=", "=="):
            right = reader.sum()
        found.append((left, right))
        if not reader.take(",", ";"):
            break
    reader.expect_end()
    if len(found) > MAX_EQUATIONS:
        raise ExpressionError(f"{len(found)} equations are too many; give at most {MAX_EQUATIONS}")
    return found


class _Reader:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        if not text.strip():
            raise ExpressionError("the expression is empty")
        if len(text) > MAX_CHARS:
            raise ExpressionError(f"the expression has {len(text)} characters; give at most {MAX_CHARS}")
        self._tokens = [_token(match) for match in _TOKEN.finditer(text.translate(_SIGNS))]
        self._tokens.append(_Token("end", "", len(text)))
        self._next = 0
        self._depth = 0

    def take(self, *operators: str) -> str | None:
        token = self._tokens[self._next]
        if token.kind != "op" or token.text not in operators:
            return None
        self._next += 1
        return token.text

    def expect_end(self) -> None:
        token = self._tokens[self._next]
        if token.kind == "end":
            return
        if token.text in ("=", "=="):
            raise ExpressionError('an equation stands here; use the operation "solve", or give one side only')
        if token.text in (",", ";"):
            raise ExpressionError(
                f"unexpected {token.text!r} at character {token.at + 1}; give one expression, and write numbers "
                "without thousands separators"
            )
        raise ExpressionError(f"unexpected {_quote(token.text)} at character {token.at + 1}; is an operator missing?")

    def sum(self) -> Tree:
        self._descend()
        terms = [self._product()]
        while operator := self.take("+", "-"):
            term = self._product()
            terms.append(term if operator == "+" else ["neg", term])
        self._depth -= 1
        return terms[0] if len(terms) == 1 else ["+", terms]

    def _product(self) -> Tree:
        factors = [self._unary()]
        while True:
            if operator := self.take("*", "/"):
                factor = self._unary()
                factors.append(factor if operator == "*" else ["inv", factor])
            elif self._tokens[self._next].kind == "name" or self._tokens[self._next].text == "(":
                factors.append(self._power())
            else:
                return factors[0] if len(factors) == 1 else ["*", factors]

    def _unary(self) -> Tree:
        negative = False
        while sign := self.take("+", "-"):
            negative ^= sign == "-"
        tree = self._power()
        return ["neg", tree] if negative else tree

    def _power(self) -> Tree:
        base = self._atom()
        while sign := self.take("!", "°"):
            base = ["call", "factorial", [base]] if sign == "!" else ["*", [base, ["name", "deg"]]]
            self._descend()
            self._depth -= 1
            if sign == "!" and self.take("!"):
                raise ExpressionError("!! is not read; write (n!)! or the product itself")
        if self.take("^", "**"):
            self._descend()
            base = ["^", base, self._unary()]
            self._depth -= 1
        return base

    def _atom(self) -> Tree:
        token = self._tokens[self._next]
        self._next += 1
        if token.kind == "num":
            return ["num", _number(token)]
        if token.kind == "name":
            return self._named(token)
        if token.text == "(":
            inner = self.sum()
            self._close(token)
            return inner
        self._next -= 1
        if token.kind == "end":
            raise ExpressionError("the expression ends too early; a number, a name or ( must follow")
        raise ExpressionError(
            f"unexpected {token.text!r} at character {token.at + 1}; a number, a name or ( must stand there"
        )

    def _named(self, token: _Token) -> Tree:
        if len(token.text) > _MAX_NAME:
            raise ExpressionError(f"the name at character {token.at + 1} is longer than {_MAX_NAME} characters")
        opening = self._tokens[self._next]
        called = opening.text == "("
        name = _ALIASES.get(token.text, token.text) if called or token.text in ("inf", "infinity") else token.text
        if name in FUNCTIONS:
            if not called:
                raise ExpressionError(f"{name} at character {token.at + 1} is a function; write {name}(...)")
            self._next += 1
            arguments = [self.sum()]
            while self.take(","):
                arguments.append(self.sum())
            self._close(opening)
            fewest, most = FUNCTIONS[name]
            if not fewest <= len(arguments) <= most:
                wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
                raise ExpressionError(f"{name} takes {wanted} argument(s), not {len(arguments)}")
            return ["call", name, arguments]
        if called and name not in CONSTANTS:
            raise ExpressionError(
                f"there is no function {name}; for a product write {name}*(...); the functions are: "
                + ", ".join(sorted(FUNCTIONS))
            )
        return ["name", name]

    def _close(self, opening: _Token) -> None:
        if self.take(")"):
            return
        found = self._tokens[self._next]
        if found.kind == "end":
            raise ExpressionError(f"the ( at character {opening.at + 1} is never closed")
        self.expect_end()

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"the expression is nested more than {MAX_DEPTH} deep; compute it in parts")


def _token(match: re.Match[str]) -> _Token:
    kind = str(match.lastgroup)
    token = _Token(kind, match[kind], match.start(kind))
    if kind == "bad":
        hint = _HINTS.get(token.text, "use digits, names, + - * / ^ ! and round brackets")
        raise ExpressionError(f"{_quote(token.text)} at character {token.at + 1} is not part of an expression; {hint}")
    return token


def _number(token: _Token) -> str:
    mantissa, _, exponent = token.text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS:
        raise ExpressionError(f"the number at character {token.at + 1} is longer than {MAX_DIGITS} digits")
    if exponent and (len(exponent) > 8 or abs(int(exponent)) > MAX_EXPONENT):
        raise ExpressionError(f"the exponent of {token.text[:20]} is beyond {MAX_EXPONENT}; write it as a power")
    return token.text


def _quote(text: str) -> str:
    """What the model wrote, short and printable, with the code of what looks like something else."""
    shown = text[:_MAX_NAME]
    if len(shown) == 1 and not shown.isascii():
        return f"{shown!a} (U+{ord(shown):04X})"
    return ascii(shown)
