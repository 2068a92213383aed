"""From a data set's name, or a file, to its tasks."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elpo_envs.tasks.base import TaskSource
from elpo_envs.tasks.benchmarks import BENCHMARKS
from elpo_envs.tasks.records import SUFFIXES, RecordSource

GENERATED = "generated"

# domain -> module and class of its endless source
_GENERATORS = {
    "math": ("elpo_envs.tasks.generated", "GeneratedSource"),
    "science": ("elpo_envs.tasks.science", "ScienceSource"),
    "code": ("elpo_envs.tasks.programs", "ProgramSource"),
}


def check_dataset(dataset: str, split: str, options: Mapping[str, Any] | None = None, domain: str = "math") -> None:
    """Raise ValueError, with the choices, unless `load_source` knows what these mean; reads no file."""
    if dataset == GENERATED:
        _generated(split, options, domain)
    elif dataset in BENCHMARKS:
        benchmark = BENCHMARKS[dataset]
        if benchmark.domain != domain:
            raise ValueError(
                f"dataset={dataset!r} is of the domain {benchmark.domain}, this environment of {domain}; "
                f"choose one of {', '.join(_names(domain))}"
            )
        benchmark.check(split, _without_path(options))
    elif not str(dataset).endswith(SUFFIXES) or domain == "code":
        files = "" if domain == "code" else f", or a file ending in {', '.join(SUFFIXES)}"
        raise ValueError(f"dataset={dataset!r} is unknown; choose {', '.join([GENERATED, *_names(domain)])}{files}")
    elif options:
        raise ValueError(f"dataset_options={dict(options)} are for named data sets; the file {dataset!r} has none")


def load_source(
    dataset: str = GENERATED,
    split: str = "train",
    options: Mapping[str, Any] | None = None,
    data_dir: str | None = None,
    domain: str = "math",
) -> TaskSource:
    """The tasks of `dataset`; files are read once per process, and again when they change.

    Args:
        dataset: "generated", a name in `elpo_envs.tasks.benchmarks.BENCHMARKS`, or a path.
        split: "train", "validation" or "test", or another one of the benchmark's; for a path, what its tasks are
            labelled with.
        options: arguments of the source. Every benchmark takes "path", its file or folder.
        data_dir: folder of the benchmark files; by default that in the environment variable ELPO_DATA.
        domain: "math", "science" or "code": which endless source "generated" is.

    Raises:
        ValueError: an unknown name, split or option, or no data folder.
        FileNotFoundError: the file is not there.
    """
    check_dataset(dataset, split, options, domain)
    if dataset == GENERATED:
        return _generated(split, options, domain)
    if dataset in BENCHMARKS:
        return _benchmark(dataset, split, dict(options or {}), data_dir)
    path = Path(dataset)
    if not path.is_file():
        raise FileNotFoundError(f"dataset={dataset!r}: there is no file {path}")
    return _records(str(path.resolve()), split, path.stat().st_mtime_ns)


def _names(domain: str) -> list[str]:
    return [name for name, benchmark in BENCHMARKS.items() if benchmark.domain == domain]


def _without_path(options: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (options or {}).items() if name != "path"}


def _benchmark(name: str, split: str, options: Mapping[str, Any], data_dir: str | None) -> TaskSource:
    path, given = options.get("path"), _without_path(options)
    versions: tuple[tuple[str, int], ...] = ()
    if not given.get("hub"):
        files, _ = BENCHMARKS[name].locate(split, path=path, data_dir=data_dir, options=given)
        versions = tuple((str(file.resolve()), file.stat().st_mtime_ns) for file in files)
    return _opened(name, split, json.dumps(options, sort_keys=True), data_dir, versions)


@functools.lru_cache(maxsize=16)
def _opened(
    name: str, split: str, options: str, data_dir: str | None, versions: tuple[tuple[str, int], ...]
) -> TaskSource:
    """`versions` is only there to tell versions of the files apart."""
    given = json.loads(options)
    path = given.pop("path", None)
    return BENCHMARKS[name].open(split, path=path, data_dir=data_dir, options=given)


def _generated(split: str, options: Mapping[str, Any] | None, domain: str) -> TaskSource:
    return _cached_generated(split, json.dumps(dict(options or {}), sort_keys=True), domain)


@functools.lru_cache(maxsize=64)
def _cached_generated(split: str, options: str, domain: str) -> TaskSource:
    module, name = _GENERATORS[domain]
    try:
        source: TaskSource = getattr(importlib.import_module(module), name)(split, **json.loads(options))
    except TypeError as error:
        raise ValueError(f"dataset_options={options} do not fit dataset='generated': {error}") from error
    return source


@functools.lru_cache(maxsize=16)
def _records(path: str, split: str, modified_ns: int) -> TaskSource:
    """`modified_ns` is only there to tell versions of a file apart."""
    return RecordSource(path, split)
