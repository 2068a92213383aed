"""Branches of a session: restore a snapshot and make one small call, one after the other and many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.interpreters import BareSession, Call, bare_session, replay_by_calls, run_script
from benchmarks.measure import Contestant, Role
from elpo_envs.sandbox import Sandbox, SandboxSnapshot, make_sandbox

Contestants = Mapping[str, tuple[Role, Contestant]]

HOLDING = (
    Call("import numpy as np\nimport sympy\nversion = sympy.__version__", "version"),
    Call("x, y, z = sympy.symbols('x y z')\nexpression = sympy.expand((x + y + z) ** 4)", "expression"),
    Call("data = np.arange(1_310_720, dtype=float)\nsize = data.nbytes", "size"),
)
"""A session that holds sympy, an expression of 15 terms and an array of 10 MiB."""
LOOK = Call("v = float(data[7]) + len(expression.args)", "v")
"""A small call in such a session."""

COMPUTING = (
    Call("import sympy\nx, y = sympy.symbols('x y')", "x"),
    Call("p = sympy.expand((x + y) ** 12)", "p"),
    Call("q = sympy.factor(p)", "q"),
    Call("r = sympy.solve(x**3 - 6*x**2 + 11*x - 6, x)", "r"),
)
"""Four calls that import sympy and compute: the depth at which the peer is compared."""
SUM = Call("v = sum(r)", "v")


@dataclass(frozen=True)
class Counts:
    """How many branches a round takes: ours and the fork's one by one, all at once together, and the peers'."""

    serial: int
    at_once: int
    peer: int


def together(jobs: Sequence[Callable[[], None]]) -> float:
    """Seconds until all jobs are done, each in a thread of its own."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        start = time.perf_counter()
        for future in [pool.submit(job) for job in jobs]:
            future.result()
        return time.perf_counter() - start


def together_async(jobs: Sequence[Callable[[], Awaitable[None]]]) -> float:
    """The same with coroutines in one event loop."""

    async def gather() -> float:
        start = time.perf_counter()
        await asyncio.gather(*(job() for job in jobs))
        return time.perf_counter() - start

    return asyncio.run(gather())


def prepared(sandbox: Sandbox, calls: Sequence[Call]) -> SandboxSnapshot:
    """A snapshot of a session that has made `calls`."""
    sandbox.open(0)
    for call in calls:
        done = sandbox.run(call.code)
        if done.kind != "ok":
            raise RuntimeError(f"the session could not be prepared: {call.code!r} gave {done.text!r}")
    return sandbox.snapshot()


def prepare_bare(bare: BareSession, calls: Sequence[Call]) -> None:
    for call in calls:
        bare(call, False)


def rate(work: Callable[[], object], count: int) -> dict[str, float]:
    """Branches per second, one after the other."""
    start = time.perf_counter()
    for _ in range(count):
        work()
    return {"branches/s": count / (time.perf_counter() - start)}


def agree(answers: Sequence[str]) -> None:
    """Raise RuntimeError unless all contestants gave the same result."""
    if len(set(answers)) != 1:
        raise RuntimeError(f"the contestants disagree on the result of the branch: {sorted(set(answers))}")


def checked(text: str, wanted: str) -> None:
    """Raise RuntimeError unless a call gave what it should have."""
    if text.strip() != wanted:
        raise RuntimeError(f"a call gave {text!r} instead of {wanted!r}")


@contextmanager
def serial_branches(backend: str, before: Sequence[Call], last: Call, counts: Counts) -> Iterator[Contestants]:
    """Branches one after the other, beside `os.fork` with nothing around it and repeating the calls."""
    script = [*before, last]
    with closing(make_sandbox(backend)) as sandbox, bare_session() as bare:
        frozen = prepared(sandbox, before)
        prepare_bare(bare, before)

        def branch() -> str:
            sandbox.restore(frozen)
            return sandbox.run(last.code).text.strip()

        agree([branch(), bare(last, True), run_script(script), replay_by_calls(script)])
        yield {
            "restore + call": ("ours", lambda _: rate(branch, counts.serial)),
            "os.fork of a bare child + call": ("limit", lambda _: rate(lambda: bare(last, True), counts.serial)),
            "subprocess, one script": ("peer", lambda _: rate(lambda: run_script(script), counts.peer)),
            "subprocess, call by call": (
                "peer",
                lambda _: rate(lambda: replay_by_calls(script), max(1, counts.peer // 2)),
            ),
        }


@contextmanager
def branches_at_once(backend: str, before: Sequence[Call], last: Call, width: int, count: int) -> Iterator[Contestants]:
    """`count` branches of one snapshot in `width` sandboxes at once; the limit has `width` bare children."""
    each = max(1, count // width)
    with ExitStack() as stack:
        sandboxes = [stack.enter_context(closing(make_sandbox(backend))) for _ in range(width)]
        frozen = prepared(sandboxes[0], before)
        bares = [stack.enter_context(bare_session()) for _ in range(width)]
        for bare in bares:
            prepare_bare(bare, before)
        wanted = bares[0](last, True)

        def branch(sandbox: Sandbox) -> None:
            for _ in range(each):
                sandbox.restore(frozen)
                checked(sandbox.run(last.code).text, wanted)

        async def branch_async(sandbox: Sandbox) -> None:
            for _ in range(each):
                sandbox.restore(frozen)
                checked((await sandbox.run_async(last.code)).text, wanted)

        def branch_bare(bare: BareSession) -> None:
            for _ in range(each):
                checked(bare(last, True), wanted)

        def threads(_: int) -> dict[str, float]:
            return {"branches/s": each * width / together([partial(branch, sandbox) for sandbox in sandboxes])}

        def coroutines(_: int) -> dict[str, float]:
            return {
                "branches/s": each * width / together_async([partial(branch_async, sandbox) for sandbox in sandboxes])
            }

        def limit(_: int) -> dict[str, float]:
            return {"branches/s": each * width / together([partial(branch_bare, bare) for bare in bares])}

        yield {
            f"restore + call, {width} threads": ("ours", threads),
            f"restore + call, {width} coroutines": ("ours", coroutines),
            f"os.fork of {width} bare children + call": ("limit", limit),
        }
