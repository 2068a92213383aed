"""An HTTP server on loopback that answers as an OpenAI-compatible endpoint does, and misbehaves on request."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """An answer: a JSON value, or bytes as they are. `cut` closes the connection after so many bytes of the body."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: int | None = None


@dataclass(frozen=True)
class Request:
    """What came: its number from 0, and when."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: Body
    at: float


Answer = Callable[[Request], Reply]


class Server:
    """Listens in a thread. `answer` is called in its event loop, one request after the other.

    Attributes:
        url: the base URL.
        requests: all that came.
        most_at_once: requests that were being answered at a time.
    """

    def __init__(self, answer: Answer) -> None:
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._answer = answer
        self._open = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    @property
    def bodies(self) -> list[Body]:
        return [r.body for r in self.requests if r.method == "POST"]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.split("\r\n")
        method, path, _ = line.split(" ")
        headers = {k.lower(): v for k, v in (h.split(": ", 1) for h in rest if h)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(len(self.requests), method, path, headers, json.loads(content or b"{}"), time.monotonic())
        self.requests.append(request)
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            reply = self._answer(request)
            await asyncio.sleep(reply.delay_s)
        finally:
            self._open -= 1
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        sent = {"Content-Type": "application/json", "Content-Length": str(len(data)), **reply.headers}
        top = f"HTTP/1.1 {reply.status} X\r\n" + "".join(f"{k}: {v}\r\n" for k, v in sent.items()) + "\r\n"
        if reply.cut is not None:
            writer.write((top.encode() + data)[: len(top) + reply.cut if reply.cut >= 0 else 0])
            await writer.drain()
            return False
        writer.write(top.encode() + data)
        await writer.drain()
        return True


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()


def message(content: str | None = None, calls: list[Any] | None = None, **usage: int) -> dict[str, Any]:
    """A chat completion with one assistant message."""
    said: dict[str, Any] = {"role": "assistant", "content": content}
    if calls is not None:
        said["tool_calls"] = calls
    return {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": usage}


def call(name: Any, arguments: Any, identity: str = "call_x") -> dict[str, Any]:
    """One of an API's tool calls."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def error(status: int, text: str, **headers: str) -> Reply:
    """A failure in OpenAI's form."""
    return Reply(
        {"error": {"message": text, "code": None}}, status, {k.replace("_", "-"): v for k, v in headers.items()}
    )
