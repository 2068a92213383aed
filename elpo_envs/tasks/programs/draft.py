"""Draw a chain of operations in which every step matters, and write it as a specification and as a program."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from elpo_envs.tasks.programs.operation import Bug, Choices, Family, Operation, fill, with_bug
from elpo_envs.tasks.programs.running import one_step

MIN_STEPS, MAX_STEPS = 2, 8
_RANDOM_INPUTS = 16
_MORE_INPUTS = 400
_LARGEST = 2**53
_LONGEST = 300
_SECOND_ARGUMENT = 0.25
_ENDS_IN_RESULT = 0.6


@dataclass(frozen=True)
class DrawnStep:
    """An operation with its constants, as Python literals; `takes_k`: `n` is the function's second argument."""

    operation: Operation
    n: str = ""
    m: str = ""
    takes_k: bool = False

    @property
    def text(self) -> str:
        """The rule in English."""
        return fill(self.operation.text, n="`k`" if self.takes_k else self.n, m=self.m)

    def code(self, x: str, y: str, bug: Bug | None = None) -> str:
        """The lines that define `y` from `x`."""
        template = self.operation.code if bug is None else with_bug(self.operation.code, bug)
        return fill(template, x=x, y=y, n=self.n, m=self.m)


@dataclass(frozen=True)
class Draft:
    """A program in the making.

    Attributes:
        entry_point: the function's name.
        steps: the drawn steps, each on the result of the one before.
        inputs: argument lists that the program is tried on, edge cases first; no two are equal.
    """

    family: Family
    entry_point: str
    steps: tuple[DrawnStep, ...]
    inputs: tuple[tuple[Any, ...], ...]

    @property
    def signature(self) -> str:
        """The call as the specification writes it, such as `rework(values, k)`."""
        return f"{self.entry_point}({', '.join(self.parameters)})"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return (self.family.parameter, "k") if any(s.takes_k for s in self.steps) else (self.family.parameter,)

    @property
    def rules(self) -> str:
        """What the arguments are and what each step does."""
        about = [f"`{self.family.parameter}` is {self.family.about}."]
        about += [f"`k` is {_range_text(s.operation.n)}." for s in self.steps if s.takes_k]
        steps = [f"{i}. {s.text}" for i, s in enumerate(self.steps, 1)]
        order = "Do these steps one after the other, each on the result of the step before, and return the last result:"
        return "\n".join([" ".join(about), order, *steps])

    def program(
        self,
        *,
        bugs: dict[int, Bug] | None = None,
        reads: dict[int, int] | None = None,
        order: Sequence[int] | None = None,
    ) -> str:
        """The program as Python text.

        Args:
            bugs: step to the bug to write it with.
            reads: step to the step (-1 for the argument) whose result it reads, where that is not the step before.
            order: the steps in the order in which they run, where that is not their own.
        """
        names = [self.family.parameter]
        lines: list[str] = []
        for place, i in enumerate(order or range(len(self.steps))):
            drawn = self.steps[i]
            name = drawn.operation.name
            while name in names:
                name = f"{drawn.operation.name}_{place + 1}"
            before = names[(reads or {}).get(i, place - 1) + 1]
            lines += drawn.code(before, name, (bugs or {}).get(i)).split("\n")
            names.append(name)
        body = "\n".join(f"    {line}" for line in [*lines, f"return {names[-1]}"])
        head = f"{self.family.prelude}\n\n\n" if self.family.prelude else ""
        return f"{head}def {self.signature}:\n{body}\n"


def more_inputs(draft: Draft) -> Iterator[tuple[Any, ...]]:
    """Several hundred random argument lists for the draft's program, none of them among its own inputs."""
    own = {repr(args) for args in draft.inputs}
    choices = next((s.operation.n for s in draft.steps if s.takes_k), None)
    for argument, share in _family_inputs(draft.family.name, draft.family.draw):
        args = (argument,) if choices is None else (argument, _pick(choices, share))
        if repr(args) not in own:
            yield args


@functools.lru_cache(maxsize=64)
def _family_inputs(name: str, draw: Callable[[random.Random], Any]) -> tuple[tuple[Any, float], ...]:
    """Arguments and shares, the same for all drafts of a family, since drawing them takes longer than using them."""
    rng = random.Random(name)
    return tuple((draw(rng), rng.random()) for _ in range(_MORE_INPUTS))


