"""One description of a conversation with a process, for callers that block and for callers that await.

A conversation is a generator that yields a `Wait` wherever it has to wait, and is resumed with whether what it
waited for has come (True) or the time was up (False).
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Wait:
    """Until `descriptor` can be read from, or written to, but not after `deadline` (of `time.monotonic`)."""

    descriptor: int
    writing: bool
    deadline: float


Conversation = Generator[Wait, bool, _Result]


def drive(conversation: Conversation[_Result]) -> _Result:
    """Carry a conversation out, blocking this thread while it waits."""
    poll = select.poll()
    try:
        wait = next(conversation)
        while True:
            try:
                poll.register(wait.descriptor, select.POLLOUT if wait.writing else select.POLLIN)
                remaining = max(0.0, wait.deadline - time.monotonic())
                came = bool(poll.poll(remaining * 1000))
                poll.unregister(wait.descriptor)
            except BaseException as error:
                wait = conversation.throw(error)
            else:
                wait = conversation.send(came)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def drive_async(conversation: Conversation[_Result]) -> _Result:
    """Carry a conversation out, letting the event loop go on while it waits."""
    try:
        wait = next(conversation)
        while True:
            try:
                came = await _until(wait)
            except BaseException as error:
                wait = conversation.throw(error)
            else:
                wait = conversation.send(came)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def _until(wait: Wait) -> bool:
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not came.done():
            came.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if wait.writing else (loop.add_reader, loop.remove_reader)
    add(wait.descriptor, note)
    try:
        async with asyncio.timeout(max(0.0, wait.deadline - time.monotonic())):
            await came
    except TimeoutError:
        return False
    finally:
        remove(wait.descriptor)
    return True
