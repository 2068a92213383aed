"""Text that a model or a tool wrote, made fit to be looked at: short, and without power over the terminal."""

from __future__ import annotations

import unicodedata

MAX_CHARS = 4_000
MAX_LINES = 60
_MAX_MARKS = 3  # accents on one character; scripts need two or three, floods of them cover other lines
_HARMLESS = frozenset("\n\t\u200c\u200d")  # the joiners shape Indic and Persian words, and emoji


def shown(text: str, max_chars: int = MAX_CHARS, max_lines: int = MAX_LINES) -> str:
    """The text as it is safe to print, cut in the middle where it is long.

    Whatever does not show as a character of its own (escape sequences, carriage returns, text direction overrides,
    zero-width characters, lone surrogates) is written as its Python escape, such as `\\x1b`. Line breaks stay. A cut
    says how much it left out; the result is at most four times as long as what is left in, for escapes.

    Args:
        max_chars, max_lines: how much is left in, about a quarter of it from the end; >= 4.
    """
    return escaped(_shortened(text.replace("\r\n", "\n"), max_chars, max_lines))


def one_line(text: str, max_chars: int = 200) -> str:
    """The text as `shown` has it, in one line."""
    return shown(" ".join(text.split()), max_chars).replace("\n", " ")


def escaped(text: str) -> str:
    """The text with everything that does not show as a character of its own as a Python escape."""
    parts: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) else 0
        harmless = char in _HARMLESS or char.isprintable() or unicodedata.category(char) == "Zs"
        parts.append(char if harmless and marks <= _MAX_MARKS else char.encode("unicode_escape").decode("ascii"))
    return "".join(parts)


def _shortened(text: str, max_chars: int, max_lines: int) -> str:
    head, tail = max_chars - max_chars // 4, max_chars // 4
    n_lines = text.count("\n") + 1
    if n_lines > max_lines:
        first, last = max_lines - max_lines // 4, max_lines // 4
        head = min(head, _end_of_line(text, first))
        tail = min(tail, len(text) - _start_of_last_lines(text, last))
    elif len(text) <= max_chars:
        return text
    left_out = len(text) - head - tail
    if left_out <= 0:
        return text
    before, after = text[:head].rstrip("\n"), text[len(text) - tail :].lstrip("\n")
    return f"{before}\n... {left_out:,} characters left out ...\n{after}"


def _end_of_line(text: str, number: int) -> int:
    """Where line `number`, from 1, ends."""
    at = -1
    for _ in range(number):
        at = text.index("\n", at + 1)
    return at


def _start_of_last_lines(text: str, number: int) -> int:
    """Where the last `number` lines begin."""
    at = len(text)
    for _ in range(number):
        at = text.rindex("\n", 0, at)
    return at + 1