def _range_text(choices: Choices) -> str:
    numbers = [int(c) for c in choices]
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"an integer from {numbers[0]} to {numbers[-1]}"
    return f"one of the integers {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def draw_draft(
    family: Family, n_steps: int, rng: random.Random, accepts: Callable[[str], bool] = lambda rules: True
) -> Draft:
    """A draft of exactly `n_steps` steps with acceptable rules.

    No step can be left out without changing the result for one of the inputs.
    """
    while True:
        draft = _try_draw(family, n_steps, rng)
        if draft is not None and accepts(draft.rules) and _every_step_matters(draft):
            return draft


def _try_draw(family: Family, n_steps: int, rng: random.Random) -> Draft | None:
    arguments = _distinct([*family.edges, *(family.draw(rng) for _ in range(_RANDOM_INPUTS))])
    seeds = [rng.random() for _ in arguments]
    ks: list[int] = [0] * len(arguments)
    current: list[Any] = arguments
    steps: list[DrawnStep] = []
    ends = rng.random() < _ENDS_IN_RESULT
    for i in range(n_steps):
        closing = ends and i == n_steps - 1
        pool = [op for op in family.operations if op.last == closing and not (steps and op is steps[-1].operation)]
        rng.shuffle(pool)
        fresh = [op for op in pool if all(op is not s.operation for s in steps)]
        for operation in [*fresh, *(op for op in pool if op not in fresh)]:
            free = not any(s.takes_k for s in steps)
            drawn = _draw_step(operation, free, rng)
            tried = [_pick(operation.n, s) for s in seeds] if drawn.takes_k else ks
            results = _apply(family, drawn, current, tried)
            if _is_telling(current, results, closing):
                break
        else:
            return None
        steps.append(drawn)
        current, ks = results, tried
    inputs: list[tuple[Any, ...]] = [(a,) for a in arguments]
    if any(s.takes_k for s in steps):
        inputs = [(a, k) for a, k in zip(arguments, ks, strict=True)]
    return Draft(family, rng.choice(family.entry_points), tuple(steps), tuple(inputs))


def _draw_step(operation: Operation, may_take_k: bool, rng: random.Random) -> DrawnStep:
    m = repr(rng.choice(operation.m)) if operation.m else ""
    if may_take_k and operation.n and isinstance(operation.n[0], int) and rng.random() < _SECOND_ARGUMENT:
        return DrawnStep(operation, "k", m, takes_k=True)
    return DrawnStep(operation, repr(rng.choice(operation.n)) if operation.n else "", m)


def _pick(choices: Choices, share: float) -> int:
    return int(choices[int(share * len(choices))])


def _apply(family: Family, drawn: DrawnStep, values: list[Any], ks: list[int]) -> list[Any]:
    function = one_step(family.prelude, drawn.code("before", "after"))
    return [function(v, k) for v, k in zip(values, ks, strict=True)]


def _every_step_matters(draft: Draft) -> bool:
    results = _without(draft, None)
    return all(_without(draft, i) != results for i in range(len(draft.steps)))


def _without(draft: Draft, left_out: int | None) -> list[Any]:
    values = [args[0] for args in draft.inputs]
    ks = [args[-1] if len(args) == 2 else 0 for args in draft.inputs]
    for i, drawn in enumerate(draft.steps):
        if i != left_out:
            values = _apply(draft.family, drawn, values, ks)
    return values


def _distinct(values: list[Any]) -> list[Any]:
    return list({repr(v): v for v in values}.values())


def _is_telling(before: list[Any], after: list[Any], closing: bool) -> bool:
    """Whether a step changes enough, keeps enough apart, and stays within exact integers and short texts."""
    texts = [repr(v) for v in after]
    if sum(b != a for b, a in zip(before, after, strict=True)) < 4 or len(set(texts)) < (3 if closing else 7):
        return False
    return all(map(is_presentable, after))


def is_presentable(value: Any) -> bool:
    """Whether a result is short, and its integers are exact in every JSON reader."""
    return len(repr(value)) <= _LONGEST and _is_exact(value)


def _is_exact(value: Any) -> bool:
    if isinstance(value, int):
        return -_LARGEST < value < _LARGEST
    if isinstance(value, list):
        return all(map(_is_exact, value))
    return all(map(_is_exact, value.values())) if isinstance(value, dict) else True
