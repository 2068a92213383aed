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

import hashlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from elpo_envs.sandbox.base import Execution, ExecutionKind, Fidelity, Limits, SandboxError, SandboxSnapshot
from elpo_envs.sandbox.forked import ForkedSession, can_fork, current_zygote
from elpo_envs.sandbox.plain import PlainSession
from elpo_envs.sandbox.processes import START_S, Reply, Session, SessionLostError
from elpo_envs.sandbox.session import Settings

_KEPT = "variables are as they were before it"
_ATTEMPTS = 2


class ReplaySandbox:
    """A `Sandbox` whose snapshots are replayed.

    Processes start lazily, at the first `run` after `open` or `restore`. A call that timed out or whose
    process died leaves no trace in the state: the next `run` rebuilds what was before it.

    Args:
        limits: bounds on each call.
        fork: fork sessions from a zygote (milliseconds each); False starts a whole interpreter for each. By
            default whatever the system can do.
    """

    name = "replay"
    fidelity: Fidelity = "replay"
    isolated = False

    def __init__(self, limits: Limits | None = None, *, fork: bool = can_fork) -> None:
        self.limits = Limits() if limits is None else limits
        self._fork = fork
        self._state: SandboxSnapshot | None = None
        self._session: Session | None = None
        self._unsent: tuple[int, ...] = ()  # reseeds in the state that the running session has not had yet

    def open(self, seed: int) -> None:
        """Start a fresh session, dropping any current one; `seed` is any integer."""
        self._drop()
        self._state = SandboxSnapshot(int(seed), (), "", self.fidelity)

    def run(self, code: str) -> Execution:
        """Run `code`; raises only SandboxError, and only if there is no session (`open` was never called)."""
        state = self._opened()
        failure: SandboxError | None = None
        for _ in range(_ATTEMPTS):
            try:
                return self._run(code, state)
            except SandboxError as error:
                failure = error
                self._drop()
        return Execution(f"SandboxError: {failure}", "sandbox_failure")

    def snapshot(self) -> SandboxSnapshot:
        """The calls so far; O(1). Raises SandboxError if there is no session."""
        return self._opened()

    def restore(self, snapshot: SandboxSnapshot, reseed: int | None = None) -> None:
        """Become the session in `snapshot`, of any backend; the calls are repeated at the next `run`."""
        if snapshot != self._state:
            self._drop()
        self._state = snapshot
        if reseed is not None:
            self._unsent += (int(reseed),)
            reseeds = (*snapshot.reseeds, (len(snapshot.calls), int(reseed)))
            self._state = SandboxSnapshot(snapshot.seed, snapshot.calls, snapshot.digest, self.fidelity, reseeds)

    def rebuild(self) -> None:
        """Repeat the calls now if the session is not running; raises SandboxError if that fails."""
        self._ready(self._opened())

    def close(self) -> None:
        """End the session. Idempotent; snapshots stay valid."""
        self._drop()
        self._state = None

    def _opened(self) -> SandboxSnapshot:
        if self._state is None:
            raise SandboxError("the sandbox has no session: call open() or restore() first")
        return self._state

    def _run(self, code: str, state: SandboxSnapshot) -> Execution:
        session = self._ready(state)
        try:
            (reply,) = session.request([*self._unsent, code], 1, self.limits.wall_s)
        except TimeoutError:
            self._drop()
            return self._stopped(f"{self.limits.wall_s:g} s")
        except SessionLostError as ended:
            return self._lost(session.end(), str(ended))
        except BaseException:
            self._drop()  # an interrupted host: the late reply would be taken for that to the next call
            raise
        self._unsent = ()
        text, kind = reply
        digest = _extend(state.digest, [reply])
        self._state = SandboxSnapshot(state.seed, (*state.calls, code), digest, self.fidelity, state.reseeds)
        return Execution(text, _KINDS[kind])

    def _ready(self, state: SandboxSnapshot) -> Session:
        """The running session; where there is none, a new one brought to `state`."""
        if self._session is not None:
            if self._session.usable():
                return self._session
            self._drop()
        limits = self.limits
        self._session = self._start(Settings(state.seed, limits.output_chars, limits.cpu_s, limits.memory_mb))
        self._unsent = ()
        try:
            self._repeat(self._session, state)
        except BaseException:
            self._drop()  # half-built
            raise
        return self._session

    def _repeat(self, session: Session, state: SandboxSnapshot) -> None:
        """Bring a new session to `state`; raises SandboxError where it does not get there."""
        calls = len(state.calls)
        items = list(_items(state))
        if not items:
            return
        try:
            replies = session.request(items, calls, self.limits.wall_s * (calls + 1))
        except TimeoutError as error:
            raise SandboxError(f"repeating {calls} calls took too long") from error
        except SessionLostError as error:
            raise SandboxError(f"the session's process died while its calls were repeated: {error}") from error
        if _extend("", replies) != state.digest:
            raise SandboxError(
                f"repeating the session's {calls} calls gave other results than the first time; its code "
                "depends on the clock, on unseeded randomness or on something outside the session"
            )

    def _start(self, settings: Settings) -> Session:
        session: Session = ForkedSession(current_zygote()) if self._fork else PlainSession()
        try:
            session.request(asdict(settings), 0, START_S)
        except (TimeoutError, SessionLostError) as error:
            session.discard()
            raise SandboxError(f"a session process did not start: {error!r}") from error
        return session

    def _lost(self, exit_code: int, how: str) -> Execution:
        """What to say about a call whose process ended with `exit_code`."""
        self._drop()
        if exit_code >= 0:
            how = f"it ended with exit code {exit_code}"
        else:
            name = next((s.name for s in signal.Signals if s == -exit_code), f"signal {-exit_code}")
            if name == "SIGXCPU":
                return self._stopped(f"{self.limits.cpu_s:g} s of CPU time")
            if name != "SIGKILL":  # which is how we end a process that closed its connection
                how = f"it was ended by {name}"
        return Execution(f"ProcessDied: the interpreter was lost in this call ({how}); {_KEPT}", "error")

    def _stopped(self, limit: str) -> Execution:
        return Execution(f"TimeoutError: the call was stopped after {limit}; {_KEPT}", "timeout")

    def _drop(self) -> None:
        if self._session is not None:
            self._session.discard()
        self._session = None
        self._unsent = ()


_KINDS: dict[str, ExecutionKind] = {"ok": "ok", "empty": "empty", "error": "error"}


def _items(state: SandboxSnapshot) -> Iterator[str | int]:
    """The calls and reseeds of `state` in the order they were made."""
    reseeds = iter((*state.reseeds, (-1, 0)))
    position, seed = next(reseeds)
    for index in range(len(state.calls) + 1):
        while position == index:
            yield seed
            position, seed = next(reseeds)
        if index < len(state.calls):
            yield state.calls[index]


def _extend(digest: str, replies: Sequence[Reply]) -> str:
    """Chain executions onto a digest: hex of 16 bytes, "" before the first call."""
    for text, kind in replies:
        digest = hashlib.blake2b(f"{digest} {kind} {text}".encode(), digest_size=16).hexdigest()
    return digest
