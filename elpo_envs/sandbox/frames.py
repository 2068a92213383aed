"""How a host and a session process speak: frames of JSON over a pipe or socket. Standard library only.

A frame is a 4-byte big-endian length and that many bytes. A reply is a JSON list of `[text, kind]` pairs, one for
each piece of code in the request.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Literal

LENGTH = struct.Struct("!I")
MAX_FRAME_BYTES = 64 << 20  # what a host accepts; longer ones are no replies

Reply = tuple[str, Literal["ok", "empty", "error"]]

_KINDS = ("ok", "empty", "error")


class UnreadableReplyError(ValueError):
    """A frame from a session that is not the reply it should be."""


def read_frame(source: int, max_bytes: int | None = None) -> bytes | None:
    """The next frame from descriptor `source`, or None at the end of the connection.

    Raises:
        UnreadableReplyError: the frame says that it is longer than `max_bytes`.
    """
    header = _read_exactly(source, LENGTH.size)
    if header is None:
        return None
    size = LENGTH.unpack(header)[0]
    if max_bytes is not None and size > max_bytes:
        raise UnreadableReplyError("it wrote an unreadable reply")
    return _read_exactly(source, size)


def write_frame(sink: int, payload: bytes) -> None:
    """Send `payload`, of less than 4 GiB, as one frame on descriptor `sink`; raises OSError if nobody reads it."""
    view = memoryview(LENGTH.pack(len(payload)) + payload)
    while view:
        view = view[os.write(sink, view) :]


def decode_replies(frame: bytes, expected: int, max_chars: int | None = None) -> list[Reply]:
    """The `(text, kind)` pairs in a frame sent by a session, whose code can forge anything.

    Raises:
        UnreadableReplyError: the frame does not hold exactly `expected` pairs of an encodable text, of at most
            `max_chars` characters, and a known kind.
    """
    replies: list[Reply] = []
    try:
        for text, kind in json.loads(frame):
            text.encode()
            _KINDS.index(kind)
            if max_chars is not None and len(text) > max_chars:
                raise ValueError(f"{len(text)} characters")
            replies.append((text, kind))
        if len(replies) != expected:
            raise ValueError(f"{len(replies)} replies in place of {expected}")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableReplyError("it wrote an unreadable reply") from error
    return replies


def _read_exactly(source: int, size: int) -> bytes | None:
    parts = []
    while size:
        try:
            part = os.read(source, min(size, 1 << 20))
        except ConnectionResetError:
            return None
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
