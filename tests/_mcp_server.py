"""A small MCP server for the tests: `python _mcp_server.py [http PORT]`. It keeps a list of notes as its state."""

from __future__ import annotations

import base64
import os
import sys
from typing import Any

from mcp.server.mcpserver import Image, MCPServer

server = MCPServer("notes")
notes: list[str] = []


@server.tool()
def add(a: int, b: int) -> str:
    """The sum of two numbers."""
    return str(a + b)


@server.tool()
def note(text: str) -> str:
    """Keep a note, and give all of them."""
    notes.append(text)
    return ", ".join(notes)


@server.tool()
def process() -> str:
    """The server's process id."""
    return str(os.getpid())


@server.tool()
def fail(why: str) -> str:
    """Fail by an exception."""
    raise RuntimeError(why)


@server.tool(structured_output=False)
def draw() -> list[Any]:
    """Text, an image, and text."""
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    return ["before", Image(data=base64.b64decode(pixel), format="png"), "after"]


@server.tool(structured_output=False)
def nothing() -> None:
    """No result at all."""


@server.tool()
async def sleep(seconds: float) -> str:
    """Wait, while the server answers other calls."""
    import anyio

    await anyio.sleep(seconds)
    return "slept"


@server.tool()
def long(characters: int) -> str:
    """A long text."""
    return "x" * characters


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", port=int(sys.argv[2]))
    else:
        server.run()
