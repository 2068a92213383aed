"""Where attempts are made: a pool of sessions, a witness among them, and a look at the machine from outside."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import random
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from _attempt import Attempt

import elpo_envs
from elpo_envs.sandbox.base import Execution, Limits
from elpo_envs.sandbox.fork.pool import Pool
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
from elpo_envs.sandbox.jail.profiles import rules
from elpo_envs.sandbox.jail.syscalls import machine
from elpo_envs.sandbox.language import LanguagePolicy

PRELOAD = ("numpy", "sympy")
_HIGHEST_CALL = 470
_LEAKED = 40
_SETTLES_S = 20.0
_SOON_S = 1.0
_AT_ONCE = 10
_AT_REST = 6  # launcher, zygote, template, and of the witness its first state, its last and the next
_WITNESS_SEED = 11

_WITNESS_OPENS = """
import os, random
def count():
    n = 0
    while True:
        n += 1
        yield n
counting = count()
held = {"a": [1, 2, 3]}
again = held["a"]
print(os.readlink("/proc/self/fd/5"))
"""
_WITNESS_GOES_ON = """
again.append(len(again))
print(next(counting), random.random(), held["a"][-1], len(held["a"]))
"""
_FILES_OPEN = """
with open("kept", "w") as file:
    file.write("kept")
