"""Conversion of units by pint's definitions, in exact fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pint
import sympy

from .errors import CalculationError
from .showing import decimal_text

_UNITS: Any = pint.UnitRegistry(non_int_type=Fraction)
_UNITS.Unit("m")  # reads the definitions
_OFFSET = {"degC": "delta_degC", "degF": "delta_degF"}


def _unit(factors: list[list[Any]]) -> Any:
    made = _UNITS.Unit("")
    for name, power in factors:
        # A difference of temperatures, not a point on the scale, is meant in products such as J/degC.
        name = name if len(factors) == 1 and power == 1 else _OFFSET.get(name, name)
        try:
            made = made * _UNITS.Unit(name) ** power
        except (pint.UndefinedUnitError, AttributeError, AssertionError, ValueError, TypeError) as error:
            raise CalculationError(
                f"there is no unit {name[:40]!a}; use names such as m, km, kg, mol, J, kWh, degC, hour, L, atm, eV"
            ) from error
    return made


def _dimension(unit: Any) -> str:
    parts = sorted((str(name)[1:-1], power) for name, power in _UNITS.get_dimensionality(unit).items())
    return "*".join(name if power == 1 else f"{name}^{power}" for name, power in parts) or "a pure number"


def convert(value: Any, units: list[list[Any]], to: list[list[Any]], texts: list[str], digits: int) -> str:
    """The quantity in other units, from pint's definitions in exact fractions."""
    source, target = _unit(units), _unit(to)
    if not value.is_Rational:
        value = sympy.Rational(str(sympy.N(value, 50)))
    if _UNITS.get_dimensionality(source) != _UNITS.get_dimensionality(target):
        hint = "; for temperatures write degC, degF or K" if {"C", "F"} & {n for n, _ in (*units, *to)} else ""
        raise CalculationError(
            f"{texts[0]} ({_dimension(source)}) cannot be converted to {texts[1]} ({_dimension(target)}){hint}"
        )
    try:
        made = _UNITS.Quantity(Fraction(int(value.p), int(value.q)), source).to(target).magnitude
        result = sympy.Rational(made.numerator, made.denominator)
    except (TypeError, AttributeError, pint.PintError) as error:
        raise CalculationError(f"{texts[0]} cannot be converted to {texts[1]}") from error
    shown, complete = decimal_text(result, digits)
    given = f"{decimal_text(value, 50)[0]} {texts[0]}".removesuffix(" 1")
    return f"{given} {'=' if complete else '≈'} {shown} {texts[1]}".removesuffix(" 1")
