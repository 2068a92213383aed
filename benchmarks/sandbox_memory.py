"""What snapshots hold: memory for each, and whether everything comes back after thousands of them (Linux only).

Memory is taken two ways, since neither is the whole truth. Pss, summed over every process below this one, counts
each page once, divided among those that share it, but not what the kernel keeps for a process (page tables,
its stack). What the machine has available less counts that too, and everything else that runs on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.interpreters import Call
from benchmarks.sandbox_branches import Contestants, prepared
from elpo_envs.sandbox import SandboxSnapshot, make_sandbox

EPISODE = 20
"""Snapshots alive together in the long run: one of each call of an episode."""
_SETTLE_S = 10.0

_PAUSED_FORKS = """
import os, signal, sys
scope = {}
exec(sys.argv[1], scope)
print("ready", flush=True)
for line in sys.stdin:
    children = []
    for _ in range(int(line)):
        child = os.fork()
        if child == 0:
            exec(sys.argv[2], scope)
            os.write(1, b".")
            signal.pause()
            os._exit(0)
        children.append(child)
    sys.stdin.readline()
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    print("ready", flush=True)
"""


@dataclass(frozen=True)
class Usage:
    """What this process and those below it hold.

    Attributes:
        processes: processes below this one, those that ended and were not reaped included.
        pss_mb: their proportional set sizes, in MiB, with this process.
        tables_mb: their page tables, in MiB, which no size of theirs includes.
        available_mb: what the whole machine has available, in MiB.
        descriptors: open file descriptors of this process.
    """

    processes: int
    pss_mb: float
    tables_mb: float
    available_mb: float
    descriptors: int


def cannot_measure(backend: str) -> str | None:
    """Why the memory of this backend's processes cannot be measured here, or None."""
    if not sys.platform.startswith("linux"):
        return f"memory is read from /proc, which {sys.platform} does not have"
    with closing(make_sandbox(backend)) as sandbox:
        prepared(sandbox, ())
        sandbox.run("x = 1")
        try:
            usage()
        except PermissionError:
            return "the memory of jailed processes can only be read with the capability SYS_PTRACE (as root)"
    return None


def usage() -> Usage:
    """Read it now."""
    pids = _below(os.getpid())
    everyone = [os.getpid(), *pids]
    pss_mb = sum(_process_mb(pid, "smaps_rollup", "Pss:") for pid in everyone)
    tables_mb = sum(_process_mb(pid, "status", "VmPTE:") for pid in everyone)
    return Usage(len(pids), pss_mb, tables_mb, _available_mb(), len(list(Path("/proc/self/fd").iterdir())))


def settled(processes: int | None = None) -> Usage:
    """Read it once the number of processes is at most the given one, or stands still; waits up to 10 s."""
    deadline = time.monotonic() + _SETTLE_S
    last = -1
    while time.monotonic() < deadline:
        now = len(_below(os.getpid()))
        if now == last if processes is None else now <= processes:
            break
        last = now
        time.sleep(0.2)
    return usage()


def _below(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it ended in the meantime
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _process_mb(pid: int, file: str, field: str) -> float:
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it ended in the meantime
    return _kilobytes(text, field) / 1024


def _available_mb() -> float:
    return _kilobytes(Path("/proc/meminfo").read_text(), "MemAvailable:") / 1024


def _kilobytes(text: str, field: str) -> int:
    """0 where the field is absent, as for a process that waits to be reaped."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(field)), 0)


def growth(make: Callable[[], object], drop: Callable[[], object], count: int) -> dict[str, float]:
    """What each of `count` things that `make` makes together adds; `drop` drops them again."""
    before = settled()
    start = time.perf_counter()
    make()
    seconds = time.perf_counter() - start
    after = settled()
    drop()
    settled(before.processes)
    return {
        "Pss each, MiB": (after.pss_mb - before.pss_mb) / count,
        "page tables each, MiB": (after.tables_mb - before.tables_mb) / count,
        "the machine's memory each, MiB": (before.available_mb - after.available_mb) / count,
        "processes each, ": (after.processes - before.processes) / count,
        "time to make each, ms": seconds / count * 1000,
    }


@contextmanager
def idle_snapshots(backend: str, before: Sequence[Call], last: Call, count: int) -> Iterator[Contestants]:
    """`count` snapshots alive at once: branches of one session, and calls in a row; beside paused forks."""
    held: list[SandboxSnapshot] = []
    statements = "\n".join(call.statement for call in before)
    with closing(make_sandbox(backend)) as sandbox, _paused_forks(statements, last.statement) as (fork, kill):
        root = prepared(sandbox, before)

        def siblings() -> None:
            for _ in range(count):
                sandbox.restore(root)
                sandbox.run(last.code)
                held.append(sandbox.snapshot())

        def chain() -> None:
            sandbox.restore(root)
            for _ in range(count):
                sandbox.run(last.code)
                held.append(sandbox.snapshot())

        def drop() -> None:
            held.clear()
            sandbox.restore(root)

        yield {
            "snapshots of branches": ("ours", lambda _: growth(siblings, drop, count)),
            "snapshots of calls in a row": ("ours", lambda _: growth(chain, drop, count)),
            "os.fork of a bare child, paused": ("limit", lambda _: growth(lambda: fork(count), kill, count)),
        }


@contextmanager
def _paused_forks(before: str, last: str) -> Iterator[tuple[Callable[[int], None], Callable[[], None]]]:
    with subprocess.Popen(
        [sys.executable, "-c", _PAUSED_FORKS, before, last], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        sink, source = process.stdin, process.stdout

        def fork(count: int) -> None:
            sink.write(f"{count}\n".encode())
            for _ in range(count):
                source.read(1)

        def kill() -> None:
            sink.write(b"\n")
            source.readline()

        source.readline()
        try:
            yield fork, kill
        finally:
            sink.close()  # it ends what it forked, and itself


def long_run(backend: str, total: int, before: Sequence[Call], last: Call) -> list[tuple[int, Usage]]:
    """Make and release `total` snapshots, an episode's at a time; the usage after each tenth of them.

    Everything is released before each reading, so that equal readings mean that nothing was left behind.
    """
    readings: list[tuple[int, Usage]] = []
    with closing(make_sandbox(backend)) as sandbox:
        root = prepared(sandbox, before)

        def read(done: int) -> None:
            sandbox.restore(root)
            readings.append((done, settled(readings[0][1].processes if readings else None)))

        def episode() -> None:
            sandbox.restore(root)
            held = []
            for _ in range(EPISODE):
                sandbox.run(last.code)
                held.append(sandbox.snapshot())

        episode()  # so that what a sandbox keeps for its next branch is there before the first reading, too
        read(0)
        done = 0
        while done < total:
            episode()
            done += EPISODE
            if done % max(EPISODE, total // 10) == 0:
                read(done)
    return readings
