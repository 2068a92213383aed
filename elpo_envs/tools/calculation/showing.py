"""Results as short text: what `elpo_envs.tools.expressions` reads, and decimals where they differ."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact
from typing import Any

import sympy
from sympy.printing.str import StrPrinter

from .building import NO_NUMBER
from .errors import CalculationError

_MAX_INTEGER_DIGITS = 200
_MAX_EXACT = 80
_MAX_TEXT = 1_000
PLACES = 1e-15


class _Printer(StrPrinter):  # type: ignore[misc]
    """Prints what `expressions.py` reads."""

    def _print_ImaginaryUnit(self, expr: Any) -> str:  # noqa: N802
        return "i"

    def _print_Exp1(self, expr: Any) -> str:  # noqa: N802
        return "e"

    def _print_log(self, expr: Any) -> str:
        return f"ln({self._print(expr.args[0])})"

    def _print_Abs(self, expr: Any) -> str:  # noqa: N802
        return f"abs({self._print(expr.args[0])})"


_PRINTER = _Printer()


def exact(expression: Any) -> str:
    """An expression as `expressions.py` reads it."""
    return str(_PRINTER.doprint(expression)).replace("**", "^")


def _digits(number: Decimal) -> str:
    number = number.normalize(Context(prec=max(1, len(number.as_tuple().digits))))
    if number == 0:
        return "0"
    if -6 <= number.adjusted() < 15:
        return format(number, "f")
    sign, digits, _ = number.as_tuple()
    text = "".join(map(str, digits))
    fraction = f".{text[1:]}" if text[1:] else ""
    return f"{'-' * sign}{text[0]}{fraction}e{number.adjusted()}"


def decimal_text(value: Any, digits: int) -> tuple[str, bool]:
    """A real number in decimals, and whether that is all of it."""
    context = Context(prec=digits)
    if value.is_Rational:
        number = context.divide(Decimal(int(value.p)), Decimal(int(value.q)))
        return _digits(number), not context.flags[Inexact]
    return _digits(context.plus(Decimal(str(sympy.N(value, digits + 5))))), False


def complex_decimal(value: Any, digits: int) -> str:
    """A number in decimals, such as 1.5 - 2*i."""
    real, imaginary = sympy.N(value, digits + 5).as_real_imag()
    size = max(abs(real), abs(imaginary))
    if abs(imaginary) <= size * PLACES:
        return decimal_text(real, digits)[0]
    sign = "-" if imaginary < 0 else "+"
    tail = decimal_text(abs(imaginary), digits)[0]
    tail = "i" if tail == "1" else f"{tail}*i"
    if abs(real) <= size * PLACES:
        return tail if sign == "+" else f"-{tail}"
    return f"{decimal_text(real, digits)[0]} {sign} {tail}"


def bounded(text: str) -> str:
    """`text`. Raises CalculationError where it is too long."""
    if len(text) > _MAX_TEXT:
        raise CalculationError(f"the result is {len(text):,} characters long, more than {_MAX_TEXT:,}")
    return text


def show(value: Any, digits: int, decimal: bool) -> str:
    """The exact form and the decimal one where they differ; the decimal one alone where `decimal` asks for it
    or the exact one is long."""
    if value.has(*NO_NUMBER):
        raise CalculationError("the result is undefined")
    if value in (sympy.oo, -sympy.oo):
        return "infinity" if value == sympy.oo else "-infinity"
    if isinstance(value, sympy.Piecewise):
        return bounded("; ".join(_branch(*branch) for branch in value.args))
    if not value.is_number:
        return bounded(exact(value))
    if value.is_Integer:
        whole = str(abs(int(value)))
        return str(int(value)) if len(whole) <= _MAX_INTEGER_DIGITS else f"≈ {decimal_text(value, digits)[0]}"
    if value.is_Rational:
        text, complete = decimal_text(value, digits)
    else:
        text, complete = complex_decimal(value, digits), False
    form = exact(value)
    if decimal or len(form) > _MAX_EXACT:
        return text if complete else f"≈ {text}"
    return form if form.replace(" ", "") == text.replace(" ", "") else f"{form} {'=' if complete else '≈'} {text}"


def _branch(value: Any, condition: Any) -> str:
    if condition == sympy.true:
        return f"{exact(value)} otherwise"
    if isinstance(condition, sympy.core.relational.Relational):
        return f"{exact(value)} if {exact(condition.lhs)} {condition.rel_op} {exact(condition.rhs)}"
    return f"{exact(value)} if {exact(condition)}"


def named(name: str, shown: str) -> str:
    """ "x = 2", or "x ≈ 1.414" for the text that `show` gives."""
    return f"{name} {shown}" if shown.startswith("≈") else f"{name} = {shown}"
