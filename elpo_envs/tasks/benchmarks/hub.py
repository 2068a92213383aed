"""Published data sets from the hub, through the optional package `datasets`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from elpo_envs.tasks.benchmarks.rows import Row
from elpo_envs.tasks.records import MissingExtraError


@dataclass(frozen=True)
class Hub:
    """A data set on the hub.

    Attributes:
        dataset: "owner/name".
        revision: the commit this package was written against, "main" where none is known.
        splits: our split -> the data set's.
        configs: configurations; the rows of all of them count, in this order. () is the only one there is.
        data_files: files of JSON lines, for data sets whose own loading script is no longer run.
        gated: whether one must accept terms and log in.
    """

    dataset: str
    revision: str
    splits: Mapping[str, str]
    configs: tuple[str, ...] = ()
    data_files: tuple[str, ...] = ()
    gated: bool = field(default=False)


class Table(Protocol):
    """The part of `datasets.Dataset` that is used."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class HubPart:
    """One configuration of a data set.

    Attributes:
        origin: what to call it in messages.
        group: the configuration's name, "" for the only one.
        table: its rows, decoded when asked for.
    """

    origin: str
    group: str
    table: Table

    def row(self, index: int) -> Row:
        """The row at `index`."""
        return Row(self.table[index], f"{self.origin}, row {index}", self.group, index)

    def rows(self) -> Iterator[Row]:
        """Every row in order."""
        return (self.row(index) for index in range(len(self.table)))


def load_hub(hub: Hub, split: str, where: object, revision: object = None) -> tuple[HubPart, ...]:
    """The tables of one split.

    Args:
        hub: the data set.
        split: a key of `hub.splits`.
        where: True downloads (or takes from the local cache) the recorded revision; text is a local folder
            that holds the data set in the same form.
        revision: another revision.

    Raises:
        ValueError: an option of the wrong kind, or a split that the data set lacks.
        MissingExtraError: `datasets` is not installed.
        FileNotFoundError: no such local folder.
    """
    if where is not True and not isinstance(where, str):
        raise ValueError(f"option hub={where!r} must be true or a local folder")
    if revision is not None and not isinstance(revision, str):
        raise ValueError(f"option hub_revision={revision!r} must be text, a commit of {hub.dataset}")
    if split not in hub.splits:
        raise ValueError(f"split={split!r} is not on the hub ({hub.dataset}); choose {', '.join(hub.splits)}")
    if isinstance(where, str) and not Path(where).is_dir():
        raise FileNotFoundError(f"option hub={where!r}: there is no such folder")
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise MissingExtraError(f"reading {hub.dataset} needs datasets: pip install 'elpo[hub]'") from error
    commit = revision if revision is not None else hub.revision
    local = isinstance(where, str)
    root = where if isinstance(where, str) else f"hf://datasets/{hub.dataset}@{commit}"
    origin = where if isinstance(where, str) else f"{hub.dataset}@{commit}"
    theirs = hub.splits[split]
    if hub.data_files:
        return tuple(
            HubPart(f"{origin}/{name}", "", datasets.load_dataset("json", data_files=f"{root}/{name}", split="train"))
            for name in hub.data_files
        )
    source = where if isinstance(where, str) else hub.dataset
    keywords: dict[str, Any] = {"split": theirs} if local else {"split": theirs, "revision": commit}
    configs: tuple[str | None, ...] = hub.configs or (None,)
    if local and datasets.get_dataset_config_names(source) == ["default"]:
        configs = (None,)
    return tuple(
        HubPart(
            f"{origin}, {config}" if config else origin, config or "", datasets.load_dataset(source, config, **keywords)
        )
        for config in configs
    )
