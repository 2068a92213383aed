"""Draw a short program, a chain of changes to one variable, whose printed line is to be predicted."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from elpo_envs.tasks.programs.draft import DrawnStep
from elpo_envs.tasks.programs.operation import Bug, Operation, PrintingFamily
from elpo_envs.tasks.programs.running import printed

MAX_LINES = 25
_LONGEST_ANSWER = 90


@dataclass(frozen=True)
class Printing:
    """A program that prints one line.

    Attributes:
        first: the line that sets the variable; `shown`: the expressions that the last line prints.
    """

    family: PrintingFamily
    first: str
    steps: tuple[DrawnStep, ...]
    shown: str

    def program(self, *, bugs: dict[int, Bug] | None = None, left_out: int | None = None) -> str:
        """The program as Python text, with bugs in some steps or without one step."""
        definitions = dict.fromkeys(s.operation.define for s in self.steps if s.operation.define)
        lines = [*definitions, self.first]
        lines += [s.code("", "", (bugs or {}).get(i)) for i, s in enumerate(self.steps) if i != left_out]
        return "\n".join([*lines, f"print({self.shown})"])


def draw_printing(
    family: PrintingFamily, n_steps: int, rng: random.Random, accepts: Callable[[str], bool] = lambda program: True
) -> tuple[Printing, str]:
    """An acceptable program of exactly `n_steps` changes, each of which its output depends on, and that output."""
    while True:
        printing = _try_draw(family, n_steps, rng)
        if printing is None or not accepts(printing.program()):
            continue
        answer = printed(printing.program())
        if _is_telling(answer, printing):
            return printing, answer


def _try_draw(family: PrintingFamily, n_steps: int, rng: random.Random) -> Printing | None:
    steps: list[DrawnStep] = []
    free_lines = MAX_LINES - 2
    for i in range(n_steps):
        used = {s.operation.define for s in steps}
        room = free_lines - (n_steps - i - 1)
        pool = [
            op for op in family.operations if not (steps and op is steps[-1].operation) and _lines(op, used) <= room
        ]
        if not pool:
            return None
        fresh = [op for op in pool if all(op is not s.operation for s in steps)]
        operation = rng.choice(fresh or pool)
        free_lines -= _lines(operation, used)
        steps.append(_draw_step(operation, rng))
    return Printing(family, family.start(rng), tuple(steps), rng.choice(family.shown))


def _draw_step(operation: Operation, rng: random.Random) -> DrawnStep:
    n, m = (repr(rng.choice(c)) if c else "" for c in (operation.n, operation.m))
    return DrawnStep(operation, n, m)


def _lines(operation: Operation, used: set[str]) -> int:
    lines = operation.code.count("\n") + 1
    if operation.define and operation.define not in used:
        lines += operation.define.count("\n") + 1
    return lines


def _is_telling(answer: str, printing: Printing) -> bool:
    """Whether the answer can be told from the text only by running it, and depends on every step."""
    if not 2 <= len(answer) <= _LONGEST_ANSWER or answer != answer.strip() or answer in printing.program():
        return False
    return all(printed_or_error(printing.program(left_out=i)) != answer for i in range(len(printing.steps)))


def printed_or_error(program: str) -> str | None:
    """What the program prints, or None where it raises."""
    try:
        return printed(program)
    except Exception:  # a program without one of its steps, or with a bug, may raise anything
        return None
