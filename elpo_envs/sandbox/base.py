"""The interpreter session behind the `python` tool: one small interface, several backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Fidelity = Literal["exact", "replay", "messages"]
ExecutionKind = Literal["ok", "empty", "error", "timeout", "sandbox_failure"]


@dataclass(frozen=True)
class Limits:
    """Bounds on one call.

    Attributes:
        wall_s: seconds of wall-clock time before a call is killed.
        cpu_s: seconds of CPU time for one call.
        memory_mb: address space of the session, in MiB.
        output_chars: characters of text returned by one call; the middle is elided beyond it.
    """

    wall_s: float = 6.0
    cpu_s: float = 4.0
    memory_mb: int = 1024
    output_chars: int = 4000


@dataclass(frozen=True)
class Execution:
    """What one call gave back.

    Attributes:
        text: everything a terminal would show: stdout and stderr interleaved, then the `repr` of the last
            expression, or a traceback clipped to the user's own frames. At most `Limits.output_chars` long.
        kind: "ok"; "empty" (ran, printed nothing); "error" (the code raised); "timeout" (killed, the state
            before the call is kept); "sandbox_failure" (our fault, never the model's).
    """

    text: str
    kind: ExecutionKind


@dataclass(frozen=True)
class SandboxSnapshot:
    """A session at one moment, restorable many times and in other processes.

    Attributes:
        seed: what the session's random generators were seeded with at `open`.
        calls: the code of every call so far that must be repeated to rebuild the state, oldest first.
        digest: hash over the executions those calls gave; a replay that differs is refused.
        fidelity: how exact a restore is.
        live: a backend's own handle on a frozen session in this process, or None. Never serialised.
    """

    seed: int
    calls: tuple[str, ...]
    digest: str
    fidelity: Fidelity
    live: Any = None


class SandboxError(RuntimeError):
    """The sandbox itself failed (could not start, died, or a replay did not repeat)."""


class Sandbox(Protocol):
    """One stateful interpreter session. Not thread-safe; use one object per environment."""

    name: str
    fidelity: Fidelity
    isolated: bool

    def open(self, seed: int) -> None:
        """Start a fresh session (dropping any current one) whose random generators derive from `seed`."""

    def run(self, code: str) -> Execution:
        """Run `code` in the session. Never raises for anything the code does."""

    def snapshot(self) -> SandboxSnapshot:
        """Freeze the session; cheap, and valid after the session has moved on or was closed."""

    def restore(self, snapshot: SandboxSnapshot, reseed: int | None = None) -> None:
        """Become the session in `snapshot`; with `reseed`, reseed its random generators afterwards."""

    def close(self) -> None:
        """Release the session. Idempotent."""
