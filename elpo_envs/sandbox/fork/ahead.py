"""The processes that a sandbox has forked before the calls come that will run on them."""

from __future__ import annotations

import weakref
from functools import partial

from elpo_envs.sandbox.base import SandboxError
from elpo_envs.sandbox.fork.errands import Errand, errand
from elpo_envs.sandbox.fork.pool import Pool
from elpo_envs.sandbox.fork.process import Process


class ForkedAhead:
    """At most two: one for the session's next call, and one for the next branch from a state."""

    def __init__(self) -> None:
        self._next: Process | None = None
        self._order: Errand | None = None  # to fork that, where nobody has yet
        self._anchor: weakref.ref[Process] | None = None  # the process whose state was restored last
        self._branching = False  # whether it was restored twice in a row, and so perhaps again
        self._spare: Process | None = None  # forked from it for that

    @property
    def has_next(self) -> bool:
        """Whether a process for the next call is there, or ordered."""
        return self._next is not None or self._order is not None

    def forget(self) -> None:
        """Give all of them up."""
        self.give_up_next()
        self._anchor = self._spare = None
        self._branching = False

    def restored(self, pool: Pool | None, holder: Process | None) -> None:
        """Prepare for a call on the state that `holder` holds, which the session has just become."""
        self._branching = holder is not None and self._anchor is not None and self._anchor() is holder
        if not self._branching:
            self._anchor = None if holder is None else weakref.ref(holder)
            self._spare = None
        if pool is not None and holder is not None and self._next is None:
            self._next, self._spare = self._spare, None
            if self._next is None or not self._next.alive:
                self.fork_next(pool, holder)

    def fork_next(self, pool: Pool, parent: Process) -> None:
        """Have the next process forked as soon as `parent` is frozen, so that the next call finds it ready."""
        self._next = _fork(pool, parent)

    def order_next(self, pool: Pool, parent: Process) -> None:
        """`fork_next`, by another thread: nobody waits for that."""
        self._order = errand(partial(self.fork_next, pool, parent))

    def fork_spare(self, pool: Pool) -> None:
        """Have another process forked for one more branch from the state that was restored again and again."""
        anchor = None if self._anchor is None else self._anchor()
        if self._branching and self._spare is None and anchor is not None:
            self._spare = _fork(pool, anchor)

    def settle_next(self) -> None:
        """Have the next process forked, if that was ordered and nobody has got to it."""
        order, self._order = self._order, None
        if order is not None:
            order.finish()

    def give_up_next(self) -> None:
        """Have no process for the next call."""
        order, self._order = self._order, None
        if order is not None:
            order.cancel()
        self._next = None

    def take_next(self, pool: Pool) -> Process | None:
        """The process for the next call, if there is a living one."""
        process, self._next = self._next, None
        return process if process is not None and process.alive and pool.owns(process) else None


def _fork(pool: Pool, parent: Process) -> Process | None:
    """None where that fails: the call that needs the process will see."""
    pool.touch(parent)
    try:
        return pool.fork(parent, parent.settings)
    except SandboxError:
        return None
