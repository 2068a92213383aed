"""Answers the calculator's questions in a child process (see `elpo_envs.json_worker`).

A question is {"operation", "tree" or "equations", "units", "to", "texts", "variables", "values", "bounds", "digits",
"decimal", "domain", "limit_s"} as `elpo_envs.tools.calculator` makes it; a reply is {"text": str} or {"error":
str}.
"""

from __future__ import annotations

from typing import Any

import sympy
from sympy.core.random import seed as seed_sympy

from .algebra import differentiate, evaluate, factor, integrate, solve
from .building import build
from .errors import CalculationError
from .showing import show
from .units import convert


def answer(request: dict[str, Any]) -> dict[str, str]:
    """The reply to one request; what cannot be computed is a reply, not an error."""
    seed_sympy(0)
    try:
        return {"text": _answer(request)}
    except CalculationError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "the calculation needs too much memory; make it smaller"}
    except RecursionError:
        return {"error": "the calculation goes too deep; make it smaller"}
    except Exception as error:
        # sympy raises whatever it likes; the model is told, the worker lives on.
        return {"error": f"this cannot be computed ({type(error).__name__}: {str(error)[:200]})"}


def _answer(request: dict[str, Any]) -> str:
    operation, names, digits = request["operation"], request["variables"], request["digits"]
    decimal, real = request["decimal"], request["domain"] == "real"
    values = {name: sympy.Symbol(name) for name in names}
    values |= {name: build(tree, {}) for name, tree in request["values"].items()}
    if operation == "solve":
        sides = [(build(left, values), build(right, values)) for left, right in request["equations"]]
        return solve(sides, names, digits, decimal, real)
    expression = build(request["tree"], values)
    if operation == "evaluate":
        return evaluate(expression, digits, decimal)
    if operation == "simplify":
        return show(sympy.simplify(expression), digits, decimal)
    if operation == "expand":
        return show(sympy.expand(expression), digits, decimal)
    if operation == "factor":
        return factor(expression)
    if operation == "differentiate":
        return differentiate(expression, names, digits, decimal)
    if operation == "integrate":
        bounds = [build(tree, values) for tree in request["bounds"]]
        return integrate(expression, names, bounds, digits, decimal, request["limit_s"] / 4)
    return convert(expression, request["units"], request["to"], request["texts"], digits)


def prepare() -> None:
    """Import and cache what the first question would."""
    sympy.solve(sympy.Symbol("x") ** 2 - 2)
