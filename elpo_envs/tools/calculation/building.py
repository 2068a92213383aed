"""From trees (see `elpo_envs.tools.expressions`) to sympy expressions; nothing is evaluated as Python.

The size of numbers is bounded before anything is computed, so that 9^9^9^9 is an error at once.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy

from .errors import CalculationError

NO_NUMBER = (sympy.nan, sympy.zoo)
_MAX_BITS = 14_000
_MAX_FACTORIAL = 1_500
_MAX_POWER = 10_000

Tree = list[Any]


def _whole(value: Any, what: str, most: int) -> int:
    if not (value.is_Integer and 0 <= int(value) <= most):
        raise CalculationError(f"{what} must be a whole number from 0 to {most:,}")
    return int(value)


def _factorial(x: Any) -> Any:
    return (
        sympy.factorial(_whole(x, "the argument of factorial", _MAX_FACTORIAL)) if x.is_number else sympy.factorial(x)
    )


def _gamma(x: Any) -> Any:
    if x.is_number and not abs(x) <= _MAX_FACTORIAL:
        raise CalculationError(f"the argument of gamma is beyond {_MAX_FACTORIAL:,}")
    return sympy.gamma(x)


def _binomial(n: Any, k: Any) -> Any:
    if n.is_number:
        _whole(n, "the first argument of binomial", _MAX_POWER)
    return sympy.binomial(n, k)


def _round(x: Any, places: Any = sympy.S.Zero) -> Any:
    if not x.is_real:
        raise CalculationError("round takes a real number")
    scale = sympy.Integer(10) ** _whole(places, "the decimal places of round", 50)
    # Halves away from zero, as on paper.
    return sympy.sign(x) * sympy.floor(abs(x) * scale + sympy.Rational(1, 2)) / scale


def _root(x: Any, n: Any) -> Any:
    """The real root of a negative number where there is one, else the principal one."""
    if n.is_zero:
        raise CalculationError("division by zero")
    return -sympy.root(-x, n) if x.is_negative and n.is_odd else sympy.root(x, n)


def _mod(a: Any, b: Any) -> Any:
    if b.is_zero:
        raise CalculationError("division by zero")
    return sympy.Mod(a, b)


def _whole_pair(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*arguments: Any) -> Any:
        if not all(a.is_Integer for a in arguments):
            raise CalculationError(f"{function.__name__} takes whole numbers")
        return sympy.Integer(function(*arguments))

    return apply


_CALLS: dict[str, Callable[..., Any]] = {
    **{name: getattr(sympy, name) for name in ("exp", "sign", "re", "im", "conjugate", "erf", "floor", "ceiling")},
    **{name: getattr(sympy, name) for name in ("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan")},
    **{name: getattr(sympy, name) for name in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "atan2", "sqrt")},
    "cbrt": lambda x: _root(x, sympy.Integer(3)),
    "root": lambda x, n: _root(x, n),
    "abs": sympy.Abs,
    "ln": sympy.log,
    "log": sympy.log,
    "log2": lambda x: sympy.log(x, 2),
    "log10": lambda x: sympy.log(x, 10),
    "factorial": _factorial,
    "gamma": _gamma,
    "binomial": _binomial,
    "round": _round,
    "mod": _mod,
    "gcd": _whole_pair(sympy.igcd),
    "lcm": _whole_pair(sympy.ilcm),
    "min": sympy.Min,
    "max": sympy.Max,
    "sum": lambda term, k, a, b: sympy.summation(term, (k, a, b)),
    "product": lambda term, k, a, b: sympy.product(term, (k, a, b)),
    "limit": sympy.limit,
}
_BINDING = ("sum", "product", "limit")
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo, "deg": sympy.pi / 180}


def _bits(number: Any) -> int:
    return max(int(number.p).bit_length(), int(number.q).bit_length())


def _power(base: Any, exponent: Any) -> Any:
    if exponent.is_number and not base.is_infinite and base not in (0, 1, -1, sympy.E):
        size = abs(exponent)
        if not size <= _MAX_POWER or (base.is_Rational and not size * _bits(base) <= _MAX_BITS):
            raise CalculationError("a power is too large to compute exactly; use logarithms or exp")
    return base**exponent


def build(tree: Tree, values: dict[str, Any]) -> Any:
    """The sympy expression of a tree; `values` gives names a meaning before the constants do."""
    kind, *rest = tree
    if kind == "num":
        number = Fraction(rest[0])
        made = sympy.Rational(number.numerator, number.denominator)
    elif kind == "name":
        name = rest[0]
        made = values[name] if name in values else _CONSTANTS.get(name, sympy.Symbol(name))
    elif kind in ("+", "*"):
        parts = [build(part, values) for part in rest[0]]
        made = sympy.Add(*parts) if kind == "+" else sympy.Mul(*parts)
    elif kind == "neg":
        made = -build(rest[0], values)
    elif kind == "inv":
        divisor = build(rest[0], values)
        if divisor.is_zero:
            raise CalculationError("division by zero")
        made = 1 / divisor
    elif kind == "^":
        made = _power(build(rest[0], values), build(rest[1], values))
    else:
        name, arguments = rest
        if name in _BINDING:
            if arguments[1][0] != "name":
                raise CalculationError(f"the second argument of {name} must be the name of a variable")
            bound = arguments[1][1]
            values = {**values, bound: sympy.Symbol(bound)}
        made = _CALLS[name](*(build(argument, values) for argument in arguments))
    if made.has(*NO_NUMBER):
        raise CalculationError("the expression is undefined (such as division by zero or the logarithm of 0)")
    if made.is_Rational and _bits(made) > _MAX_BITS:
        raise CalculationError("a number in the expression is too large to compute exactly; use logarithms")
    return made
