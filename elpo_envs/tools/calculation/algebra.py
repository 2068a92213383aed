"""The operations on sympy expressions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mpmath  # type: ignore[import-untyped]
import sympy
from sympy.polys.polyerrors import CoercionFailed

from .building import NO_NUMBER
from .errors import CalculationError
from .shares import ShareSpentError, cpu_share
from .showing import PLACES, bounded, complex_decimal, decimal_text, exact, named, show

_TIDIED_OPERATIONS = 40
_LISTED = 10
_GRID = [step / 4 for step in range(-80, 81)]
_FAR = [25.0, 50.0, 100.0, 200.0, 500.0, 1e3, 1e4, 1e6]
_PERIODIC = (sympy.sin, sympy.cos, sympy.tan, sympy.cot, sympy.sec, sympy.csc)


def _tidy(value: Any) -> Any:
    """The shortest of some equal forms."""
    if value.is_Rational or value.count_ops() > _TIDIED_OPERATIONS:
        return value
    forms = [value, sympy.expand(value), sympy.simplify(value)]
    if value.is_number and any(form.has(*NO_NUMBER) for form in forms):
        raise CalculationError("the expression is undefined (such as division by zero)")
    return min(forms, key=lambda form: (form.count_ops(), len(str(form))))


def _free(*expressions: Any) -> list[Any]:
    return sorted(set().union(*(e.free_symbols for e in expressions)), key=str)


def _one_variable(expression: Any, names: list[str], verb: str) -> Any:
    free = _free(expression)
    if len(names) > 1 or (not names and len(free) != 1):
        found = ", ".join(map(str, free)) or "none"
        raise CalculationError(f"name the one variable to {verb} in variables (the expression has: {found})")
    return sympy.Symbol(names[0]) if names else free[0]


def evaluate(expression: Any, digits: int, decimal: bool) -> str:
    """The value of a constant expression."""
    free = _free(expression)
    if free:
        have = "has" if len(free) == 1 else "have"
        raise CalculationError(
            f"{', '.join(map(str, free))} {have} no value; give it in values, or use simplify, expand or solve"
        )
    return show(_tidy(expression), digits, decimal)


def factor_whole(number: int) -> str:
    """The prime factors of a number of at least 0."""
    primes = sympy.factorint(number) if number > 1 else {}
    return "*".join(f"{p}^{n}" if n > 1 else str(p) for p, n in sorted(primes.items())) or str(number)


def factor(expression: Any) -> str:
    """Prime factors of a rational number, factors of anything else."""
    if not expression.is_Rational:
        return bounded(exact(sympy.factor(expression)))
    above, below = (factor_whole(part) for part in (abs(int(expression.p)), int(expression.q)))
    below = f"/({below})" if "*" in below else f"/{below}" if below != "1" else ""
    return f"{'-' if expression < 0 else ''}{above}{below}"


def differentiate(expression: Any, names: list[str], digits: int, decimal: bool) -> str:
    """One derivative after the other."""
    variables = [sympy.Symbol(n) for n in names] or [_one_variable(expression, names, "differentiate by")]
    for variable in variables:
        expression = sympy.diff(expression, variable)
    return show(_tidy(expression.doit()), digits, decimal)


def integrate(expression: Any, names: list[str], bounds: list[Any], digits: int, decimal: bool, share_s: float) -> str:
    """An antiderivative (without its constant), or the value between two bounds: numeric where no exact one is
    found in `share_s` seconds."""
    variable = _one_variable(expression, names, "integrate over")
    if not bounds:
        found = sympy.integrate(expression, variable)
        if found.has(sympy.Integral):
            raise CalculationError("no antiderivative in closed form was found; give lower and upper for a number")
        return show(_tidy(found), digits, False)
    try:
        with cpu_share(share_s):
            found = sympy.integrate(expression, (variable, *bounds))
    except ShareSpentError:
        found = sympy.Integral(expression, (variable, *bounds))
    if found.has(sympy.Integral):
        if _free(found):
            raise CalculationError("no closed form was found")
        return f"≈ {complex_decimal(sympy.N(found, digits + 5), digits)} (numeric)"
    return show(_tidy(found), digits, decimal)


def _numeric_key(value: Any) -> tuple[float, float]:
    real, imaginary = sympy.N(value, 20).as_real_imag()
    return (round(float(real), 12), float(imaginary))


def _is_real(value: Any) -> bool:
    """False only where the value certainly is not real."""
    if not value.is_number or value.is_real:
        return True
    real, imaginary = sympy.N(value, 30).as_real_imag()
    return bool(abs(imaginary) <= PLACES * max(1, abs(real)))


def _crossings(function: Any, unknown: Any) -> list[Any]:
    """Real zeros between sign changes on a grid, to 25 digits."""
    # No text of the model reaches the generated code: its only name is a dummy's.
    variable = sympy.Dummy()
    compiled = sympy.lambdify(variable, function.xreplace({unknown: variable}), modules="mpmath")

    def at(x: Any) -> Any:
        try:
            value = compiled(x)
        except (ArithmeticError, ValueError):
            return None
        return mpmath.re(value) if mpmath.isfinite(value) and mpmath.im(value) == 0 else None

    zeros: list[Any] = []
    with mpmath.workdps(30):
        known = [(mpmath.mpf(x), at(mpmath.mpf(x))) for x in (*(-x for x in reversed(_FAR)), *_GRID, *_FAR)]
        zeros += [x for x, y in known if y is not None and y == 0]
        for (low, at_low), (high, at_high) in pairwise(known):
            if at_low is None or at_high is None or at_low * at_high >= 0:
                continue
            sign, size, middle = at_low > 0, min(abs(at_low), abs(at_high)), low
            for _ in range(110):
                middle = (low + high) / 2
                value = at(middle)
                if value is None:
                    break
                low, high = (middle, high) if (value > 0) == sign else (low, middle)
            # A pole changes the sign, too, but the function does not vanish there.
            if value is not None and abs(value) <= size * 1e-9:
                zeros.append(middle)
        return [sympy.Float(str(zero), 25) for zero in sorted(zeros)]


def _roots(function: Any, unknown: Any) -> list[Any]:
    """What `sympy.solve` finds, but numbers where a polynomial with rational coefficients has no radicals."""
    try:
        polynomial = sympy.Poly(function, unknown, domain="QQ")
    except (sympy.PolynomialError, CoercionFailed):
        if function.has(sympy.Abs):
            # sympy solves absolute values of real unknowns only.
            known = sympy.Symbol(unknown.name, real=True)
            return [root.xreplace({known: unknown}) for root in sympy.solve(function.xreplace({unknown: known}), known)]
        return list(sympy.solve(function, unknown))
    found: list[Any] = []
    for part, _ in polynomial.factor_list()[1]:
        radicals = sympy.solve(part.as_expr(), unknown) if part.degree() <= 4 or part.length() <= 2 else []
        found += radicals or part.nroots(n=60, maxsteps=200)
    return found


def _is_mixed(function: Any, unknown: Any) -> bool:
    """Whether the unknown stands both inside and outside of sines and the like, as in tan(x) = x: there are no
    closed forms then, but sympy looks for them for long."""
    waves = {wave: sympy.Dummy() for wave in function.atoms(*_PERIODIC) if wave.has(unknown)}
    return bool(waves) and function.xreplace(waves).has(unknown)


def _solve_numerically(function: Any, unknown: Any, digits: int) -> str:
    zeros = _crossings(function, unknown)
    if not zeros:
        raise CalculationError("no way to solve this equation was found")
    nearest = sorted(sorted(zeros, key=abs)[:_LISTED])
    shown = " or ".join(f"{unknown} ≈ {decimal_text(zero, min(digits, 20))[0]}" for zero in nearest)
    return bounded(f"{shown} (found numerically; there may be others)")


def _solve_one(function: Any, unknown: Any, digits: int, decimal: bool, real: bool) -> str:
    if sympy.simplify(function) == 0:
        return f"every value of {unknown} is a solution"
    if not function.has(unknown):
        return "no solution"
    single = function.free_symbols == {unknown}
    if real and single and _is_mixed(function, unknown):
        return _solve_numerically(function, unknown, digits)
    try:
        found = _roots(function, unknown)
    except NotImplementedError as error:
        if not single:
            raise CalculationError("no way to solve this equation was found") from error
        return _solve_numerically(function, unknown, digits)
    kept = [value for value in found if not real or _is_real(value)]
    if not kept:
        if found:
            return f'no real solution; with the domain "complex" there are {len(found)}'
        return "no solution"
    if all(value.is_number for value in kept):
        kept.sort(key=_numeric_key)
    else:
        kept.sort(key=sympy.default_sort_key)
    lines = [named(str(unknown), _show_root(value, digits, decimal, real)) for value in kept]
    return bounded(" or ".join(lines) + (" (within one period)" if function.has(*_PERIODIC) else ""))


def _show_root(value: Any, digits: int, decimal: bool, real: bool) -> str:
    unreadable = value.is_number and (value.has(sympy.CRootOf, sympy.Float) or (real and value.has(sympy.I)))
    return show(value, digits, decimal or unreadable)


def solve(sides: list[tuple[Any, Any]], names: list[str], digits: int, decimal: bool, real: bool) -> str:
    """The solutions of one equation, " or " between them, or of several, one a line."""
    equations = [left - right for left, right in sides]
    free = _free(*(side for pair in sides for side in pair))
    absent = [name for name in names if sympy.Symbol(name) not in free]
    if absent:
        raise CalculationError(f"{absent[0]} does not occur in the equations; name their unknowns in variables")
    if not names and len(free) > len(equations):
        found = ", ".join(map(str, free))
        raise CalculationError(f"name the unknowns in variables (the equations have: {found})")
    unknowns = [sympy.Symbol(name) for name in names] or free
    if not unknowns:
        raise CalculationError("there is no unknown in the equation; use evaluate for a number")
    if len(equations) == 1 and len(unknowns) == 1:
        return _solve_one(equations[0], unknowns[0], digits, decimal, real)
    try:
        found = sympy.solve(equations, unknowns, dict=True)
    except NotImplementedError:
        raise CalculationError("no way to solve these equations was found") from None
    kept = [one for one in found if not real or all(_is_real(value) for value in one.values())]
    if not kept:
        return f'no real solution; with the domain "complex" there are {len(found)}' if found else "no solution"
    lines = []
    for one in kept:
        parts = [named(str(u), _show_root(one[u], digits, decimal, real)) for u in unknowns if u in one]
        lines.append(", ".join(parts))
    return bounded("\n".join(sorted(set(lines), key=lines.index)))
