"""The `fork` backend: a session is a process, and a snapshot freezes it, so that later calls run on forks of it.

A snapshot is the frozen process itself, and a restore is a fork of that: exact to the last bit of interpreter
state, and as fast as a fork. From the first snapshot of a session, or its restore, every call runs on a fork, so that
one that is stopped or crashes takes nothing else along. The next process is forked ahead after every such call, and
the next call finds it ready.

Before that, a process serves calls as long as repeating them takes no time to speak of and is known to lead to the
same state: so it is rebuilt, from the last process that was frozen, after a call that was stopped or crashed. A process
that was ended to make room is rebuilt from the beginning. What repeated calls give is compared with the first time,
and the session is refused where it differs.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from elpo_envs.sandbox.base import Capabilities, Execution, Fidelity, Limits, SandboxError, SandboxSnapshot
from elpo_envs.sandbox.endings import not_repeated, process_ended, process_killed, stopped
from elpo_envs.sandbox.fork.ahead import ForkedAhead
from elpo_envs.sandbox.fork.pool import Pool
from elpo_envs.sandbox.fork.pools import current_pool, lacking_layers, running_pool
from elpo_envs.sandbox.fork.process import (
    NeverBornError,
    NotBornError,
    Pinned,
    Process,
    ProcessLostError,
    SessionSettings,
)
from elpo_envs.sandbox.fork.repeatable import is_repeatable
from elpo_envs.sandbox.fork.scratch import FULL
from elpo_envs.sandbox.fork.waiting import Conversation, drive, drive_async
from elpo_envs.sandbox.fork.wire import SCRATCH_FULL
from elpo_envs.sandbox.frames import Reply, UnreadableReplyError, decode_replies
from elpo_envs.sandbox.history import extend_digest, pending_reseeds

if TYPE_CHECKING:
    from elpo_envs.sandbox.language import LanguagePolicy

_ATTEMPTS = 3
# What a process may serve before it is frozen, and may have to be repeated: some ten times what a fork takes.
_REPEATED_S = 0.05
_REPEATED_CALLS = 128
_CAPABILITIES = {  # by whether the jail is whole
    isolated: Capabilities(exact=True, isolated=isolated, numpy=True, cheap_snapshot=True) for isolated in (True, False)
}


class ForkSandbox:
    """A `Sandbox` of frozen processes. Nothing is started before the first `run` after `open` or `restore`.

    Args:
        limits: bounds on each call.
        pool: where processes are forked; None for the one that all sandboxes of this process share.
        language: what the language layer lets code do; None for none.
        isolation_required: refuse to run anything where the jail lacks a layer.
    """

    name = "fork"
    fidelity: Fidelity = "exact"

    def __init__(
        self,
        limits: Limits | None = None,
        pool: Pool | None = None,
        language: LanguagePolicy | None = None,
        isolation_required: bool = False,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self._own_pool = pool
        self._allowed_imports = None if language is None else language.allowed_imports
        self._isolation_required = isolation_required
        self._state: SandboxSnapshot | None = None
        self._alone = False  # whether nobody has a snapshot of it
        self._base: SandboxSnapshot | None = None  # what its process was forked from, while that may be needed
        self._row = 0  # calls since the session was opened or restored
        self._ahead = ForkedAhead()
        self._settled: tuple[Limits, SessionSettings] | None = None  # what `_settings` made of which limits

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES[not lacking_layers()]

    def open(self, seed: int) -> None:
        """Start a fresh session, dropping any current one; `seed` is any integer."""
        self._ahead.forget()
        self._state = SandboxSnapshot(int(seed), (), "", self.fidelity)
        self._alone, self._base, self._row = True, None, 0

    def run(self, code: str) -> Execution:
        """Run `code`; raises only SandboxError, and only if there is no session (`open` was never called)."""
        return drive(self._run(code))

    async def run_async(self, code: str) -> Execution:
        """`run`, without blocking the event loop; cancelling it leaves the session as it was before the call."""
        return await drive_async(self._run(code))

    def snapshot(self) -> SandboxSnapshot:
        """The session now; costs nothing. Raises SandboxError if there is no session."""
        state = self._opened()
        if self._alone and state.calls:
            self._alone, self._base = False, None
            if isinstance(state.live, Process):
                state.live.freeze()
            pool = self._own_pool or running_pool()
            if pool is not None and (holder := self._held_by(state, pool)) is not None:
                self._expect_call(pool, holder)
        return state

    def restore(self, snapshot: SandboxSnapshot, reseed: int | None = None) -> None:
        """Become the session in `snapshot`, of any backend."""
        if snapshot.live is None or self._state is None or snapshot.live is not self._state.live:
            self._ahead.give_up_next()
        self._ahead.settle_next()
        reseeds = snapshot.reseeds if reseed is None else (*snapshot.reseeds, (len(snapshot.calls), int(reseed)))
        self._state = replace(snapshot, reseeds=reseeds)
        self._alone, self._base, self._row = not snapshot.calls, None, 0
        pool = self._own_pool or running_pool()
        self._ahead.restored(pool, self._held_by(self._state, pool))
        if pool is not None:
            pool.flush()  # what this made superfluous, if no order to fork said so

    def close(self) -> None:
        """End the session. Idempotent; snapshots stay valid."""
        self._ahead.forget()
        self._state = self._base = None
        if (pool := self._own_pool or running_pool()) is not None:
            pool.flush()

    # --- one call -------------------------------------------------------------------------------------------

    def _run(self, code: str) -> Conversation[Execution]:
        self._opened()
        self._ahead.settle_next()
        failure: SandboxError | None = None
        for _ in range(_ATTEMPTS):
            try:
                return (yield from self._attempt(code))
            except SandboxError as error:
                failure = error
                self._ahead.give_up_next()
                if isinstance(error.__cause__, NeverBornError):
                    break  # it has taken long enough
        return Execution(f"SandboxError: {failure}", "sandbox_failure")

    def _attempt(self, code: str) -> Conversation[Execution]:
        pool = self._pool()
        holder = yield from self._rebuild(pool)
        state = self._opened()
        process = self._process_for(pool, state, holder)
        try:
            reply, after = yield from self._advance(pool, holder, process, state, code)
        except TimeoutError:
            execution = stopped(f"{self.limits.wall_s:g} s")
        except ProcessLostError as lost:
            execution = self._explain(pool, process, lost)
        except BaseException:
            self._ahead.give_up_next()
            pool.drop(process)
            raise
        else:
            self._state = after
            if not (self._alone and self._may_go_on(pool, process) and is_repeatable(code)):
                self._base = None
                process.freeze()
                self._expect_call(pool, process)
            return Execution(*reply)
        self._ahead.give_up_next()  # it would have been forked from the process that is given up
        pool.drop(process)
        if process is holder:
            with contextlib.suppress(SandboxError):  # the next call will tell
                yield from self._rebuild(pool)
        elif holder is not None:
            self._ahead.fork_next(pool, holder)
        return execution

    def _explain(self, pool: Pool, process: Process, lost: ProcessLostError) -> Execution:
        """What to say of a process that was lost; raises SandboxError if the code is not to blame."""
        if not process.alive:
            raise SandboxError("the session's process was ended to make room for others") from lost
        ending = pool.end(process)
        if ending.exit_code is None or isinstance(lost, NotBornError):
            if ending.no_room:
                pool.relieve()
            elif self._state is not None:
                self._state = replace(self._state, live=None)  # that process cannot, or will not, be forked
            raise SandboxError(f"no process could be forked for the call: {ending.why or lost}") from lost
        if ending.exit_code == SCRATCH_FULL:
            return process_killed(FULL)
        return process_ended(ending.exit_code, ending.why or str(lost), self.limits)

    def _advance(
        self, pool: Pool, holder: Process | None, process: Process, state: SandboxSnapshot, code: str
    ) -> Conversation[tuple[Reply, SandboxSnapshot]]:
        """Run `code` in the session `state`, held by `holder`, in `process`: what it gave, and the session then.

        Raises:
            TimeoutError: it took too long; the process is of no use any more.
            ProcessLostError: so it is, for another reason.
        """
        limits = self.limits
        settings = None
        if holder is None:  # the first process of a session
            settings = {
                "seed": state.seed,
                "output_chars": limits.output_chars,
                "allowed_imports": self._allowed_imports,
            }
        payload = json.dumps({"settings": settings, "items": [*pending_reseeds(state), code]}).encode()

        def meanwhile() -> None:
            if not self._row:
                self._ahead.fork_spare(pool)
            elif not self._alone and process.awaited and pool.counts_forks:
                self._ahead.fork_next(pool, process)  # else an order to a process at work would be early

        with Pinned(holder):
            frame = yield from process.exchange(payload, limits.wall_s, meanwhile)
            self._row += 1
            try:
                (reply,) = decode_replies(frame, 1, limits.output_chars)
            except UnreadableReplyError as error:
                raise ProcessLostError(str(error)) from error
            pool.keep(process)
        digest = extend_digest(state.digest, [reply])
        return reply, SandboxSnapshot(state.seed, (*state.calls, code), digest, state.fidelity, state.reseeds, process)

    def _may_go_on(self, pool: Pool, process: Process) -> bool:
        """Whether a process may serve one more call, that could be its end."""
        return (
            not process.frozen
            and process.served < _REPEATED_CALLS
            and process.served_s < _REPEATED_S
            and pool.counts_forks  # a jail that does so has no threads either, which would go on between calls
        )

    def _expect_call(self, pool: Pool, process: Process) -> None:
        """Have the next process forked from the one that holds the session, if calls come in a row."""
        if self._row > 1 and not self._ahead.has_next:
            self._ahead.order_next(pool, process)

    # --- processes ------------------------------------------------------------------------------------------

    def _pool(self) -> Pool:
        pool = current_pool() if self._own_pool is None else self._own_pool
        if self._isolation_required and not pool.jail.isolated:
            lacking = ", ".join(f"{layer} ({why})" for layer, why in pool.jail.missing.items())
            raise SandboxError(f"isolation='required', but the jail lacks {lacking}")
        return pool

    def _opened(self) -> SandboxSnapshot:
        if self._state is None:
            raise SandboxError("the sandbox has no session: call open() or restore() first")
        return self._state

    def _held_by(self, state: SandboxSnapshot, pool: Pool | None) -> Process | None:
        """The process that holds `state`, if there is one in the pool, with this sandbox's settings."""
        process = state.live
        if not isinstance(process, Process) or pool is None or not pool.owns(process):
            return None
        return process if process.alive and process.settings == self._settings() else None

    def _settings(self) -> SessionSettings:
        limits = self.limits
        if self._settled is None or self._settled[0] is not limits:
            cpu_s = math.ceil(limits.cpu_s)
            settings = SessionSettings(cpu_s, limits.memory_mb, limits.output_chars, self._allowed_imports)
            self._settled = limits, settings
        return self._settled[1]

    def _process_for(self, pool: Pool, state: SandboxSnapshot, holder: Process | None) -> Process:
        """Where the next call of the session `state` is to run: in `holder`, the process that holds it, or on a fork.

        Raises SandboxError if there can be no such process.
        """
        if holder is not None and self._may_go_on(pool, holder):
            if not holder.is_quiet():
                pool.drop(holder)
                raise SandboxError("the session's process ended between two calls")
            return holder
        self._base = state if self._alone else None
        process = self._ahead.take_next(pool)
        if process is None:
            if holder is not None:
                pool.touch(holder)
            process = pool.fork(holder, self._settings())
        return process

    def _rebuild(self, pool: Pool) -> Conversation[Process | None]:
        """The process that holds the session, None for the template; repeats its calls where there is no process.

        Raises SandboxError if that leads elsewhere.
        """
        target = self._opened()
        holder = self._held_by(target, pool)
        if holder is not None or not target.calls:
            return holder
        self._ahead.give_up_next()
        state = self._base
        if state is None or self._held_by(state, pool) is None:
            state = SandboxSnapshot(target.seed, (), "", self.fidelity)
        for n, code in enumerate(target.calls[len(state.calls) :], len(state.calls)):
            state = replace(state, reseeds=tuple(reseed for reseed in target.reseeds if reseed[0] <= n))
            state = yield from self._repeat(pool, state, code)
        if state.digest != target.digest:
            raise SandboxError(not_repeated(len(target.calls)))
        self._state = replace(target, live=state.live)
        if (holder := self._held_by(self._state, pool)) is None:
            raise SandboxError("the session's process was ended to make room for others")
        if not self._alone:
            holder.freeze()
        return holder

    def _repeat(self, pool: Pool, state: SandboxSnapshot, code: str) -> Conversation[SandboxSnapshot]:
        """One step of a rebuild: the session `state` after `code`."""
        holder = self._held_by(state, pool)
        process = self._process_for(pool, state, holder)
        try:
            return (yield from self._advance(pool, holder, process, state, code))[1]
        except (TimeoutError, ProcessLostError) as error:
            pool.drop(process)
            self._base = None  # it may be why
            raise SandboxError(f"the session's calls could not be repeated: {error!r}") from error
