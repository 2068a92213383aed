"""Access to single records of files that are too large to hold: an index now, a record when it is asked for."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from elpo_envs.tasks.benchmarks.hub import HubPart
from elpo_envs.tasks.benchmarks.rows import Row, read_rows, stem
from elpo_envs.tasks.records import RecordError

MOST_UNPACKED = 2**30
# In JSON the quotes of any text that quotes this would be escaped, so only the field itself matches.
_PRIVATE = re.compile(rb'"private_test_cases"\s*:\s*"')


class Stored(Protocol):
    """One record, wherever it lies."""

    def read(self) -> Row:
        """The whole record. Raises RecordError."""


@dataclass(frozen=True)
class InFile:
    """A line of a JSONL file."""

    path: Path
    offset: int
    length: int
    place: str
    number: int

    def read(self) -> Row:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return _row(file.read(self.length), self.path, self.place, self.number)


@dataclass(frozen=True)
class InMemory:
    """A line of a compressed file, which cannot be read from the middle."""

    path: Path
    line: bytes
    place: str
    number: int

    def read(self) -> Row:
        return _row(self.line, self.path, self.place, self.number)


@dataclass(frozen=True)
class Held:
    """A record of a file that is read whole (JSON, Parquet)."""

    row: Row

    def read(self) -> Row:
        return self.row


@dataclass(frozen=True)
class InTable:
    """A row of a table from the hub."""

    part: HubPart
    number: int

    def read(self) -> Row:
        return self.part.row(self.number)


def stored_rows(paths: Sequence[Path], parts: Sequence[HubPart]) -> Iterator[tuple[Stored, Row]]:
    """Every record, with a light copy of it in which compressed private tests may be left out."""
    for path in paths:
        if path.name.endswith(".jsonl"):
            yield from _lines(path)
        elif path.name.endswith(".jsonl.gz"):
            yield from _packed_lines(path)
        else:
            yield from ((Held(row), row) for row in read_rows(path))
    for part in parts:
        yield from ((InTable(part, number), part.row(number)) for number in range(len(part.table)))


def _lines(path: Path) -> Iterator[tuple[Stored, Row]]:
    offset = number = 0
    with path.open("rb") as file:
        for count, line in enumerate(file, start=1):
            if line.strip():
                place = f"{path}, line {count}"
                stored = InFile(path, offset, len(line), place, number)
                yield stored, _row(_light(line), path, place, number)
                number += 1
            offset += len(line)


def _packed_lines(path: Path) -> Iterator[tuple[Stored, Row]]:
    number = 0
    unpacked = 0
    try:
        with gzip.open(path, "rb") as file:
            count = 0
            while line := file.readline(MOST_UNPACKED - unpacked + 1):
                count += 1
                unpacked += len(line)
                if unpacked > MOST_UNPACKED:
                    raise RecordError(f"{path} unpacks to more than {MOST_UNPACKED} bytes; give it as plain .jsonl")
                if line.strip():
                    place = f"{path}, line {count}"
                    yield InMemory(path, line, place, number), _row(_light(line), path, place, number)
                    number += 1
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RecordError(f"{path} is not a whole gzip file ({error}); write it again") from error


def _light(line: bytes) -> bytes:
    """The line without its packed tests, which are most of it."""
    match = _PRIVATE.search(line)
    end = line.find(b'"', match.end()) if match else -1
    if match is None or end < 0 or line.find(b"\\", match.end(), end) >= 0:
        return line
    return line[: match.end()] + line[end:]


def _row(line: bytes, path: Path, place: str, number: int) -> Row:
    try:
        value: Any = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{place}: not valid JSON ({error}); mend or drop it") from error
    if not isinstance(value, dict):
        raise RecordError(f"{place}: a {type(value).__name__}; each record must be a JSON object with named fields")
    return Row(value, place, stem(path), number)
