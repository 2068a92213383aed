"""An endless, seeded source of multi-step word problems."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Self

import numpy as np

from elpo_envs.tasks.base import ExpertTurn, Task
from elpo_envs.tasks.generated.families import FAMILIES
from elpo_envs.tasks.generated.problem import MAX_STEPS, Problem, draw_problem
from elpo_envs.tasks.generated.traces import corruptions, expert_trace

_BUCKETS = {"train": range(0, 8), "validation": range(8, 9), "test": range(9, 10)}
MAX_INDEX = 2**31 - 1


def split_of(question: str) -> str:
    """The only split a question text may appear in: decided by a hash, so splits never overlap."""
    bucket = int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") % 10
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


class GeneratedSource:
    """Word problems of `min_steps` to `max_steps` dependent steps, a pure function of (split, seed, index).

    Args:
        split: "train", "validation" or "test"; no question occurs in two of them, whatever the seeds.
        min_steps, max_steps: the difficulty knob, 2 to 12 dependent steps.
        families: names from `FAMILIES`; all of them by default.
        seed: another seed gives another endless sequence.

    Raises:
        ValueError: an unknown split or family, or a step range outside 2..12.
    """

    name = "generated"

    def __init__(
        self,
        split: str = "train",
        *,
        min_steps: int = 2,
        max_steps: int = 4,
        families: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if split not in _BUCKETS:
            raise ValueError(f"split={split!r} is unknown; choose one of {', '.join(_BUCKETS)}")
        if not 2 <= min_steps <= max_steps <= MAX_STEPS:
            raise ValueError(
                f"min_steps={min_steps}, max_steps={max_steps} must satisfy 2 <= min_steps <= max_steps <= {MAX_STEPS}"
            )
        if seed < 0:
            raise ValueError(f"seed={seed} must be 0 or larger")
        chosen = tuple(FAMILIES) if families is None else tuple(families)
        unknown = [f for f in chosen if f not in FAMILIES]
        if unknown or not chosen:
            raise ValueError(f"families={list(chosen)} has unknown or no names; choose from {', '.join(FAMILIES)}")
        self.split = split
        self.min_steps = min_steps
        self.max_steps = max_steps
        self.families = chosen
        self.seed = seed

    @property
    def size(self) -> int | None:
        return None

    @property
    def prefix(self) -> str:
        """What the ids of this source's tasks begin with; it says everything that the tasks depend on."""
        named = "" if self.families == tuple(FAMILIES) else f"-{'+'.join(self.families)}"
        return f"{self.name}/{self.split}/{self.seed}-{self.min_steps}-{self.max_steps}{named}"

    @classmethod
    def from_id(cls, task_id: str) -> Self:
        """The source that has the task of this id. Raises KeyError naming the id where there is none."""
        try:
            name, split, options, _ = task_id.split("/")
            seed, low, high, *families = options.split("-")
            source = cls(
                split,
                min_steps=int(low),
                max_steps=int(high),
                families=families[0].split("+") if families else None,
                seed=int(seed),
            )
        except ValueError as error:
            raise KeyError(f"task_id={task_id!r} is not of a generated word problem") from error
        if name != cls.name or not task_id.startswith(source.prefix + "/"):
            raise KeyError(f"task_id={task_id!r} is not of a generated word problem")
        return source

    def problem(self, index: int) -> Problem:
        """The problem behind task `index`, with its steps, values and pitfalls."""
        if not 0 <= index <= MAX_INDEX:
            raise IndexError(f"index={index} is outside 0..{MAX_INDEX}")
        key = [self.seed, list(_BUCKETS).index(self.split), index, self.min_steps, self.max_steps]
        rng = np.random.default_rng(np.random.SeedSequence(key))
        while True:
            family = FAMILIES[self.families[int(rng.integers(len(self.families)))]]
            n_steps = int(rng.integers(self.min_steps, self.max_steps + 1))
            problem = draw_problem(family, n_steps, rng)
            if split_of(problem.question) == self.split:
                return problem

    def get(self, index: int) -> Task:
        problem = self.problem(index)
        return Task(
            task_id=f"{self.prefix}/{index}",
            index=index,
            split=self.split,
            question=problem.question,
            answer=problem.answer,
            expert=expert_trace(problem),
            metadata={
                "family": problem.family,
                "steps": len(problem.steps),
                "pitfalls": [s.pitfall is not None for s in problem.steps],
            },
        )

    def by_id(self, task_id: str) -> Task:
        return self.get(self._index_of(task_id))

    def corruptions(self, task: Task, step: int) -> list[tuple[ExpertTurn, ...]]:
        """The expert's trace with each mistake that step `step` invites, carried through to the boxed answer.

        Args:
            task: one of this source's.
            step: from 0 to `task.metadata["steps"] - 1`.

        Raises:
            KeyError: the task is of another source.
            IndexError: there is no such step.
        """
        return corruptions(self.problem(self._index_of(task.task_id)), step)

    def _index_of(self, task_id: str) -> int:
        prefix, _, index = task_id.rpartition("/")
        short = index.isascii() and index.isdigit() and len(index) <= len(str(MAX_INDEX))
        position = int(index) if short else -1
        if prefix != self.prefix or str(position) != index or not 0 <= position <= MAX_INDEX:
            raise KeyError(f"task_id={task_id!r} is not of this source; its ids look like {self.get(0).task_id!r}")
        return position
