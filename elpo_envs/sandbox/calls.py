"""How a backend makes a call on a process of its own: with a second attempt, and in a thread without blocking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from elpo_envs.sandbox.base import Execution, SandboxError
from elpo_envs.sandbox.piped import PipedProcess

_ATTEMPTS = 2
_CANCEL_S = 0.02


def call_persistently(call: Callable[[], Execution], drop: Callable[[], None]) -> Execution:
    """Make `call`, and once more where it raises SandboxError, after `drop`; a second failure is returned."""
    failure: SandboxError | None = None
    for _ in range(_ATTEMPTS):
        try:
            return call()
        except SandboxError as error:
            failure = error
            drop()
    return Execution(f"SandboxError: {failure}", "sandbox_failure")


async def call_in_thread(
    call: Callable[[], Execution], process: Callable[[], PipedProcess | None], undo: Callable[[], None]
) -> Execution:
    """Make `call` in a thread, without blocking the event loop. If cancelled, it is ended at once.

    Args:
        call: what to do.
        process: tells which process the call uses at the moment, if any.
        undo: takes back what a cancelled call did; called after the end of `call`.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix="elpo-sandbox")
    under_way = executor.submit(call)
    executor.shutdown(wait=False)
    try:
        return await asyncio.wrap_future(under_way)
    except asyncio.CancelledError:
        while not under_way.done():
            if (used := process()) is not None:
                used.kill()  # which ends the call, or its first attempt
            wait([under_way], _CANCEL_S)
        undo()
        raise
