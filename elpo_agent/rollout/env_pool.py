"""A pool of environments that many more conversations share than it has members."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import gymnasium as gym

import elpo_envs
from elpo_agent.rollout.call_threads import CallThreads
from elpo_envs.env import ConversationEnv
from elpo_envs.sandbox import SandboxError

logger = logging.getLogger(__name__)

# What counts as the infrastructure's failure: the sandbox, its pipes and files. All else is a bug and
# surfaces.
INFRASTRUCTURE_ERRORS: tuple[type[Exception], ...] = (SandboxError, OSError, EOFError)

# Conversations without an environment that get one at a time, for each thread: enough to keep all threads busy
# between two looks at what is done, and few enough that those that end at once leave theirs to the next.
_BORROWERS = 8

T = TypeVar("T")


class InfrastructureError(RuntimeError):
    """An environment failed for reasons that have nothing to do with the model."""


@dataclass(frozen=True)
class StepResult:
    """What one step gave; `snapshot` is the state after it, where asked for and the episode goes on."""

    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]
    snapshot: Any | None = None


@dataclass(eq=False)
class _Member:
    """An environment, and the conversation whose state it holds. It is free, idle, or busy: in neither list."""

    env: gym.Env[Any, Any]
    holder: Conversation | None = None


@dataclass(eq=False)
class Conversation:
    """One episode, wherever its state is: in a pool member, or in a snapshot to be restored.

    Attributes:
        snapshot: to be restored before the next step; None while a member holds the state.
        kept: the present state's snapshot, where the last step made one.
        member: the environment that holds the state.
        saving: set while the state is being frozen, because the member was needed elsewhere.
    """

    snapshot: Any | None = None
    kept: Any | None = None
    member: _Member | None = None
    saving: asyncio.Future[None] | None = None


@dataclass(eq=False)
class _Job(Generic[T]):
    """One environment call: who is in the member is frozen, the conversation's own state restored, the work done.

    Attributes:
        conversation: whose call it is.
        work: what to do with the environment.
        answer: what the work gave; waited for by the caller.
        member: set when the job is handed to the threads.
        origin: the snapshot to restore first.
        victim: the conversation that was in the member and is to be frozen; `frozen` is its snapshot then.
        borrowed: the member was not the conversation's own.
        over: the job is done, and `value` or `error` says how.
    """

    conversation: Conversation
    work: Callable[[gym.Env[Any, Any]], T]
    answer: asyncio.Future[T]
    finished: Callable[[_Job[T]], None]
    member: _Member | None = None
    origin: Any | None = None
    victim: Conversation | None = None
    borrowed: bool = False
    frozen: Any | None = None
    victim_error: BaseException | None = None
    value: T | None = None
    error: BaseException | None = None
    over: bool = False

    def run(self) -> None:
        """See `Call.run`."""
        assert self.member is not None
        env = self.member.env
        try:
            if self.victim is not None:
                self._freeze_victim(env)
            if self.origin is not None:
                elpo_envs.restore(env, self.origin)
            self.value = self.work(env)
        except BaseException as error:
            self.error = _for_the_caller(error)
            self.error.add_note(f"raised by the environment {env}")

    def _freeze_victim(self, env: gym.Env[Any, Any]) -> None:
        """Should that fail, it is the victim's loss alone; a bug is everybody's."""
        try:
            self.frozen = elpo_envs.snapshot(env)
        except BaseException as error:
            self.victim_error = _for_the_caller(error)
            if not isinstance(self.victim_error, InfrastructureError):
                raise

    def finish(self) -> None:
        """See `Call.finish`."""
        self.finished(self)


class EnvPool:
    """Runs environment calls in threads. A conversation keeps its environment until another one needs it.

    Taking an environment away freezes the conversation that was in it, which continues later in any other
    member. With enough members nothing is ever frozen that did not ask to be. Of the conversations that want to go
    on at the same time, those that have their environment go first; the others then take it from the longest idle.

    Args:
        make_env: makes one environment; all must be alike.
        threads: environment calls at a time.
        max_envs: members at most; at least `threads`.
        quiet_s: see `CallThreads`.
    """

    def __init__(
        self,
        make_env: Callable[[], gym.Env[Any, Any]],
        threads: int = 8,
        max_envs: int = 128,
        quiet_s: float = 0.25,
    ) -> None:
        if threads < 1 or max_envs < threads:
            raise ValueError(
                f"tool_threads={threads} and max_envs={max_envs}: give at least one thread and as many "
                "environments as threads"
            )
        self._make_env = make_env
        self._max_envs = max_envs
        self._threads = CallThreads(threads, quiet_s, self._arrange_soon)
        self._most_borrowed = _BORROWERS * threads
        self._members: dict[_Member, None] = {}
        self._clear()

    def _clear(self) -> None:
        """Nobody holds a member, and nothing is under way."""
        self._free = list(self._members)
        self._idle: OrderedDict[_Member, None] = OrderedDict()  # held but not busy, the longest idle first
        self._without: deque[_Job[Any]] = deque()  # jobs whose conversation has no member
        self._ready: list[_Job[Any]] = []  # jobs with a member, to be handed to the threads
        self._borrowed = 0
        self._arranging = False
        for member in self._members:
            member.holder = None

    def begin(self) -> None:
        """Prepare for a new event loop; every conversation of an earlier one is forgotten.

        Waits for calls of the earlier one that are still running: their environments are needed.
        """
        self._threads.begin()
        self._clear()

    def close(self) -> None:
        """Close every environment and the threads. Idempotent."""
        self._threads.close()
        self._free.clear()
        self._idle.clear()
        while self._members:
            self._members.popitem()[0].env.close()

    async def reset(self, options: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[dict[str, Any]], Any]:
        """Begin an episode: its info, the tools' schemas, and a snapshot to start conversations from.

        Raises:
            InfrastructureError: the environment failed twice.
        """
        try:
            return await self._reset_once(options)
        except InfrastructureError as error:
            logger.warning("reset(options=%s) failed, trying once more: %s", dict(options), error)
        try:
            return await self._reset_once(options)
        except InfrastructureError as error:
            raise InfrastructureError(f"reset(options={dict(options)}) failed twice: {error}") from error

    async def _reset_once(self, options: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[dict[str, Any]], Any]:
        def work(env: gym.Env[Any, Any]) -> tuple[Mapping[str, Any], list[dict[str, Any]], Any]:
            _, info = env.reset(options=dict(options))
            return info, env.get_wrapper_attr("tools"), elpo_envs.snapshot(env)

        conversation = Conversation()
        try:
            return await self._do(conversation, work)
        finally:
            self.release(conversation)

    def call_counter(self) -> Callable[[str], int]:
        """Says of a turn's text how many tool calls it asks for; to be had once an episode has begun.

        Raises:
            ValueError: the environments have no `protocol`, which reads turns.
        """
        env = next(iter(self._members)).env
        try:
            protocol = env.get_wrapper_attr("protocol")
        except AttributeError as error:
            raise ValueError(
                f"budget.tool_calls needs an environment with a `protocol` that reads turns; {env} has none"
            ) from error
        return lambda text: len(protocol.parse(text).calls)

    async def step(self, conversation: Conversation, action: str, keep: bool) -> StepResult:
        """Take one assistant turn.

        Args:
            conversation: continues where it was; must not be stepped by two callers at a time.
            action: the turn's text.
            keep: also return a snapshot of the state afterwards.
        Raises:
            InfrastructureError: the conversation is lost.
            ValueError: the reward is NaN or infinite.
        """

        def work(env: gym.Env[Any, Any]) -> StepResult:
            _, reward, terminated, truncated, info = env.step(action)
            if not math.isfinite(reward):
                raise ValueError(f"{env} gave the reward {reward}; rewards must be finite numbers")
            frozen = elpo_envs.snapshot(env) if keep and not (terminated or truncated) else None
            return StepResult(float(reward), terminated, truncated, info, frozen)

        if conversation.saving is not None:
            await conversation.saving
        result = await self._do(conversation, work)
        conversation.kept = result.snapshot
        return result

    def hand_over(self) -> bool:
        """Give callers what is ready, though other calls still run; whether there was anything."""
        return self._threads.hand_over()

    def rest(self) -> None:
        """All searches are over and their snapshots dropped: let the sandbox end what only these needed."""
        for member in self._free:
            _rest(member)

    def release(self, conversation: Conversation) -> None:
        """The conversation is over: its environment is free, and holds no session of its interpreter any more."""
        member, conversation.member = conversation.member, None
        if member is not None:
            member.holder = None
            _rest(member)
            if member in self._idle:
                del self._idle[member]
                self._free.append(member)

    async def _do(self, conversation: Conversation, work: Callable[[gym.Env[Any, Any]], T]) -> T:
        """What `work` gives with the conversation's environment, in a thread."""
        loop = asyncio.get_running_loop()
        job: _Job[T] = _Job(conversation, work, loop.create_future(), self._finished)
        if conversation.member is None:
            self._without.append(job)
        else:
            del self._idle[conversation.member]
            self._assign(job, conversation.member)
        self._arrange_soon()
        try:
            return await job.answer
        except asyncio.CancelledError:
            if not job.over and not self._withdrawn(job):
                # A thread cannot be stopped, and its environment must not be used meanwhile.
                job.answer = loop.create_future()
                await asyncio.wait([job.answer])
            if job.error is not None:
                logger.warning("an environment failed while its run was being cancelled: %r", job.error)
                if not job.answer.cancelled():
                    job.answer.exception()  # seen: the event loop need not report it
            raise
        finally:
            if isinstance(job.error, InfrastructureError) and job.member is not None:
                self._discard(job.member)

    def _arrange_soon(self) -> None:
        """Call `_arrange` once everybody who goes on now has said so."""
        if not self._arranging and (self._without or self._ready):
            self._arranging = True
            asyncio.get_running_loop().call_soon(self._arrange)

    def _arrange(self) -> None:
        """Give members to conversations without one, as far as there are any, and hand all jobs to the threads."""
        self._arranging = False
        while self._without and self._borrowed < self._most_borrowed:
            job = self._without[0]
            try:
                member = self._available()
            except BaseException as error:  # of whoever makes environments; a callback's own would be lost
                self._without.popleft()
                job.error = _for_the_caller(error, infrastructure=False)
                self._answer(job)
                continue
            if member is None:
                break
            self._without.popleft()
            job.borrowed = True
            self._borrowed += 1
            self._assign(job, member)
        ready, self._ready = self._ready, []
        if not ready:
            return
        try:
            self._threads.submit(ready, more=bool(self._without))
        except RuntimeError as error:
            for job in ready:
                job.error = error
                self._answer(job)

    def _available(self) -> _Member | None:
        """A free member, a new one, or that of the longest idle conversation; None while all are busy."""
        if self._free:
            return self._free.pop()
        if len(self._members) < self._max_envs:
            member = _Member(self._make_env())
            self._members[member] = None
            return member
        return self._idle.popitem(last=False)[0] if self._idle else None

    def _assign(self, job: _Job[Any], member: _Member) -> None:
        """Let the job have this member, which is in neither list any more."""
        conversation, before = job.conversation, member.holder
        if before is not None and before is not conversation:
            before.member = None
            if before.kept is not None:
                before.snapshot = before.kept
            else:
                job.victim, before.saving = before, asyncio.get_running_loop().create_future()
                # Nobody may be waiting: an exception that is never fetched must not be reported as lost.
                before.saving.add_done_callback(lambda f: f.cancelled() or f.exception())
        job.member, job.origin = member, conversation.snapshot
        member.holder, conversation.member = conversation, member
        conversation.snapshot = conversation.kept = None
        self._ready.append(job)

    def _finished(self, job: _Job[Any]) -> None:
        """Note a job's end: for whoever was in its member before, for the member, and for the caller."""
        victim = job.victim
        if victim is not None and victim.saving is not None:
            saving, victim.snapshot = victim.saving, job.frozen
            if job.victim_error is not None:
                saving.set_exception(job.victim_error)
            else:
                victim.saving = None
                saving.set_result(None)
        self._give_back(job)
        self._answer(job)

    def _answer(self, job: _Job[Any]) -> None:
        """Tell the caller."""
        job.over = True
        if job.answer.done():  # cancelled, and not yet seen to be
            return
        if job.error is None:
            job.answer.set_result(job.value)
        else:
            job.answer.set_exception(job.error)

    def _give_back(self, job: _Job[Any]) -> None:
        """Let the job's member be used again, unless it failed: then it is about to be discarded."""
        member = job.member
        assert member is not None
        self._borrowed -= job.borrowed
        if isinstance(job.error, InfrastructureError):
            return
        if member.holder is None:
            self._free.append(member)
        else:
            self._idle[member] = None

    def _withdrawn(self, job: _Job[Any]) -> bool:
        """Take back a job that no thread has begun; whether that was so."""
        if job in self._without:
            self._without.remove(job)
            return True
        if job in self._ready:
            self._ready.remove(job)
        elif not self._threads.withdraw(job):
            return False
        conversation, member, victim = job.conversation, job.member, job.victim
        assert member is not None
        if victim is not None and victim.saving is not None:  # it was never taken out
            conversation.member, member.holder, victim.member = None, victim, member
            saving, victim.saving = victim.saving, None
            saving.set_result(None)
        conversation.snapshot = job.origin
        self._give_back(job)
        return True

    def _discard(self, member: _Member) -> None:
        """Drop an environment that failed; a new one is made when needed."""
        self._members.pop(member, None)
        if member.holder is not None:
            self.release(member.holder)
        try:
            member.env.close()
        except INFRASTRUCTURE_ERRORS as error:
            logger.warning("closing a failed environment failed too: %s", error)
        self._arrange_soon()


def _rest(member: _Member) -> None:
    """Let the session of an episode that is over go, with its processes."""
    if isinstance(member.env.unwrapped, ConversationEnv):
        member.env.unwrapped.rest()


def _for_the_caller(error: BaseException, *, infrastructure: bool = True) -> BaseException:
    """The error as callers are to see it; with `infrastructure`, the infrastructure's failures as such."""
    if infrastructure and isinstance(error, INFRASTRUCTURE_ERRORS):
        known = InfrastructureError(f"{type(error).__name__}: {error}")
        known.__cause__ = error
        return known
    if isinstance(error, StopIteration):  # no future takes that one
        return RuntimeError(f"an environment raised {error!r}")
    return error
