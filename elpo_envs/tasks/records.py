"""Tasks from a file of records: JSON lines (plain or gzip), a JSON list, or Parquet."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from elpo_envs.grading import extract_boxed
from elpo_envs.tasks.base import Task
from elpo_envs.tasks.gsm8k import FINAL, read_trace, reference_turns

QUESTION_FIELDS = ("question", "problem", "prompt", "input")
ANSWER_FIELDS = ("answer", "final_answer", "target", "ground_truth", "solution")
SOLUTION_FIELDS = ("solution", "worked_solution", "rationale")
ID_FIELDS = ("id", "task_id", "unique_id")
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")


class RecordError(ValueError):
    """A data file cannot be used; the message names the file, the row, the field and the mend."""


class MissingExtraError(ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class RecordSource:
    """The rows of one file as tasks, in file order, read once when the source is made.

    Fields of a row (the first that is present counts): the question from `QUESTION_FIELDS`; the answer from
    `ANSWER_FIELDS`, where text in the GSM8K format (`... #### 72`) gives 72 and a worked solution, and a
    worked `solution` that stands alone gives the content of its last `\\boxed{}`; an id from `ID_FIELDS`,
    else the row's index. All other fields go into the task's metadata, and so does the worked solution (as
    "solution"). Where it is in the GSM8K format, the task has an expert trace, and metadata tells
    "expert_calls" (calculations found), "expert_skipped" (annotations that are no valid arithmetic) and
    "expert_supported" (whether they lead to the answer; if not, the task has no expert).

    Args:
        path: a file whose name ends in one of `SUFFIXES`.
        split: recorded in every task, e.g. "test".
        name: first part of every task id; by default the file's name without its suffix.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: the file's type, a row or a field is unusable.
        MissingExtraError: Parquet without pyarrow.
    """

    def __init__(self, path: str | Path, split: str = "test", name: str | None = None) -> None:
        self.path = Path(path)
        self.split = split
        self.name = name if name is not None else _stem(self.path)
        self._tasks: list[Task] = []
        self._by_id: dict[str, int] = {}
        self._experts: dict[int, Task] = {}
        for place, row in record_rows(self.path):
            self._append(place, row)
        if not self._tasks:
            raise RecordError(f"{self.path} has no rows; write one record a line, each with a question and an answer")

    @property
    def size(self) -> int:
        """Number of tasks."""
        return len(self._tasks)

    def get(self, index: int) -> Task:
        """The task at `index`. Raises IndexError outside 0 to size - 1."""
        if not 0 <= index < len(self._tasks):
            raise IndexError(f"index {index} is outside 0 to {len(self._tasks) - 1} of {self.path}")
        if index not in self._experts:
            self._experts[index] = with_expert(self._tasks[index])
        return self._experts[index]

    def by_id(self, task_id: str) -> Task:
        """The task with that id. Raises KeyError naming the id."""
        if task_id not in self._by_id:
            raise KeyError(f"no task {task_id!r} in {self.path}; the first is {self._tasks[0].task_id!r}")
        return self.get(self._by_id[task_id])

    def _append(self, place: str, row: Mapping[str, Any]) -> None:
        task = task_from_row(row, name=self.name, split=self.split, index=len(self._tasks), place=place)
        if task.task_id in self._by_id:
            first = self._by_id[task.task_id]
            raise RecordError(
                f"{place}: the id {task.task_id!r} is already that of record {first}; make ids unique or drop them"
            )
        self._by_id[task.task_id] = task.index
        self._tasks.append(task)


def task_from_row(row: Mapping[str, Any], *, name: str, split: str, index: int, place: str) -> Task:
    """One record as a task without an expert.

    `place` ("file, line 3") begins the message of the RecordError that an unusable record raises.
    """
    question_field = _first(row, QUESTION_FIELDS)
    answer_field = _first(row, ANSWER_FIELDS)
    for field, kind, known in (
        (question_field, "question", QUESTION_FIELDS),
        (answer_field, "answer", ANSWER_FIELDS),
    ):
        if field is None:
            found = ", ".join(map(str, row)) or "none"
            raise RecordError(
                f"{place}: no {kind} field (fields found: {found}); name one of them {' or '.join(known)}"
            )
    assert question_field is not None and answer_field is not None
    question = row[question_field]
    if not isinstance(question, str) or not question.strip():
        raise RecordError(f"{place}: field {question_field!r} is {question!r}; it must be non-empty text")
    text = _answer_text(row[answer_field], place, answer_field)
    answer, solution = _split_answer(text, answer_field, place)
    solution_field = _first(row, SOLUTION_FIELDS)
    if solution is None and solution_field not in (None, answer_field) and isinstance(row[str(solution_field)], str):
        solution = row[str(solution_field)]
    id_field = _first(row, ID_FIELDS)
    own_id = str(row[id_field]) if id_field is not None else str(index)
    task_id = own_id if own_id.startswith(f"{name}/{split}/") else f"{name}/{split}/{own_id}"
    used = {question_field, answer_field, id_field, solution_field if solution is not None else None}
    metadata = {str(key): json_value(value) for key, value in row.items() if key not in used}
    if solution is not None:
        metadata["solution"] = solution
    return Task(task_id, index, split, question, answer, (), metadata)


def with_expert(task: Task) -> Task:
    """The task with its expert trace, where its worked solution is in the GSM8K format."""
    solution = task.metadata.get("solution")
    if not isinstance(solution, str) or ("<<" not in solution and not FINAL.search(solution)):
        return task
    trace = read_trace(solution)
    expert = reference_turns(trace, task.answer)
    found: dict[str, Any] = {
        "expert_calls": len(trace.steps),
        "expert_skipped": trace.skipped,
        "expert_supported": bool(expert),
    }
    return replace(task, expert=expert, metadata={**task.metadata, **found})


def _first(row: Mapping[str, Any], fields: Sequence[str]) -> str | None:
    return next((field for field in fields if row.get(field) is not None), None)


def _answer_text(value: Any, place: str, field: str) -> str:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        text = str(value).strip()
        if text:
            return text
    raise RecordError(f"{place}: field {field!r} is {value!r}; an answer must be non-empty text or a number")


def _split_answer(text: str, field: str, place: str) -> tuple[str, str | None]:
    """The final answer, and the worked solution it was taken from (None where the text is the answer
    itself)."""
    finals = [final for final in FINAL.findall(text) if final]
    if finals:
        return finals[-1], text
    if field != "solution":
        return text, None
    boxes = [box for box in extract_boxed(text) if box]
    if boxes:
        return boxes[-1], text
    if len(text) <= 100 and "\n" not in text:
        return text, None
    raise RecordError(
        f"{place}: field 'solution' has neither a final \\boxed{{}} nor a line '#### answer'; add an 'answer' field"
    )


def json_value(value: Any) -> Any:
    """`value` as JSON can hold it: containers are walked, anything unknown becomes its text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return str(value)


