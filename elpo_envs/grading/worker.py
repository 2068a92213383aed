r"""The child process behind the symbolic stage: pairs of LaTeX expressions, and whether they are equal.

Run by `elpo_envs.json_worker`, alone, so it must not import the package. {"a": str, "b": str, "kind": "value" |
"equation"} gives {"equal": true | false | null, "note": str}; null means that one side could not be read. Expressions
are parsed by the ANTLR grammar behind math-verify; nothing is evaluated as Python.
"""

from __future__ import annotations

from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy

_DIGITS = 50
_POINTS = 5


def _read(text: str) -> Any:
    expression = latex2sympy(text.replace("⦃", r"\{").replace("⦄", r"\}"))
    if not isinstance(expression, sympy.Expr):
        raise ValueError(f"{type(expression).__name__} is not an expression")
    exact = {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    return expression.xreplace({**exact, sympy.Symbol("i"): sympy.I}).doit()


def _vanishes(expression: Any, scale: Any) -> bool:
    """Whether a constant is zero to 50 digits, relative to the size of `scale`."""
    value = sympy.N(expression, _DIGITS + 10)
    size = abs(sympy.N(scale, 15))
    if not (value.is_finite and size.is_finite):
        raise ValueError("no numeric value")
    return bool(abs(value) <= sympy.Float(10) ** -_DIGITS * max(1, size))


def _sign(point: int, place: int) -> int:
    """All variables positive, all negative, then mixed."""
    return 1 if point == 0 else -1 if point == 1 else (-1) ** (point + place)


def _values(symbols: list[Any], point: int) -> dict[Any, Any]:
    return {
        symbol: sympy.Rational(_sign(point, place) * (103 + 211 * place + 389 * point), 499 + 2 * point)
        for place, symbol in enumerate(symbols)
    }


def _multiples(a: Any, b: Any) -> bool:
    """Whether `a` is a constant times `b`, and not zero."""
    values = _values(sorted(a.free_symbols | b.free_symbols, key=str), 0)
    top, bottom = a.subs(values).doit(), b.subs(values).doit()
    if _vanishes(top, 1) or _vanishes(bottom, 1):
        raise ValueError("no ratio")
    return _equal(a, b * top / bottom)


def _equal(a: Any, b: Any) -> bool:
    if a == b:
        return True
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if not symbols:
        return _vanishes(a - b, a)
    real = not (a.has(sympy.I) or b.has(sympy.I))
    tried = 0
    for point in range(2 * _POINTS):
        values = _values(symbols, point)
        left, right = a.subs(values).doit(), b.subs(values).doit()
        if left.has(sympy.nan, sympy.zoo) or right.has(sympy.nan, sympy.zoo):
            continue
        if real and any(abs(sympy.im(sympy.N(side, 15))) > 1e-9 for side in (left, right)):
            continue  # outside the real domain
        if not _vanishes(left - right, left):
            return False
        tried += 1
        if tried == _POINTS:
            break
    return tried > 0


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request; an expression that cannot be read or compared is a reply, not an error."""
    try:
        a, b = _read(request["a"]), _read(request["b"])
        if any(side.has(sympy.nan, sympy.zoo) for side in (a, b)):
            raise ValueError("undefined")
        if request["kind"] == "equation":
            return {"equal": _multiples(a, b), "note": ""}
        return {"equal": _equal(a, b), "note": ""}
    except Exception as error:
        return {"equal": None, "note": f"{type(error).__name__}: {str(error)[:200]}"}


def prepare() -> None:
    """Import and cache what the first question would."""
    answer({"a": r"\sqrt{8}", "b": r"2\sqrt{2}", "kind": "value"})
