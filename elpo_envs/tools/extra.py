"""The tools that a user adds to an environment, in forms that JSON can say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gymnasium.envs.registration import load_env_creator

from elpo_envs.tools.base import Tool

ExtraTool = Callable[[], Tool] | str | Mapping[str, Any]
_FORMS = "give a function that makes a tool, its place as 'module:name', or {'mcp': {'command': [...]}}"


def make_extra_tools(extra: Iterable[ExtraTool], call_limit_s: float) -> list[Tool]:
    """New tools, one environment's own.

    Args:
        extra: each one of
            a function without arguments that makes a tool, such as its class;
            "module:name", the place of one, which unlike the function lets `env.spec.to_json()` work;
            {"mcp": {...}}, all tools of an MCP server: see `elpo_envs.tools.mcp.McpServer` for the fields.
        call_limit_s: seconds of one call of an MCP server's tool where the server's own field does not say.

    Raises:
        ValueError: an entry has another form, names nothing that can be called, or has a field that is wrong.
        ModuleNotFoundError: an MCP server is asked for and the extra `mcp` is not installed.
        elpo_envs.tools.mcp.McpServerError: an MCP server cannot be asked for its tools.
    """
    if isinstance(extra, (str, Mapping)):
        raise ValueError(f"extra_tools={extra!r} must be a list; {_FORMS} in it")
    tools: list[Tool] = []
    for entry in extra:
        if isinstance(entry, Mapping):
            tools += _attached(entry, call_limit_s)
        else:
            tools.append(_maker(entry)())
    return tools


def _maker(entry: Callable[[], Tool] | str) -> Callable[[], Tool]:
    found: Any = entry
    if isinstance(entry, str):
        try:
            found = load_env_creator(entry)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"extra_tools: {entry!r} cannot be loaded as 'module:name': {error}") from error
    if not callable(found):
        raise ValueError(f"extra_tools: {entry!r} cannot be called; {_FORMS}")
    maker: Callable[[], Tool] = found
    return maker


def _attached(entry: Mapping[str, Any], call_limit_s: float) -> list[Tool]:
    if set(entry) != {"mcp"} or not isinstance(entry["mcp"], Mapping):
        raise ValueError(f"extra_tools: {dict(entry)!r} is unknown; {_FORMS}")
    from elpo_envs.tools.mcp import McpServer, attach  # which most environments do without

    return list(attach(McpServer.from_json({"call_limit_s": call_limit_s, **entry["mcp"]})))
