"""From a draft to an exercise: examples to show, hidden cases, and in a repair a program with one bug."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from elpo_envs.tasks.programs.draft import Draft, is_presentable, more_inputs
from elpo_envs.tasks.programs.running import load, outcome

MIN_HIDDEN = 12
WRONG_VARIABLE = "wrong variable"
WRONG_ORDER = "wrong order of operations"


@dataclass(frozen=True)
class Case:
    """A call's arguments and the value that it returns, both of JSON values."""

    args: tuple[Any, ...]
    expected: Any

    def to_json(self) -> dict[str, Any]:
        """The case as a test of the form "calls" has it."""
        return {"args": list(self.args), "expected": self.expected}


@dataclass(frozen=True)
class Fault:
    """A program with one bug, and what that bug makes of the first example shown.

    Attributes:
        bug: the kind of the bug.
        step: the step that has it, from 0.
        outcome: ("value", what the first example returns) or ("error", the exception's name).
    """

    program: str
    bug: str
    step: int
    outcome: tuple[str, Any]


@dataclass(frozen=True)
class Exercise:
    """A function to write, or with a `fault` one to repair.

    Attributes:
        program: the reference.
        shown: the examples in the question; in a repair the first one fails.
        hidden: at least 12 cases with other arguments, edge cases among them.
    """

    draft: Draft
    program: str
    shown: tuple[Case, ...]
    hidden: tuple[Case, ...]
    fault: Fault | None = None


def make_writing(draft: Draft, rng: random.Random) -> Exercise | None:
    """The draft as a function to write, or None where its results are too uniform to test one."""
    program = draft.program()
    cases = _cases(draft, program)
    usual = _usual(draft, cases)
    first, second = rng.sample(usual, 2)
    if cases[first].expected == cases[second].expected:
        return None
    return _checked(Exercise(draft, program, *_parted(cases, (first, second))))


def make_repair(draft: Draft, rng: random.Random) -> Exercise | None:
    """The draft with a bug in one step, or None where no bug fails both an example and a hidden case."""
    program = draft.program()
    cases = _cases(draft, program)
    faulty = [(step, *wrong) for step in range(len(draft.steps)) for wrong in wrong_programs(draft, step)]
    rng.shuffle(faulty)
    rank = {bug: rng.random() for bug in dict.fromkeys(bug for _, bug, _ in faulty)}
    for step, bug, text in sorted(faulty, key=lambda wrong: rank[wrong[1]]):  # rare kinds as likely as common ones
        function = load(text, draft.entry_point)
        outcomes = [outcome(function, case.args) for case in cases]
        failing = [i for i, case in enumerate(cases) if outcomes[i] != ("value", case.expected)]
        if len(failing) < 2:
            continue
        shown = rng.choice(sorted(set(failing) & set(_usual(draft, cases))) or failing)
        other = rng.choice([i for i in _usual(draft, cases) if i != shown])
        fault = Fault(text, bug, step, outcomes[shown])
        return _checked(Exercise(draft, program, *_parted(cases, (shown, other)), fault))
    return None


def wrong_programs(draft: Draft, step: int) -> Iterator[tuple[str, str]]:
    """The kinds of bugs that the step invites, each with the program that has it."""
    for bug in draft.steps[step].operation.bugs:
        yield bug.kind, draft.program(bugs={step: bug})
    if step > 0:
        yield WRONG_VARIABLE, draft.program(reads={step: step - 2})
    following = step + 1
    if following < len(draft.steps) and not draft.steps[following].operation.last:
        order = list(range(len(draft.steps)))
        order[step], order[following] = following, step
        yield WRONG_ORDER, draft.program(order=order)


def fails(program: str, entry_point: str, cases: tuple[Case, ...]) -> bool:
    """Whether the program fails at least one of the cases."""
    function = load(program, entry_point)
    return any(outcome(function, case.args) != ("value", case.expected) for case in cases)


def _cases(draft: Draft, program: str) -> list[Case]:
    function = load(program, draft.entry_point)
    results = [outcome(function, args) for args in draft.inputs]
    return [Case(args, value) for args, (_, value) in zip(draft.inputs, results, strict=True)]


def _usual(draft: Draft, cases: list[Case]) -> list[int]:
    """The places of the cases that are not at an edge."""
    return list(range(len(draft.family.edges), len(cases)))


def _parted(cases: list[Case], shown: tuple[int, ...]) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    return tuple(cases[i] for i in shown), tuple(c for i, c in enumerate(cases) if i not in shown)


def _checked(exercise: Exercise) -> Exercise | None:
    """The exercise with telling hidden cases, unless a program passes that returns a constant or an argument."""
    results = {repr(case.expected) for case in exercise.hidden}
    unchanged = [all(c.expected == c.args[i] for c in exercise.hidden) for i in range(len(exercise.draft.parameters))]
    if len(exercise.hidden) < MIN_HIDDEN or len(results) < 3 or any(unchanged):
        return None
    if exercise.fault is not None and not fails(exercise.fault.program, exercise.draft.entry_point, exercise.hidden):
        return None
    return replace(exercise, hidden=(*exercise.hidden, *_telling_cases(exercise)))


def _telling_cases(exercise: Exercise) -> list[Case]:
    """More cases: one for each wrong program that passes the hidden ones and fails another input."""
    draft = exercise.draft
    wrong = (program for step in range(len(draft.steps)) for _, program in wrong_programs(draft, step))
    passing = [program for program in wrong if not fails(program, draft.entry_point, exercise.hidden)]
    right = load(exercise.program, draft.entry_point)
    functions = [load(program, draft.entry_point) for program in passing]
    found: list[Case] = []
    for args in more_inputs(draft):
        if not functions:
            break
        result = outcome(right, args)
        alike = [function for function in functions if outcome(function, args) == result]
        if len(alike) < len(functions) and result[0] == "value" and is_presentable(result[1]):
            found.append(Case(args, result[1]))
            functions = alike
    return found
