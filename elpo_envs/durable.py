"""Values as bytes that another process can trust: versioned, checked, and JSON inside."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

_MAGIC = b"ELPOSNAP"
_DIGEST_BYTES = 32
_HEADER_BYTES = len(_MAGIC) + 2 + _DIGEST_BYTES


def pack(value: Any, version: int) -> bytes:
    """Magic (8 bytes), version (2, big-endian), SHA-256 of the rest (32), zlib-compressed JSON.

    Lone surrogates, which models do write, survive.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    body = zlib.compress(text.encode("utf-8", "surrogatepass"))
    return _MAGIC + version.to_bytes(2, "big") + hashlib.sha256(body).digest() + body


def unpack(data: bytes, version: int) -> Any:
    """The value in `data`. Raises ValueError for foreign, corrupted or cut bytes and for other versions."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ValueError(f"a durable snapshot is bytes, not {type(data).__name__}")
    data = bytes(data)
    if not data.startswith(_MAGIC):
        raise ValueError("these bytes are not a snapshot: they do not begin with its mark; use Snapshot.to_bytes()")
    if len(data) < _HEADER_BYTES:
        raise ValueError(f"the snapshot is cut short: {len(data)} bytes, its header alone has {_HEADER_BYTES}")
    found = int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "big")
    if found != version:
        raise ValueError(f"the snapshot has format version {found}, this package reads version {version}")
    body = data[_HEADER_BYTES:]
    if hashlib.sha256(body).digest() != data[_HEADER_BYTES - _DIGEST_BYTES : _HEADER_BYTES]:
        raise ValueError("the snapshot is corrupted or cut short: its digest does not match its contents")
    try:
        return json.loads(zlib.decompress(body).decode("utf-8", "surrogatepass"))
    except (zlib.error, ValueError) as error:
        raise ValueError(f"the snapshot's contents cannot be read: {error}") from error


def encode(value: Any) -> Any:
    """A plain value as JSON that keeps tuples apart from lists: containers are {"l" | "t" | "d": items}."""
    if isinstance(value, dict):
        return {"d": {k: encode(v) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"t" if isinstance(value, tuple) else "l": [encode(v) for v in value]}
    return value


def decode(value: Any) -> Any:
    """The inverse of `encode`. Raises TypeError or ValueError for JSON of another form."""
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind == "d":
        return {k: decode(v) for k, v in items.items()}
    decoded = [decode(v) for v in items]
    if kind not in ("l", "t"):
        raise ValueError(f"{kind!r} is no kind of container")
    return tuple(decoded) if kind == "t" else decoded