def _stem(path: Path) -> str:
    suffix = next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)


def record_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each record with the place it stands at."""
    if not path.is_file():
        raise FileNotFoundError(f"no data file {path}")
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(path)
    elif path.name.endswith(".json"):
        yield from _json_list(path)
    elif path.name.endswith(".parquet"):
        yield from _parquet(path)
    else:
        raise RecordError(f"{path}: unknown file type; use one of {', '.join(SUFFIXES)}")


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RecordError(f"{path} is not a whole gzip file ({error}); write it again") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 ({error}); convert it") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, _record(_json(line, place), place)


def _json_list(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 ({error}); convert it") from error
    rows = _json(text, str(path)) if text.strip() else []
    if not isinstance(rows, list):
        raise RecordError(f"{path} holds a JSON {type(rows).__name__}; it must hold a list of records")
    for number, row in enumerate(rows):
        place = f"{path}, record {number}"
        yield place, _record(row, place)


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(f"reading {path} needs pyarrow: pip install 'elpo[parquet]'") from error
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise RecordError(f"{path} is not a Parquet file ({error}); write it again") from error
    for number, row in enumerate(rows):
        place = f"{path}, row {number}"
        yield place, _record(row, place)


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RecordError(f"{place}: not valid JSON ({error}); mend or drop it") from error


def _record(row: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise RecordError(f"{place}: a {type(row).__name__}; each record must be a JSON object with named fields")
    return row
