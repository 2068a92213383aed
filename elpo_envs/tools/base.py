"""What a tool is, and a base class that leaves a stateless one little to write.

A whole tool, for `gym.make("elpo/Math-v0", extra_tools=(PrimeTool,))`, or by its place, "my_module:PrimeTool":

    from elpo_envs.tools import BaseTool, ToolResult


    class PrimeTool(BaseTool):
        name = "next_prime"
        description = "The smallest prime number that is larger than n."
        parameters = {
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 10**6}},
            "required": ["n"],
        }

        def call(self, arguments):
            n = arguments["n"] + 1
            while n < 2 or any(n % d == 0 for d in range(2, int(n**0.5) + 1)):
                n += 1
            return ToolResult(str(n))
"""

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
        kind: "ok", "empty", "error", "timeout", or "sandbox_failure": a fault that is not the model's. Such a call
            is made once more, and voids the episode if it fails again.
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

    def retry(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Make a call once more that gave "sandbox_failure", from the state before it.

        By default `call`, which suits a tool whose failed calls leave its state alone. One that cannot go back gives
        the failure again.
        """
        return self.call(arguments)

    def snapshot(self) -> Any:
        return None

    def restore(self, state: Any, reseed: int | None = None) -> None:
        """Nothing to restore."""

    def close(self) -> None:
        """Nothing to release."""
