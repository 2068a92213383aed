"""Tens of thousands of calls over many sessions, with branches, kills and time-outs: all answers right, nothing left.

`PYTHONPATH=. python tests/test_fork_soak.py --calls 200000` runs it as long as wanted and prints a report as JSON;
so does `ELPO_SOAK_CALLS=200000 pytest -m slow -s tests/test_fork_soak.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import signal
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from _fork_watch import descriptors, needs_fork, nodes, resident_mb, scratch_directories, wait_until, zygote

from elpo_envs.sandbox import Execution, Limits, SandboxSnapshot
from elpo_envs.sandbox.fork.pool import Cap, Pool
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
from elpo_envs.sandbox.language import LanguagePolicy

SESSIONS = 200
SNAPSHOTS = 150
AT_ONCE = 4
LONGEST = 40  # calls of a session, for it may have to be repeated
LIMITS = Limits(wall_s=30.0, cpu_s=30.0, memory_mb=512)
IMPATIENT = Limits(wall_s=0.2, cpu_s=30.0, memory_mb=512)
CAP = Cap(500, 4000)

SET_UP = "import random\nx, f, g = 0, open('f', 'w+'), iter(range(10**9))"
USES = ("add", "draw", "write", "next", "allocate", "fail")
USE_WEIGHTS = (6, 4, 3, 4, 1, 1)


@dataclass
class Expected:
    """What a session must answer: its state, kept by the host."""

    generator: random.Random
    x: int = 0
    written: int = 0
    taken: int = 0
    calls: int = 0

    def copy(self) -> Expected:
        generator = random.Random()
        generator.setstate(self.generator.getstate())
        return Expected(generator, self.x, self.written, self.taken, self.calls)

    def apply(self, use: str, amount: int) -> tuple[str, str]:
        """The code for `use`, and what it must show; an error is told by its last line."""
        self.calls += 1
        if use == "add":
            self.x += amount
            return f"x += {amount}\nx", str(self.x)
        if use == "draw":
            return "random.random()", repr(self.generator.random())
        if use == "write":
            self.written += amount
            return f"print(f.write('w' * {amount}), f.seek(0), len(f.read()))", f"{amount} 0 {self.written}"
        if use == "next":
            self.taken += 1
            return "next(g)", str(self.taken - 1)
        if use == "allocate":
            return f"kept = bytes({amount} << 16)\nlen(kept)", str(amount << 16)
        return "x / 0", "ZeroDivisionError: division by zero"


class Counting(ForkSandbox):
    """Counts the calls that were repeated to rebuild its session."""

    repeated = 0

    def _repeat(self, *arguments: Any) -> Any:
        self.repeated += 1
        return super()._repeat(*arguments)


@dataclass
class Session:
    box: Counting
    expected: Expected
    snapshots: list[tuple[SandboxSnapshot, Expected]]  # shared by all sessions with the same language


@dataclass
class Report:
    """What a soak did and found."""

    calls: int = 0
    branches: int = 0
    timeouts: int = 0
    crashes: int = 0
    kills: int = 0
    lost_to_kills: int = 0
    rebuilt: int = 0  # calls before which the session's earlier ones were repeated: its process was killed or evicted
    most_processes: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    memory_mb: list[dict[str, float]] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        percentiles = statistics.quantiles(self.latencies_s, n=100)
        p50, p99 = percentiles[49], percentiles[98]
        numbers = {name: value for name, value in vars(self).items() if name != "latencies_s"}
        latency = {"p50": p50 * 1e3, "p99": p99 * 1e3, "most": max(self.latencies_s) * 1e3, "p99_over_p50": p99 / p50}
        return numbers | {"latency_ms": latency, "calls_per_s": self.calls / self.seconds}


class Soak:
    """Uses sessions at random and compares every answer with the one expected."""

    def __init__(self, calls: int, seed: int) -> None:
        self.report = Report()
        self._calls = calls
        self._chance = random.Random(seed)
        self._pool = Pool(cap=CAP)
        self._snapshots: tuple[list[tuple[SandboxSnapshot, Expected]], ...] = ([], [])
        self._last_kill = -1.0

    def run(self) -> Report:
        descriptors_before = descriptors()
        start = time.monotonic()
        asyncio.run(self._use_all())
        self.report.seconds = time.monotonic() - start
        self._let_go(descriptors_before)
        self._pool.shut_down()
        return self.report

    async def _use_all(self) -> None:
        free: asyncio.Queue[Session] = asyncio.Queue()
        for number in range(SESSIONS):
            box = Counting(LIMITS, self._pool, LanguagePolicy() if number % 2 else None)
            free.put_nowait(Session(box, Expected(random.Random()), self._snapshots[number % 2]))
        await asyncio.gather(*(self._work(free) for _ in range(AT_ONCE)))

    async def _work(self, free: asyncio.Queue[Session]) -> None:
        while self.report.calls < self._calls and len(self.report.wrong) < 10:
            session = free.get_nowait()
            for _ in range(self._chance.randrange(1, 10)):
                await self._step(session)
            free.put_nowait(session)
            if self.report.calls // 1000 >= len(self.report.memory_mb):
                self._weigh()

    async def _step(self, session: Session) -> None:
        chance = self._chance.random()
        if session.expected.calls == 0 or session.expected.calls > LONGEST or chance < 0.01:
            await self._begin(session)
        elif chance < 0.12 and session.snapshots:
            snapshot, expected = self._chance.choice(session.snapshots)
            session.box.restore(snapshot)
            session.expected = expected.copy()
            self.report.branches += 1
        elif chance < 0.13:
            await self._misuse(session)
        elif chance < 0.135:
            self._kill()
        if session.expected.calls:
            await self._use(session)
        if session.expected.calls and self._chance.random() < 0.2:
            session.snapshots.append((session.box.snapshot(), session.expected.copy()))
            if len(session.snapshots) > SNAPSHOTS // 2:
                session.snapshots.pop(self._chance.randrange(len(session.snapshots)))

    async def _begin(self, session: Session) -> None:
        seed = self._chance.getrandbits(32)
        session.box.open(seed)
        session.expected = Expected(random.Random(seed), calls=1)
        self._check(await self._call(session, SET_UP), "", session, SET_UP)

    async def _use(self, session: Session) -> None:
        (use,) = self._chance.choices(USES, USE_WEIGHTS)
        before = session.expected.copy()
        code, shown = session.expected.apply(use, self._chance.randrange(1, 20))
        if not self._check(await self._call(session, code), shown, session, code):
            session.expected = before

    async def _misuse(self, session: Session) -> None:
        """A call that hangs or crashes; it leaves the session as it was."""
        kind = self._chance.choice(["hang", "crash"])
        if kind == "hang":
            session.box.limits = IMPATIENT
            code = self._chance.choice(["x = -1\nwhile True: pass", "import time\nx = -1\ntime.sleep(1000)"])
            done = await session.box.run_async(code)
            session.box.limits = LIMITS
            self.report.timeouts += 1
            right = done.kind == "timeout"
        else:
            code = "x = -1\nimport os\nos._exit(7)"  # half of the sessions may not import `os`
            done = await session.box.run_async(code)
            self.report.crashes += 1
            right = "exit code 7" in done.text or "import of 'os' is not allowed" in done.text
            if "not allowed" in done.text:
                session.expected.x = -1
        if not right and not self._lost(done):
            self.report.wrong.append(f"{kind}: {done}")

    async def _call(self, session: Session, code: str) -> Execution:
        start, repeated = time.monotonic(), session.box.repeated
        done = await session.box.run_async(code)
        self.report.latencies_s.append(time.monotonic() - start)
        self.report.rebuilt += session.box.repeated > repeated
        self.report.calls += 1
        return done

    def _check(self, done: Execution, shown: str, session: Session, code: str) -> bool:
        """Whether the call took place; if not, a kill must be why."""
        if done.text == shown or (done.kind == "error" and done.text.endswith("\n" + shown)):
            return True
        if self._lost(done):
            if code == SET_UP:
                session.expected.calls = 0
            return False
        self.report.wrong.append(f"{code!r}: {done.text!r} instead of {shown!r}")
        session.expected.calls = 0
        return False

    def _lost(self, done: Execution) -> bool:
        lost = "ProcessDied" in done.text and time.monotonic() - self._last_kill < 30
        self.report.lost_to_kills += lost
        return lost

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._chance.choice(nodes(self._pool)), signal.SIGKILL)
        self._last_kill = time.monotonic()
        self.report.kills += 1

    def _weigh(self) -> None:
        gc.collect()
        memory = {name: resident_mb(pid) for name, pid in (("host", os.getpid()), ("zygote", zygote(self._pool)))}
        self.report.memory_mb.append(memory)
        self.report.most_processes = max(self.report.most_processes, len(nodes(self._pool)))

    def _let_go(self, descriptors_before: int) -> None:
        """Release everything and count what stays."""
        for snapshots in self._snapshots:
            snapshots.clear()
        gc.collect()
        self._pool.flush()
        wait_until(lambda: not nodes(self._pool) and not scratch_directories(self._pool))
        self.report.left = {
            "processes": len(nodes(self._pool)),
            "known processes": self._pool.processes(),
            "directories": scratch_directories(self._pool),
            "descriptors": descriptors() - descriptors_before,
            "descriptors of the zygote": descriptors(zygote(self._pool)),
        }


@needs_fork
@pytest.mark.slow
@pytest.mark.timeout(0)
def test_soak() -> None:
    calls = int(os.environ.get("ELPO_SOAK_CALLS", "50000"))
    start = time.monotonic()
    report = Soak(calls, seed=0).run()
    print(json.dumps(report.to_json(), indent=2))
    assert report.wrong == []
    assert report.calls >= calls
    left = dict(report.left)
    assert left.pop("descriptors of the zygote") < 20
    assert left == dict.fromkeys(left, 0)
    assert report.most_processes <= CAP.processes + 2 * AT_ONCE
    settled, *_, last = report.memory_mb[len(report.memory_mb) // 5 :]
    assert last["zygote"] - settled["zygote"] < 10
    assert last["host"] - settled["host"] < 60
    assert time.monotonic() - start < calls * 0.5, "it hangs; no machine is that slow"


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=50_000, help="how many calls to make (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="what is done, and to whom (default: %(default)s)")
    arguments = parser.parse_args()
    print(json.dumps(Soak(arguments.calls, arguments.seed).run().to_json(), indent=2))


if __name__ == "__main__":
    _main()
