"""Rows of published files: where each stands, and its fields read with errors that a person can act on."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elpo_envs.grading import extract_boxed
from elpo_envs.tasks.records import SUFFIXES, RecordError, record_rows

MAX_TEXT = 20_000_000


@dataclass(frozen=True)
class Row:
    """One record of a published file.

    Attributes:
        fields: the record; values are what the file's format gives (JSON values, or text from CSV).
        place: where it stands, "file, line 3"; every error about it begins so.
        group: what the record belongs to beyond the file's format: the file's name without its ending, or
            the configuration on the hub ("abstract_algebra_test", "algebra").
        number: position in its file, from 0.
    """

    fields: Mapping[str, Any]
    place: str
    group: str = ""
    number: int = 0

    @property
    def common(self) -> bool:
        """Whether the record has the common format: fields id, question, answer, domain and split."""
        return self.fields.keys() >= {"id", "question", "answer", "domain", "split"}

    def find(self, *names: str) -> str | None:
        """The field, spelled as in the record, that is the first of `names` (letter case aside) with a value."""
        spelled = {str(key).lower(): str(key) for key in reversed(list(self.fields))}
        found = (spelled.get(name.lower()) for name in names)
        return next((field for field in found if field is not None and self.fields[field] is not None), None)

    def need(self, *names: str) -> str:
        """`find`, raising RecordError where the record has none of these fields."""
        field = self.find(*names)
        if field is None:
            has = ", ".join(map(str, self.fields)) or "none"
            raise RecordError(f"{self.place}: no field {' or '.join(map(repr, names))} (fields found: {has}); add it")
        return field

    def error(self, text: str) -> RecordError:
        """An error about the record as a whole."""
        return RecordError(f"{self.place}: {text}")

    def wrong(self, field: str, must: str) -> RecordError:
        """An error about a field's value, which is quoted in short."""
        shown = repr(self.fields.get(field))
        shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
        return RecordError(f"{self.place}: field {field!r} is {shown}; it must be {must}")

    def text(self, *names: str, empty: bool = False) -> str:
        """The text of the first of these fields. Raises RecordError unless it is text, non-blank or `empty`."""
        field = self.need(*names)
        value = self.fields[field]
        if not isinstance(value, str) or not (empty or value.strip()):
            raise self.wrong(field, "text" if empty else "non-empty text")
        if len(value) > MAX_TEXT:
            raise self.wrong(field, f"at most {MAX_TEXT} characters long")
        return value

    def text_or_empty(self, *names: str) -> str:
        """The text of the first of these fields, "" where none is there."""
        return self.text(*names, empty=True) if self.find(*names) else ""

    def plain(self, *names: str) -> str:
        """Text or a number as stripped text (27.0 -> "27"). Raises RecordError for anything else."""
        field = self.need(*names)
        value = self.fields[field]
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not str(value).strip():
            raise self.wrong(field, "non-empty text or a number")
        return str(value).strip()

    def texts(self, *names: str, minimum: int = 0) -> list[str]:
        """A list of texts with at least `minimum` members. Raises RecordError for anything else."""
        field = self.need(*names)
        value = self.fields[field]
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(v, str) for v in value):
            raise self.wrong(field, "a list of texts")
        if len(value) < minimum:
            raise self.wrong(field, f"a list of {minimum} or more texts")
        return list(value)

    def mapping(self, *names: str) -> Mapping[str, Any]:
        """A JSON object. Raises RecordError for anything else."""
        field = self.need(*names)
        value = self.fields[field]
        if not isinstance(value, Mapping):
            raise self.wrong(field, "a JSON object")
        return value

    def inner(self, field: str) -> Row:
        """The JSON object in `field` as a row, so that errors about its fields name both."""
        return Row(self.mapping(field), f"{self.place}, in field {field!r}", self.group, self.number)

    def last_boxed(self, *names: str) -> str:
        r"""The content of the last `\boxed{}` of a worked solution; "" where that box is empty."""
        field = self.need(*names)
        boxes = extract_boxed(self.text(field))
        if not boxes:
            raise self.wrong(field, "a worked solution with a final \\boxed{}")
        return boxes[-1]


def read_rows(path: Path, header: Sequence[str] = ()) -> Iterator[Row]:
    """Every row of a JSONL(.gz), JSON, Parquet or CSV file; a JSON file may hold one object.

    `header` names the columns of a CSV file that has no header line.

    Raises RecordError, naming the file and the row, or FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no data file {path}")
    group = stem(path)
    if path.name.endswith(".csv"):
        yield from csv_rows(_decode(path.read_bytes(), str(path)), str(path), group, header)
    elif path.name.endswith(".json") and (single := _single_object(path)) is not None:
        yield Row(single, str(path), group, 0)
    else:
        for number, (place, fields) in enumerate(record_rows(path)):
            yield Row(fields, place, group, number)


def csv_rows(text: str, place: str, group: str, header: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of CSV text; see `read_rows`."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names = list(header)
    number = 0
    try:
        for record in reader:
            where = f"{place}, line {reader.line_num}"
            if not record:
                continue
            if not names:
                names = record
            elif len(record) != len(names):
                raise RecordError(
                    f"{where}: {len(record)} columns where {len(names)} are expected ({', '.join(names)}); mend it"
                )
            else:
                yield Row(dict(zip(names, record, strict=True)), where, group, number)
                number += 1
    except csv.Error as error:
        raise RecordError(f"{place}, line {reader.line_num}: not valid CSV ({error}); mend it") from error


def stem(path: Path) -> str:
    """The file's name without its ending."""
    for suffix in sorted((*SUFFIXES, ".csv"), key=len, reverse=True):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name


def _single_object(path: Path) -> Mapping[str, Any] | None:
    """The one object that a JSON file of a single record holds; None for a list of records."""
    text = _decode(path.read_bytes(), str(path)).lstrip()
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not valid JSON ({error}); mend or drop it") from error
    assert isinstance(value, dict)
    return value


def _decode(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"{place} is not UTF-8 ({error}); convert it") from error
