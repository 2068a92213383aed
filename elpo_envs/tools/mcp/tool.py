"""An MCP server's tools as tools of an environment, and the use that one environment makes of the server."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from elpo_envs.sandbox.base import Fidelity
from elpo_envs.sandbox.output import elide
from elpo_envs.tools.base import BaseTool, ToolResult
from elpo_envs.tools.mcp.connection import Connection, McpServerError, RefusedCallError
from elpo_envs.tools.mcp.server import McpServer

_listed: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # by the servers' addresses
_listing = threading.Lock()


@dataclass(frozen=True)
class McpState:
    """That a conversation made calls of a server that keeps state: they cannot be taken back nor repeated."""

    calls: int

    @property
    def fidelity(self) -> Fidelity:
        return "messages"

    def to_json(self) -> dict[str, int]:
        return {"calls": self.calls}


class McpTool(BaseTool):
    """One tool of an MCP server.

    Text that the server gives is shown as it is, anything else is named. A result that the server calls an error, or
    a call that it refuses, has the kind "error"; one without a result in time "timeout"; a server that ended or wrote
    what is no message is a "sandbox_failure".

    Args:
        use: the environment's use of the server; shared with its other tools.
        listed: the tool as the server lists it, a `mcp.types.Tool`.

    Raises:
        ValueError: its schema refers to what is not part of it.
    """

    def __init__(self, use: ServerUse, listed: Any) -> None:
        self._use = use
        self._remote_name = str(listed.name)
        self.name = use.server.prefix + self._remote_name
        self.description = str(listed.description or listed.title or listed.name)
        self.parameters = dict(listed.input_schema)
        if (reference := _unresolvable(self.parameters)) is not None:
            raise ValueError(
                f"the schema of the MCP tool {self.name!r} refers to {reference!r}, which is not part of it; "
                "leave the tool out with the field 'tools' of the server"
            )

    def open(self, seed: int) -> None:
        """Begin with a server that holds nothing of earlier episodes; it is started at the first call."""
        self._use.restore(0)

    def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        return self._use.call(self._remote_name, arguments)

    def retry(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Make a failed call once more, of a server started anew; not where that would lack earlier calls."""
        return self._use.lost or self.call(arguments)

    def snapshot(self) -> Any:
        calls = self._use.calls
        return McpState(calls) if calls and not self._use.server.stateless else {"calls": 0}

    def restore(self, state: Any, reseed: int | None = None) -> None:
        """Go on with a server that holds nothing."""
        calls = state.calls if isinstance(state, McpState) else state.get("calls") if isinstance(state, dict) else None
        if isinstance(calls, bool) or not isinstance(calls, int):
            raise ValueError(f"the MCP tool {self.name} cannot restore a state of type {type(state).__name__}")
        self._use.restore(calls)

    def close(self) -> None:
        self._use.close()


