"""A decode that stays open: requests join the running batch between its steps, and leave it when they are finished."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from elpo_agent.engines.decode_loop import DecodeLoop
from elpo_agent.engines.draws import Row
from elpo_agent.policy import SampledTurn, SampleRequest


class _Engine(Protocol):
    """What the decode needs of the engine that opened it."""

    max_batch: int

    def rows(self, request: SampleRequest, number: int) -> list[Row]: ...

    def notice_updates(self) -> int: ...

    def decoding(self) -> AbstractContextManager[None]: ...


class JoinedDecode:
    """See `elpo_agent.policy.OpenDecode`; made by `TransformersPolicy.open_decode`.

    Rows wait in the order of their requests while `max_batch` are live. Each step admits as many as there is room for,
    prefills them together, and then draws a token for every live row.
    """

    def __init__(self, engine: _Engine, loop: DecodeLoop) -> None:
        self._engine, self._loop = engine, loop
        self._queue: deque[Row] = deque()
        self._open: dict[int, dict[int, SampledTurn]] = {}  # finished samples of the requests that are not
        self._wanted: dict[int, tuple[Row, ...]] = {}  # all samples of these requests
        self._tickets = 0
        self._version = engine.notice_updates()
        self._broken = ""

    @property
    def live_rows(self) -> int:
        """Rows in the running batch."""
        return self._loop.live

    @property
    def queued_rows(self) -> int:
        """Rows that wait for room."""
        return len(self._queue)

    def add(self, requests: Sequence[SampleRequest]) -> list[int]:
        """See `OpenDecode.add`."""
        self._check()
        first = self._tickets
        rows = [tuple(self._engine.rows(request, first + i)) for i, request in enumerate(requests)]
        self._tickets += len(rows)
        tickets = list(range(first, self._tickets))
        for ticket, own in zip(tickets, rows, strict=True):
            self._wanted[ticket], self._open[ticket] = own, {}
            self._queue.extend(own)
        return tickets

    def step(self, max_steps: int) -> list[tuple[int, list[SampledTurn]]]:
        """See `OpenDecode.step`."""
        if max_steps < 1:
            raise ValueError(f"max_steps={max_steps} takes no step; give at least 1")
        self._check()
        finished = [(ticket, self._close(ticket)) for ticket, own in list(self._wanted.items()) if not own]
        try:
            with self._engine.decoding():
                for _ in range(max_steps):
                    self._admit()
                    for row, turn in self._loop.step():
                        self._open[row.request][row.sample] = turn
                        if len(self._open[row.request]) == len(self._wanted[row.request]):
                            finished.append((row.request, self._close(row.request)))
                    if not (self._loop.live or self._queue):
                        break
        except BaseException as error:
            # Rows and caches may disagree now.
            self._broken = f"an earlier step failed ({type(error).__name__}: {error})"
            raise
        return finished

    def cancel(self, ticket: int) -> int:
        """See `OpenDecode.cancel`."""
        if ticket not in self._wanted:
            raise ValueError(f"ticket={ticket} is not open: it was never given out, or its turns were taken")
        own = set(self._wanted.pop(ticket))
        drawn = sum(len(turn.ids) for turn in self._open.pop(ticket).values())
        self._queue = deque(row for row in self._queue if row not in own)
        if self._broken:
            return drawn
        with self._engine.decoding():
            return drawn + self._loop.drop(own)

    def _admit(self) -> None:
        room = min(len(self._queue), self._engine.max_batch - self._loop.live)
        if room > 0:
            self._loop.admit([self._queue.popleft() for _ in range(room)])

    def _close(self, ticket: int) -> list[SampledTurn]:
        turns = self._open.pop(ticket)
        return [turns[row.sample] for row in self._wanted.pop(ticket)]

    def _check(self) -> None:
        """Raises ValueError where the decode cannot go on."""
        version = self._engine.notice_updates()
        if version != self._version and not self._broken:
            if self._wanted:
                self._broken = (
                    f"the model's weights changed while {len(self._wanted)} of its requests were unfinished; take "
                    "their turns before an update"
                )
            else:
                self._version = version
        if self._broken:
            raise ValueError(f"this decode cannot go on: {self._broken}; open a new one")
