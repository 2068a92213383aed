"""Continuous batching: requests join the running decode when they come, and are answered when they are finished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from elpo_agent.policy import SampledTurn, SampleRequest, StepwisePolicy
from elpo_agent.rollout.budget import Account
from elpo_agent.rollout.waiting import Waiting, WalkerKey, check_turns, reserve

# Tokens of every row between two looks at what came meanwhile. Each group of requests that joins costs a forward pass
# of its own, so that looking after every token would cost more than the few tokens that a request waits.
_STEPS = 4

# Trips round the event loop between two calls of the engine. Walkers that were just answered or whose tools are done,
# and those that they wake in turn, get to say what they want.
_TRIPS = 4


class ContinuousBatcher:
    """Keeps one decode of the policy running for as long as anybody waits for it.

    Nobody waits for anybody else: a request joins within a few tokens, whatever the others do, and its turns are
    answered when its last sample is finished. What is in the batch at a time depends on the tools' timing, and so do
    the last bits of log-probabilities; on these may hang which token is drawn. `Batcher` is free of that.

    Tokens are reserved when a request joins and settled when it leaves, so that a budget is never overspent. What a
    request gets of a scarce one depends on timing too.

    The policy runs in the event loop's own thread, a few steps at a time.

    Args:
        policy: the engine.
        wake: called between steps: wakes walkers whose tools are done, and says whether there were any.
        max_walkers: how many may be `admitted` at a time; None for all.
    """

    def __init__(
        self, policy: StepwisePolicy, wake: Callable[[], bool] = lambda: False, max_walkers: int | None = None
    ) -> None:
        if max_walkers is not None and max_walkers < 1:
            raise ValueError(f"max_walkers={max_walkers} would let none go; give at least 1, or None")
        self.policy = policy
        self.batch_sizes: list[int] = []
        """Rows in the running decode after each call of the engine."""
        self._wake = wake
        self._decode = policy.open_decode()
        self._waiting: list[Waiting] = []  # not in the decode yet
        self._running: dict[int, Waiting] = {}  # in the decode, by ticket
        self._driving = False
        self._room = max_walkers  # for how many more
        self._parked: dict[WalkerKey, asyncio.Future[None]] = {}

    @contextmanager
    def walker(self) -> Iterator[None]:
        """Register a walker; nobody is waited for, so nothing depends on it."""
        yield

    @asynccontextmanager
    async def admitted(self, key: WalkerKey) -> AsyncIterator[None]:
        """Register a walker, once there is room among `max_walkers`; of those that wait, the smallest key goes first.

        Args:
            key: its place among those that wait; different for all that are open at a time.
        """
        await self._enter(key)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, key: WalkerKey) -> None:
        if self._room is None:
            return
        if self._room > 0:
            self._room -= 1
            return
        self._parked[key] = place = asyncio.get_running_loop().create_future()
        try:
            await place
        except asyncio.CancelledError:
            if self._parked.pop(key, None) is None:  # it was let in already
                self._leave()
            raise

    def _leave(self) -> None:
        """Give the place to the next, or back."""
        waiting = [key for key, place in self._parked.items() if not place.done()]  # the others were just cancelled
        if waiting:
            self._parked.pop(min(waiting)).set_result(None)
        elif self._room is not None:
            self._room += 1

    async def sample(self, key: WalkerKey, request: SampleRequest, tokens: Account | None = None) -> list[SampledTurn]:
        """The request's `n` turns, or fewer where the tokens for more are not to be had now.

        A request is put off while what others reserved may yet come back. With less than one turn left for good, that
        turn is sampled with a smaller `max_new_tokens`; with nothing left, none is.

        Args:
            key: the request's place among those that come at the same time.
            request: what to sample.
            tokens: what the turns are charged to; None samples all of them.
        Raises:
            BaseException: whatever the policy raised, for everybody who waits for it.
        """
        answer: asyncio.Future[list[SampledTurn]] = asyncio.get_running_loop().create_future()
        entry = Waiting(key, request, answer, Account(None) if tokens is None else tokens)
        self._waiting.append(entry)
        self._drive()
        try:
            return await answer
        except asyncio.CancelledError:
            self._forget(answer)
            raise

    def _forget(self, answer: asyncio.Future[list[SampledTurn]]) -> None:
        """Drop a request whose caller was cancelled; the tokens drawn for it are spent."""
        self._waiting = [w for w in self._waiting if w.answer is not answer]
        for ticket, w in list(self._running.items()):
            if w.answer is answer:
                del self._running[ticket]
                w.tokens.settle(w.prepaid, self._decode.cancel(ticket))

    def _drive(self) -> None:
        """Have the decode go on, unless it does."""
        if not self._driving:
            self._driving = True
            asyncio.get_running_loop().call_soon(self._trip, _TRIPS)

    def _trip(self, left: int) -> None:
        """Let the others have the event loop a few times, then call the engine; again, while it has anything to do."""
        loop = asyncio.get_running_loop()
        if left:
            loop.call_soon(self._trip, left - 1)
            return
        try:
            self._join()
            if self._running:
                self._step()
            self._wake()
        except BaseException as error:
            # The event loop logs and drops what its callbacks raise: unless the waiters get it, they wait for ever.
            self._fail(error)
        if self._waiting or self._running:
            loop.call_soon(self._trip, _TRIPS)
        else:
            self._driving = False

    def _join(self) -> None:
        """Let all requests into the decode that there are tokens for."""
        entries = sorted((w for w in self._waiting if not w.answer.done()), key=lambda w: w.key)
        joining, self._waiting = reserve(entries)
        try:
            tickets = self._decode.add([w.request for w in joining])
        except BaseException:
            self._waiting += joining
            raise
        self._running.update(zip(tickets, joining, strict=True))

    def _step(self) -> None:
        """Decode for a few steps, and answer who is finished."""
        try:
            finished = self._decode.step(_STEPS)
        except Exception as error:
            error.add_note(f"raised by the engine, {type(self.policy).__name__}")
            raise
        self.batch_sizes.append(self._decode.live_rows)
        for ticket, turns in finished:
            w = self._running[ticket]
            check_turns([w.request], [turns])
            del self._running[ticket]
            w.tokens.settle(w.prepaid, sum(len(turn.ids) for turn in turns))
            if not w.answer.done():  # cancelled, and not yet seen to be
                w.answer.set_result(turns)

    def _fail(self, error: BaseException) -> None:
        """Give everybody the error; what they reserved stays reserved, for nobody knows what was drawn."""
        entries = [*self._waiting, *self._running.values()]
        self._waiting, self._running = [], {}
        for w in entries:
            if not w.answer.done():
                w.answer.set_exception(error)
