"""The sandbox alone: branches, latency, memory, and other projects' Python tools beside it.

    python -m benchmarks.sandbox [--quick] [--repeats 5] [--json PATH]
        [--sandbox fork] [--only branches,latency,crowd,memory,long,peers]
        [--gem-python PATH] [--skyrl-python PATH]

A branch is `restore` of a snapshot and one small call, until its result is there. Limits are what the operating
system needs for the same: a bare child behind pipes that runs the code with `exec`, and `os.fork` of such a
child. The peers are a new `python -c` that repeats all calls, and the Python tools of GEM and skyrl-gym: give
the interpreters of the environments that have `gem-llm` and `skyrl-gym` installed, here or as
ELPO_GEM_PYTHON and ELPO_SKYRL_PYTHON. `--threads` has no effect here.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import sandbox_branches, sandbox_latency, sandbox_memory, sandbox_peers
from benchmarks.measure import Options, Ratio, Report, Row, Sample, interleave, parse_options
from benchmarks.sandbox_branches import COMPUTING, HOLDING, LOOK, SUM, Contestants, Counts
from elpo_envs.sandbox import make_sandbox

THINKING = ((0.005, 400), (0.05, 100), (0.0, 400))
"""Seconds before each call, and calls a round."""
WIDTH = 16
CROWD = 64
CROWD_THINK_S = 0.5
SNAPSHOTS = 200
GROUPS = ("branches", "latency", "crowd", "memory", "long", "peers")


@dataclass(frozen=True)
class Target:
    """A figure to reach: at least `bound`, or at most."""

    name: str
    value: float
    bound: float
    unit: str
    at_least: bool

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def to_json(self) -> dict[str, Any]:
        sign = ">=" if self.at_least else "<="
        return {"target": f"{sign} {self.bound:g} {self.unit}", "median": self.value, "met": self.met}


@dataclass
class Run:
    """One run of the benchmark, and what it found so far."""

    backend: str
    options: Options
    report: Report
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def quick(self) -> bool:
        return self.options.quick

    def measure(self, group: str, contestants: Contestants) -> dict[str, dict[str, Sample]]:
        """Run a group and add a row for each figure, which is named "unit" or "quantity, unit"."""
        result = interleave({name: run for name, (_, run) in contestants.items()}, self.options.repeats)
        for name, (role, _) in contestants.items():
            for figure, sample in result[name].items():
                quantity, _, unit = figure.rpartition(", ")
                self.report.add(Row(f"{name}: {quantity}" if quantity else name, role, unit, sample, group))
        return result

    def ratio(self, group: str, name: str, above: Sample, below: Sample) -> Sample:
        self.report.ratios.append(Ratio(name, above.over(below), group))
        return above.over(below)

    def target(self, name: str, sample: Sample, bound: float, unit: str, at_least: bool = True) -> None:
        self.targets.append(Target(name, sample.median, bound, unit, at_least))


def branches(run: Run) -> None:
    """Branches a second of a session with something in it, and of one that computed."""
    serial, at_once, deep = "a session holding sympy and 10 MiB", f"the same, {WIDTH} at once", "after 4 sympy calls"
    counts = Counts(6, 32, 1) if run.quick else Counts(200, 320, 2)
    with sandbox_branches.serial_branches(run.backend, HOLDING, LOOK, counts) as contestants:
        result = run.measure(serial, contestants)
    run.target(f"{serial}: serial", _rate(result, "restore + call"), 200, "branches/s")
    _branch_ratios(run, serial, result)
    with sandbox_branches.branches_at_once(run.backend, HOLDING, LOOK, WIDTH, counts.at_once) as contestants:
        result = run.measure(at_once, contestants)
    limit = f"os.fork of {WIDTH} bare children + call"
    for way in (f"{WIDTH} threads", f"{WIDTH} coroutines"):
        ours = _rate(result, f"restore + call, {way}")
        run.target(f"{serial}: {way}", ours, 120, "branches/s")
        run.ratio(at_once, f"{way} / {limit}", ours, _rate(result, limit))
    with sandbox_branches.serial_branches(run.backend, COMPUTING, SUM, counts) as contestants:
        result = run.measure(deep, contestants)
    gain = _branch_ratios(run, deep, result)
    run.target(f"{deep}: restore + call / subprocess, one script", gain, 50, "times")


def _rate(result: Mapping[str, Mapping[str, Sample]], name: str) -> Sample:
    return result[name]["branches/s"]


def _branch_ratios(run: Run, group: str, result: Mapping[str, Mapping[str, Sample]]) -> Sample:
    """Ours over each of the others; returns the one over a single script."""
    ours = _rate(result, "restore + call")
    ratios = {
        name: run.ratio(group, f"restore + call / {name}", ours, _rate(result, name))
        for name in ("os.fork of a bare child + call", "subprocess, one script", "subprocess, call by call")
    }
    return ratios["subprocess, one script"]


def latency(run: Run) -> None:
    """`x = 1`, as an agent calls, with pauses in which caches go cold, and as fast as it goes."""
    for think_s, count in THINKING:
        group = f"x = 1 after {think_s * 1000:g} ms of thinking" if think_s else "x = 1 back to back"
        with sandbox_latency.single_calls(run.backend, think_s, 20 if run.quick else count) as contestants:
            result = run.measure(group, contestants)
        ours = result["call"]["p50, us"]
        if not think_s:
            run.target(group, ours, 500, "us", at_least=False)
        run.ratio(group, "call and snapshot / call", result["call and snapshot"]["p50, us"], ours)
        for name in ("exec in a bare child behind pipes", "os.fork of a bare child + exec"):
            run.ratio(group, f"call / {name}", ours, result[name]["p50, us"])


def crowd(run: Run) -> None:
    """Latency while many sessions run."""
    for group, think_s, calls in (
        (f"{CROWD} sessions thinking {CROWD_THINK_S:g} s on average", CROWD_THINK_S, 2 if run.quick else 8),
        (f"{CROWD} sessions back to back", 0.0, 2 if run.quick else 10),
    ):
        with sandbox_latency.crowded_calls(run.backend, CROWD, calls, think_s) as contestants:
            result = run.measure(group, contestants)
        limit = f"exec in {CROWD} bare children"
        for way in ("threads", "coroutines"):
            ours = result[f"call, {CROWD} {way}"]
            for figure in ("p50, us", "p99, us"):
                run.ratio(group, f"call, {way} / {limit}, {figure[:3]}", ours[figure], result[limit][figure])


def memory(run: Run) -> None:
    """What an idle snapshot holds."""
    if reason := sandbox_memory.cannot_measure(run.backend):
        run.notes.append(f"memory: skipped, {reason}")
        return
    count = 10 if run.quick else SNAPSHOTS
    group = f"{count} idle snapshots of a session holding sympy and 10 MiB"
    with sandbox_memory.idle_snapshots(run.backend, HOLDING, LOOK, count) as contestants:
        result = run.measure(group, contestants)
    limit = "os.fork of a bare child, paused"
    for figure in ("Pss each, MiB", "the machine's memory each, MiB"):
        for name in ("snapshots of branches", "snapshots of calls in a row"):
            run.target(f"{name}: {figure}", result[name][figure], 3, "MiB", at_least=False)
            run.ratio(group, f"{name} / {limit}, {figure}", result[name][figure], result[limit][figure])


def long(run: Run) -> None:
    """Thousands of snapshots made and released; one run, whatever `--repeats` says."""
    if reason := sandbox_memory.cannot_measure(run.backend):
        run.notes.append(f"long run: skipped, {reason}")
        return
    total = 200 if run.quick else 10_000
    readings = sandbox_memory.long_run(run.backend, total, HOLDING, LOOK)
    group = f"{total:,} snapshots made and released, {sandbox_memory.EPISODE} at a time"
    columns: Mapping[tuple[str, str], Callable[[sandbox_memory.Usage], float]] = {
        ("processes", ""): lambda usage: usage.processes,
        ("Pss", "MiB"): lambda usage: usage.pss_mb,
        ("page tables", "MiB"): lambda usage: usage.tables_mb,
        ("available on the machine", "MiB"): lambda usage: usage.available_mb,
        ("file descriptors", ""): lambda usage: usage.descriptors,
    }
    for (quantity, unit), read in columns.items():
        for name, usages in (("before", readings[:1]), ("during", readings[1:-1]), ("after", readings[-1:])):
            values = tuple(read(usage) for _, usage in usages)
            run.report.add(Row(f"{quantity} {name}", "ours", unit, Sample(values), group))
    first, last = readings[0][1], readings[-1][1]
    run.target("long run: more processes than before", Sample((last.processes - first.processes,)), 0, "", False)
    run.target("long run: more memory (Pss) than before", Sample((last.pss_mb - first.pss_mb,)), 20, "MiB", False)


def peers(run: Run, gem: Path | None, skyrl: Path | None) -> None:
    """Other projects' Python tools."""
    present, absent = sandbox_peers.find_peers(gem, skyrl)
    run.notes += [f"peer {peer.label}: skipped, {peer.reason}" for peer in absent]
    ours_count, peer_count = (3, 1) if run.quick else (100, 20)
    with sandbox_peers.running(present) as running:
        sessions = []
        for session in running:
            if (problem := session.problem()) is None:
                sessions.append(session)
            else:
                run.notes.append(f"peer {session.peer.label}: skipped, its tool does not work here: {problem}")
        versions = {session.peer.label: session.version for session in sessions}
        run.report.settings = {**run.report.settings, "peers": versions}
        for group, (calls, unit) in sandbox_peers.KINDS.items():
            slower = 5 if calls is COMPUTING else len(calls)
            counts = (max(1, ours_count // slower), max(1, peer_count // slower))
            with sandbox_peers.conversations(run.backend, sessions, calls, *counts, unit) as contestants:
                result = run.measure(group, contestants)
            ours = result["fresh session for each"][unit]
            for name in result:
                if name != "fresh session for each":
                    run.ratio(group, f"fresh session for each / {name}", ours, result[name][unit])


def _finish(run: Run, console: Console) -> None:
    targets = {target.name: target.to_json() for target in run.targets}
    capabilities = make_sandbox(run.backend).capabilities.to_json()  # as they turned out to be
    run.report.settings = {**run.report.settings, **capabilities, "targets": targets, "skipped": run.notes}
    run.report.finish(run.options)
    for target in run.targets:
        stated = target.to_json()
        console.print(f"{'met' if target.met else 'MISSED'}: {target.name}: {target.value:.4g} ({stated['target']})")
    for note in run.notes:
        console.print(note)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--sandbox", default="fork")
    parser.add_argument("--only", default=",".join(GROUPS))
    parser.add_argument("--gem-python", type=Path)
    parser.add_argument("--skyrl-python", type=Path)
    own, rest = parser.parse_known_args(argv)
    options = parse_options(f"{__doc__.splitlines()[0]} Also: {parser.format_usage().partition(' ')[2]}", rest)
    chosen = own.only.split(",")
    if unknown := sorted(set(chosen) - set(GROUPS)):
        parser.error(f"--only {', '.join(unknown)} is not among {', '.join(GROUPS)}")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in the sandbox: limits and peers fork without threads
    sandbox = make_sandbox(own.sandbox)
    settings = {"sandbox": sandbox.name, "kernel": platform.release()}
    run = Run(own.sandbox, options, Report("sandbox", settings))
    gem, skyrl = (
        sandbox_peers.interpreter(own.gem_python, "ELPO_GEM_PYTHON"),
        sandbox_peers.interpreter(own.skyrl_python, "ELPO_SKYRL_PYTHON"),
    )
    groups: Mapping[str, Callable[[], None]] = {
        "branches": lambda: branches(run),
        "latency": lambda: latency(run),
        "crowd": lambda: crowd(run),
        "memory": lambda: memory(run),
        "long": lambda: long(run),
        "peers": lambda: peers(run, gem, skyrl),
    }
    for name, group in groups.items():
        if name in chosen:
            group()
    _finish(run, Console())


if __name__ == "__main__":
    main()
