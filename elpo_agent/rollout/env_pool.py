"""A pool of environments that many more conversations share than it has members."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium as gym

import elpo_envs
from elpo_envs.sandbox import SandboxError

logger = logging.getLogger(__name__)

# What counts as the infrastructure's failure: the sandbox, its pipes and files. All else is a bug and
# surfaces.
INFRASTRUCTURE_ERRORS: tuple[type[Exception], ...] = (SandboxError, OSError, EOFError)

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
    env: gym.Env[Any, Any]
    holder: Conversation | None = None
    busy: bool = False
    used: int = 0


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


class EnvPool:
    """Runs environment calls in threads. A conversation keeps its environment until another one needs it.

    Taking an environment away freezes the conversation that was in it, which continues later in any other
    member. With enough members nothing is ever frozen that did not ask to be.

    Args:
        make_env: makes one environment; all must be alike.
        threads: environment calls at a time.
        max_envs: members at most; at least `threads`.
    """

    def __init__(self, make_env: Callable[[], gym.Env[Any, Any]], threads: int = 8, max_envs: int = 128) -> None:
        if threads < 1 or max_envs < threads:
            raise ValueError(
                f"tool_threads={threads} and max_envs={max_envs}: give at least one thread and as many "
                "environments as threads"
            )
        self._make_env = make_env
        self._max_envs = max_envs
        self._members: list[_Member] = []
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="elpo-env")
        self._threads = threads
        self._gate = asyncio.Semaphore(threads)
        self._clock = 0

    def begin(self) -> None:
        """Prepare for a new event loop; every conversation of an earlier one is forgotten."""
        self._gate = asyncio.Semaphore(self._threads)
        for member in self._members:
            member.holder, member.busy = None, False

    def close(self) -> None:
        """Close every environment and the threads. Idempotent."""
        self._executor.shutdown(wait=True)
        while self._members:
            self._members.pop().env.close()

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
        async with self._gate:
            member = await self._member_for(conversation)
            try:
                return await self._run(member, work)
            finally:
                self.release(conversation)

    def call_counter(self) -> Callable[[str], int]:
        """Says of a turn's text how many tool calls it asks for; to be had once an episode has begun.

        Raises:
            ValueError: the environments have no `protocol`, which reads turns.
        """
        env = self._members[0].env
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
        """
        async with self._gate:
            member = await self._member_for(conversation)
            snapshot = conversation.snapshot

            def work(env: gym.Env[Any, Any]) -> StepResult:
                if snapshot is not None:
                    elpo_envs.restore(env, snapshot)
                _, reward, terminated, truncated, info = env.step(action)
                frozen = elpo_envs.snapshot(env) if keep and not (terminated or truncated) else None
                return StepResult(float(reward), terminated, truncated, info, frozen)

            conversation.snapshot = conversation.kept = None
            result = await self._run(member, work)
            conversation.kept = result.snapshot
            return result

    def release(self, conversation: Conversation) -> None:
        """The conversation is over: its environment is free."""
        if conversation.member is not None:
            conversation.member.holder = None
            conversation.member = None

    async def _member_for(self, conversation: Conversation) -> _Member:
        """The conversation's own member, a free one, a new one, or that of the longest idle conversation."""
        if conversation.saving is not None:
            await conversation.saving
        own = conversation.member
        if own is not None:
            own.busy = True
            return own
        free = next((m for m in self._members if m.holder is None and not m.busy), None)
        if free is not None:
            member = free
        elif len(self._members) < self._max_envs:
            member = _Member(self._make_env())
            self._members.append(member)
        else:
            member = min((m for m in self._members if not m.busy), key=lambda m: m.used)
        member.busy = True
        victim, member.holder, conversation.member = member.holder, conversation, member
        if victim is not None:
            await self._evict(victim, member)
        return member

    async def _evict(self, victim: Conversation, member: _Member) -> None:
        """Freeze the conversation that was in `member`; should that fail, it is the victim's loss alone."""
        victim.member = None
        if victim.kept is not None:
            victim.snapshot = victim.kept
            return
        victim.saving = asyncio.get_running_loop().create_future()
        # Nobody may be waiting: an exception that is never fetched must not be reported as lost.
        victim.saving.add_done_callback(lambda f: f.cancelled() or f.exception())
        try:
            victim.snapshot = await self._in_thread(lambda: elpo_envs.snapshot(member.env))
        except InfrastructureError as error:
            victim.saving.set_exception(error)
        else:
            victim.saving.set_result(None)
            victim.saving = None

    async def _run(self, member: _Member, work: Callable[[gym.Env[Any, Any]], T]) -> T:
        self._clock += 1
        member.used = self._clock
        try:
            return await self._in_thread(lambda: work(member.env))
        except InfrastructureError:
            self._discard(member)
            raise
        finally:
            member.busy = False

    async def _in_thread(self, call: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._executor, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # A thread cannot be stopped, and its environment must not be used meanwhile.
            await asyncio.wait([future])
            if error := future.exception():
                logger.warning("an environment failed while its run was being cancelled: %r", error)
            raise
        except INFRASTRUCTURE_ERRORS as error:
            raise InfrastructureError(f"{type(error).__name__}: {error}") from error

    def _discard(self, member: _Member) -> None:
        """Drop an environment that failed; a new one is made when needed."""
        self._members.remove(member)
        if member.holder is not None:
            self.release(member.holder)
        try:
            member.env.close()
        except INFRASTRUCTURE_ERRORS as error:
            logger.warning("closing a failed environment failed too: %s", error)
