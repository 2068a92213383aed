"""Pieces of stateful programs, of which tests make up sessions; the code stands in `fork_fragments.txt`."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent


def _fragment(variable: str | None, code: str) -> str:
    if variable is None:
        return code
    make, use = code.split("\n--\n")
    return f"try:\n    {variable}\nexcept NameError:\n{indent(make, '    ')}\n{use}"


def _read() -> dict[str, dict[str, str]]:
    groups: dict[str, dict[str, str]] = {}
    for line in re.split(r"^###### ", Path(__file__).with_name("fork_fragments.txt").read_text(), flags=re.M)[1:]:
        title, _, text = line.partition("\n")
        groups[title] = {}
        for part in re.split(r"^=== ", text, flags=re.M)[1:]:
            heading, _, code = part.partition("\n")
            name, _, variable = heading.partition(": ")
            groups[title][name] = _fragment(variable or None, code.strip("\n"))
    return groups


_groups = _read()

REPEATABLE: dict[str, str] = _groups["REPEATABLE"]
"""These show the same in every session with the same seed, of any backend, under the language layer's policy."""

ADDRESSED: dict[str, str] = _groups["ADDRESSED"]
"""What these show depends on addresses, or on entropy or a time that the session read once. It is the same in all
branches of a session, but not in another session."""

PLAIN: dict[str, str] = _groups["PLAIN"]
"""Repeatable, but only in plain Python, without the language layer."""