class ServerUse:
    """One environment's use of a server: a connection where there is one, and what is known of the server's state.

    Attributes:
        server: which server.
        calls: of the conversation.
        lost: what the call gave in which a server ended that held the effects of earlier calls; None if none did.
    """

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.lost: ToolResult | None = None
        self._connection: Connection | None = None
        # Ends the connection, also that of an environment which nobody closes.
        self._finish: weakref.finalize[..., ServerUse] | None = None
        self.calls = 0
        self._held = 0  # of the calls, those that the running server has seen

    def restore(self, calls: int) -> None:
        """Be where a conversation has made `calls` calls, none of which the server will know of."""
        self.lost, self.calls = None, calls
        if self._held and not self.server.stateless:
            self.close()

    def close(self) -> None:
        """End the server, if it runs. Idempotent."""
        self._connection, self._held = None, 0
        if self._finish is not None:
            self._finish()

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call a tool by the server's own name for it."""
        if (complaint := _unsendable(name, arguments)) is not None:
            return ToolResult(f"Error: {complaint}", "error")
        held = 0 if self.server.stateless else self._held
        try:
            connection = self._connected()
            self._held += 1
            result = connection.call(name, arguments)
        except TimeoutError:
            self.calls += 1
            return self._timed_out(connection)
        except RefusedCallError as error:
            self.calls += 1
            return ToolResult(f"Error: {elide(str(error), 0, '', self.server.output_chars)}", "error")
        except McpServerError as error:
            self.close()
            failure = ToolResult(f"The MCP server failed: {str(error)[:500]}", "sandbox_failure")
            self.lost = failure if held else None
            return failure
        self.calls += 1
        text = elide("\n".join(_shown(result)), 0, "", self.server.output_chars)
        if result.is_error:
            return ToolResult(text or "Error: the tool failed and does not say why", "error")
        return ToolResult(text or "(no output)", "ok" if text else "empty")

    def _connected(self) -> Connection:
        if self._connection is None or not self._connection.usable:
            self._connection, self._held = Connection(self.server), 0
            self._finish = weakref.finalize(self, self._connection.close)
        return self._connection

    def _timed_out(self, connection: Connection) -> ToolResult:
        text = f"Error: no result within {self.server.call_limit_s:g} s"
        if not connection.answers():
            self.close()  # it would keep every later call waiting, too
            if not self.server.stateless:
                text += "; the server was started anew, and what earlier calls left in it is gone"
        return ToolResult(text, "timeout")


def attach(server: McpServer) -> tuple[McpTool, ...]:
    """The tools of a server, for one environment; all share one connection, which the first call opens.

    A process asks each server for its tools once, and later attaches those.

    Raises:
        McpServerError: the server does not tell its tools.
        ValueError: a tool that is wanted is not there, or cannot be attached.
        ModuleNotFoundError: the package `mcp` is not installed.
    """
    with _listing:
        if server.address not in _listed:
            connection = Connection(server)
            try:
                _listed[server.address] = tuple(connection.list_tools())
            finally:
                connection.close()
        listed = _listed[server.address]
    names = [tool.name for tool in listed]
    missing = [name for name in server.tools or () if name not in names]
    if missing:
        raise ValueError(f"the MCP server {server.label} has no tool {missing[0]!r}; it has: {', '.join(names)}")
    use = ServerUse(server)
    return tuple(McpTool(use, tool) for tool in listed if server.tools is None or tool.name in server.tools)


def _shown(result: Any) -> Iterator[str]:
    """The parts of a result as texts."""
    for part in result.content:
        if part.type == "text":
            yield part.text
        elif part.type == "resource" and hasattr(part.resource, "text"):
            yield part.resource.text
        elif part.type == "resource":
            yield f"[resource {part.resource.uri}, {part.resource.mime_type or 'binary'}, not shown]"
        elif part.type == "resource_link":
            yield f"[link to the resource {part.uri}]"
        else:
            yield f"[{part.type}, {part.mime_type}, not shown]"
    if not result.content and result.structured_content is not None:
        yield json.dumps(result.structured_content, ensure_ascii=False)


def _unsendable(name: str, arguments: Mapping[str, Any]) -> str | None:
    """Why a call cannot be sent, or None: a client ends at what it cannot write, and servers leave unanswered what
    they cannot read."""
    from mcp.types import CallToolRequestParams

    try:
        message = CallToolRequestParams(name=name, arguments=dict(arguments)).model_dump_json().encode()
        CallToolRequestParams.model_validate_json(message)  # as far as a server of the same make can read it
    except (ValueError, RecursionError) as error:
        reason = "they have a lone surrogate" if "surrogate" in str(error) else "a number or the nesting is too large"
        return f"the arguments cannot be sent: {reason}"
    return None


def _unresolvable(schema: Mapping[str, Any]) -> str | None:
    """A reference in a JSON schema that leads nowhere within it, or None: jsonschema would look for it elsewhere."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resolver = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
    pending: list[Any] = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, Mapping):
            for reference in (part.get("$ref"), part.get("$dynamicRef")):
                if isinstance(reference, str):
                    try:
                        resolver.lookup(reference)
                    except Unresolvable:
                        return reference
            pending += part.values()
        elif isinstance(part, list):
            pending += part
    return None
