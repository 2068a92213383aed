"""What a family of generated programs is made of: operations in English and in Python, with the bugs they invite."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Template
from textwrap import dedent
from typing import Any

Choices = tuple[int, ...] | tuple[str, ...]


@dataclass(frozen=True)
class Bug:
    """A realistic mistake in one operation: in its code, `old` is written as `new`.

    Attributes:
        kind: what sort of mistake it is, such as "off by one" or "aliasing".
    """

    kind: str
    old: str
    new: str


@dataclass(frozen=True)
class Operation:
    """One step of a program.

    In `text` and `code`, `$n` and `$m` stand for drawn constants; in `code`, `$x` is the variable that the step
    reads and `$y` the one that it defines.

    Attributes:
        name: what the result is called in programs; unique in its family.
        text: the exact rule in English, empty in programs whose output is to be predicted.
        code: Python lines that define `$y` and change nothing else that a later step reads.
        bugs: mistakes, each of which gives another result for some input.
        n, m: the values that the constants are drawn from; empty where there is no such constant.
        last: the result is of another type, so that no step can follow.
        define: functions or classes that stand at the top of the program.
    """

    name: str
    text: str
    code: str
    bugs: tuple[Bug, ...]
    n: Choices = ()
    m: Choices = ()
    last: bool = False
    define: str = ""


@dataclass(frozen=True)
class Family:
    """Functions over one type of argument.

    Attributes:
        name: unique name.
        parameter: the function's first parameter; `about` says what it holds, including the edge cases.
        entry_points: names for the function.
        draw: a random argument, of JSON values.
        edges: arguments at the edges of what is allowed.
        operations: at least six, of which the `last` ones end a program.
        prelude: functions that the programs of the family begin with.
    """

    name: str
    parameter: str
    about: str
    entry_points: tuple[str, ...]
    draw: Callable[[random.Random], Any]
    edges: tuple[Any, ...]
    operations: tuple[Operation, ...]
    prelude: str = ""


@dataclass(frozen=True)
class PrintingFamily:
    """Programs that change one variable step by step and print it.

    Attributes:
        name: unique name.
        state: the variable that `start` sets and every operation changes.
        start: lines that begin the program, given the random numbers.
        operations: at least six; they read and change `state`.
        shown: expressions that the program may print.
    """

    name: str
    state: str
    start: Callable[[random.Random], str]
    operations: tuple[Operation, ...]
    shown: tuple[str, ...]


def step(
    name: str,
    text: str,
    code: str,
    *bugs: tuple[str, str, str],
    n: Sequence[int] | Sequence[str] = (),
    m: Sequence[int] | Sequence[str] = (),
    last: bool = False,
    define: str = "",
) -> Operation:
    """An operation whose code may be an indented block and whose bugs are (kind, old, new)."""
    made = tuple(Bug(*b) for b in bugs)
    return Operation(name, text, plain(code), made, tuple(n), tuple(m), last, plain(define))  # type: ignore[arg-type]


def plain(code: str) -> str:
    """The code of an indented block, flush left and without blank lines around it."""
    return dedent(code).strip()


def fill(template: str, **values: str) -> str:
    """The template with its `$` fields replaced. Raises KeyError where one has no value."""
    return Template(template).substitute(values)


def with_bug(code: str, bug: Bug) -> str:
    """The code with the bug. Raises ValueError where the bug does not fit the code."""
    if bug.old not in code:
        raise ValueError(f"bug.old={bug.old!r} does not occur in the operation's code; write it as it stands there")
    return code.replace(bug.old, bug.new, 1)
