"""What a tool is, and a base class that leaves a stateless one little to write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from elpo_envs.sandbox.base import ExecutionKind, Fidelity


@dataclass(frozen=True)
class ToolResult:
    """What the model sees of one call.

    Attributes:
        text: shown as it is.
        kind: "ok", "empty", "error", "timeout", or "sandbox_failure" (ours, which voids the episode).
    """

    text: str
    kind: ExecutionKind = "ok"


class ToolState(Protocol):
    """A tool state that is more than JSON values. Its JSON form must be accepted by `Tool.restore`, too."""

    @property
    def fidelity(self) -> Fidelity:
        """How exact a restore in this process is; one from the JSON form counts as "replay" at best."""

    def to_json(self) -> Any:
        """JSON values that another process can restore."""


class Tool(Protocol):
    """Something the model can call. One object serves one environment, episode after episode."""

    @property
    def name(self) -> str:
        """The name the model calls it by."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """OpenAI function schema: {"type": "function", "function": {"name", "description", "parameters"}}."""

    def open(self, seed: int) -> None:
        """Begin an episode with fresh state; whatever is random derives from `seed`, 0 <= seed < 2**32."""

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Run one call. `arguments` satisfy the schema; a wrong call is a result, not an exception."""

    def snapshot(self) -> Any:
        """The state now, as JSON values or a `ToolState`; stays valid when the tool moves on or closes."""

    def restore(self, state: Any, reseed: int | None = None) -> None:
        """Become `state` (or its JSON form); with `reseed`, draw fresh randomness from then on.

        Raises ValueError for a state that is not this tool's. What fails only later, such as a replay that
        does not repeat, is the next call's "sandbox_failure".
        """

    def close(self) -> None:
        """Release resources. Idempotent; `open` and `restore` work again afterwards."""


class BaseTool(ABC):
    """A stateless tool: subclasses set `name`, `description`, `parameters` and write `call`.

    A tool with state overrides `open`, `snapshot` and `restore`, and keeps its state in JSON values.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def schema(self) -> Mapping[str, Any]:
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    def open(self, seed: int) -> None:
        """Nothing to begin."""

    @abstractmethod
    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        """See `Tool.call`."""

    def snapshot(self) -> Any:
        return None

    def restore(self, state: Any, reseed: int | None = None) -> None:
        """Nothing to restore."""

    def close(self) -> None:
        """Nothing to release."""
