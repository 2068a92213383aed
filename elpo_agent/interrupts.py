"""Keep Ctrl-C out of moments that must be whole."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class _Held:
    """The interrupts that came while they were held back, and what to do at the first."""

    def __init__(self) -> None:
        self.count = 0
        self._act: Callable[[], object] | None = None

    def act(self, do: Callable[[], object]) -> None:
        """Do this at an interrupt, or now, if there was one; a second interrupt is raised at once then."""
        self._act = do
        if self.count:
            do()

    def note(self, number: int, frame: object) -> None:
        self.count += 1
        if self._act is not None:
            if self.count > 1:
                raise KeyboardInterrupt
            self._act()


@contextmanager
def uninterrupted() -> Iterator[_Held]:
    """Hold SIGINT back until the block is done; then it has its usual effect, KeyboardInterrupt.

    An interrupt inside a log writer's queue leaves its lock taken, and closing it would wait for ever. Outside the
    main thread, where Python delivers no signals, and where the handler is not Python's (ignored, or set from C),
    this does nothing.
    """
    held = _Held()
    if threading.current_thread() is not threading.main_thread() or not callable(signal.getsignal(signal.SIGINT)):
        yield held
        return
    before = signal.signal(signal.SIGINT, held.note)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)
        if held.count:
            signal.raise_signal(signal.SIGINT)


def run_coroutine(main: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """`asyncio.run(main())`, where Ctrl-C cancels the coroutine and cannot tear the event loop's making apart.

    In `asyncio.run`, one that comes while the loop is made leaves half of it, and complaints on standard error.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return asyncio.run(main())  # somebody else sees to interrupts
    with uninterrupted() as held:

        async def cancellable() -> _Result:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            held.act(lambda: loop.call_soon_threadsafe(task.cancel))
            return await main()

        with asyncio.Runner() as runner:
            return runner.run(cancellable())
