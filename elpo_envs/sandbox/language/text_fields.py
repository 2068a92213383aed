"""Replacement fields of `str.format`, which may read attributes: `{0.name}`."""

from __future__ import annotations

import functools
import string

from .names import DENIED

_MAX_NESTING = 4
_MAX_REMEMBERED = 1000


def check_fields(text: str) -> str | None:
    """The first attribute name in the fields of `text` that may not be read, or None. Broken fields pass."""
    if "." not in text:
        return None
    return _remembered(text) if len(text) <= _MAX_REMEMBERED else _first_denied(text, _MAX_NESTING)


@functools.lru_cache(maxsize=256)
def _remembered(text: str) -> str | None:
    return _first_denied(text, _MAX_NESTING)


def _first_denied(text: str, nesting: int) -> str | None:
    if "." not in text or nesting == 0:
        return None
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError:  # `str.format` will say what is wrong
        return None
    for _, name, spec, _ in fields:
        parts = name.replace("[", ".").split(".")[1:] if name else ()
        for part in parts:
            if part.split("]")[0] in DENIED:
                return part.split("]")[0]
        if spec and (found := _first_denied(spec, nesting - 1)):
            return found
    return None
