"""Keep Ctrl-C and SIGTERM out of moments that must be whole."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

_Result = TypeVar("_Result")


class Terminated(KeyboardInterrupt):
    """SIGTERM asked the process to end. Whoever puts things right at Ctrl-C thus does at this too."""


class _Terminate:
    """The handler that raises `Terminated`; from then on SIGTERM has its default effect."""

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated


@contextmanager
def raising_terminated() -> Iterator[None]:
    """In the block, the first SIGTERM raises `Terminated` in the main thread, and the second ends the process at once.

    Outside the main thread, and where SIGTERM has been given another effect, this does nothing.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _Terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Held:
    """The signals that came while they were held back, and what to do at the first."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._act: Callable[[], object] | None = None

    def act(self, do: Callable[[], object]) -> None:
        """Do this at a signal, or now, if there was one; a second Ctrl-C is raised at once then."""
        self._act = do
        if self.numbers:
            do()

    def rest(self) -> None:
        """Do nothing at a signal any more but note it."""
        self._act = None

    def note(self, number: int, frame: object) -> None:
        self.numbers.append(number)
        if self.numbers.count(signal.SIGTERM) > 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        if self._act is not None:
            if len(self.numbers) > 1:
                raise KeyboardInterrupt
            self._act()


@contextmanager
def uninterrupted() -> Iterator[Held]:
    """Hold SIGINT back until the block is done, and SIGTERM where it is to raise `Terminated`; then they have their
    usual effects. A second SIGTERM is not held back.

    An interrupt inside a log writer's queue leaves its lock taken, and closing it would wait for ever. Outside the
    main thread, where Python delivers no signals, and where the handler is not Python's (ignored, or set from C),
    this does nothing.
    """
    handler = signal.getsignal(signal.SIGTERM)
    ours = isinstance(handler, _Terminate) or isinstance(getattr(handler, "__self__", None), Held)
    interrupts = [signal.SIGINT] if callable(signal.getsignal(signal.SIGINT)) else []
    with _holding(*interrupts, *([signal.SIGTERM] if ours else [])) as held:
        yield held


@contextmanager
def _holding(*numbers: signal.Signals) -> Iterator[Held]:
    held = Held()
    if not _in_main_thread():
        yield held
        return
    before = [(number, signal.signal(number, held.note)) for number in numbers]
    try:
        yield held
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        if held.numbers:
            # SIGTERM decides how the process ends, whichever came first.
            signal.raise_signal(max(held.numbers, key=lambda number: number == signal.SIGTERM))


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def run_coroutine(main: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """`asyncio.run(main())`, where Ctrl-C and `Terminated` cancel the coroutine and cannot tear the event loop's making
    apart.

    In `asyncio.run`, one that comes while the loop is made leaves half of it, and complaints on standard error.
    """
    numbers = [signal.SIGINT] if signal.getsignal(signal.SIGINT) is signal.default_int_handler else []
    if isinstance(signal.getsignal(signal.SIGTERM), _Terminate):
        numbers.append(signal.SIGTERM)
    if not numbers:
        return asyncio.run(main())  # somebody else sees to interrupts
    with _holding(*numbers) as held:

        async def cancellable() -> _Result:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            held.act(lambda: loop.call_soon_threadsafe(task.cancel))
            try:
                return await main()
            finally:
                held.rest()  # before the loop is closed, which could not be told of a signal

        with asyncio.Runner() as runner:
            return runner.run(cancellable())
