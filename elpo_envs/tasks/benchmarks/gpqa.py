"""GPQA Diamond, from its CSV file or from the password-protected archive in which it is published.

Where the fields come from: `gpqa_diamond.csv` of `Idavidrein/gpqa` on the hub, and `dataset/gpqa_diamond.csv` in
`dataset.zip` of github.com/idavidrein/gpqa, whose README gives the archive's password: columns `Question`,
`Correct Answer`, `Incorrect Answer 1` to `3`, `Record ID`, `Subdomain`, `High-level domain`, and many about the
writing and the validation of a question, which are left out here.

The authors ask that no question be put online in plain text. The archive is decrypted in memory, and no part of
it is written to disk. The right answer comes first in the file, so the options are always ordered by the task's id.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from elpo_envs.tasks.base import Task, TaskSource
from elpo_envs.tasks.benchmarks.base import Opened
from elpo_envs.tasks.benchmarks.choices import choice_task, letter_index
from elpo_envs.tasks.benchmarks.rows import Row, csv_rows
from elpo_envs.tasks.benchmarks.source import eager_source, own_id
from elpo_envs.tasks.records import RecordError

NAME = "gpqa_diamond"
PASSWORD = "deserted-untie-orchid"
MAX_BYTES = 64 * 2**20


def read_gpqa(opened: Opened) -> TaskSource:
    """GPQA Diamond."""
    password = opened.options.get("password", PASSWORD)
    if not isinstance(password, str):
        raise opened.bad_option("password", "text")

    def rows() -> Iterator[Row]:
        for path in opened.paths:
            if path.suffix == ".zip":
                yield from csv_rows(decrypted(path, f"{NAME}.csv", password), f"{path}/{NAME}.csv", NAME)
        if not any(path.suffix == ".zip" for path in opened.paths):
            yield from opened.rows()

    def tasks() -> Iterator[tuple[Task, str]]:
        for index, row in enumerate(rows()):
            if row.common:
                question, choices = row.text("question"), row.texts("choices", minimum=2)
                correct, own = letter_index(row, "answer", len(choices)), row.plain("id")
            else:
                question, correct = row.text("Question"), 0
                names = ("Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3)))
                choices = [row.text(name) for name in names]
                own = row.text("Record ID").strip()
            task = choice_task(
                row,
                task_id=own_id(NAME, opened.split, own),
                index=index,
                split=opened.split,
                question=question,
                choices=choices,
                correct=correct,
                shuffle=True,
                subject=row.text_or_empty("Subdomain", "subject"),
                domain=row.text_or_empty("High-level domain"),
            )
            yield task, row.place

    return eager_source(NAME, opened.split, tasks(), opened.origin)


def decrypted(archive: Path, member: str, password: str) -> str:
    """The text of the file called `member`, in whatever folder of the archive; never on disk.

    Raises RecordError for a wrong password, an archive without that file, or more than `MAX_BYTES` of text.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if name.rpartition("/")[2] == member]
            if len(names) != 1:
                raise RecordError(f"{archive} has {len(names)} files called {member}; give the published dataset.zip")
            with opened.open(names[0], pwd=password.encode()) as file:
                data = file.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise RecordError(
            f"{archive} is not a whole zip archive, or has another password ({error}); take the published one"
        ) from error
    except RuntimeError as error:
        raise RecordError(f"{archive} does not open with this password ({error}); set the option password") from error
    if len(data) > MAX_BYTES:
        raise RecordError(f"{archive}/{member} is longer than {MAX_BYTES} bytes; give the published dataset.zip")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"{archive}/{member} is not UTF-8 ({error}); give the published dataset.zip") from error
