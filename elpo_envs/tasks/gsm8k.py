r"""Expert tool-call traces from worked solutions in the GSM8K format.

A solution is lines of prose in which results are annotated, `He sold 48/2 = <<48/2=24>>24 clips`, and ends in
`#### 72`. Each annotation becomes one call of the `python` tool with the annotation's expression as code.
Authors left about one result in twelve without an annotation; arithmetic that is written out in plain text
and is true as written, `25-2 = 23 jewels`, becomes a call in the same way. What a call returns always comes
from running it.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from elpo_envs.grading import grade_math
from elpo_envs.tasks.base import ExpertTurn, ToolCall

FINAL = re.compile(r"^\s*####\s*(.*?)\s*$", re.MULTILINE)
_ANNOTATION = re.compile(r"<<([^<>\n]*)>>")
_SYMBOLS = str.maketrans("\u00d7\u00f7\u2212\u2013\u2044\u00b7[]{}$\u20ac\u00a3", "*/--/*()()   ")
_VULGAR = {"\u00bd": "1/2", "\u00bc": "1/4", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
_CODE = re.compile(r"[\d+\-*/(). ]+")
_MAX_LENGTH = 300
_MAX_EXPONENT = 64


@dataclass(frozen=True)
class Step:
    """One calculation of a worked solution.

    Attributes:
        code: a Python expression.
        stated: the result that the solution states, as text. Used to keep it out of `content`, never as a
            result.
        content: the words that lead up to the calculation, without its result.
        annotated: from a `<<...>>` annotation, not from plain text.
    """

    code: str
    stated: str
    content: str
    annotated: bool


@dataclass(frozen=True)
class Trace:
    """The calculations of a worked solution in order, and how many annotations could not be made valid
    Python."""

    steps: tuple[Step, ...]
    skipped: int

    def turns(self) -> tuple[ExpertTurn, ...]:
        """One turn per calculation, each with one call of the `python` tool; no final turn."""
        return tuple(ExpertTurn(step.content, (ToolCall("python", {"code": step.code}),)) for step in self.steps)

    def outputs(self) -> list[str]:
        """What a Python interpreter prints for each step, computed here by arithmetic alone."""
        return [repr(calculate(step.code)) for step in self.steps]


def python_expression(text: str) -> str | None:
    """The left side of a calculator expression as valid Python arithmetic, or None where it has no such
    reading.

    Handles thousands commas, `$`, percent signs, `x` for times, `^`, leading zeros, brackets, juxtaposition
    such as `2(3)`, and unit words behind numbers. Everything from the first `=` on is dropped.
    """
    text = text.partition("=")[0]
    if len(text) > _MAX_LENGTH:
        return None
    for symbol, plain in _VULGAR.items():
        text = re.sub(rf"(\d+){symbol}", rf"(\1+{plain})", text).replace(symbol, f"({plain})")
    text = text.translate(_SYMBOLS)
    text = re.sub(r"(?<=[\d)% ])[xX](?=[\s\d(.])", "*", text).replace("^", "**")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=\d)\s(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<![\d.])(\d+(?:\.\d+)?|\.\d+)\s*%", r"(\1/100)", text)
    text = re.sub(r"\)\s*%", ")/100", text)
    text = re.sub(r"(?<=[\d).])\s*-?[A-Za-z][A-Za-z.']*(?:\s+[A-Za-z.']+)*", " ", text)
    text = re.sub(r"(?<![\d.])0+(?=\d)", "", text)
    text = re.sub(r"(\d|\))\s*(?=\()", r"\1*", text)
    text = re.sub(r"\)\s*(?=[\d.])", ")*", text)
    text = re.sub(r"\s+", " ", text).strip()
    if not text or not _CODE.fullmatch(text) or not re.search(r"\d", text):
        return None
    try:
        calculate(text)
    except (SyntaxError, ValueError, ArithmeticError):
        return None
    return text


_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


def calculate(code: str) -> int | float:
    """The value of Python arithmetic (numbers, + - * / // ** and brackets), as the interpreter would compute
    it.

    Raises SyntaxError, ValueError (anything else in the code, or a power that is too large) or
    ArithmeticError.
    """
    try:
        return _calculate(ast.parse(code.strip(), mode="eval").body)
    except (RecursionError, MemoryError) as error:
        raise ValueError("nested too deeply") from error


def _calculate(node: ast.expr) -> int | float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        value = _calculate(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _calculate(node.left), _calculate(node.right)
        if isinstance(node.op, ast.Pow) and not (abs(right) <= _MAX_EXPONENT and abs(left) <= 1e12):
            raise ValueError("power too large")
        result = _OPERATORS[type(node.op)](left, right)
        if isinstance(result, complex):
            raise ValueError("not a real number")
        return result
    raise ValueError(f"not arithmetic: {ast.dump(node)[:80]}")


def read_trace(solution: str) -> Trace:
    """Every calculation in a worked solution, in the order of the text."""
    steps: list[Step] = []
    skipped = 0
    for line in FINAL.sub("", solution).splitlines():
        start = 0
        for match in _ANNOTATION.finditer(line):
            before = line[start : match.start()]
            steps.extend(_plain_steps(before))
            code = python_expression(match[1])
            if code is None:
                skipped += 1
            else:
                stated = match[1].rpartition("=")[2].strip() if "=" in match[1] else ""
                steps.append(Step(code, stated, _lead(before, stated), annotated=True))
            start = match.end()
        steps.extend(_plain_steps(line[start:]))
    return Trace(tuple(steps), skipped)


def expert_turns(solution: str, answer: str) -> tuple[ExpertTurn, ...]:
    r"""A worked solution as a reference conversation: one `python` call per turn, then the boxed answer.

    The final turn boxes `answer` in the data's own spelling, and there is one only because the calculations
    support
    it: where the last value they compute is not `answer`, the result is () - calls that do not lead to the
    answer are no reference. `read_trace(solution).turns()` gives the calls of any solution.
    """
    return reference_turns(read_trace(solution), answer)


def reference_turns(trace: Trace, answer: str) -> tuple[ExpertTurn, ...]:
    """`expert_turns` of a solution that has been read."""
    if not trace.steps or not grade_math(final_value(trace.outputs()), answer).correct:
        return ()
    return (*trace.turns(), ExpertTurn(f"The answer is \\boxed{{{answer}}}."))


def final_value(outputs: Sequence[str]) -> str:
    """The last tool output's last line as a plain final answer: "24.0" -> "24", "0.30000000000000004" ->
    "0.3".

    Whole numbers are exact; other numbers are rounded to 12 significant digits. Text that is not a number
    comes back stripped; "" where every output is blank.
    """
    lines = [line.strip() for output in outputs for line in output.splitlines() if line.strip()]
    if not lines:
        return ""
    last = lines[-1]
    if re.fullmatch(r"[+-]?\d+", last):
        return last.lstrip("+")
    if not re.fullmatch(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", last):
        return last
    rounded = format(Decimal(f"{Decimal(last):.12g}"), "f")
    plain = rounded.rstrip("0").rstrip(".") if "." in rounded else rounded
    return "0" if plain in ("-0", "") else plain


_NUMBER = r"(?:\d{1,3}(?: \d{3})+(?!\d)|\d[\d,]*)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(
    rf"(?P<number>[$\u20ac\u00a3]?\s?(?:{_NUMBER})\s?%?)|(?P<operator>[-+*/\u00d7\u00f7\u2212\u2013])"
    r"|(?P<open>\()|(?P<close>\))|(?P<word>[A-Za-z][A-Za-z']*(?:/[A-Za-z]+)*)|(?P<space>\s+)|(?P<other>.)"
)
_STATED = re.compile(rf"=\s*[$\u20ac\u00a3]?\s*(?P<value>-?(?:{_NUMBER}))\s*(?P<percent>%?)")
_MAX_WORDS = 4


def _plain_steps(text: str) -> list[Step]:
    """Arithmetic written out in prose, `25-2 = 23`, kept where it is true as written."""
    steps: list[Step] = []
    start = 0
    for match in _STATED.finditer(text):
        expression = _trailing_expression(text[start : match.start()])
        if expression is not None and (code := _true_reading(expression, match["value"], bool(match["percent"]))):
            lead = text[: match.start()].rpartition("=")[0] if "=" in text[: match.start()] else text[: match.start()]
            steps.append(Step(code, match["value"], _lead(lead, match["value"]), annotated=False))
        start = match.start() + 1
    return steps


def _trailing_expression(text: str) -> str | None:
    """The longest arithmetic expression, unit words left out, at the end of `text`; None without an
    operator."""
    tokens = [(match.lastgroup or "", match[0]) for match in _TOKEN.finditer(text[-_MAX_LENGTH:])]
    tokens = [token for token in tokens if token[0] != "space"]
    taken: list[str] = []
    at = len(tokens) - 1
    while True:
        words = 0
        while at >= 0 and tokens[at][0] == "word" and words < _MAX_WORDS:
            at, words = at - 1, words + 1
        operand = _operand(tokens, at)
        if operand is None:
            break
        start, pieces = operand
        taken.extend(reversed(pieces))
        at = start - 1
        if at >= 0 and (tokens[at][0] == "operator" or tokens[at][1] in ("x", "X")):
            taken.append("*" if tokens[at][1] in ("x", "X") else tokens[at][1])
            at -= 1
        elif at < 0 or tokens[at][0] not in ("number", "close"):
            break
    pieces = list(reversed(taken))
    while pieces and pieces[0] in ("+", "*", "/", "\u00d7", "\u00f7"):
        pieces.pop(0)
    return " ".join(pieces) if len(pieces) > 2 else None


def _operand(tokens: Sequence[tuple[str, str]], at: int) -> tuple[int, list[str]] | None:
    """A number or a bracketed group that ends at `at`: where it starts, and its pieces without words."""
    if at < 0 or tokens[at][0] not in ("number", "close"):
        return None
    if tokens[at][0] == "number":
        return at, [tokens[at][1]]
    depth = 0
    for start in range(at, -1, -1):
        depth += (tokens[start][0] == "close") - (tokens[start][0] == "open")
        if depth == 0:
            inside = tokens[start : at + 1]
            return start, [
                "*" if text in ("x", "X") else text for kind, text in inside if kind != "word" or text in "xX"
            ]
    return None


def _true_reading(expression: str, stated: str, percent: bool) -> str | None:
    """The reading of percent signs under which the statement is true, as Python; None if there is none.

    The stated result only selects the reading; the result itself is computed from the code.
    """
    bare = expression.replace("%", "")
    readings = [expression, bare] if not percent else [bare, f"({expression}) * 100"]
    for reading in readings:
        code = python_expression(reading)
        if code is not None:
            value, wanted = calculate(code), float(stated.replace(",", "").replace(" ", ""))
            if abs(value - wanted) <= 1e-9 * max(1.0, abs(wanted)):
                return code
    return None


def _lead(before: str, stated: str) -> str:
    """The words before a calculation, cut where its result is already told."""
    text = re.sub(r"[\s=$\u20ac\u00a3]+\Z", "", _ANNOTATION.sub("", before))
    value = re.sub(r"[^\d.]", "", stated)
    if value:
        told = re.search(rf"=\s*\$?\s*{re.escape(value)}(?![\d.])", text)
        text = text[: told.start()].rstrip() if told else text
    return text.strip()
