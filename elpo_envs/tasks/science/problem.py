"""Draw a question from a family: sensible quantities, and mistakes that show in the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from elpo_envs.tasks.science.move import Drawn, Family, Kind, Move, Pitfall, evaluate, factors_in, fill
from elpo_envs.tasks.science.tables import FACTORS

MIN_STEPS = 2
MAX_STEPS = 8
SPREAD = 0.05
N_OPTIONS = 4
_TRIES = 12
_SMALLEST, _LARGEST = 1e-12, 1e12


@dataclass(frozen=True)
class ScienceStep:
    """One dependent step.

    Attributes:
        move: the sentence and its templates.
        words: the text for each slot but `{x}`, constants and units.
        variable: the Python name it defines; `before`: that of the step before, "" for the first.
        value: the right result.
        lookups: titles of the passages its expression takes values from.
        pitfalls: those mistakes of the move that change this step's result by more than `SPREAD`.
    """

    move: Move
    words: Mapping[str, str]
    variable: str
    before: str
    value: float
    lookups: tuple[str, ...]
    pitfalls: tuple[Pitfall, ...]

    def sentence(self) -> str:
        return fill(self.move.text, self.words)

    def code(self, template: str) -> str:
        """Python that computes and prints the step by `template`, its right expression or a pitfall's."""
        expr = fill(template, {**self.words, "x": self.before})
        start = "import math\n" if "math." in expr else ""
        return f"{start}{self.variable} = {expr}\nprint({self.variable})"


@dataclass(frozen=True)
class ScienceProblem:
    """A question of `len(steps)` dependent steps.

    Attributes:
        mistakes: for each step, one of its pitfalls that leads to a wrong answer.
    """

    family: str
    steps: tuple[ScienceStep, ...]
    mistakes: tuple[Pitfall, ...]

    @property
    def kind(self) -> Kind:
        """The kind of quantity asked for."""
        return self.steps[-1].move.target

    @property
    def value(self) -> float:
        return self.steps[-1].value

    @property
    def question(self) -> str:
        asked = f"What is this {self.kind.noun}, in {self.kind.unit}?"
        return " ".join([*(step.sentence() for step in self.steps), asked])

    @property
    def lookups(self) -> tuple[str, ...]:
        """Titles of all passages needed, in the order of their use."""
        return tuple(dict.fromkeys(title for step in self.steps for title in step.lookups))

    def outcome(self, wrong: Mapping[int, str]) -> float | None:
        """The final value where the steps in `wrong` use that template instead of the right expression; None where
        the calculation breaks off, or ends outside 1e-12 to 1e12."""
        return _outcome(self.steps, wrong)


def significant(value: float) -> str:
    """A positive number to 4 significant figures: 0.01235, 123.4, 123500, 1.235e7."""
    text = f"{value:.3e}"
    mantissa, exponent = text.split("e")
    power = int(exponent)
    if -4 <= power < 6:
        return f"{float(text):.{max(0, 3 - power)}f}"
    return f"{mantissa}e{power}"


def far(a: float, b: float) -> bool:
    """Whether two numbers differ by more than 5% of the larger."""
    return abs(a - b) > SPREAD * max(abs(a), abs(b))


def _sound(value: float) -> bool:
    return math.isfinite(value) and _SMALLEST <= value <= _LARGEST


def _outcome(steps: Sequence[ScienceStep], wrong: Mapping[int, str]) -> float | None:
    first = min(wrong)
    x = steps[first - 1].value if first else 0.0
    try:
        for i in range(first, len(steps)):
            x = evaluate(wrong.get(i, steps[i].move.expr), steps[i].words, x)
    except (ArithmeticError, ValueError):
        return None
    return x if _sound(x) else None


def _entry_words(slot: str, entry: Drawn, template: str) -> dict[str, str]:
    """The words of `{slot.field}` for every field that the template names."""
    names = [name for name in vars(entry) if f"{{{slot}.{name}}}" in template]
    return {f"{slot}.{name}": str(getattr(entry, name)) for name in names}


