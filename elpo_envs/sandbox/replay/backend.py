"""The `replay` backend: a session process, rebuilt after a restore by repeating its calls.

It works wherever Python does. A snapshot is the list of calls, costs nothing and can travel; a restore
repeats them, lazily, and compares what they gave. That is exact for what the code computes and for `random`
and numpy's global generator, but not for the clock, for fresh entropy, or for anything outside the session
that the calls read or changed: where their text shows it, the session is refused, not continued differently.

It is not a security boundary. Each session has a process, a scratch directory, an empty environment and
resource limits of its own, which contain accidents; the code can still read files and use the network as the
host's user.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from elpo_envs.sandbox.base import Capabilities, Execution, Fidelity, Limits, SandboxError, SandboxSnapshot
from elpo_envs.sandbox.calls import call_in_thread, call_persistently
from elpo_envs.sandbox.endings import not_repeated, process_ended, stopped
from elpo_envs.sandbox.history import extend_digest, items_of, pending_reseeds
from elpo_envs.sandbox.piped import SessionLostError
from elpo_envs.sandbox.replay.session import Settings
from elpo_envs.sandbox.replay.subprocess_session import SubprocessSession

if TYPE_CHECKING:
    from elpo_envs.sandbox.language import LanguagePolicy


class ReplaySandbox:
    """A `Sandbox` whose snapshots are replayed.

    Processes start lazily, at the first `run` after `open` or `restore`. A call that timed out or whose
    process died leaves no trace in the state: the next `run` rebuilds what was before it.

    Args:
        limits: bounds on each call; None means the defaults of `Limits`.
        language: what the language layer lets code do; None for no such layer.
    """

    name = "replay"
    fidelity: Fidelity = "replay"

    def __init__(self, limits: Limits | None = None, language: LanguagePolicy | None = None) -> None:
        self.limits = Limits() if limits is None else limits
        self._language = language
        self._state: SandboxSnapshot | None = None
        self._session: SubprocessSession | None = None  # holds the state, but for the reseeds after its last call

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(exact=False, isolated=False, numpy=True, cheap_snapshot=False)

    def open(self, seed: int) -> None:
        """Start a fresh session, dropping any current one; `seed` is any integer."""
        self._reset(SandboxSnapshot(int(seed), (), "", self.fidelity))

    def run(self, code: str) -> Execution:
        """Run `code`; raises only SandboxError, and only if there is no session (`open` was never called)."""
        state = self._opened()
        return call_persistently(lambda: self._run(code, state), self._drop)

    async def run_async(self, code: str) -> Execution:
        """`run` in a thread, without blocking the event loop; if cancelled, the session is as before the call."""
        state = self._opened()
        return await call_in_thread(lambda: self.run(code), lambda: self._session, lambda: self._reset(state))

    def snapshot(self) -> SandboxSnapshot:
        """The calls so far; O(1). Raises SandboxError if there is no session."""
        return self._opened()

    def restore(self, snapshot: SandboxSnapshot, reseed: int | None = None) -> None:
        """Become the session in `snapshot`, of any backend; the calls are repeated at the next `run`."""
        state = replace(snapshot, fidelity=self.fidelity, live=None)
        if state != self._state:
            self._drop()
        if reseed is not None:
            state = replace(state, reseeds=(*state.reseeds, (len(state.calls), int(reseed))))
        self._state = state

    def rebuild(self) -> None:
        """Repeat the calls now if the session is not running; raises SandboxError if that fails."""
        self._ready(self._opened())

    def close(self) -> None:
        """End the session. Idempotent; snapshots stay valid."""
        self._reset(None)

    def _opened(self) -> SandboxSnapshot:
        if self._state is None:
            raise SandboxError("the sandbox has no session: call open() or restore() first")
        return self._state

    def _run(self, code: str, state: SandboxSnapshot) -> Execution:
        session = self._ready(state)
        try:
            (reply,) = session.request([*pending_reseeds(state), code], 1, self.limits.wall_s)
        except TimeoutError:
            self._drop()
            return stopped(f"{self.limits.wall_s:g} s")
        except SessionLostError as lost:
            self._session = None
            return process_ended(session.end(), str(lost), self.limits)
        except BaseException:
            self._drop()  # an interrupted host: the late reply would be taken for that to the next call
            raise
        self._state = replace(state, calls=(*state.calls, code), digest=extend_digest(state.digest, [reply]))
        return Execution(*reply)

    def _ready(self, state: SandboxSnapshot) -> SubprocessSession:
        """The running session; where there is none, a new one brought to `state`."""
        if self._session is not None:
            if self._session.usable():
                return self._session
            self._drop()
        limits = self.limits
        imports = None if self._language is None else self._language.allowed_imports
        session = SubprocessSession(Settings(state.seed, limits.output_chars, limits.cpu_s, limits.memory_mb, imports))
        self._session = session
        try:
            self._repeat(session, state)
        except BaseException:
            self._drop()  # half-built
            raise
        return session

    def _repeat(self, session: SubprocessSession, state: SandboxSnapshot) -> None:
        """Bring a new session to `state`; raises SandboxError where it does not get there."""
        calls = len(state.calls)
        if not calls:
            return
        try:
            replies = session.request(list(items_of(state)), calls, self.limits.wall_s * (calls + 1))
        except TimeoutError as error:
            raise SandboxError(f"repeating {calls} calls took too long") from error
        except SessionLostError as error:
            raise SandboxError(f"the session's process died while its calls were repeated: {error}") from error
        if extend_digest("", replies) != state.digest:
            raise SandboxError(not_repeated(calls))

    def _reset(self, state: SandboxSnapshot | None) -> None:
        """Be in `state`, with no process."""
        self._drop()
        self._state = state

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.discard()
