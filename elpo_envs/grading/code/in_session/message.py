"""A reply of a session: its `repr`, which the session shows, is JSON, compressed, as letters."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any
from zlib import compress

PREFIX = "elpo-reply:"
MAX_CHARS = 3_500_000
TOO_LARGE = "too large"


class Message:
    """Shown by the session as the value of the last expression of a call."""

    def __init__(self, content: list[Any]) -> None:
        self._text = _pack(content)
        if len(self._text) > MAX_CHARS:
            self._text = _pack([TOO_LARGE])

    def __repr__(self) -> str:
        return self._text


def _pack(content: list[Any]) -> str:
    return PREFIX + urlsafe_b64encode(compress(json.dumps(content).encode(), 1)).decode()
