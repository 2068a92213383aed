"""The interpreter session behind the `python` tool: one small interface, several backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

Fidelity = Literal["exact", "replay", "messages"]
ExecutionKind = Literal["ok", "empty", "error", "timeout", "sandbox_failure"]


@dataclass(frozen=True)
class Limits:
    """Bounds on one call.

    Attributes:
        wall_s: seconds of wall-clock time before a call is killed.
        cpu_s: seconds of CPU time for one call; enforced to the next whole second.
        memory_mb: address space of the session, in MiB.
        output_chars: characters of text returned by one call, at least 100; beyond it the middle is elided.

    Raises:
        ValueError: a bound is not positive, or `output_chars` is below 100.
    """

    wall_s: float = 6.0
    cpu_s: float = 4.0
    memory_mb: int = 1024
    output_chars: int = 4000

    def __post_init__(self) -> None:
        for field in ("wall_s", "cpu_s", "memory_mb"):
            value = getattr(self, field)
            if not (isinstance(value, int | float) and 0 < value < float("inf")):
                raise ValueError(f"Limits.{field} must be a positive finite number, not {value!r}")
        if not _is_int(self.memory_mb):
            raise ValueError(f"Limits.memory_mb must be a whole number, not {self.memory_mb!r}")
        if not (_is_int(self.output_chars) and self.output_chars >= 100):
            raise ValueError(f"Limits.output_chars must be a whole number of at least 100, not {self.output_chars!r}")


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do, on this machine.

    Attributes:
        exact: a restore continues the very state, not a repetition of its calls.
        isolated: the code can reach neither the host's files, network and processes nor other sessions.
        numpy: numpy can be imported, if it is installed.
        cheap_snapshot: a snapshot and a restore cost little time and memory, whatever the calls before them cost.
    """

    exact: bool
    isolated: bool
    numpy: bool
    cheap_snapshot: bool

    def to_json(self) -> dict[str, bool]:
        return dict(vars(self))


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
        fidelity: how exact a restore is while what `live` refers to is there; see `restored`.
        reseeds: `(n, seed)` for every time the random generators were reseeded, after the first `n` calls.
        live: a backend's own handle on a frozen session in this process, or None. Never serialised, nor pickled.
    """

    seed: int
    calls: tuple[str, ...]
    digest: str
    fidelity: Fidelity
    reseeds: tuple[tuple[int, int], ...] = ()
    live: Any = None

    def __deepcopy__(self, memo: object) -> SandboxSnapshot:
        return self  # a value, that nobody changes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "live": None}  # for other processes

    @property
    def restored(self) -> Fidelity:
        """How exact a restore would be now: an exact session whose frozen state is gone is replayed."""
        if self.fidelity == "exact" and self.calls and not getattr(self.live, "alive", False):
            return "replay"
        return self.fidelity

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form, without `live`."""
        return {
            "seed": self.seed,
            "calls": list(self.calls),
            "digest": self.digest,
            "fidelity": self.fidelity,
            "reseeds": [list(pair) for pair in self.reseeds],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> SandboxSnapshot:
        """The inverse of `to_json`; raises ValueError naming the field that is missing or malformed."""

        def field(name: str, valid: Callable[[Any], bool]) -> Any:
            if name not in data:
                raise ValueError(f"sandbox snapshot: field {name!r} is missing; was it made by to_json()?")
            if not valid(data[name]):
                raise ValueError(f"sandbox snapshot: field {name!r} cannot be {data[name]!r:.100}")
            return data[name]

        seed = field("seed", _is_int)
        calls = field("calls", lambda v: isinstance(v, list) and all(isinstance(code, str) for code in v))
        digest = field("digest", lambda v: isinstance(v, str))
        fidelity = field("fidelity", lambda v: v in get_args(Fidelity))
        reseeds = field("reseeds", lambda v: isinstance(v, list) and all(_is_reseed(p, len(calls)) for p in v))
        return SandboxSnapshot(seed, tuple(calls), digest, fidelity, tuple((n, s) for n, s in reseeds))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_reseed(pair: object, calls: int) -> bool:
    """Whether `pair` is `[n, seed]` with n a number of calls already made."""
    return isinstance(pair, list) and len(pair) == 2 and all(map(_is_int, pair)) and 0 <= pair[0] <= calls


class SandboxError(RuntimeError):
    """The sandbox itself failed (could not start, died, or a replay did not repeat)."""


class Sandbox(Protocol):
    """One stateful interpreter session. Not thread-safe; use one object per environment."""

    name: str
    fidelity: Fidelity

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do here. Known without starting a session."""

    def open(self, seed: int) -> None:
        """Start a fresh session (dropping any current one) whose random generators derive from `seed`."""

    def run(self, code: str) -> Execution:
        """Run `code` in the session. Never raises for anything the code does."""

    async def run_async(self, code: str) -> Execution:
        """`run`, while the event loop goes on; one call at a time in one session."""

    def snapshot(self) -> SandboxSnapshot:
        """Freeze the session; cheap, and valid after the session has moved on or was closed."""

    def restore(self, snapshot: SandboxSnapshot, reseed: int | None = None) -> None:
        """Become the session in `snapshot`; with `reseed`, reseed its random generators afterwards."""

    def close(self) -> None:
        """Release the session. Idempotent."""
