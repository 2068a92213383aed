"""Test cases of LiveCodeBench: JSON text, or JSON text that is pickled, compressed with zlib and in base64.

Files are data from elsewhere: nothing is unpickled. A pickle of one text is a handful of instructions, and they are
read as such; decompression stops at a bound.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from elpo_envs.tasks.benchmarks.rows import Row

_FRAMING = frozenset({"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"})
_TEXTS = frozenset({"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
_BYTES = frozenset({"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"})
_MOST_OPCODES = 64

Cases = tuple[str, list[Mapping[str, str]]]


def public_cases(row: Row, field: str) -> Cases:
    """The kind of the cases ("stdin", "functional", or "" where the field does not say or has none) and the
    cases as {"input", "output"}. Raises RecordError."""
    value = row.fields.get(row.need(field))
    return _cases(row, field, json_text(row, field, value) if isinstance(value, str) else value)


def private_cases(row: Row, field: str, limit: int) -> Cases:
    """As `public_cases`, from the published encoding or plain JSON; at most `limit` bytes once decompressed."""
    value = row.fields.get(row.need(field))
    if not isinstance(value, str):
        return _cases(row, field, value)
    if not value.strip():
        return "", []
    if value.lstrip()[0] == "[":
        return _cases(row, field, json_text(row, field, value))
    return _cases(row, field, json_text(row, field, pickled_text(row, field, value, limit)))


def pickled_text(row: Row, field: str, value: str, limit: int) -> str:
    """The text in base64 of zlib of a pickle. Raises RecordError for any other contents."""
    try:
        packed = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise row.wrong(field, f"a JSON list, or base64 text ({error})") from error
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, limit)
        if unpacker.unconsumed_tail and (unpacker.decompress(unpacker.unconsumed_tail, 1) or not unpacker.eof):
            raise row.error(
                f"field {field!r} decompresses to more than {limit} bytes; if that is right, raise max_tests_mb"
            )
    except zlib.error as error:
        raise row.error(f"field {field!r} is not zlib data ({error}); take the published file") from error
    if not unpacker.eof:
        raise row.error(f"field {field!r} is cut short; take the published file")
    return _one_text(row, field, data)


def _one_text(row: Row, field: str, data: bytes) -> str:
    try:
        opcodes = [(opcode.name, argument) for opcode, argument, _ in islice(pickletools.genops(data), _MOST_OPCODES)]
    except (ValueError, OverflowError, MemoryError) as error:
        raise row.error(f"field {field!r} is not a pickled text ({error}); take the published file") from error
    strange = [name for name, _ in opcodes if name not in _FRAMING | _TEXTS | _BYTES]
    texts = [(name, argument) for name, argument in opcodes if name not in _FRAMING]
    if strange or len(texts) != 1 or opcodes[-1][0] != "STOP":
        what = f"the instruction {strange[0]}" if strange else f"{len(texts)} texts"
        raise row.error(
            f"field {field!r} holds a pickle with {what}; only one text is allowed, and nothing else is read"
        )
    name, argument = texts[0]
    try:
        return bytes(argument or b"").decode() if name in _BYTES else str(argument)
    except UnicodeDecodeError as error:
        raise row.error(f"field {field!r} is not UTF-8 ({error}); take the published file") from error


def json_text(row: Row, field: str, text: str) -> Any:
    """The JSON value of a field's text. Raises RecordError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise row.error(f"field {field!r} is not valid JSON ({error}); take the published file") from error


def _cases(row: Row, field: str, value: Any) -> Cases:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise row.error(f"field {field!r} holds a {type(value).__name__}; it must be a list of test cases")
    kinds: list[str] = []
    cases: list[Mapping[str, str]] = []
    for number, case in enumerate(value):
        if not isinstance(case, Mapping):
            raise row.error(f"field {field!r}, case {number} is a {type(case).__name__}; it must be a JSON object")
        given, expected, kind = case.get("input"), case.get("output"), case.get("testtype") or ""
        if not (isinstance(given, str) and isinstance(expected, str) and isinstance(kind, str)):
            inner = Row(case, f"{row.place}, field {field!r}, case {number}")
            wrong = next(name for name in ("input", "output", "testtype") if not isinstance(case.get(name), str))
            raise inner.wrong(wrong, "text")
        cases.append({"input": given, "output": expected})
        if kind not in kinds:
            kinds.append(kind)
    if len(kinds) > 1:
        raise row.error(f"field {field!r} mixes cases of the kinds {', '.join(kinds)}; they must be of one")
    return (kinds[0] if kinds else ""), cases
