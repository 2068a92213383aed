"""Repeated, interleaved measurements of contestants side by side, and their report as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

Role = Literal["ours", "limit", "peer"]
Figures = Mapping[str, float]
Contestant = Callable[[int], Figures]
"""Runs once, given the number of the round, and returns named figures."""

DEFAULT_REPEATS = 5


@dataclass(frozen=True)
class Stopwatch:
    """Seconds since `start`: on the clock, and of this process's CPU time.

    For work without waiting, in one thread, the two are equal on an idle machine; on a busy one the second
    says more about the work.
    """

    wall: float
    cpu: float

    @staticmethod
    def start() -> Stopwatch:
        return Stopwatch(time.perf_counter(), time.process_time())

    def read(self) -> Stopwatch:
        return Stopwatch(time.perf_counter() - self.wall, time.process_time() - self.cpu)


@dataclass(frozen=True)
class Sample:
    """The figures of several rounds, one of each."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def over(self, other: Sample) -> Sample:
        """Ratios round by round: what slows a whole round down (other work on the machine) cancels out."""
        return Sample(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def to_json(self) -> dict[str, Any]:
        return {"median": self.median, "low": self.low, "high": self.high, "values": list(self.values)}


@dataclass(frozen=True)
class Row:
    """A measured figure; `role` says whether it is ours, a limit or a peer's."""

    name: str
    role: Role
    unit: str
    sample: Sample
    group: str = ""


@dataclass(frozen=True)
class Ratio:
    """How one row's figures relate to another's, round by round; `name` says which way round."""

    name: str
    sample: Sample
    group: str = ""


@dataclass(frozen=True)
class Options:
    """The command-line options that all benchmarks share.

    Attributes:
        repeats: measured rounds, after one that is not counted.
        threads: CPU threads for torch.
        quick: a smoke run of seconds, whose figures mean nothing.
        json_path: where to write the report, or None.
    """

    repeats: int
    threads: int
    quick: bool
    json_path: Path | None


@dataclass
class Report:
    """Everything that one benchmark has to say."""

    benchmark: str
    settings: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    load_at_start: float | None = field(default_factory=lambda: _load())

    def add(self, row: Row) -> Sample:
        self.rows.append(row)
        return row.sample

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "settings": dict(self.settings),
            "machine": {
                "architecture": platform.machine(),
                "system": platform.system(),
                "cores": os.cpu_count(),
                "load_average_1min_at_start": self.load_at_start,
                "load_average_1min_at_end": _load(),
                "python": platform.python_version(),
                **{name: _version(name) for name in ("gymnasium", "torch", "transformers")},
            },
            "rows": [
                {"group": r.group, "name": r.name, "role": r.role, "unit": r.unit, **r.sample.to_json()}
                for r in self.rows
            ],
            "ratios": [{"group": r.group, "name": r.name, **r.sample.to_json()} for r in self.ratios],
        }

    def finish(self, options: Options) -> None:
        """Print the tables, and write the JSON where asked for."""
        console = Console()
        figures = _table(f"{self.benchmark}: medians of {options.repeats} rounds", ("what", "role"), ("unit",))
        ratios = _table("ratios within each round", ("ratio",), ())
        for heading, r in _grouped(self.rows):
            _begin_group(figures, heading)
            figures.add_row(r.name, r.role, _short(r.sample.median), _spread(r.sample), r.unit)
        for heading, ratio in _grouped(self.ratios):
            _begin_group(ratios, heading)
            ratios.add_row(ratio.name, _short(ratio.sample.median), _spread(ratio.sample))
        console.print(figures, ratios)
        if options.quick:
            console.print("--quick: a smoke run; these figures mean nothing")
        if options.json_path is not None:
            options.json_path.parent.mkdir(parents=True, exist_ok=True)
            options.json_path.write_text(json.dumps(self.to_json(), indent=1) + "\n")


def parse_options(description: str, argv: Sequence[str] | None = None) -> Options:
    """Read the shared options; `--quick` takes two rounds unless `--repeats` says otherwise."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, help=f"measured rounds (default {DEFAULT_REPEATS}; 2 with --quick)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for torch (default 1)")
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds; its figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the report there")
    given = parser.parse_args(argv)
    repeats = given.repeats if given.repeats is not None else 2 if given.quick else DEFAULT_REPEATS
    if repeats < 1 or given.threads < 1:
        parser.error(f"--repeats {repeats} and --threads {given.threads} must both be at least 1")
    return Options(repeats, given.threads, given.quick, given.json)


def interleave(
    contestants: Mapping[str, Contestant], repeats: int, warm_up: bool = True
) -> dict[str, dict[str, Sample]]:
    """Run all contestants in turn, round after round (A B A B ...); figures by contestant and name.

    Interleaving spreads whatever else the machine does over all of them. With `warm_up`, a first round (number
    -1) is run and not counted.
    """
    rounds: dict[str, list[Figures]] = {name: [] for name in contestants}
    with Console(stderr=True).status("") as status:
        for number in range(-1 if warm_up else 0, repeats):
            for name, run in contestants.items():
                status.update(f"round {number + 1} of {repeats}: {name}" if number >= 0 else f"warming up: {name}")
                figures = run(number)
                if number >= 0:
                    rounds[name].append(figures)
    return {
        name: {key: Sample(tuple(figures[key] for figures in own)) for key in own[0]} for name, own in rounds.items()
    }


def _grouped(rows: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Each row with its group's name where a group begins, and "" after that."""
    last = ""
    for row in rows:
        yield ("" if row.group == last else row.group), row
        last = row.group


def _table(title: str, before: Sequence[str], after: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in before:
        table.add_column(column)
    for column in ("median", "min - max", *after):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _begin_group(table: Table, heading: str) -> None:
    if heading:
        table.add_section()
        table.add_row(f"[bold]{heading}[/bold]")


def _spread(sample: Sample) -> str:
    return f"{_short(sample.low)} - {_short(sample.high)}"


def _short(value: float) -> str:
    """Three significant digits; whole numbers from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _version(package: str) -> str | None:
    """None where it is not installed: not every benchmark needs all of them."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
