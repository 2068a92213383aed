"""From a data set's name, or a file, to its tasks."""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elpo_envs.tasks.base import TaskSource
from elpo_envs.tasks.records import SUFFIXES, RecordSource

GENERATED = "generated"
DATA_VARIABLE = "ELPO_DATA"

# domain -> module and class of its endless source
_GENERATORS = {
    "math": ("elpo_envs.tasks.generated", "GeneratedSource"),
    "science": ("elpo_envs.tasks.science", "ScienceSource"),
    "code": ("elpo_envs.tasks.programs", "ProgramSource"),
}

# name -> split -> file in the data folder
BENCHMARKS: dict[str, dict[str, str]] = {
    "gsm8k": {"train": "gsm8k_train.jsonl.gz", "test": "gsm8k_test.jsonl.gz"},
    "math": {"train": "math_train.jsonl.gz"},
    "math500": {"test": "math500.jsonl.gz"},
    "aime24": {"test": "aime24.jsonl.gz"},
    "aime25": {"test": "aime25.jsonl.gz"},
    "amc23": {"test": "amc23.jsonl.gz"},
}


def check_dataset(dataset: str, split: str, options: Mapping[str, Any] | None = None, domain: str = "math") -> None:
    """Raise ValueError, with the choices, unless `load_source` knows what these mean; reads no file."""
    if dataset == GENERATED:
        _generated(split, options, domain)
        return
    if options:
        raise ValueError(f"dataset_options={dict(options)} is for dataset='generated'; dataset={dataset!r} has none")
    if dataset in BENCHMARKS:
        if split not in BENCHMARKS[dataset]:
            raise ValueError(f"split={split!r} of {dataset} does not exist; choose {', '.join(BENCHMARKS[dataset])}")
    elif not str(dataset).endswith(SUFFIXES):
        names = ", ".join([GENERATED, *BENCHMARKS])
        raise ValueError(f"dataset={dataset!r} is unknown; choose {names}, or a file ending in {', '.join(SUFFIXES)}")


def load_source(
    dataset: str = GENERATED,
    split: str = "train",
    options: Mapping[str, Any] | None = None,
    data_dir: str | None = None,
    domain: str = "math",
) -> TaskSource:
    """The tasks of `dataset`; files are read once per process, and again when they change.

    Args:
        dataset: "generated", a name in `BENCHMARKS`, or a path.
        split: "train", "validation" or "test"; for a path, what its tasks are labelled with.
        options: arguments of the source; only "generated" has any.
        data_dir: folder of the benchmark files; by default that in the environment variable ELPO_DATA.
        domain: "math", "science" or "code": which endless source "generated" is.

    Raises:
        ValueError: an unknown name, split or option, or no data folder.
        FileNotFoundError: the file is not there.
    """
    check_dataset(dataset, split, options, domain)
    if dataset == GENERATED:
        return _generated(split, options, domain)
    path = Path(dataset)
    if dataset in BENCHMARKS:
        folder = data_dir or os.environ.get(DATA_VARIABLE)
        if not folder:
            raise ValueError(f"dataset={dataset!r} needs a folder: set data_dir or the variable {DATA_VARIABLE}")
        path = Path(folder) / BENCHMARKS[dataset][split]
    if not path.is_file():
        raise FileNotFoundError(f"dataset={dataset!r}: there is no file {path}")
    name = dataset if dataset in BENCHMARKS else None
    return _records(str(path.resolve()), split, name, path.stat().st_mtime_ns)


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
def _records(path: str, split: str, name: str | None, modified_ns: int) -> TaskSource:
    """`modified_ns` is only there to tell versions of a file apart."""
    return RecordSource(path, split, name)
