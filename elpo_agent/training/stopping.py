"""How the ranks of a run end together where one of them, or all, are told to end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from elpo_agent.interrupts import Held, Terminated, uninterrupted
from elpo_agent.ranks import ALONE, Ranks

T = TypeVar("T")


class Stopping:
    """Puts Ctrl-C and SIGTERM off to the moments at which all ranks of a run talk to each other.

    A rank that left at once would leave the others waiting for it, and nothing could be saved, which takes all of them.
    So it breaks off its own rollouts, tells the others at their next exchange, and all of them raise there. A run of
    one rank is interrupted wherever it is.

    Attributes:
        agreed: whether all ranks have raised, at the same place.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._held: Held | None = None
        self.agreed = False

    @property
    def asked(self) -> bool:
        """Whether this rank was told to end while it was `watching`."""
        return bool(self._held and self._held.numbers)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """In the block, signals wait for `gathered`; a second one does not."""
        if self._ranks.alone:
            yield
            return
        with uninterrupted() as self._held:
            yield

    def break_off(self, cancel: Callable[[], object]) -> None:
        """Have `cancel` called at a signal, or now, if there was one: it ends work that talks to no other rank."""
        if self._held is not None:
            self._held.act(cancel)

    def gathered(self, value: T) -> list[T]:
        """What every rank gives, in the order of ranks.

        Raises:
            KeyboardInterrupt: on every rank, if one was told to end; `Terminated` if one was told so by SIGTERM.
            RankLostError: a rank is gone.
        """
        numbers = [] if self._held is None else self._held.numbers
        told = self._ranks.gathered((value, tuple(numbers)))
        signals = {number for _, heard in told for number in heard}
        if signals:
            self.agreed = True
            numbers.clear()  # no more is to come of them
            raise Terminated if signal.SIGTERM in signals else KeyboardInterrupt
        return [given for given, _ in told]