file = open("growing", "w+")
"""
_FILES_GO_ON = """
file.write("x")
file.flush()
print(open("kept").read(), open("growing").read().count("x"))
"""


class Witness:
    """A session that goes on while others are attacked from, and knows what every call must give.

    Args:
        pool: where it lives.
        files: whether it has files, too.
    """

    def __init__(self, pool: Pool, files: bool) -> None:
        self._files = files
        self._go_on = _WITNESS_GOES_ON + _FILES_GO_ON * files
        self._sandbox = ForkSandbox(Limits(wall_s=60, cpu_s=10), pool=pool)
        self._sandbox.open(_WITNESS_SEED)
        # The name is another each time, so a witness whose calls had to be repeated is refused, and noticed.
        opened = self._sandbox.run(_WITNESS_OPENS + _FILES_OPEN * files)
        assert opened.kind == "ok", opened
        self.frozen = opened.text.replace("/live/", "/frozen/")
        self._random = random.Random(_WITNESS_SEED)
        self._calls = 0
        self._start = self._sandbox.snapshot()
        self._beginning = self._expected()
        assert self._sandbox.run(self._go_on).text == self._beginning

    def _expected(self) -> str:
        self._calls += 1
        n = self._calls
        return f"{n} {self._random.random()!r} {n + 2} {n + 3}" + f"\nkept {n}" * self._files

    @property
    def pid(self) -> int:
        """The number of the process that holds its state, on this machine."""
        live = self._sandbox.snapshot().live
        assert live is not None
        return int(live._pid)

    def problem(self) -> str:
        """What is wrong with how it goes on, or ""."""
        expected, found = self._expected(), self._sandbox.run(self._go_on)
        return "" if found == Execution(expected, "ok") else f"the witness gave {found!r} in place of {expected!r}"

    def problem_at_its_start(self) -> str:
        """What is wrong with a branch from its first snapshot, or ""."""
        branch = ForkSandbox(self._sandbox.limits, pool=self._sandbox._own_pool)
        branch.restore(self._start)
        found = branch.run(self._go_on)
        branch.close()
        return "" if found.text == self._beginning else f"the witness's start gave {found!r}"


class Ground:
    """A pool with some layers switched off, a witness, a file to be kept from all, and somebody who listens.

    Args:
        disabled: layers of the jail to leave out.
        preload: modules that sessions find imported.
    """

    def __init__(self, disabled: frozenset[str] = frozenset(), preload: tuple[str, ...] = ()) -> None:
        self.outside = Path(tempfile.mkdtemp(prefix="elpo-outside-")).resolve()
        self.canary = self.outside / "canary"
        self.canary.write_text("not for sessions")
        self._listener = socket.create_server(("127.0.0.1", 0))
        os.environ["ELPO_TEST"] = f"elpo-secret={secrets.token_hex(16)}"
        with _leaking(self.canary):
            self.pool = Pool(preload, disabled)
        self.launcher = self.pool._zygote.pid
        self.zygote = next(pid for pid, parent in self.family().items() if parent == self.launcher)
        # Without Landlock the filter lets nobody write, and without the filter files may change while they are copied.
        self.witness = Witness(self.pool, disabled.isdisjoint(("landlock", "seccomp", "fork_grants", "no_new_privs")))
        problem = self.witness.problem()
        assert not problem, problem
        self.pool.flush()
        assert wait_until(lambda: len(self.family()) == _AT_REST), self.family()
        self._settled = self.counts()

    def close(self) -> None:
        self.pool.shut_down()
        self._listener.close()
        del os.environ["ELPO_TEST"]
        shutil.rmtree(self.outside)

    # --- what is there ----------------------------------------------------------------------------------------

    def family(self) -> dict[int, int]:
        """Every process that came of the launcher, orphans included, and its parent. No session can leave."""
        if not Path("/proc/self/task", str(os.getpid()), "children").exists():
            return family(self.launcher)  # slower, on kernels that do not list children
        found, pending = {}, [(self.launcher, os.getpid())]
        while pending:
            process, parent = pending.pop()
            with contextlib.suppress(OSError):  # it has just ended
                if b") Z" not in _read(f"/proc/{process}/stat"):
                    found[process] = parent
                children = _read(f"/proc/{process}/task/{process}/children").split()
                pending += [(int(child), process) for child in children]
        return found

    def directories(self) -> int:
        """How many scratch directories there are, seen from where the zygote stands."""
        root = Path(f"/proc/{self.zygote}/root{self.pool._root}")
        return sum(_folders(root / name) for name in ("live", "frozen"))

    def counts(self) -> tuple[int, int, int]:
        """Processes, scratch directories, and descriptors of the host."""
        return len(self.family()), self.directories(), _entries(Path("/proc/self/fd"))

    def problems(self) -> list[str]:
        """What an attempt has left behind, or has done to others."""
        found = []
        if not self.pool.alive():
            return ["the zygote is dead"]
        if problem := self.witness.problem():
            found.append(problem)
        self.pool.flush()
        if not (wait_until(self._at_rest, _SOON_S) or (self._let_go() and wait_until(self._at_rest))):
            found.append(f"processes, directories and descriptors of the host: {self._settled} became {self.counts()}")
        if sorted(self.outside.iterdir()) != [self.canary] or self.canary.read_text() != "not for sessions":
            found.append(f"files outside were changed: {sorted(self.outside.iterdir())}")
        return found

    def _at_rest(self) -> bool:
        return all(now <= before for now, before in zip(self.counts(), self._settled, strict=True))

    def _let_go(self) -> bool:
        """Have processes ended that only the garbage of the host refers to."""
        gc.collect()
        self.pool.flush()
        return True

    # --- attempts ---------------------------------------------------------------------------------------------

    def prepared(self, code: str) -> str:
        """The code with what it may know about this run."""
        known = {
            "CANARY": self.canary,
            "OUTSIDE": self.outside,
            "HOST_PID": os.getpid(),
            "ZYGOTE_PID": self.zygote,
            "WITNESS_PID": self.witness.pid,
            "WITNESS_FROZEN": self.witness.frozen,
            "PORT": self._listener.getsockname()[1],
            "REPOSITORY": Path(elpo_envs.__path__[0]),
            "REFUSED": sorted(_refused()),
        }
        for name, value in known.items():
            code = code.replace(f"@{name}@", str(value))
        return code

    async def make(self, attempt: Attempt, restricted: bool) -> list[Execution]:
        """Make an attempt in a session of its own; returns what its calls gave."""
        limits = Limits(wall_s=attempt.wall_s, cpu_s=attempt.wall_s, memory_mb=512)
        sandbox = ForkSandbox(limits, pool=self.pool, language=LanguagePolicy() if restricted else None)
        sandbox.open(5)
        try:
            return [await sandbox.run_async(self.prepared(code)) for code in attempt.calls]
        finally:
            sandbox.close()

    def verdict(self, attempt: Attempt) -> list[str]:
        """Make an attempt in all its ways, then look around; returns all that is wrong, if anything is."""
        found = []
        for restricted in attempt.modes:
            found += judged(attempt, restricted, asyncio.run(self.make(attempt, restricted)))
        return found + self.problems()

    def verdicts(self, attempts: Iterable[Attempt]) -> list[str]:
        """The same for attempts that take long, some at once."""

        async def all_made() -> list[list[str]]:
            gate = asyncio.Semaphore(_AT_ONCE)

            async def made(attempt: Attempt, restricted: bool) -> list[str]:
                async with gate:
                    return judged(attempt, restricted, await self.make(attempt, restricted))

            return await asyncio.gather(*(made(attempt, way) for attempt in attempts for way in attempt.modes))

        return [problem for found in asyncio.run(all_made()) for problem in found] + self.problems()


@contextlib.contextmanager
def _leaking(path: Path) -> Iterator[None]:
    """While a program that is started gets a descriptor of a file that it should never have got."""
    started = subprocess.Popen
    with path.open("rb") as file:
        leaked = fcntl.fcntl(file, fcntl.F_DUPFD, _LEAKED)  # above all that the sandbox uses itself

        def start(*arguments: Any, pass_fds: Sequence[int], **options: Any) -> Any:
            return started(*arguments, pass_fds=[*pass_fds, leaked], **options)

        try:
            with mock.patch("elpo_envs.sandbox.fork.pool.subprocess.Popen", start):
                yield
        finally:
            os.close(leaked)


@contextlib.contextmanager
def ground(disabled: frozenset[str] = frozenset(), preload: tuple[str, ...] = ()) -> Iterator[Ground]:
    """A `Ground` for a while."""
    made = Ground(disabled, preload)
    try:
        yield made
    finally:
        made.close()


def judged(attempt: Attempt, restricted: bool, executions: list[Execution]) -> list[str]:
    """What is wrong with how the calls of an attempt ended."""
    shown = "\n".join(execution.text for execution in executions)
    lines = {line.split(":")[0].split()[0] for line in shown.splitlines() if line.strip()}
    way = f"{attempt.name}, {'restricted' if restricted else 'raw'}"
    found = []
    if "ESCAPED" in lines:
        found.append(f"{way}: it escaped: {shown}")
    if attempt.layer == "language" and ("REACHED" in lines) == restricted:
        found.append(f"{way}: the language layer {'let it through' if restricted else 'is not what stops it'}: {shown}")
    last = executions[-1]
    # What code may do to its own session can look like our failure; only what is asked for is checked then.
    if attempt.kinds and last.kind not in attempt.kinds:
        found.append(f"{way}: it ended with {last!r}, not with one of {attempt.kinds}")
    if any(len(execution.text) > Limits().output_chars for execution in executions):
        found.append(f"{way}: it gave more text than a call may")
    return found


def wait_until(holds: Callable[[], bool], seconds: float = _SETTLES_S) -> bool:
    """Whether `holds` came true before that time, which only guards against hanging, was over."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def family(launcher: int) -> dict[int, int]:
    """Processes in the launcher's session of processes that have not ended, and their parents."""
    found = {}
    for path in Path("/proc").iterdir():
        if (entry := path.name).isdigit():
            with contextlib.suppress(OSError):
                state, parent, _, leader = _read(f"/proc/{entry}/stat").rpartition(b")")[2].split()[:4]
                if int(leader) == launcher and state != b"Z":
                    found[int(entry)] = int(parent)
    return found


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def _entries(path: Path) -> int:
    return sum(1 for _ in path.iterdir())


def _folders(path: Path) -> int:
    try:
        return _entries(path)
    except PermissionError:
        return path.stat().st_nlink - 2  # who may not list it can still count


def _refused() -> set[int]:
    """Numbers of system calls that the filter does not mention."""
    name = machine()
    assert name is not None
    mentioned = {rule.number for rule in rules(name, "python", landlock=True, notify=True)}
    return set(range(_HIGHEST_CALL)) - mentioned
