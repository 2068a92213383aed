"""LiveCodeBench: contest problems in releases, with tests decoded only for the task that is asked for.

Where the fields come from: `livecodebench/code_generation_lite` on the hub, and the harness at
github.com/LiveCodeBench/LiveCodeBench (`lcb_runner/benchmarks/code_generation.py`): `question_title`,
`question_content`, `platform`, `question_id`, `contest_id`, `contest_date`, `starter_code`, `difficulty`,
`public_test_cases` (JSON text), `private_test_cases` (see `lcb_tests`), `metadata` (JSON text with `func_name` for
problems of the functional kind). Release v1 is `test.jsonl`; each later release adds `test2.jsonl` ... `test6.jsonl`.
As in that harness, a program is judged by the public and the private tests together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from elpo_envs.tasks.base import Task, TaskSource
from elpo_envs.tasks.benchmarks.base import Opened
from elpo_envs.tasks.benchmarks.lcb_files import Stored, stored_rows
from elpo_envs.tasks.benchmarks.lcb_tests import json_text, private_cases, public_cases
from elpo_envs.tasks.benchmarks.programs import fenced
from elpo_envs.tasks.benchmarks.rows import Row
from elpo_envs.tasks.benchmarks.source import BenchmarkSource, own_id, without_empty

NAME = "livecodebench"
RELEASE_FILES = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl")
COMMON_FILE = "lcb_v1_public.jsonl.gz"
OPTIONS = {
    "release": "release_v1 to release_v6 (by default release_v6), or v1 to v6 for what that release added, or v2_v4",
    "start_date": "leaves out problems of contests before this day, YYYY-MM-DD",
    "end_date": "leaves out problems of contests after this day, YYYY-MM-DD",
    "max_tests_mb": "most megabytes of decompressed tests of one problem (by default 256)",
}
_RELEASE = re.compile(r"release_v([1-6])|v([1-6])(?:_v([1-6]))?")


def release_files(release: object) -> tuple[str, ...]:
    """The published files of a release: "release_v3" -> the first three, "v3" -> the third alone, "v2_v4".

    Raises ValueError for anything else.
    """
    match = _RELEASE.fullmatch(release) if isinstance(release, str) else None
    first, last = (
        (1, 0) if match is None else (1, int(match[1])) if match[1] else (int(match[2]), int(match[3] or match[2]))
    )
    if not first <= last:
        raise ValueError(f"option release={release!r} of {NAME} must be {OPTIONS['release']}")
    return RELEASE_FILES[first - 1 : last]


def files_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The published files that the option `release` asks for."""
    release = options.get("release")
    return release_files("release_v6" if release is None else release)


def find_files(folder: Path, split: str, options: Mapping[str, Any], own: bool) -> tuple[Path, ...]:
    """The files of the release that is asked for, all of them; where none is asked for and none is there, the
    file of release v1 with public tests only."""
    release = options.get("release")
    names = files_of(options)
    roots = (folder, folder / "code_generation_lite") if own else (folder / "code_generation_lite",)
    for root in roots:
        there = tuple(root / name for name in names if (root / name).is_file())
        if there and len(there) < len(names):
            missing = ", ".join(sorted(set(names) - {path.name for path in there}))
            raise FileNotFoundError(f"{NAME}: {root} lacks {missing}; add it, or set the option release")
        if there:
            return there
    common = folder / COMMON_FILE
    return (common,) if release in (None, "release_v1", "v1") and common.is_file() else ()


def read_livecodebench(opened: Opened) -> TaskSource:
    """LiveCodeBench; only ids and dates are read now, the rest when a task is asked for."""
    names = tuple(path.name for path in opened.paths)
    if names and "release" in opened.options and names not in (files_of(opened.options), (COMMON_FILE,)):
        raise ValueError(f"{opened.origin} is read whole; drop the option release, or give the folder of all releases")
    start, end = _day(opened, "start_date"), _day(opened, "end_date")
    limit = opened.options.get("max_tests_mb", 256)
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit <= 65536:
        raise opened.bad_option("max_tests_mb", "a number of megabytes above 0, at most 65536")

    def kept() -> Iterator[tuple[Stored, str, str]]:
        for stored, light in stored_rows(opened.paths, opened.parts):
            if start or end:
                day = _contest_day(light)
                if (start and day < start) or (end and day > end):
                    continue
            own = light.plain("id" if light.common else "question_id")
            yield stored, own_id(NAME, opened.split, own, ("lcb",)), light.place

    found = list(kept())

    make = _Decoder(tuple((stored, task_id) for stored, task_id, _ in found), opened.split, int(limit * 2**20))
    places = [(task_id, place) for _, task_id, place in found]
    return BenchmarkSource(NAME, opened.split, places, make, opened.origin, remembered=4)


