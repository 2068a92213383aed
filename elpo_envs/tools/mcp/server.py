"""Which MCP server, and how it is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

_LEAST_CHARS = 100


@dataclass(frozen=True)
class McpServer:
    """A server that is started as a command, or reached at a URL.

    Attributes:
        command: the program and its arguments; it speaks the protocol on its standard input and output.
        url: of a server that speaks it over HTTP; either this or `command`.
        env: environment variables of the command, besides the few that every such command gets; sorted pairs.
        cwd: its working directory.
        headers: of every HTTP request; sorted pairs.
        stateless: its calls leave nothing behind that a later one could see. Such a server serves episode after
            episode, and snapshots are exact. Any other is started anew for each episode that calls it, and what it
            holds is lost where a snapshot is restored, whose fidelity is "messages" then.
        tools: names of the tools to attach; None for all.
        prefix: put before their names.
        call_limit_s: wall-clock seconds of one call. Environments put their `tool_timeout_s` in its place by default.
        start_limit_s: wall-clock seconds until a server has been started and has answered.
        output_chars: characters of text of one result, at least 100; beyond it the middle is elided.
        log: file to which the command's standard error is appended; None discards it.

    Raises:
        ValueError: there is neither or both of `command` and `url`, or a field is out of range.
    """

    command: tuple[str, ...] = ()
    url: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    stateless: bool = False
    tools: tuple[str, ...] | None = None
    prefix: str = ""
    call_limit_s: float = 30.0
    start_limit_s: float = 60.0
    output_chars: int = 4000
    log: str | None = None

    def __post_init__(self) -> None:
        if bool(self.command) == (self.url is not None):
            raise ValueError(
                "an MCP server needs one of command and url: "
                'give {"command": ["python", "server.py"]} or {"url": "http://localhost:8000/mcp"}'
            )
        if self.url is not None and urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"url={self.url!r} of an MCP server must begin with http:// or https://")
        for name, given, needs in (
            ("headers", self.headers, self.url),
            ("env", self.env, self.command),
            ("cwd", self.cwd, self.command),
            ("log", self.log, self.command),
        ):
            if given and not needs:
                raise ValueError(f"{name} is for MCP servers with a {'url' if name == 'headers' else 'command'} only")
        for name in ("call_limit_s", "start_limit_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name}={value!r} of an MCP server must be greater than 0 seconds, and finite")
        if type(self.output_chars) is not int or self.output_chars < _LEAST_CHARS:
            raise ValueError(f"output_chars={self.output_chars!r} must be a whole number of at least {_LEAST_CHARS}")
        if type(self.stateless) is not bool:
            raise ValueError(f"stateless={self.stateless!r} of an MCP server must be true or false")

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """The server that JSON values describe: lists for tuples, objects for pairs.

        Raises:
            ValueError: a field is unknown, of another type or out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(given.keys() - known)
        if unknown:
            raise ValueError(
                f"the field {unknown[0]!r} of an MCP server is unknown; give some of {', '.join(sorted(known))}"
            )
        values = dict(given)
        for name in ("command", "tools"):
            if values.get(name) is not None:
                values[name] = _texts(name, values[name])
        for name in ("env", "headers"):
            values[name] = _pairs(name, values.get(name) or {})
        for name in ("url", "cwd", "prefix", "log"):
            if values.get(name) is not None and not isinstance(values[name], str):
                raise ValueError(f"{name}={values[name]!r} of an MCP server must be a text")
        return cls(**values)

    @property
    def address(self) -> tuple[Any, ...]:
        """What tells it from servers with other tools."""
        return (self.command, self.url, self.env, self.cwd, self.headers)

    @property
    def label(self) -> str:
        """Short text that names the server in messages, without what may be secret."""
        if self.url is not None:
            parts = urlsplit(self.url)
            return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
        script = [part for part in self.command[1:2] if not part.startswith("-")]
        return " ".join(Path(part).name for part in (self.command[0], *script))


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name}={value!r} of an MCP server must be a list of texts")
    return tuple(value)


def _pairs(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for pair in value.items() for v in pair):
        raise ValueError(f"{name} of an MCP server must be an object of texts, such as {{'NAME': 'value'}}")
    return tuple(sorted(value.items()))
