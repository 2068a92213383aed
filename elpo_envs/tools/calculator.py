"""An exact calculator: arithmetic, algebra, calculus and units, by sympy and pint in a child process."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from elpo_envs.json_worker import JsonWorker, WorkerUnavailableError, WorkLimitError
from elpo_envs.tools.base import BaseTool, ToolResult
from elpo_envs.tools.expressions import (
    MAX_CHARS,
    MAX_EQUATIONS,
    ExpressionError,
    check_name,
    read_equations,
    read_expression,
)
from elpo_envs.tools.quantities import read_quantity, read_units

OPERATIONS = ("evaluate", "solve", "simplify", "expand", "factor", "differentiate", "integrate", "convert")
_MAX_VALUE_CHARS = 200
_USED_BY: dict[str, tuple[str, ...]] = {
    "to": ("convert",),
    "lower": ("integrate",),
    "upper": ("integrate",),
    "domain": ("solve",),
    "variables": ("solve", "differentiate", "integrate"),
}
_DECIMAL = re.compile(r"\.|[0-9][eE]-[0-9]")
_WORKER = JsonWorker(Path(__file__).with_name("calculation"))


class CalculatorTool(BaseTool):
    """`calculator(operation, expression, ...)`: exact results, with decimals where they differ.

    Numbers are exact: 0.1 is 1/10. Stateless, and a function of the arguments alone (but for the time limit).
    All calculators of a process share one worker process, so calls of several environments queue.

    Args:
        limit_s: seconds of work for one call; > 0.

    Raises:
        ValueError: `limit_s` is not greater than 0.
    """

    name = "calculator"
    description = (
        "Exact calculator. Operations: evaluate a number; solve one or several equations (separated by ;); simplify, "
        "expand or factor; differentiate; integrate; convert units, such as 36 km/h to m/s. Expressions are written "
        "like 2*x^2 - sqrt(3)/4, with pi, e, i, n!, sin, cos, tan (radians; 30 deg for degrees), asin, exp, ln, "
        "log(x, base), log10, abs, root(x, n), gcd, lcm, mod, binomial, floor, round, min, max, sum(k^2, k, 1, n)."
    )
    parameters: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "type": "object",
        "properties": {
            "operation": {"type": "string", "enum": list(OPERATIONS)},
            "expression": {
                "type": "string",
                "maxLength": MAX_CHARS,
                "description": "The expression; for solve, up to "
                f"{MAX_EQUATIONS} equations; for convert, a number and its unit.",
            },
            "variables": {
                "type": "array",
                "items": {"type": "string", "maxLength": 32},
                "maxItems": MAX_EQUATIONS,
                "description": "The unknowns to solve for, or what to differentiate by (once each time) or integrate "
                "over; may be left out where only one is possible.",
            },
            "values": {
                "type": "object",
                "additionalProperties": {"type": ["number", "string"], "maxLength": _MAX_VALUE_CHARS},
                "maxProperties": 10,
                "description": 'Values of variables, such as {"m": 2, "c": "3e8"}.',
            },
            "lower": {"type": ["number", "string"], "maxLength": _MAX_VALUE_CHARS, "description": "integrate: from."},
            "upper": {"type": ["number", "string"], "maxLength": _MAX_VALUE_CHARS, "description": "integrate: to."},
            "to": {"type": "string", "maxLength": _MAX_VALUE_CHARS, "description": "convert: the unit wanted."},
            "domain": {
                "type": "string",
                "enum": ["real", "complex"],
                "description": "solve: which solutions; real by default.",
            },
            "digits": {
                "type": "integer",
                "minimum": 1,
                "maximum": 50,
                "description": "Significant digits of decimals; 12 by default.",
            },
        },
        "required": ["operation", "expression"],
        "additionalProperties": False,
    }

    def __init__(self, limit_s: float = 5.0) -> None:
        if not limit_s > 0:
            raise ValueError(f"limit_s={limit_s!r} must be greater than 0 seconds")
        self._limit_s = limit_s

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        try:
            question = _question(arguments)
        except ExpressionError as error:
            return ToolResult(f"Error: {error}", "error")
        try:
            reply = _WORKER.ask({**question, "limit_s": self._limit_s}, self._limit_s).content
        except WorkLimitError as error:
            if error.timed_out:
                return ToolResult(f"Error: {error}; make the calculation smaller or split it", "timeout")
            return ToolResult("Error: the calculation needs too much; make it smaller", "error")
        except WorkerUnavailableError as error:
            return ToolResult(f"The calculator failed: {error}", "sandbox_failure")
        if "error" in reply:
            return ToolResult(f"Error: {reply['error']}", "error")
        return ToolResult(reply["text"])


def _question(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the worker is asked. Raises ExpressionError."""
    operation, expression = arguments["operation"], arguments["expression"]
    for name, users in _USED_BY.items():
        if name in arguments and operation not in users:
            raise ExpressionError(f"{name} is used by {' and '.join(users)} only, not by {operation}")
    names = [check_name(name) for name in arguments.get("variables", ())]
    values = {check_name(name): _number(value, name) for name, value in arguments.get("values", {}).items()}
    both = sorted(set(names) & values.keys())
    if both:
        raise ExpressionError(f"{both[0]} stands in variables and in values; leave it out of one of them")
    if operation == "solve" and len(set(names)) < len(names):
        raise ExpressionError("an unknown stands twice in variables; name each once")
    written = [expression, *map(str, arguments.get("values", {}).values())]
    written += [str(arguments[bound]) for bound in ("lower", "upper") if bound in arguments]
    question: dict[str, Any] = {
        "operation": operation,
        "variables": names,
        "values": values,
        "digits": int(arguments.get("digits", 12)),
        "decimal": any(_DECIMAL.search(text) for text in written),
        "domain": arguments.get("domain", "real"),
    }
    if operation == "solve":
        question["equations"] = read_equations(expression)
        return question
    if operation == "convert":
        if "to" not in arguments:
            raise ExpressionError('convert needs the unit wanted in "to", such as "to": "m/s"')
        value, units = read_quantity(expression)
        text = " ".join(arguments["to"].split())
        return {**question, "tree": value, "units": units, "to": read_units(text), "texts": [_units_text(units), text]}
    question["tree"] = read_expression(expression)
    if operation == "integrate":
        bounds = [bound for bound in ("lower", "upper") if bound in arguments]
        if len(bounds) == 1:
            raise ExpressionError("give both lower and upper, or neither")
        question["bounds"] = [_number(arguments[bound], bound) for bound in bounds]
    return question


def _number(value: object, name: str) -> Any:
    """The tree of a value given as a number or as an expression."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ExpressionError(f"{name!a} is {value}, not a finite number")
    text = str(value)
    if len(text) > _MAX_VALUE_CHARS:
        raise ExpressionError(f"the value of {name!a} is longer than {_MAX_VALUE_CHARS} characters")
    return read_expression(text)


def _units_text(units: list[tuple[str, int]]) -> str:
    def power(name: str, exponent: int) -> str:
        return name if exponent == 1 else f"{name}^{exponent}"

    above = "*".join(power(name, exponent) for name, exponent in units if exponent > 0)
    below = "/".join(power(name, -exponent) for name, exponent in units if exponent < 0)
    return f"{above or '1'}/{below}" if below else above or "1"
