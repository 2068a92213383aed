"""What one call takes: alone, with and without time to think before it, and while many sessions run."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial

from benchmarks.interpreters import Call, bare_session
from benchmarks.measure import Contestant
from benchmarks.sandbox_branches import Contestants, checked, together, together_async
from elpo_envs.sandbox import Execution, Sandbox, make_sandbox

ASSIGN = Call("x = 1", "x")
PRELOADED = "import numpy, sympy"

_ECHO = """
import os
while byte := os.read(0, 1):
    os.write(1, byte)
"""
_FORK = """
import os, time
while byte := os.read(0, 1):
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    os.write(1, b"%16.9f" % (time.perf_counter() - start))
"""


def percentile(seconds: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile, in microseconds."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1e6


def figures(seconds: Sequence[float]) -> dict[str, float]:
    return {"p50, us": percentile(seconds, 50), "p99, us": percentile(seconds, 99)}


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def latencies(once: Callable[[], float], count: int, think_s: float) -> dict[str, float]:
    """Percentiles of what `once` says it took, after `think_s` seconds of doing nothing before each."""
    seconds = []
    for _ in range(count):
        if think_s:
            time.sleep(think_s)
        seconds.append(once())
    return figures(seconds)


def assign(sandbox: Sandbox) -> None:
    _require_empty(sandbox.run(ASSIGN.statement))


def assign_and_keep(sandbox: Sandbox) -> None:
    """The call after which a tree search can branch, so that the next one has to run on a fork."""
    assign(sandbox)
    sandbox.snapshot()


async def assign_async(sandbox: Sandbox) -> None:
    _require_empty(await sandbox.run_async(ASSIGN.statement))


def _require_empty(done: Execution) -> None:
    if done.kind != "empty":
        raise RuntimeError(f"the call {ASSIGN.statement!r} gave {done}")


@contextmanager
def piped(program: str, answer_bytes: int) -> Iterator[Callable[[], bytes]]:
    """A Python program behind a pair of pipes; a call sends it one byte and returns its answer."""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        sink, source = process.stdin, process.stdout

        def ask() -> bytes:
            sink.write(b".")
            return bytes(source.read(answer_bytes))

        yield ask


@contextmanager
def single_calls(backend: str, think_s: float, count: int) -> Iterator[Contestants]:
    """`x = 1` in one session, and the parts that such a call cannot do without."""
    with (
        closing(make_sandbox(backend)) as sandbox,
        closing(make_sandbox(backend)) as branching,
        bare_session() as bare,
        piped(_ECHO, 1) as echo,
        piped(_FORK, 16) as fork,
        piped(PRELOADED + _FORK, 16) as fork_large,
    ):
        for session in (sandbox, branching):
            session.open(0)
            checked(session.run(ASSIGN.code).text, "1")

        def contestant(once: Callable[[], float]) -> Contestant:
            return lambda _: latencies(once, count, think_s)

        yield {
            "call": ("ours", contestant(lambda: timed(lambda: assign(sandbox)))),
            "call and snapshot": ("ours", contestant(lambda: timed(lambda: assign_and_keep(branching)))),
            "exec in a bare child behind pipes": ("limit", contestant(lambda: timed(lambda: bare(ASSIGN, False)))),
            "os.fork of a bare child + exec": ("limit", contestant(lambda: timed(lambda: bare(ASSIGN, True)))),
            "one byte to a child and back": ("limit", contestant(lambda: timed(echo))),
            "os.fork + exit + wait alone": ("limit", contestant(lambda: float(fork()))),
            "the same holding numpy and sympy": ("limit", contestant(lambda: float(fork_large()))),
        }


@contextmanager
def crowded_calls(backend: str, sessions: int, calls: int, think_s: float) -> Iterator[Contestants]:
    """`calls` in each of many sessions at once; each thinks between its calls for `think_s` on average."""
    with ExitStack() as stack:
        sandboxes = [stack.enter_context(closing(make_sandbox(backend))) for _ in range(sessions)]
        bares = [stack.enter_context(bare_session()) for _ in range(sessions)]
        for seed, sandbox in enumerate(sandboxes):
            sandbox.open(seed)
            checked(sandbox.run(ASSIGN.code).text, "1")

        def pauses(seed: int) -> Iterator[float]:
            """Uniform between half and one and a half of the mean; the first spreads the sessions out."""
            generator = random.Random(seed)
            yield generator.uniform(0, think_s)
            while True:
                yield generator.uniform(0.5, 1.5) * think_s

        def crowd(works: Sequence[Callable[[], object]]) -> dict[str, float]:
            seconds: list[float] = []

            def job(seed: int) -> None:
                for _, pause in zip(range(calls), pauses(seed), strict=False):
                    time.sleep(pause)
                    seconds.append(timed(works[seed]))

            together([partial(job, seed) for seed in range(sessions)])
            return figures(seconds)

        def crowd_async(_: int) -> dict[str, float]:
            seconds: list[float] = []

            async def job(seed: int) -> None:
                for _, pause in zip(range(calls), pauses(seed), strict=False):
                    await asyncio.sleep(pause)
                    start = time.perf_counter()
                    await assign_async(sandboxes[seed])
                    seconds.append(time.perf_counter() - start)

            together_async([partial(job, seed) for seed in range(sessions)])
            return figures(seconds)

        yield {
            f"call, {sessions} threads": ("ours", lambda _: crowd([partial(assign, sandbox) for sandbox in sandboxes])),
            f"call, {sessions} coroutines": ("ours", crowd_async),
            f"exec in {sessions} bare children": (
                "limit",
                lambda _: crowd([partial(bare, ASSIGN, False) for bare in bares]),
            ),
        }
