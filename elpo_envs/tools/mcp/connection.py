"""A connection to an MCP server that ordinary code can use: the asynchronous client lives in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import Any

from elpo_envs.tools.mcp.server import McpServer

_END_S = 10.0
_MAX_PAGES = 1000


class McpServerError(RuntimeError):
    """The server failed: it could not be started, ended, or wrote what is no message. Never the caller's fault."""


class RefusedCallError(Exception):
    """The server answered a call with an error of the protocol that is the caller's to mend."""


class Connection:
    """A running client of one server. May be used from any thread; a command's process ends with it.

    After `os.fork` the new process must leave it alone: see `usable`.

    Raises:
        McpServerError: the server cannot be started, or does not answer within its `start_limit_s`.
        ModuleNotFoundError: the package `mcp` is not installed.
    """

    def __init__(self, server: McpServer) -> None:
        _require_mcp()
        self._server = server
        self._owner = os.getpid()
        self._ready: Future[None] = Future()
        self._stop = asyncio.Event()
        self._cancel: Any = None
        self._client: Any = None
        self._n_garbled = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="elpo-mcp", daemon=True)
        try:
            self._loop = asyncio.new_event_loop()
            try:
                self._thread.start()
            except RuntimeError:
                self._loop.close()
                raise
        except (OSError, RuntimeError) as error:
            raise McpServerError(f"no thread can be started for a client of {server.label}: {error}") from error
        try:
            self._ready.result(server.start_limit_s)
        except TimeoutError:
            self.close()
            raise McpServerError(f"{server.label} did not answer within {server.start_limit_s:g} s") from None
        except BaseException:
            self.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether it was neither closed nor made in another process, of which this one is a fork."""
        return not self._closed and self._owner == os.getpid()

    def list_tools(self) -> list[Any]:
        """All tools of the server, as `mcp.types.Tool`. Raises McpServerError."""
        try:
            tools: list[Any] = self._wait_for(self._list_tools(), self._server.start_limit_s)
        except TimeoutError:
            raise McpServerError(f"{self._server.label} did not list its tools in time") from None
        return tools

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool; gives a `mcp.types.CallToolResult`.

        Raises:
            TimeoutError: there was no result within `call_limit_s`.
            RefusedCallError: the server says that the call is wrong.
            McpServerError: the server ended, or what it wrote is no result.
        """
        n_garbled = self._n_garbled
        try:
            return self._wait_for(self._client.call_tool(name, dict(arguments)), self._server.call_limit_s)
        except TimeoutError:
            if self._n_garbled > n_garbled:  # the answer may have been among that
                raise McpServerError(f"{self._server.label} wrote what is no message") from None
            raise

    def answers(self) -> bool:
        """Whether the server still answers a simple question, within 2 seconds."""
        try:
            self._wait_for(self._client.list_tools(cache_mode="bypass"), 2.0)
        except (TimeoutError, McpServerError, RefusedCallError):
            return False
        return True

    def close(self) -> None:
        """End the connection, and the server's process where it has one. Idempotent."""
        if self._closed or self._owner != os.getpid():
            return
        self._closed = True
        if not self._ready.done() or self._ready.exception() is not None:
            self._tell(self._cancel_all)
        else:
            self._tell(self._stop.set)
        if threading.current_thread() is self._thread:
            return  # the garbage collector closes it, and this thread ends afterwards
        self._thread.join(_END_S)
        if self._thread.is_alive():
            self._tell(self._cancel_all)
            self._thread.join(_END_S)

    def _tell(self, do: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(do)

    def _cancel_all(self) -> None:
        if self._cancel is not None:
            self._cancel.cancel()

    def _wait_for(self, work: Coroutine[Any, Any, Any], limit_s: float) -> Any:
        """What `work` gives, done in the client's thread."""
        from mcp import MCPError

        if not self.usable or not self._thread.is_alive():
            work.close()
            raise McpServerError(f"the connection to {self._server.label} has ended")
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:  # the loop was closed just now
            work.close()
            raise McpServerError(f"the connection to {self._server.label} has ended") from error
        try:
            wait([future], limit_s)
            late = not future.done()
        finally:
            future.cancel()
        if late:
            raise TimeoutError
        try:
            return future.result()
        except MCPError as error:
            if _is_callers_fault(error.code):
                raise RefusedCallError(str(error)) from error
            raise McpServerError(f"{self._server.label}: {error}") from error
        except (Exception, CancelledError) as error:  # whatever a server provokes in its client is its failure
            raise McpServerError(f"{self._server.label}: {type(error).__name__}: {error}") from error

    async def _list_tools(self) -> list[Any]:
        page = await self._client.list_tools(cache_mode="bypass")
        tools = list(page.tools)
        for _ in range(_MAX_PAGES):
            if page.next_cursor is None:
                return tools
            page = await self._client.list_tools(cursor=page.next_cursor, cache_mode="bypass")
            tools += page.tools
        raise McpServerError(f"{self._server.label} lists its tools on more than {_MAX_PAGES} pages")

    # --- in the client's thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._live())
        except BaseException as error:  # told to whoever waits; else the connection has just ended
            if not self._ready.done():
                failure = McpServerError(f"{self._server.label} could not be started: {_first(error)}")
                self._ready.set_exception(failure)

    async def _live(self) -> None:
        import anyio
        from mcp import Client

        with anyio.CancelScope() as self._cancel:
            if self._closed:  # nobody waits any more, and nobody will end this again
                return
            async with (
                _transport(self._server) as transport,
                Client(transport, message_handler=self._heard, cache=None) as self._client,
            ):
                self._ready.set_result(None)
                await self._stop.wait()

    async def _heard(self, message: Any) -> None:
        if isinstance(message, Exception):
            self._n_garbled += 1


def _is_callers_fault(code: int) -> bool:
    """Whether an error of the protocol is about the call: invalid parameters, or what servers define themselves.

    The others that JSON-RPC reserves (no such method, internal error, connection closed) say that something is broken.
    """
    return code == -32602 or not -32768 <= code <= -32000


@contextlib.asynccontextmanager
async def _transport(server: McpServer) -> AsyncIterator[Any]:
    """What the client speaks through; nothing is started or reached yet."""
    if server.url is not None:
        from mcp.client.streamable_http import streamable_http_client

        if not server.headers:
            yield streamable_http_client(server.url)
            return
        import httpx2

        timeout = httpx2.Timeout(server.start_limit_s, read=None)
        async with httpx2.AsyncClient(headers=dict(server.headers), timeout=timeout) as client:
            yield streamable_http_client(server.url, http_client=client)
        return
    from mcp import StdioServerParameters
    from mcp.client.stdio import stdio_client

    program, *arguments = server.command
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(server.env) or None, cwd=server.cwd)
    with Path(server.log or os.devnull).open("a", encoding="utf-8") as log:
        yield stdio_client(parameters, errlog=log)


def _first(error: BaseException) -> str:
    """What went wrong, without the groups that asynchronous code wraps around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _require_mcp() -> None:
    try:
        import mcp  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("an MCP server's tools need the package mcp: pip install 'elpo[mcp]'") from error
