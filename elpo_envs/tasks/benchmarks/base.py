"""What a benchmark is: its splits, where its files lie, its place on the hub, and the reader of its rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from elpo_envs.tasks.base import TaskSource
from elpo_envs.tasks.benchmarks.hub import Hub, HubPart, load_hub
from elpo_envs.tasks.benchmarks.rows import Row, read_rows

Domain = Literal["math", "science", "code"]
DATA_VARIABLE = "ELPO_DATA"
HUB_OPTIONS = {
    "hub": "true to download the published data set, or a local folder that holds it in the hub's form",
    "hub_revision": "another revision than the one the registry records",
}


@dataclass(frozen=True)
class Opened:
    """The located data of one split, as a benchmark's reader gets it.

    Attributes:
        benchmark: whose data it is.
        split: one of its splits.
        options: checked names, values as the user gave them.
        paths: files, in the order in which their rows count; empty where the data come from the hub.
        parts: tables from the hub.
        origin: what to call all of it in messages.
    """

    benchmark: Benchmark
    split: str
    options: Mapping[str, Any]
    paths: tuple[Path, ...]
    parts: tuple[HubPart, ...]
    origin: str

    def rows(self) -> Iterator[Row]:
        """Every row, file by file. Raises RecordError."""
        for path in self.paths:
            yield from read_rows(path, self.benchmark.header)
        for part in self.parts:
            yield from part.rows()

    def flag(self, name: str, default: bool) -> bool:
        """An option that is true or false. Raises ValueError for any other value."""
        value = self.options.get(name, default)
        if not isinstance(value, bool):
            raise self.bad_option(name, "true or false")
        return value

    def bad_option(self, name: str, must: str) -> ValueError:
        """An error about an option's value."""
        return ValueError(f"option {name}={self.options.get(name)!r} of {self.benchmark.name} must be {must}")


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark.

    Attributes:
        name: first part of its task ids, "gsm8k".
        domain: "math", "science" or "code".
        splits: what `open` takes, the usual one for evaluation first.
        files: split -> patterns of file names that tell the benchmark, so that they are looked for in a data
            folder too. The first pattern with a match counts, and all its matches are read, in name order.
        own_files: split -> patterns such as "test.jsonl" that only mean this benchmark in a folder of its
            own: the one given as `path`, or one with the benchmark's name in the data folder.
        hub: the data set on the hub.
        read: makes the tasks.
        options: option -> meaning, beyond `HUB_OPTIONS`.
        header: columns of CSV files that have no header line.
        find: for benchmarks whose files depend on options: the files in a folder, () where they are missing;
            the last argument is whether the folder is the benchmark's own.
        hub_files: for benchmarks whose files on the hub depend on options: their names.
    """

    name: str
    domain: Domain
    splits: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    hub: Hub
    read: Callable[[Opened], TaskSource]
    own_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    find: Callable[[Path, str, Mapping[str, Any], bool], tuple[Path, ...]] | None = None
    hub_files: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None

    @property
    def hub_id(self) -> str:
        """The data set's name on the hub."""
        return self.hub.dataset

    def check(self, split: str, options: Mapping[str, Any] | None = None) -> None:
        """Raise ValueError, with the choices, for an unknown split or option; reads no file."""
        if split not in self.splits:
            raise ValueError(f"split={split!r} of {self.name} does not exist; choose {', '.join(self.splits)}")
        known = {**self.options, **HUB_OPTIONS}
        unknown = sorted(set(options or {}) - set(known))
        if unknown:
            raise ValueError(f"option {unknown[0]!r} of {self.name} is unknown; choose {', '.join(known)}")

    def open(
        self,
        split: str,
        *,
        path: str | Path | None = None,
        data_dir: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> TaskSource:
        """The tasks of one split.

        Args:
            split: one of `splits`.
            path: a file, or a folder that holds the published files.
            data_dir: a folder of several benchmarks' files; by default that in the variable ELPO_DATA.
            options: JSON values; see `options` and `HUB_OPTIONS`.

        Raises:
            ValueError: an unknown split or option, or no place to look in.
            FileNotFoundError: the files are not there.
            RecordError: a file, row or field is unusable.
            MissingExtraError: an optional package is missing.
        """
        self.check(split, options)
        given = dict(options or {})
        if given.get("hub"):
            if path is not None:
                raise ValueError(f"path={str(path)!r} and option hub={given['hub']!r} of {self.name}: give one of them")
            hub = self.hub if self.hub_files is None else replace(self.hub, data_files=self.hub_files(given))
            parts = load_hub(hub, split, given["hub"], given.get("hub_revision"))
            return self.read(Opened(self, split, given, (), parts, parts[0].origin))
        paths, origin = self.locate(split, path=path, data_dir=data_dir, options=given)
        return self.read(Opened(self, split, given, paths, (), origin))

    def locate(
        self,
        split: str,
        *,
        path: str | Path | None = None,
        data_dir: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[tuple[Path, ...], str]:
        """The files that `open` would read, and what to call them. Raises as `open` does."""
        given = options or {}
        if path is not None:
            place = Path(path)
            if place.is_file():
                return (place,), str(place)
            if not place.is_dir():
                raise FileNotFoundError(f"{self.name}: there is no file or folder {place}")
            return self._in_folders(((place, True),), split, given)
        folder = data_dir or os.environ.get(DATA_VARIABLE)
        if not folder:
            raise ValueError(
                f"{self.name} needs its files: set path, data_dir, the variable {DATA_VARIABLE}, or the option hub"
            )
        root = Path(folder)
        if not root.is_dir():
            raise FileNotFoundError(f"{self.name}: there is no folder {root}")
        return self._in_folders(((root / self.name, True), (root, False)), split, given)

    def _in_folders(
        self, folders: Sequence[tuple[Path, bool]], split: str, options: Mapping[str, Any]
    ) -> tuple[tuple[Path, ...], str]:
        for folder, own in folders:
            find = self.find or self._find
            found = find(folder, split, options, own) if folder.is_dir() else ()
            if found:
                return found, str(found[0]) if len(found) == 1 else str(folder)
        folder, own = folders[-1]
        names = [*self.files.get(split, ()), *(self.own_files.get(split, ()) if own else ())]
        raise FileNotFoundError(f"{self.name}, split {split!r}: {folder} holds none of {', '.join(names)}")

    def _find(self, folder: Path, split: str, options: Mapping[str, Any], own: bool) -> tuple[Path, ...]:
        patterns = [*self.files.get(split, ()), *(self.own_files.get(split, ()) if own else ())]
        for pattern in patterns:
            matches = [path for path in folder.glob(pattern) if path.is_file()]
            if matches:
                return tuple(sorted(matches, key=lambda path: path.relative_to(folder).as_posix()))
        return ()