def _draw_step(
    move: Move, earlier: Sequence[ScienceStep], theme: Drawn | None, rng: np.random.Generator
) -> ScienceStep | None:
    """The move with numbers under which its value makes sense, is new, and at least one pitfall shows."""
    before = earlier[-1] if earlier else None
    known = [step.value for step in earlier if step.move.target is move.target]
    known += [float(step.words[slot]) for step in earlier[:1] for slot in ("n", "m", "r")]
    x = 0.0 if before is None else before.value
    every = " ".join([move.text, move.expr, move.needs, *(part for pitfall in move.pitfalls for part in pitfall)])
    constant = {} if theme is None else _entry_words("t", theme, every)
    numbers = (move.n, move.m, move.r)
    sizes = [num.high - num.low + 1 for num in numbers] + [max(1, len(move.pool)), max(1, len(move.pool) - 1)]
    for n, m, r, s, w in rng.integers(0, sizes, (_TRIES, len(sizes))).tolist():
        words = {"n": move.n.text(n), "m": move.m.text(m), "r": move.r.text(r), **constant}
        if move.pool:
            words |= _entry_words("s", move.pool[s], every)
            words |= _entry_words("w", move.pool[w + (w >= s)], every)
        if move.needs and not evaluate(move.needs, words, x):
            continue
        value = evaluate(move.expr, words, x)
        if not move.target.low <= value <= move.target.high or any(not far(value, seen) for seen in known):
            continue
        pitfalls = tuple((expr, fill(why, words)) for expr, why in move.pitfalls if _shows(expr, words, x, value))
        if pitfalls:
            number = 1 if before is None else int(before.variable[1:]) + 1
            return ScienceStep(
                move=move,
                words=words,
                variable=f"q{number}",
                before="" if before is None else before.variable,
                value=value,
                lookups=_lookups(move, words, move.pool[s] if move.pool else None, theme),
                pitfalls=pitfalls,
            )
    return None


def _shows(expr: str, words: Mapping[str, str], x: float, value: float) -> bool:
    try:
        wrong = evaluate(expr, words, x)
    except (ArithmeticError, ValueError):
        return False
    return _sound(wrong) and far(wrong, value)


def _lookups(move: Move, words: Mapping[str, str], entry: Drawn | None, theme: Drawn | None) -> tuple[str, ...]:
    titles = [FACTORS[key].title for key in factors_in(move.expr, words)]
    titles += [e.title for slot, e in (("{s.", entry), ("{t.", theme)) if e is not None and slot in move.expr]
    return tuple(titles)


def draw_problem(family: Family, n_steps: int, rng: np.random.Generator) -> ScienceProblem:
    """A question with exactly `n_steps` dependent steps (2 to 8), each with a mistake that shows in the answer."""
    while True:
        steps = _draw_steps(family, n_steps, rng)
        if steps is None:
            continue
        mistakes = [_mistake(steps, i, rng) for i in range(n_steps)]
        found = tuple(mistake for mistake in mistakes if mistake is not None)
        if len(found) == n_steps:
            return ScienceProblem(family.name, steps, found)


def _draw_steps(family: Family, n_steps: int, rng: np.random.Generator) -> tuple[ScienceStep, ...] | None:
    theme = family.theme[int(rng.integers(len(family.theme)))] if family.theme else None
    steps: list[ScienceStep] = []
    used: list[str] = []
    for _ in range(n_steps):
        before = steps[-1] if steps else None
        source = before.move.target if before else None
        moves = [m for m in family.moves if m.source is source and (before is None or m is not before.move)]
        order = rng.permutation(len(moves)).tolist()
        for i in sorted(order, key=lambda i: used.count(moves[i].name)):
            step = _draw_step(moves[i], steps, theme, rng)
            if step is not None:
                break
        else:
            return None
        steps.append(step)
        used.append(step.move.name)
    return tuple(steps)


def _mistake(steps: tuple[ScienceStep, ...], i: int, rng: np.random.Generator) -> Pitfall | None:
    pitfalls = steps[i].pitfalls
    for j in rng.permutation(len(pitfalls)).tolist():
        final = _outcome(steps, {i: pitfalls[j][0]})
        if final is not None and far(final, steps[-1].value):
            return pitfalls[j]
    return None


def draw_distractors(problem: ScienceProblem, smaller: int, rng: np.random.Generator) -> tuple[str, ...] | None:
    """Three wrong answers as text, the results of one mistake, or of two where there are too few; all pairwise and from
    the right one different by more than 5%. None where there are not enough.

    Args:
        smaller: how many of them are smaller than the right one, so that its rank among the options tells nothing.
    """
    order = rng.permutation(len(problem.steps)).tolist()
    likely = [(i, problem.mistakes[i][0]) for i in order]
    others = [(i, expr) for i in order for expr, _ in problem.steps[i].pitfalls if expr != problem.mistakes[i][0]]
    single = [*likely, *others]
    double = (dict(pair) for pair in combinations(single, 2) if pair[0][0] != pair[1][0])
    right = significant(problem.value)
    room = {True: smaller, False: N_OPTIONS - 1 - smaller}
    shown: list[str] = []
    for wrong in chain((dict([slip]) for slip in single), double):
        final = problem.outcome(wrong)
        if final is None or not room[final < problem.value]:
            continue
        text = significant(final)
        if all(far(float(text), float(other)) for other in (right, *shown)):
            shown.append(text)
            room[final < problem.value] -= 1
            if len(shown) == N_OPTIONS - 1:
                return tuple(shown)
    return None
