"""The output of a session: one bounded text, written through stand-ins for the standard streams."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable
from typing import Any

FILENAME = "<python>"

_ADDRESS = re.compile(r"(?<= at )0x[0-9a-fA-F]{9,16}(?=[>,])")
_CELL = re.compile(r"<python:\d+>")


def elide(head: str, hidden: int, tail: str, limit: int) -> str:
    """`head` + `hidden` unseen characters + `tail`, cut in the middle to at most `limit` characters."""
    total = len(head) + hidden + len(tail)
    if total <= limit:
        return head + tail
    room = limit - len(_marker(total))
    front, back = room // 2, room - room // 2
    if not hidden:
        head = tail = head + tail
    return head[:front] + _marker(total - front - back) + tail[-back:]


def _marker(omitted: int) -> str:
    return f"\n... [{omitted} characters omitted] ...\n"


def _clean(text: str, scratch: str | None) -> str:
    """Hide what changes from process to process, and make `text` encodable."""
    if scratch is not None:
        text = text.replace(scratch, "/scratch")
    text = _CELL.sub(FILENAME, _ADDRESS.sub("0x7f0000000000", text))
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


class Output:
    """The first and the last `limit` characters of everything written, in bounded memory.

    Args:
        limit: upper bound on the length of `text()`.
        foreign: gives and forgets what reached the output past `write` (from a subprocess, say).
        scratch: a path to be shown as `/scratch`.
    """

    def __init__(self, limit: int, foreign: Callable[[], str] | None, scratch: str | None) -> None:
        self._limit = limit
        self._foreign = foreign
        self._scratch = scratch
        self.reset()

    def reset(self) -> None:
        self._head: list[str] = []
        self._tail: list[str] = []
        self._head_chars = self._tail_chars = self._total = 0
        self._last = "\n"

    def write(self, text: str) -> None:
        # Like a terminal's line buffer: other output comes in between lines. Asking costs a system call.
        if self._last == "\n":
            self._take_foreign()
        self._add(text)

    def _take_foreign(self) -> None:
        if self._foreign is not None and (foreign := self._foreign()):
            self._add(foreign)

    def _add(self, text: str) -> None:
        if not text:
            return
        self._total += len(text)
        self._last = text[-1]
        room = self._limit - self._head_chars
        if room > 0:
            self._head.append(text[:room])
            self._head_chars += len(self._head[-1])
            if len(text) <= room:
                return
            text = text[room:]
        self._tail.append(text[-self._limit :])
        self._tail_chars += len(self._tail[-1])
        if self._tail_chars > 8 * self._limit:
            self._tail = ["".join(self._tail)[-self._limit :]]
            self._tail_chars = self._limit

    def start_line(self) -> None:
        """End an unfinished line, so that a value or a traceback starts on its own."""
        self._take_foreign()
        if self._last != "\n":
            self._add("\n")

    def text(self) -> str:
        """Everything written since `reset`, without trailing newlines and with the middle elided."""
        self._take_foreign()
        if not self._total:
            return ""
        head, tail = "".join(self._head), "".join(self._tail)[-self._limit :]
        hidden = self._total - len(head) - len(tail)
        if not hidden:
            return elide(_clean((head + tail).rstrip("\n"), self._scratch), 0, "", self._limit)
        tail = _clean(tail.rstrip("\n"), self._scratch)
        return elide(_clean(head, self._scratch), hidden, tail, self._limit)


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a session. Closing it does nothing: code cannot lose its output."""

    encoding = "utf-8"
    errors = "backslashreplace"
    line_buffering = True

    def __init__(self, output: Output, descriptor: int | None) -> None:
        super().__init__()
        self._output = output
        self._descriptor = descriptor
        self.buffer = _ByteStream(self)
        self.name = "<stderr>" if descriptor == 2 else "<stdout>"
        self.mode = "w"

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._output.write(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self._descriptor is None:
            raise io.UnsupportedOperation("fileno")
        return self._descriptor

    def reconfigure(self, **_: object) -> None:
        """Accepted and without effect: what is shown is text, whatever its encoding would be."""

    def close(self) -> None:
        """Without effect."""


class _ByteStream(io.RawIOBase):
    """`sys.stdout.buffer`: bytes join the text as UTF-8."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(self, data: Any, /) -> int:
        data = bytes(data)
        self._stream.write(self._decode(data))
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        """Without effect."""


class NoInput(io.StringIO):
    """An empty `sys.stdin`: `input()` raises EOFError. `exit()` closes stdin, which does nothing here."""

    def close(self) -> None:
        """Without effect."""
