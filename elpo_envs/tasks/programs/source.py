"""An endless, seeded source of programming tasks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from elpo_envs.tasks.base import ExpertTurn, Task
from elpo_envs.tasks.programs.draft import MAX_STEPS, MIN_STEPS, draw_draft
from elpo_envs.tasks.programs.exercise import Case, Exercise, fails, make_repair, make_writing, wrong_programs
from elpo_envs.tasks.programs.families import FUNCTION_FAMILIES, PRINTING_FAMILIES
from elpo_envs.tasks.programs.printing import Printing, draw_printing, printed_or_error
from elpo_envs.tasks.programs.questions import output_question, repair_question, writing_question
from elpo_envs.tasks.programs.traces import output_trace, submitting_trace

KINDS = ("write", "output", "repair")
MAX_INDEX = 2**31 - 1
_BUCKETS = {"train": range(0, 8), "validation": range(8, 9), "test": range(9, 10)}


@dataclass(frozen=True)
class Prediction:
    """A program whose output is to be predicted, and that output."""

    printing: Printing
    answer: str


def split_of(text: str) -> str:
    """The only split that rules, or a program to predict, may appear in: decided by a hash, so splits never overlap."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 10
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


class ProgramSource:
    """Functions to write or repair and outputs to predict, a pure function of (split, seed, index, arguments).

    Args:
        split: "train", "validation" or "test"; no rules of a function and no program to predict occur in two
            of them, whatever the seeds and the examples shown.
        min_steps, max_steps: the difficulty knob, 2 to 8 dependent steps.
        kinds: of "write", "output" and "repair", each equally often.
        families: names from `FUNCTION_FAMILIES` and `PRINTING_FAMILIES`; all by default. A kind without a
            family is left out.
        seed: another seed gives another endless sequence.

    Raises:
        ValueError: an unknown split, kind or family, or a step range outside 2..8.
    """

    name = "programs"

    def __init__(
        self,
        split: str = "train",
        *,
        min_steps: int = 2,
        max_steps: int = 4,
        kinds: Sequence[str] = KINDS,
        families: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if split not in _BUCKETS:
            raise ValueError(f"split={split!r} is unknown; choose one of {', '.join(_BUCKETS)}")
        if not MIN_STEPS <= min_steps <= max_steps <= MAX_STEPS:
            raise ValueError(
                f"min_steps={min_steps}, max_steps={max_steps} must satisfy "
                f"{MIN_STEPS} <= min_steps <= max_steps <= {MAX_STEPS}"
            )
        if seed < 0:
            raise ValueError(f"seed={seed} must be 0 or larger")
        if isinstance(kinds, str) or not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(f"kinds={kinds!r} must be a list of at least one of {', '.join(KINDS)}")
        known = {kind: PRINTING_FAMILIES if kind == "output" else FUNCTION_FAMILIES for kind in KINDS if kind in kinds}
        names = list(dict.fromkeys(name for group in known.values() for name in group))
        if families is not None and (isinstance(families, str) or not families or not set(families) <= set(names)):
            raise ValueError(f"families={families!r} must be a list of at least one of {', '.join(names)}")
        chosen = {kind: tuple(n for n in group if families is None or n in families) for kind, group in known.items()}
        self.split = split
        self.min_steps = min_steps
        self.max_steps = max_steps
        self.families = {kind: group for kind, group in chosen.items() if group}
        self.seed = seed
        self._prefix = f"{self.name}/{split}/{seed}-{min_steps}-{max_steps}-{'+'.join(self.families)}"
        if families is not None:
            self._prefix += "-" + "+".join(name for name in names if name in families)

    @property
    def size(self) -> int | None:
        return None

    @classmethod
    def from_id(cls, task_id: str) -> Self:
        """The source that has the task of this id. Raises KeyError naming the id where there is none."""
        try:
            name, split, options, _ = task_id.split("/")
            seed, low, high, kinds, *families = options.split("-")
            source = cls(
                split,
                min_steps=int(low),
                max_steps=int(high),
                kinds=kinds.split("+"),
                families=families[0].split("+") if families else None,
                seed=int(seed),
            )
        except ValueError as error:
            raise KeyError(f"task_id={task_id!r} is not of a generated program") from error
        if name != cls.name or not task_id.startswith(source._prefix + "/"):
            raise KeyError(f"task_id={task_id!r} is not of a generated program")
        return source

    def draw(self, index: int) -> tuple[str, Exercise | Prediction]:
        """The kind of task `index` and what is behind it. Raises IndexError outside 0..2**31 - 1."""
        if not 0 <= index <= MAX_INDEX:
            raise IndexError(f"index={index} is outside 0..{MAX_INDEX}")
        key = hashlib.sha256(f"{self._prefix}/{index}".encode()).digest()
        rng = random.Random(int.from_bytes(key, "big"))
        while True:
            kind = rng.choice(tuple(self.families))
            name = rng.choice(self.families[kind])
            n_steps = rng.randint(self.min_steps, self.max_steps)
            if kind == "output":
                return kind, Prediction(*draw_printing(PRINTING_FAMILIES[name], n_steps, rng, self._is_ours))
            draft = draw_draft(FUNCTION_FAMILIES[name], n_steps, rng, self._is_ours)
            exercise = (make_writing if kind == "write" else make_repair)(draft, rng)
            if exercise is not None:
                return kind, exercise

    def _is_ours(self, text: str) -> bool:
        return split_of(text) == self.split

    def get(self, index: int) -> Task:
        kind, drawn = self.draw(index)
        if isinstance(drawn, Prediction):
            program = drawn.printing.program()
            question, answer = output_question(program), drawn.answer
            expert = output_trace(program, answer)
            metadata: dict[str, Any] = {
                "kind": "output",
                "exercise": kind,
                "family": drawn.printing.family.name,
                "steps": len(drawn.printing.steps),
            }
        else:
            question = (writing_question if drawn.fault is None else repair_question)(drawn)
            answer = drawn.program
            expert = submitting_trace(drawn, answer)
            metadata = _program_metadata(kind, drawn)
        return Task(f"{self._prefix}/{index}", index, self.split, question, answer, expert, metadata)

    def by_id(self, task_id: str) -> Task:
        return self.get(self._index_of(task_id))

    def _index_of(self, task_id: str) -> int:
        prefix, _, index = task_id.rpartition("/")
        short = index.isascii() and index.isdigit() and len(index) <= len(str(MAX_INDEX))
        position = int(index) if short else -1
        if prefix != self._prefix or str(position) != index or not 0 <= position <= MAX_INDEX:
            raise KeyError(f"task_id={task_id!r} is not of this source; its ids look like '{self._prefix}/0'")
        return position

    def corrupt(self, task: Task, step: int) -> tuple[ExpertTurn, ...] | None:
        """The expert's trace with step `step` of the program done wrong, or None where no mistake there matters.

        The final submission fails a hidden test; a predicted output differs from the right one.

        Args:
            task: one of this source's.
            step: from 0 to `task.metadata["steps"] - 1`.

        Raises:
            KeyError: the task is of another source.
            IndexError: there is no such step.
        """
        _, drawn = self.draw(self._index_of(task.task_id))
        mistakes = _mistakes(drawn, step)
        if isinstance(drawn, Prediction):
            return next((output_trace(p, line) for p, line in _lines(mistakes) if line.strip() != drawn.answer), None)
        telling = (p for p in mistakes if fails(p, drawn.draft.entry_point, drawn.hidden))
        return next((submitting_trace(drawn, program) for program in telling), None)

    def corruptions(self, task: Task, step: int) -> list[tuple[ExpertTurn, ...]]:
        """The expert's trace with each mistake that step `step` invites, also where it changes nothing in the end.

        A program to predict that raises or prints nothing with a mistake gives no trace, since nothing is left to box.
        Arguments and exceptions are those of `corrupt`.
        """
        _, drawn = self.draw(self._index_of(task.task_id))
        mistakes = _mistakes(drawn, step)
        if isinstance(drawn, Prediction):
            return [output_trace(program, line) for program, line in _lines(mistakes)]
        return [submitting_trace(drawn, program) for program in mistakes]


def _mistakes(drawn: Exercise | Prediction, step: int) -> list[str]:
    """The programs in which that step is done wrong. Raises IndexError where there is no such step."""
    steps = drawn.printing.steps if isinstance(drawn, Prediction) else drawn.draft.steps
    if not 0 <= step < len(steps):
        raise IndexError(f"step={step} is outside 0..{len(steps) - 1}")
    if isinstance(drawn, Prediction):
        return [drawn.printing.program(bugs={step: bug}) for bug in steps[step].operation.bugs]
    return [program for _, program in wrong_programs(drawn.draft, step)]


def _lines(programs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each program that prints something, with what it prints."""
    for program in programs:
        printed = printed_or_error(program)
        if printed:
            yield program, printed


def _program_metadata(kind: str, exercise: Exercise) -> dict[str, Any]:
    draft, fault = exercise.draft, exercise.fault
    metadata = {
        "kind": "program",
        "exercise": kind,
        "family": draft.family.name,
        "steps": len(draft.steps),
        "entry_point": draft.entry_point,
        "starter_code": f"def {draft.signature}:\n    ...\n" if fault is None else fault.program,
        "tests": _calls(draft.entry_point, exercise.hidden),
        "public_tests": _calls(draft.entry_point, exercise.shown),
    }
    return metadata if fault is None else {**metadata, "bug": fault.bug, "bug_step": fault.step}


def _calls(entry_point: str, cases: tuple[Case, ...]) -> dict[str, Any]:
    return {"type": "calls", "entry_point": entry_point, "cases": [case.to_json() for case in cases]}
