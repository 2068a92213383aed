"""Collects the requests of all coroutines that sample at the same time into one call of the policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from elpo_agent.policy import Policy, SampledTurn, SampleRequest
from elpo_agent.rollout.budget import Account
from elpo_agent.rollout.waiting import Waiting, WalkerKey, check_turns, reserve

# Trips round the event loop between "everybody waits" and the call. Coroutines that were just woken, and
# those that they wake in turn, get to say what they want; a strategy nests a few tasks at most.
_SETTLE = 16


class Batcher:
    """Calls the policy once every live walker waits for it, so that it sees the largest batch there is.

    Requests are ordered by their keys, not by arrival, so the same requests make the same batch whatever
    the tools' timing was. The one exception is `patience_s`: a walker held up longer than that (a slow tool)
    is no longer waited for, which can change the last bits of what the others get.

    Tokens are reserved when a batch goes out, in the order of the keys, and settled when it comes back, so that what
    a request gets of a scarce budget does not depend on timing either.

    The policy runs in the event loop's own thread: everybody waits for it anyway.

    Args:
        policy: the engine.
        patience_s: seconds without any new request before the batch goes ahead without the missing walkers.
        wake: called before that happens: wakes walkers whose tools are done and were not looked at yet, and says
            whether there were any; they get `patience_s` then.
        max_walkers: how many may be `admitted` at a time; None for all.
    """

    def __init__(
        self,
        policy: Policy,
        patience_s: float = 1.0,
        wake: Callable[[], bool] = lambda: False,
        max_walkers: int | None = None,
    ) -> None:
        if not patience_s > 0:
            raise ValueError(f"patience_s={patience_s} must be more than 0 seconds")
        if max_walkers is not None and max_walkers < 1:
            raise ValueError(f"max_walkers={max_walkers} would let none go; give at least 1, or None")
        self.policy = policy
        self.patience_s = patience_s
        self.batch_sizes: list[int] = []
        self._wake = wake
        self._live = 0
        self._waiting: list[Waiting] = []
        self._changes = 0
        self._settling = False
        self._deadline = 0.0  # when the missing walkers are no longer waited for
        self._timer: asyncio.TimerHandle | None = None
        self._max_walkers = max_walkers
        self._admitted = 0
        self._room = max_walkers or 0  # for how many more before the next call; settled when all are waiting
        self._parked: dict[WalkerKey, asyncio.Future[None]] = {}

    @contextmanager
    def walker(self) -> Iterator[None]:
        """Register a walker: while inside, it counts as about to sample unless it is sampling."""
        self._live += 1
        try:
            yield
        finally:
            self._live -= 1
            self._changed()

    @asynccontextmanager
    async def admitted(self, key: WalkerKey) -> AsyncIterator[None]:
        """Register a walker, once there is room among `max_walkers`.

        Who waits for room is let in when all others wait for the policy, in the order of the keys, so that batches do
        not depend on timing.

        Args:
            key: its place among those that wait; different for all that are open at a time.
        """
        if self._max_walkers is not None and self._room <= 0:
            self._parked[key] = place = asyncio.get_running_loop().create_future()
            self._changed()
            try:
                await place
            except asyncio.CancelledError:
                if self._parked.pop(key, None) is None:  # it was let in already
                    self._admitted -= 1
                    self._live -= 1
                    self._changed()
                raise
        else:
            self._room -= 1
            self._admitted += 1
            self._live += 1
        try:
            yield
        finally:
            self._admitted -= 1
            self._live -= 1
            self._changed()

    async def sample(self, key: WalkerKey, request: SampleRequest, tokens: Account | None = None) -> list[SampledTurn]:
        """The request's `n` turns, from the next batch, or fewer where the tokens for more are not to be had now.

        A request is put off to a later batch while what others reserved may yet come back. With less than one
        turn left for good, that turn is sampled with a smaller `max_new_tokens`; with nothing left, none is.

        Args:
            key: the request's place in the batch; different for all requests that are open at a time.
            request: what to sample.
            tokens: what the turns are charged to; None samples all of them.
        Raises:
            BaseException: whatever the policy raised, for everybody in the batch.
        """
        answer: asyncio.Future[list[SampledTurn]] = asyncio.get_running_loop().create_future()
        entry = Waiting(key, request, answer, Account(None) if tokens is None else tokens)
        self._waiting.append(entry)
        self._changed()
        try:
            return await answer
        except asyncio.CancelledError:
            if entry in self._waiting:  # the batch has not gone out
                self._waiting.remove(entry)
                self._changed()
            raise

    def _changed(self) -> None:
        """Look anew whether everybody waits, and give the missing ones `patience_s` again."""
        self._changes += 1
        if not self._waiting and not self._parked:
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + self.patience_s
        if self._timer is None and self._waiting:
            self._timer = loop.call_at(self._deadline, self._expired)
        if not self._settling and len(self._waiting) >= self._live:
            self._settling = True
            loop.call_soon(self._settle, self._changes, _SETTLE)

    def _expired(self) -> None:
        """The time is over, or was when the timer was set, and there were requests since."""
        self._timer = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._deadline and self._wake():
            self._deadline = loop.time() + self.patience_s
        if loop.time() < self._deadline:
            self._timer = loop.call_at(self._deadline, self._expired)
        else:
            self._flush()

    def _settle(self, change: int, rounds: int) -> None:
        """Send the batch once everybody has waited for some trips in which nothing changed."""
        self._settling = False
        if not (self._waiting or self._parked) or len(self._waiting) < self._live:
            return
        if change == self._changes and not rounds:
            if not self._admit():
                self._flush()
            return
        self._settling = True
        left = rounds - 1 if change == self._changes else _SETTLE
        asyncio.get_running_loop().call_soon(self._settle, self._changes, left)

    def _admit(self) -> bool:
        """Let in as many as there is room for, all others waiting; whether there were any."""
        if self._max_walkers is None:
            return False
        waiting = [key for key, place in self._parked.items() if not place.done()]  # the others were just cancelled
        places = sorted(waiting)[: self._max_walkers - self._admitted]
        for key in places:
            place = self._parked.pop(key)
            self._admitted += 1
            self._live += 1
            place.set_result(None)
        self._room = self._max_walkers - self._admitted
        self._changes += len(places)
        return bool(places)

    def _flush(self) -> None:
        batch = sorted(self._waiting, key=lambda w: w.key)
        self._waiting = []
        self._changes += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, put_off = reserve([w for w in batch if not w.answer.done()])
        if batch:
            self._serve(batch)
        if put_off:
            self._waiting += put_off
            self._changed()

    def _serve(self, batch: Sequence[Waiting]) -> None:
        try:
            turns = self._call([w.request for w in batch])
            for w, own in zip(batch, turns, strict=True):
                w.tokens.settle(w.prepaid, sum(len(turn.ids) for turn in own))
        except BaseException as error:
            # The event loop logs and drops what its callbacks raise, even a test runner's time-out: unless the
            # waiters get it, they wait for ever.
            for w in batch:
                if not w.answer.done():
                    w.answer.set_exception(error)
            return
        for w, own in zip(batch, turns, strict=True):
            if not w.answer.done():  # cancelled while the policy ran, by Ctrl-C
                w.answer.set_result(own)

    def _call(self, requests: list[SampleRequest]) -> list[list[SampledTurn]]:
        try:
            turns = self.policy.sample(requests)
        except Exception as error:
            error.add_note(f"raised by the engine, {type(self.policy).__name__}")
            raise
        check_turns(requests, turns)
        self.batch_sizes.append(sum(r.n for r in requests))
        return turns
