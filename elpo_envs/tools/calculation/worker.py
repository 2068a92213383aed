"""Answers the calculator's questions, one JSON line each (see `elpo_envs.tools.json_worker`).

A question is {"operation", "tree" or "equations", "units", "to", "texts", "variables", "values", "bounds", "digits",
"decimal", "domain", "limit_s"} as `elpo_envs.tools.calculator` makes it; a reply is {"text": str} or {"error":
str}. The kernel's own timer ends the process shortly after `limit_s`, whatever it is doing, so that a host that
has died leaves no process running.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import sympy
from sympy.core.random import seed as seed_sympy

from .algebra import differentiate, evaluate, factor, integrate, solve
from .building import build
from .errors import CalculationError
from .showing import show
from .units import convert

_MEMORY_BYTES = 2 << 30


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


def main() -> None:
    """Serve until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not reach the replies
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Imports and caches, before the clock runs.
    sympy.solve(sympy.Symbol("x") ** 2 - 2)
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        request = json.loads(line)
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, float(request["limit_s"]) + 0.5)
        reply = json.dumps(answer(request))
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        replies.write(reply + "\n")
        replies.flush()
