"""The `fork` backend: a session is a frozen process, and a call runs on a fork of it.

A snapshot is the frozen process itself, and a restore is a fork of that: exact to the last bit of interpreter
state, and as fast as a fork. After every call the next process is forked ahead, so that the next call finds it
ready. A process that was ended to make room is rebuilt by repeating the session's calls; what they give is
compared with the first time, and the session is refused where it differs.
"""

from __future__ import annotations

import json
import math
import weakref
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from elpo_envs.sandbox.base import Capabilities, Execution, Fidelity, Limits, SandboxError, SandboxSnapshot
from elpo_envs.sandbox.endings import not_repeated, process_ended, process_killed, stopped
from elpo_envs.sandbox.fork.errands import Errand, errand
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
from elpo_envs.sandbox.fork.scratch import FULL
from elpo_envs.sandbox.fork.waiting import Conversation, drive, drive_async
from elpo_envs.sandbox.fork.wire import SCRATCH_FULL
from elpo_envs.sandbox.frames import Reply, UnreadableReplyError, decode_replies
from elpo_envs.sandbox.history import extend_digest, items_of, pending_reseeds

if TYPE_CHECKING:
    from elpo_envs.sandbox.language import LanguagePolicy

_ATTEMPTS = 3
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
        self._next: Process | None = None  # forked from the state's process ahead of the next call
        self._order: Errand | None = None  # to fork that, where nobody has yet
        self._going_on = False  # whether calls follow each other, so that forking ahead of the next one pays
        self._anchor: weakref.ref[Process] | None = None  # the process whose state was restored last
        self._branching = False  # whether it was restored twice in a row, and so perhaps again
        self._spare: Process | None = None  # forked from it for that
        self._settled: tuple[Limits, SessionSettings] | None = None  # what `_settings` made of which limits

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES[not lacking_layers()]

    def open(self, seed: int) -> None:
        """Start a fresh session, dropping any current one; `seed` is any integer."""
        self._give_up_next()
        self._state = SandboxSnapshot(int(seed), (), "", self.fidelity)
        self._going_on = self._branching = False
        self._anchor = self._spare = None

    def run(self, code: str) -> Execution:
        """Run `code`; raises only SandboxError, and only if there is no session (`open` was never called)."""
        return drive(self._run(code))

    async def run_async(self, code: str) -> Execution:
        """`run`, without blocking the event loop; cancelling it leaves the session as it was before the call."""
        return await drive_async(self._run(code))

    def snapshot(self) -> SandboxSnapshot:
        """The session now; costs nothing. Raises SandboxError if there is no session."""
        return self._opened()

    def restore(self, snapshot: SandboxSnapshot, reseed: int | None = None) -> None:
        """Become the session in `snapshot`, of any backend."""
        if snapshot.live is None or self._state is None or snapshot.live is not self._state.live:
            self._give_up_next()
        self._settle_next()
        self._state, self._going_on = snapshot, False
        if reseed is not None:
            reseeds = (*snapshot.reseeds, (len(snapshot.calls), int(reseed)))
            self._state = replace(snapshot, reseeds=reseeds)
        pool = self._own_pool or running_pool()
        holder = self._held_by(self._state, pool)
        self._branching = holder is not None and self._anchor is not None and self._anchor() is holder
        if not self._branching:
            self._anchor = None if holder is None else weakref.ref(holder)
            self._spare = None
        if pool is not None and holder is not None and self._next is None:
            self._next, self._spare = self._spare, None
            if self._next is None or not self._next.alive:
                self._fork_ahead(pool, holder)
        if pool is not None:
            pool.flush()  # what this made superfluous, if no order to fork said so

    def close(self) -> None:
        """End the session. Idempotent; snapshots stay valid."""
        self._give_up_next()
        self._state = self._anchor = self._spare = None
        if (pool := self._own_pool or running_pool()) is not None:
            pool.flush()

    # --- one call -------------------------------------------------------------------------------------------

    def _run(self, code: str) -> Conversation[Execution]:
        self._opened()
        self._settle_next()
        failure: SandboxError | None = None
        for _ in range(_ATTEMPTS):
            try:
                return (yield from self._attempt(code))
            except SandboxError as error:
                failure = error
                self._next = None
                if isinstance(error.__cause__, NeverBornError):
                    break  # it has taken long enough
        return Execution(f"SandboxError: {failure}", "sandbox_failure")

    def _attempt(self, code: str) -> Conversation[Execution]:
        pool = self._pool()
        holder = yield from self._rebuild(pool)
        state, going_on = self._opened(), self._going_on
        with Pinned(holder):
            process = self._take_next(pool, holder)
            try:
                items: list[str | int] = [*pending_reseeds(state), code]
                (reply,) = yield from self._exchange(pool, holder, process, state, items)
            except TimeoutError:
                execution = stopped(f"{self.limits.wall_s:g} s")
            except ProcessLostError as lost:
                execution = self._explain(pool, process, lost)
            except BaseException:
                self._next = None
                del process
                pool.flush()
                raise
            else:
                digest = extend_digest(state.digest, [reply])
                pool.keep(process)
                calls = (*state.calls, code)
                self._state = SandboxSnapshot(state.seed, calls, digest, state.fidelity, state.reseeds, process)
                if going_on and self._next is None:
                    self._order = errand(partial(self._fork_ahead, pool, process))  # nobody waits for that
                return Execution(*reply)
            self._next = None  # it would have been forked from the process that is given up
            del process
            pool.flush()
            if holder is not None:
                self._fork_ahead(pool, holder)
            return execution

    def _explain(self, pool: Pool, process: Process, lost: ProcessLostError) -> Execution:
        """What to say of a process that was lost; raises SandboxError if the code is not to blame."""
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

    def _exchange(
        self, pool: Pool, holder: Process | None, process: Process, state: SandboxSnapshot, items: list[str | int]
    ) -> Conversation[list[Reply]]:
        """Have `process`, forked from `holder`, run the items, the last of which is a call."""
        limits = self.limits
        settings = None
        if holder is None:  # the first process of a session
            settings = {
                "seed": state.seed,
                "output_chars": limits.output_chars,
                "allowed_imports": self._allowed_imports,
            }
        payload = json.dumps({"settings": settings, "items": items}).encode()

        def meanwhile() -> None:
            if not self._going_on:
                self._fork_spare(pool)
            elif process.awaited and pool.counts_forks:  # else an order to a process at work would be early
                self._fork_ahead(pool, process)

        frame = yield from process.exchange(payload, limits.wall_s, meanwhile)
        self._going_on = True
        try:
            return decode_replies(frame, 1, limits.output_chars)
        except UnreadableReplyError as error:
            raise ProcessLostError(str(error)) from error

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

    def _fork(self, pool: Pool, parent: Process | None) -> Process:
        if parent is not None:
            pool.touch(parent)
        return pool.fork(parent, self._settings())

    def _fork_ahead(self, pool: Pool, parent: Process) -> None:
        """Have the next process forked as soon as `parent` is frozen, so that the next call finds it ready."""
        self._next = self._fork_early(pool, parent)

    def _fork_spare(self, pool: Pool) -> None:
        """Have another process forked for one more branch from the state that was restored again and again."""
        anchor = None if self._anchor is None else self._anchor()
        if self._branching and self._spare is None and anchor is not None:
            self._spare = self._fork_early(pool, anchor)

    def _fork_early(self, pool: Pool, parent: Process) -> Process | None:
        """None where that fails: the call that needs the process will see."""
        try:
            return self._fork(pool, parent)
        except SandboxError:
            return None

    def _settle_next(self) -> None:
        """Have `_next` forked, if that was to be done and nobody has got to it."""
        order, self._order = self._order, None
        if order is not None:
            order.finish()

    def _give_up_next(self) -> None:
        order, self._order = self._order, None
        if order is not None:
            order.cancel()
        self._next = None

    def _take_next(self, pool: Pool, holder: Process | None) -> Process:
        """The process for the next call: the one forked ahead, or a new one."""
        process, self._next = self._next, None
        if process is None or not process.alive or not pool.owns(process):
            process = self._fork(pool, holder)
        return process

    def _rebuild(self, pool: Pool) -> Conversation[Process | None]:
        """The process that holds the session, None for the template; repeats its calls where there is no process.

        Raises SandboxError if that leads elsewhere.
        """
        target = self._opened()
        holder = self._held_by(target, pool)
        if holder is not None or not target.calls:
            return holder
        self._next = None
        state = SandboxSnapshot(target.seed, (), "", self.fidelity)
        pending: list[str | int] = []
        for item in items_of(target):
            pending.append(item)
            if isinstance(item, str):
                state = yield from self._repeat(pool, state, pending)
                pending = []
        if state.digest != target.digest:
            raise SandboxError(not_repeated(len(target.calls)))
        self._state = replace(target, live=state.live)
        if (holder := self._held_by(self._state, pool)) is None:
            raise SandboxError("the session's process was ended to make room for others")
        return holder

    def _repeat(self, pool: Pool, state: SandboxSnapshot, items: list[str | int]) -> Conversation[SandboxSnapshot]:
        """One step of a rebuild: the session after `items`, the last of which is a call."""
        holder = state.live
        with Pinned(holder):
            process = self._take_next(pool, holder)
            try:
                replies = yield from self._exchange(pool, holder, process, state, items)
            except (TimeoutError, ProcessLostError) as error:
                raise SandboxError(f"the session's calls could not be repeated: {error!r}") from error
            pool.keep(process)
            return replace(state, digest=extend_digest(state.digest, replies), live=process)
