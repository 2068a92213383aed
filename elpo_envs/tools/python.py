"""The stateful Python interpreter as a tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from elpo_envs.sandbox.base import Capabilities, Fidelity, Sandbox, SandboxError, SandboxSnapshot
from elpo_envs.tools.base import BaseTool, ToolResult


@dataclass(frozen=True)
class PythonState:
    """An interpreter session that has run something.

    Attributes:
        backend: name of the sandbox that holds it; another one restores by replay.
        session: its snapshot.
    """

    backend: str
    session: SandboxSnapshot

    @property
    def fidelity(self) -> Fidelity:
        return self.session.restored

    def to_json(self) -> dict[str, Any]:
        return {"backend": self.backend, "session": self.session.to_json()}


class PythonTool(BaseTool):
    """`python(code)`: runs code in one session per episode, so variables persist from call to call.

    The session starts at the first call, not at `open`: an episode without calls costs nothing, and its state
    is one number.

    Args:
        sandbox: holds the session; owned by this tool.
    """

    name = "python"
    description = (
        "Run Python code in a session that keeps its variables. "
        "Returns what was printed and the value of the last expression."
    )
    parameters: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "type": "object",
        "properties": {"code": {"type": "string", "description": "Python source code."}},
        "required": ["code"],
        "additionalProperties": False,
    }

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        # What the session must become before the next call: a seed to open with, a snapshot to restore with
        # an optional reseed, or None when it is already there.
        self._pending: int | tuple[SandboxSnapshot, int | None] | None = 0
        self._facts: tuple[Capabilities, dict[str, Any]] | None = None

    @property
    def sandbox_facts(self) -> dict[str, Any]:
        """The sandbox's name, as "backend", and its capabilities."""
        capabilities = self._sandbox.capabilities
        if self._facts is None or self._facts[0] is not capabilities:  # asked for at every step
            self._facts = capabilities, {"backend": self._sandbox.name, **capabilities.to_json()}
        return self._facts[1].copy()

    def open(self, seed: int) -> None:
        self._pending = seed

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        code = str(arguments["code"])
        try:
            code.encode()
        except UnicodeEncodeError as error:
            bad = f"U+{ord(code[error.start]):04X}"
            return ToolResult(f"Error: the code has a lone surrogate {bad} at character {error.start + 1}", "error")
        try:
            execution = self._session().run(code)
        except SandboxError as error:
            return _failure(error)
        return ToolResult(execution.text or "(no output)", execution.kind)

    def retry(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Make a failed call once more, in a session built anew as it was before that call."""
        if self._pending is None:
            try:
                before = self._sandbox.snapshot()
            except SandboxError as error:
                return _failure(error)
            self._sandbox.close()
            self._pending = (before, None)
        return self.call(arguments)

    def snapshot(self) -> Any:
        pending = self._pending
        if isinstance(pending, int):
            return {"seed": pending}
        if isinstance(pending, tuple) and pending[1] is None:
            return PythonState(self._sandbox.name, pending[0])
        session = self._session()
        return PythonState(session.name, session.snapshot())

    def restore(self, state: Any, reseed: int | None = None) -> None:
        if isinstance(state, dict) and set(state) == {"seed"}:
            self._pending = int(state["seed"]) if reseed is None else reseed
            return
        state = _read_state(state)
        session = state.session
        if state.backend != self._sandbox.name:
            session = replace(session, live=None)
        # Done at the first call: a branch that only answers never pays for it.
        self._pending = (session, reseed)

    def rest(self) -> None:
        """Let go of the session, whose episode is over; `open` or `restore` must come before the next call."""
        self.close()

    def close(self) -> None:
        self._sandbox.close()
        self._pending = 0

    def _session(self) -> Sandbox:
        """The sandbox, in the state it is meant to be in."""
        sandbox = self._sandbox
        if isinstance(self._pending, int):
            sandbox.open(self._pending)
        elif self._pending is not None:
            session, reseed = self._pending
            sandbox.restore(session, reseed)
        self._pending = None
        return sandbox


def _failure(error: SandboxError) -> ToolResult:
    return ToolResult(f"The Python sandbox failed: {error}", "sandbox_failure")


def _read_state(state: Any) -> PythonState:
    if isinstance(state, PythonState):
        return state
    if not isinstance(state, dict) or set(state) != {"backend", "session"}:
        raise ValueError(f"the python tool cannot restore a state of type {type(state).__name__}")
    return PythonState(str(state["backend"]), SandboxSnapshot.from_json(state["session"]))