@dataclass(frozen=True)
class _Decoder:
    """Makes the task at an index from its record."""

    found: tuple[tuple[Stored, str], ...]
    split: str
    limit: int

    def __call__(self, index: int) -> Task:
        stored, task_id = self.found[index]
        return _task(stored.read(), task_id, index, self.split, self.limit)


def _task(row: Row, task_id: str, index: int, split: str, limit: int) -> Task:
    starter = row.text_or_empty("starter_code")
    if row.common:
        tests = row.inner("tests")
        form, entry_point = tests.text("type"), row.text_or_empty("entry_point")
        public: Sequence[Mapping[str, str]] = public_cases(tests, "cases")[1]
        cases = public
        extra = row.inner("extra") if row.find("extra") else Row({}, row.place)
        about = {"platform": row.text_or_empty("subject"), "difficulty": row.text_or_empty("level")}
        body = row.text("question")
    else:
        form, public = public_cases(row, "public_test_cases")
        private_form, private = private_cases(row, "private_test_cases", limit)
        if form and private_form and form != private_form:
            raise row.wrong("private_test_cases", f"of the kind {form!r}, as the public tests are")
        form, cases = form or private_form, [*public, *private]
        entry_point = _function_name(row)
        extra = row
        about = {"platform": row.text_or_empty("platform"), "difficulty": row.text_or_empty("difficulty")}
        body = row.text("question_content")
    if form not in ("stdin", "functional"):
        raise row.error(f"the tests are of the kind {form!r}; it must be 'stdin' or 'functional'")
    if not cases:
        raise row.error("no test; a problem needs at least one")
    if form == "functional" and not entry_point.isidentifier():
        raise row.error(f"the function is called {entry_point!r}; a functional problem needs func_name in metadata")
    head: dict[str, Any] = {"type": form} if form == "stdin" else {"type": form, "entry_point": entry_point}
    metadata = {
        "kind": "program",
        "tests": {**head, "cases": list(cases)},
        "public_tests": {**head, "cases": list(public)},
        "entry_point": entry_point if form == "functional" else "",
        "starter_code": starter,
        "private_tests": not row.common,
        **without_empty(
            **about,
            title=extra.text_or_empty("question_title", "title"),
            contest_id=extra.text_or_empty("contest_id"),
            contest_date=_contest_day(row).isoformat() if _date_field(row) else None,
        ),
    }
    return Task(task_id, index, split, _question(body, form, entry_point, starter), "", (), metadata)


def _question(body: str, form: str, entry_point: str, starter: str) -> str:
    if form == "stdin":
        how = (
            "Write a Python program that reads the input from standard input and prints the answer to standard output."
        )
        return f"{body.strip()}\n\n{how}" + (f" Start from this code:\n\n{fenced(starter)}" if starter.strip() else "")
    if not starter.strip():
        return f"{body.strip()}\n\nWrite a Python program that defines the function `{entry_point}`."
    how = (
        f"Write a Python program that completes this code and imports what it needs. `{entry_point}` is what is called."
    )
    return f"{body.strip()}\n\n{how}\n\n{fenced(starter)}"


def _function_name(row: Row) -> str:
    metadata = row.fields.get("metadata") or {}
    if isinstance(metadata, str):
        metadata = json_text(row, "metadata", metadata)
    if not isinstance(metadata, Mapping):
        raise row.wrong("metadata", "a JSON object, or the text of one")
    name = metadata.get("func_name") or ""
    if not isinstance(name, str):
        raise row.wrong("metadata", "a JSON object whose func_name is text")
    return name


def _date_field(row: Row) -> Row | None:
    """The row, or its field `extra`, that holds `contest_date`."""
    if row.find("contest_date"):
        return row
    if row.common and row.find("extra") and row.inner("extra").find("contest_date"):
        return row.inner("extra")
    return None


def _contest_day(row: Row) -> date:
    holder = _date_field(row)
    if holder is None:
        raise row.error("no field 'contest_date', which start_date and end_date need; add it")
    value = holder.fields["contest_date"]
    try:
        return date.fromisoformat(str(value)[:10])  # text in files, a time stamp in the hub's tables
    except ValueError as error:
        raise holder.wrong("contest_date", "a day such as 2024-05-01") from error


def _day(opened: Opened, name: str) -> date | None:
    value = opened.options.get(name)
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise opened.bad_option(name, "a day, YYYY-MM-DD") from error
