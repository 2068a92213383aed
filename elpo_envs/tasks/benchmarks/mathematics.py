r"""GSM8K, MATH, MATH-500, AIME and AMC.

Where the fields come from:

* GSM8K: `train.jsonl` and `test.jsonl` of github.com/openai/grade-school-math and `openai/gsm8k` on the hub:
  `question`, and `answer` that ends in `#### 72`, sometimes with thousands commas, which the tasks do not have.
* MATH (github.com/hendrycks/math): one JSON file a problem, `train/algebra/1.json`, with `problem`, `level`,
  `type` and `solution`; the answer is the last `\boxed{}` of the solution. The hub's copies and tables made
  of them have the same fields. Two training problems end in an empty box and are left out; the others keep
  their numbers.
* MATH-500: `test.jsonl` with `problem`, `solution`, `answer`, `subject`, `level`, `unique_id`
  ("test/algebra/1.json"), from github.com/openai/prm800k through `HuggingFaceH4/MATH-500`.
* AIME: `HuggingFaceH4/aime_2024` (`id`, `problem`, `solution`, `answer`, `url`, `year`), `Maxwell-Jia/AIME_2024`
  (`ID`, `Problem`, `Solution`, `Answer` as a number), `math-ai/aime24` (answer only boxed in `solution`),
  `math-ai/aime25` (`problem`, `answer`, `id`), `opencompass/AIME2025` (two files, `question`, `answer`), and
  `AI-MO/aimo-validation-aime` (three years together, told apart by `url`). Answers are integers from 0 to
  999, sometimes printed with leading zeros ("025"); the tasks have them without.
* AMC: `math-ai/amc23` (`id`, `question` or `problem`, `answer`, `url`), answers such as 27.0 for 27.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from elpo_envs.tasks.base import Task, TaskSource
from elpo_envs.tasks.benchmarks.base import Opened
from elpo_envs.tasks.benchmarks.rows import Row
from elpo_envs.tasks.benchmarks.source import eager_source, own_id, without_empty
from elpo_envs.tasks.records import task_from_row, with_expert

_CONTEST_YEAR = re.compile(r"(\d{4})[ _-](?:AIME|AMC)", re.IGNORECASE)
_CONTEST_YEARS = {"aime24": 2024, "aime25": 2025, "amc23": 2023}


def read_gsm8k(opened: Opened) -> TaskSource:
    """GSM8K, with the worked solution in the metadata and, where it supports the answer, an expert trace."""

    def tasks() -> Iterator[tuple[Task, str]]:
        for index, row in enumerate(opened.rows()):
            answer = row.text("answer")
            if not row.common and "####" not in answer:
                raise row.wrong(row.need("answer"), "a worked solution with a last line '#### 72'")
            task = task_from_row(row.fields, name="gsm8k", split=opened.split, index=index, place=row.place)
            metadata = {"kind": "math", "solution": task.metadata.get("solution", answer)}
            final = re.sub(r"(?<=\d),(?=\d{3})", "", task.answer)
            yield Task(task.task_id, index, opened.split, task.question, final, (), metadata), row.place

    return eager_source("gsm8k", opened.split, tasks(), opened.origin, with_expert)


def read_math(opened: Opened) -> TaskSource:
    """MATH and MATH-500."""
    name = opened.benchmark.name

    def tasks() -> Iterator[tuple[Task, str]]:
        index = 0
        for number, row in enumerate(opened.rows()):
            if row.common:
                own, answer = row.plain("id"), row.plain("answer")
            else:
                own = _math_own_id(row, number)
                answer = row.plain("answer") if row.find("answer") else row.last_boxed("solution")
            if not answer:
                continue
            metadata = without_empty(
                kind="math",
                level=row.plain("level") if row.find("level") else None,
                subject=row.text("subject", "type") if row.find("subject", "type") else None,
                solution=row.text_or_empty("solution"),
            )
            task_id = own_id(name, opened.split, own)
            question = row.text("problem", "question")
            yield Task(task_id, index, opened.split, question, answer, (), metadata), row.place
            index += 1

    return eager_source(name, opened.split, tasks(), opened.origin)


def read_contest(opened: Opened) -> TaskSource:
    """AIME 2024 and 2025 and AMC 2023: answers are whole numbers (of AIME: 0 to 999)."""
    name = opened.benchmark.name

    def tasks() -> Iterator[tuple[Task, str]]:
        index = 0
        several = len(opened.paths) + len(opened.parts) > 1
        for row in opened.rows():
            year = _year(row)
            if year is not None and year != _CONTEST_YEARS[name]:
                continue
            own = row.plain("id") if row.find("id") else f"{row.group}/{row.number}" if several else str(row.number)
            answer = _whole_number(row, name)
            url = row.text_or_empty("url") or (row.inner("extra").text_or_empty("url") if row.find("extra") else "")
            metadata = without_empty(kind="math", solution=row.text_or_empty("solution"), url=url)
            question = row.text("problem", "question")
            yield Task(own_id(name, opened.split, own), index, opened.split, question, answer, (), metadata), row.place
            index += 1

    return eager_source(name, opened.split, tasks(), opened.origin)


def _math_own_id(row: Row, number: int) -> str:
    if row.find("unique_id"):
        return row.text("unique_id")
    if row.find("id"):
        return row.plain("id")
    if row.fields.get("type") and row.number == 0 and row.place.endswith(".json"):
        # One problem a file: the folder is the subject, the file's name is the problem's number.
        return "/".join(re.split(r"[\\/]", row.place)[-2:])
    return f"{row.group}/{row.number}" if row.group in HUB_SUBJECTS else str(number)


HUB_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


def _year(row: Row) -> int | None:
    if row.find("year"):
        year = row.plain("year")
        if not year.isdecimal():
            raise row.wrong(row.need("year"), "a year")
        return int(year)
    found = _CONTEST_YEAR.search(row.text_or_empty("url"))
    return int(found[1]) if found else None


def _whole_number(row: Row, name: str) -> str:
    field = row.need("answer", "solution")
    text = row.plain(field) if field.lower() == "answer" else row.last_boxed(field)
    text = re.sub(r"\.0+$", "", text.strip().strip("$").replace("^{\\circ}", "").replace("^\\circ", ""))
    digits = re.fullmatch(r"(-?)0*(\d{1,12})", text)
    if digits is None:
        raise row.wrong(field, "a whole number")
    if name.startswith("aime") and (digits[1] or len(digits[2]) > 3):
        raise row.wrong(field, "a whole number from 0 to 999, as AIME answers are")
    return str(int(text))
