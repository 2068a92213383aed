r"""What a model would say to hand in a task's reference, in several forms, and wrong answers in the same forms.

Right forms:

* mathematics: "worked", the data's own solution and then the boxed answer (GSM8K: what stands behind `####`, as it is
  written there); "as published", the solution with no box but its own; "boxed", a sentence with the answer; "respelt",
  the answer as others write it (`\dfrac`, 1{,}200, 025).
* multiple choice: "letter", "text", or "label and text" in the box, and "stated" in a sentence without a box.
* numbers: "with unit", "number" alone, and "power of ten" (5.07 x 10^1 and the unit).
* programs: "submit", by the tool, and "fenced", in a final turn's block.

Wrong forms: another row's answer, or the same with one digit changed; the next option, and all of them; a number
that is off by three times the tolerance, ten times as large, negated, or in a unit of another dimension; and a program
in which every function does nothing, or that of another row.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from elpo_envs.grading import extract_boxed
from elpo_envs.tasks.base import ExpertTurn, Task, TaskSource, ToolCall
from elpo_envs.tasks.gsm8k import FINAL

OFF_BY = 3  # times the tolerance
OTHER_DIMENSION = r"\mathrm{cd}"  # candela: no benchmark asks for it
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_GROUPS = re.compile(r"(?<=\d)(?=(?:\d{3})+$)")
_SIZED = re.compile(r"\\(?:left|right)(?=[(\[)\]|])")
_POWER_FIRST = re.compile(r"\$*\s*(?:10|\\times|\\cdot)")


@dataclass(frozen=True)
class Attempt:
    """One final turn about a task, and whether it is right."""

    form: str
    right: bool
    turn: ExpertTurn


def attempts(source: TaskSource, index: int) -> Iterator[Attempt]:
    """Every form, right and wrong, in which the task at `index` of a finite source is answered.

    A task without a reference has none; nor is a wrong form made where it would be right ("0", negated).
    """
    task = source.get(index)
    kind = task.metadata.get("kind", "math")
    if not task.answer.strip():
        return
    if kind == "choice":
        yield from _choices(task.metadata["choices"], task.answer)
    elif kind == "number":
        yield from _quantities(task.answer, task.metadata["unit"], task.metadata["tolerance"])
    elif kind == "program":
        yield from _programs(task.answer, _other(source, index, task.answer, str.strip))
    else:
        yield from _mathematics(task, _other(source, index, task.answer, _value))


def _mathematics(task: Task, other: str | None) -> Iterator[Attempt]:
    solution = str(task.metadata.get("solution", ""))
    if finals := [final for final in FINAL.findall(solution) if final]:
        yield _says("worked", True, f"{FINAL.sub('', solution).strip()}\n{_boxed(finals[-1])}")
    elif solution:
        yield _says("worked", True, f"{_BOX.sub('', solution)}\n{_boxed(task.answer)}")
        if extract_boxed(solution):
            yield _says("as published", True, solution)
    yield _says("boxed", True, f"The answer is ${_boxed(task.answer)}$.")
    spelt = _respelt(task.answer, three_digits=task.task_id.startswith("aime"))
    if spelt != task.answer:
        yield _says("respelt", True, _boxed(spelt))
    if other is not None:
        yield _says("another row's", False, _boxed(other))
    if (changed := _with_other_digit(task.answer)) is not None:
        yield _says("one digit changed", False, _boxed(changed))


def _choices(choices: Sequence[str], letter: str) -> Iterator[Attempt]:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(choices)]
    right = letters.index(letter)
    after = [at % len(choices) for at in range(right + 1, right + len(choices))]
    yield _says("letter", True, _boxed(letter))
    yield _says("text", True, _boxed(choices[right]))
    yield _says("label and text", True, _boxed(f"{letter}. {choices[right]}"))
    yield _says("stated", True, f"The other options contradict the question.\nThe answer is ({letter}).")
    yield _says("next letter", False, _boxed(letters[after[0]]))
    if different := [at for at in after if _written(choices[at]) != _written(choices[right])]:
        yield _says("next text", False, _boxed(choices[different[0]]))
    yield _says("all letters", False, _boxed(", ".join(letters)))


def _quantities(number: str, unit: str, tolerance: float) -> Iterator[Attempt]:
    value = float(number)
    yield _says("with unit", True, _boxed(_quantity(number, unit)))
    yield _says("number", True, _boxed(number))
    if not _POWER_FIRST.match(unit):
        mantissa, _, exponent = f"{Decimal(number):e}".partition("e")
        yield _says("power of ten", True, _boxed(_quantity(rf"{mantissa} \times 10^{{{int(exponent)}}}", unit)))
    off = OFF_BY * tolerance * (abs(value) or 1.0)
    yield _says("too large", False, _boxed(_quantity(_decimal(value + off), unit)))
    yield _says("too small", False, _boxed(_quantity(_decimal(value - off), unit)))
    if value:
        yield _says("ten times", False, _boxed(_decimal(10 * value)))
        yield _says("negated", False, _boxed(_quantity(_decimal(-value), unit)))
    yield _says("another dimension", False, _boxed(_quantity(number, OTHER_DIMENSION)))


def _programs(program: str, other: str | None) -> Iterator[Attempt]:
    yield _submits("submit", True, program)
    yield _says("fenced", True, f"This passes the tests.\n\n```python\n{program.rstrip()}\n```")
    yield _submits("hollow", False, hollow(program))
    if other is not None:
        yield _submits("another row's", False, other)


def hollow(program: str) -> str:
    """The program with `pass` for every function's body."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in published programs
        tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree))


def _other(source: TaskSource, index: int, answer: str, key: Callable[[str], str]) -> str | None:
    """The answer of the next row whose answer is written otherwise; None where there is no such row."""
    size = source.size or 0
    others = (source.get((index + step) % size).answer for step in range(1, size))
    return next((other for other in others if key(other) != key(answer)), None)


def _respelt(answer: str, *, three_digits: bool) -> str:
    if answer.isdecimal():
        return answer.zfill(3) if three_digits else _GROUPS.sub("{,}", answer)
    return _SIZED.sub("", answer.replace(r"\frac", r"\dfrac"))


def _with_other_digit(answer: str) -> str | None:
    """The answer with its last digit one higher, 9 becoming 0; None where it has no digit."""
    at = max(answer.rfind(digit) for digit in "0123456789")
    return None if at < 0 else f"{answer[:at]}{(int(answer[at]) + 1) % 10}{answer[at + 1 :]}"


def _quantity(number: str, unit: str) -> str:
    bare = unit[1:-1].strip() if len(unit) > 2 and unit[0] == unit[-1] == "$" else unit
    return rf"{number} \times {bare}" if bare.startswith("10") else f"{number} {bare}".strip()


def _decimal(value: float) -> str:
    return f"{value:.10g}"


def _value(answer: str) -> str:
    """What tells answers apart that are not one answer in two dresses ("x = 5", "5"): their digits, if any."""
    return re.sub(r"\D", "", answer) or _written(answer)


def _written(text: str) -> str:
    return "".join(text.split()).casefold().rstrip(".")


def _boxed(text: str) -> str:
    return rf"\boxed{{{text}}}"


def _says(form: str, right: bool, text: str) -> Attempt:
    return Attempt(form, right, ExpertTurn(text))


def _submits(form: str, right: bool, program: str) -> Attempt:
    return Attempt(form, right, ExpertTurn("", (ToolCall("submit", {"code": program}),)))
