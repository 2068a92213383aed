"""What an endpoint's failures mean: which are tried again, after how long, and how they are told."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

_FIRST_WAIT_S, _LONGEST_BACKOFF_S = 0.5, 60.0
_TRANSIENT = frozenset({408, 409, 429})
_LONGEST_MESSAGE = 500
_CONTEXT_CODES = frozenset({"context_length_exceeded", "string_above_max_length"})
_CONTEXT_WORDS = re.compile(
    r"maximum context length|context[_ ](?:length|window)[_ ]exceed|prompt is too long|token count .{0,40}exceeds"
)


class EndpointError(RuntimeError):
    """An endpoint refused a request, or went on failing.

    Attributes:
        status: the HTTP status of the last answer; None where there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ContextOverflowError(EndpointError):
    """The conversation does not fit into the model's context."""


@dataclass(frozen=True)
class Failure:
    """One attempt that gave no usable answer.

    Attributes:
        status: the HTTP status; None where no answer came.
        message: what the server or the transport said.
        transient: trying again may help.
        retry_after_s: the pause that the server asked for; None where it asked for none.
        overflow: the server says that the context is too short.
    """

    status: int | None
    message: str
    transient: bool
    retry_after_s: float | None = None
    overflow: bool = False

    @property
    def told(self) -> str:
        """The failure in words."""
        return self.message if self.status is None else f"HTTP {self.status}: {self.message}"


def answered_with(status: int, headers: Mapping[str, str], body: str, now: datetime | None = None) -> Failure:
    """What an answer that is no success means."""
    error = _error_object(body)
    message, code = _said(error, body), error.get("code")
    # A spent quota comes as 429 with OpenAI, and no waiting fills it.
    transient = (status in _TRANSIENT or status >= 500) and code != "insufficient_quota"
    overflow = status in (400, 413, 422) and (code in _CONTEXT_CODES or _CONTEXT_WORDS.search(message) is not None)
    return Failure(status, message, transient, retry_after(headers, now or datetime.now(UTC)), overflow)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait by `Retry-After` (seconds, or a date) or `retry-after-ms`; None where neither says anything."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,12}(\.\d*)?", value):
            return float(value) * unit
        if value and name == "retry-after":
            try:
                date = parsedate_to_datetime(value)
            except ValueError:
                continue
            date = date.replace(tzinfo=UTC) if date.tzinfo is None else date
            return max(0.0, (date - now).total_seconds())
    return None


def backoff_s(seed: int, request: int, attempt: int) -> float:
    """Seconds before attempt number `attempt` + 1 of a request: doubling from 0.5 to 60, times 0.5 to 1 by lot.

    It depends on the arguments alone, so equal runs wait alike whatever the order of their requests.
    """
    lot = random.Random(f"{seed}/{request}/{attempt}").uniform(0.5, 1.0)
    return lot * min(_LONGEST_BACKOFF_S, _FIRST_WAIT_S * 2.0 ** min(attempt, 20))


def _error_object(body: str) -> Mapping[str, Any]:
    """The `error` of an answer in OpenAI's form, or the answer itself; {} where it is no JSON object."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    inner = value.get("error") if isinstance(value, dict) else None
    if isinstance(inner, dict):
        return inner
    return value if isinstance(value, dict) else {}


def _said(error: Mapping[str, Any], body: str) -> str:
    candidates = (error.get(name) for name in ("message", "detail", "error"))
    text = next((c for c in candidates if isinstance(c, str) and c), body)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]}..."
    return text or "the answer is empty"
