"""Tasks of a benchmark behind the `TaskSource` protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elpo_envs.tasks.base import Task
from elpo_envs.tasks.records import RecordError


class BenchmarkSource:
    """The tasks of one split of a benchmark, in the order of the published file.

    Args:
        name: the benchmark, first part of every task id.
        split: "test", ...
        places: each task's id with the place of its record, in order.
        make: the task at an index, a pure function.
        origin: the file or folder, for messages.
        remembered: how many tasks are kept once made.

    Raises:
        RecordError: no tasks, or two records with one id.
    """

    def __init__(
        self,
        name: str,
        split: str,
        places: Sequence[tuple[str, str]],
        make: Callable[[int], Task],
        origin: str,
        remembered: int = 256,
    ) -> None:
        self.name = name
        self.split = split
        self.origin = origin
        self._make = make
        self._remembered = remembered
        self._made: dict[int, Task] = {}
        self._ids = [task_id for task_id, _ in places]
        self._index: dict[str, int] = {}
        if not places:
            raise RecordError(f"{origin}: no rows of {name}, split {split!r}; give the published file of that split")
        for index, (task_id, place) in enumerate(places):
            first = self._index.setdefault(task_id, index)
            if first != index:
                raise RecordError(
                    f"{place}: the id {task_id!r} is already that of {places[first][1]}; make ids unique, or drop one"
                )

    @property
    def size(self) -> int:
        """Number of tasks."""
        return len(self._ids)

    def get(self, index: int) -> Task:
        """The task at `index`. Raises IndexError outside 0 to size - 1, and RecordError for a record that is
        decoded only now and cannot be used."""
        if not 0 <= index < len(self._ids):
            raise IndexError(f"index {index} is outside 0 to {len(self._ids) - 1} of {self.name}, split {self.split!r}")
        task = self._made.get(index)
        if task is None:
            task = self._make(index)
            if len(self._made) >= self._remembered:
                self._made.clear()
            self._made[index] = task
        return task

    def by_id(self, task_id: str) -> Task:
        """The task with that id. Raises KeyError naming the id."""
        if task_id not in self._index:
            raise KeyError(f"no task {task_id!r} in {self.name}, split {self.split!r}; the first is {self._ids[0]!r}")
        return self.get(self._index[task_id])


def unchanged(task: Task) -> Task:
    """The task as it is."""
    return task


@dataclass(frozen=True)
class _Finished:
    """Tasks that are completed one by one."""

    tasks: tuple[Task, ...]
    finish: Callable[[Task], Task]

    def __call__(self, index: int) -> Task:
        return self.finish(self.tasks[index])


def eager_source(
    name: str,
    split: str,
    tasks: Iterable[tuple[Task, str]],
    origin: str,
    finish: Callable[[Task], Task] = unchanged,
) -> BenchmarkSource:
    """A source of tasks, each with its record's place, that are all made now; `finish` completes one when it
    is first asked for."""
    made = list(tasks)
    places = [(task.task_id, place) for task, place in made]
    return BenchmarkSource(name, split, places, _Finished(tuple(task for task, _ in made), finish), origin)


def own_id(name: str, split: str, text: str, aliases: Sequence[str] = ()) -> str:
    """The task id of a record's own id: "HumanEval/0" -> "humaneval/test/HumanEval/0".

    A beginning that repeats the benchmark's name (or one of `aliases`) or the split is left out, so that a
    task has one id whatever file it was read from.
    """
    rest = text
    for prefix in (name, *aliases):
        if rest.startswith(f"{prefix}/"):
            rest = rest.removeprefix(f"{prefix}/")
            break
    rest = rest.removeprefix(f"{split}/")
    return f"{name}/{split}/{rest}"


def without_empty(**metadata: Any) -> Mapping[str, Any]:
    """Metadata without the entries that are None or "" (what a file does not tell)."""
    return {key: value for key, value in metadata.items() if value is not None and value != ""}
