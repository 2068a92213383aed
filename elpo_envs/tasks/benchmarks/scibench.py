"""SciBench: college textbook problems with a number and a unit.

Where the fields come from: `dataset/original/*.json` of github.com/mandyyyyii/scibench (one list a textbook, and
`*_sol.json` with worked solutions, which serve as examples for prompts) and `xw27/scibench` on the hub:
`problem_text`, `answer_number` (text, sometimes with spaces, thousands commas or a Unicode minus), `answer_latex`,
`unit` (LaTeX or plain, sometimes with a power of ten that belongs to the answer: the number is in that unit),
`source` (textbook), `problemid`, `solution`. `problemid` repeats, so a task's id is textbook and position. The paper
counts an answer within 5% as right, and its prompt tells the unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from elpo_envs.tasks.base import Task, TaskSource
from elpo_envs.tasks.benchmarks.base import Opened
from elpo_envs.tasks.benchmarks.rows import Row
from elpo_envs.tasks.benchmarks.source import eager_source, own_id, without_empty

NAME = "scibench"
TOLERANCE = 0.05
_SPLITS = {"main": "test", "with_solution": "train"}
# The textbooks in the order in which the paper's tables have them.
_SUBJECTS = {
    **dict.fromkeys(("atkins", "chemmc", "matter", "quan"), "chemistry"),
    **dict.fromkeys(("fund", "class", "thermo"), "physics"),
    **dict.fromkeys(("calculus", "stat", "diff"), "math"),
}
_BOOKS = tuple(_SUBJECTS)


def read_scibench(opened: Opened) -> TaskSource:
    """SciBench: split "test" is the test set, "train" the worked examples."""

    def tasks() -> Iterator[tuple[Task, str]]:
        index = 0
        for number, row in sorted(enumerate(opened.rows()), key=lambda pair: _book_place(pair[1])):
            if _split(row) != opened.split:
                continue
            book = row.group if row.group.removesuffix("_sol") in _BOOKS else ""
            own = row.plain("id") if row.common else f"{book}/{row.number}" if book else str(number)
            unit = row.text_or_empty("unit").strip()
            question = row.text("problem_text", "question").strip()
            asked = f" in {unit}" if unit else ""
            source = book.removesuffix("_sol") or row.text_or_empty("source").strip()
            subject = row.text("subject") if row.find("subject") else _SUBJECTS.get(source)
            metadata = {
                "kind": "number",
                "unit": unit,
                "tolerance": TOLERANCE,
                **without_empty(subject=subject, solution=row.text_or_empty("solution").strip()),
            }
            text = f"{question}\n\nGive the answer as a number{asked}."
            task_id = own_id(NAME, opened.split, own)
            yield Task(task_id, index, opened.split, text, number_text(row), (), metadata), row.place
            index += 1

    return eager_source(NAME, opened.split, tasks(), opened.origin)


def number_text(row: Row) -> str:
    """The published answer as Python reads numbers: " 1,642.5" -> "1642.5". Raises RecordError."""
    field = row.need("answer_number", "answer")
    text = row.plain(field).replace("\u2212", "-").replace(",", "").replace(" ", "").lstrip("$")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise row.wrong(field, "a number")
    return text.removeprefix("+")


def _split(row: Row) -> str:
    """ "train" for rows with worked solutions, which the published files keep apart."""
    if row.common:
        label = row.text("split")
        if label not in _SPLITS:
            raise row.wrong("split", f"one of {', '.join(_SPLITS)}")
        return _SPLITS[label]
    if row.group.removesuffix("_sol") in _BOOKS:
        return "train" if row.group.endswith("_sol") else "test"
    # One table of all books: test problems of one book have worked solutions, too, and are called "Question 21.75".
    worked = row.find("solution") and row.text("solution", empty=True).strip()
    return "train" if worked and not row.text_or_empty("problemid").strip().startswith("Question") else "test"


def _book_place(row: Row) -> int:
    book = row.group.removesuffix("_sol")
    return _BOOKS.index(book) if book in _BOOKS else 0
