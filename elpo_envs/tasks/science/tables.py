"""The reference tables: what a search tool finds, and what the generated questions are computed from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from elpo_envs.tasks.science.constants import BODIES, CONSTANTS, PREFIXES, UNITS
from elpo_envs.tasks.science.entries import Constant, Entry, Substance, UnitFactor
from elpo_envs.tasks.science.formulas import FORMULAS
from elpo_envs.tasks.science.materials import ELEMENTS, ISOTOPES, SUBSTANCES

ENTRIES: tuple[Entry, ...] = (*CONSTANTS, *UNITS, *BODIES, *ELEMENTS, *SUBSTANCES, *ISOTOPES, *FORMULAS)

FACTORS: Mapping[str, Constant | UnitFactor] = {entry.key: entry for entry in (*CONSTANTS, *UNITS)}


@cache
def tables() -> tuple[tuple[str, str], ...]:
    """All passages as (title, text), about 220; titles are unique and the order never changes."""
    prefixes = tuple(
        (f"Unit prefix {name} ({symbol})", f"The prefix {name}, {symbol}, stands for a factor of {factor}.")
        for name, symbol, factor in PREFIXES
    )
    return tuple((entry.title, entry.text) for entry in ENTRIES) + prefixes


def substances_with(*fields: str, group: str = "") -> tuple[Substance, ...]:
    """The substances that have all these properties tabulated, of one group where `group` is given."""
    return tuple(
        s for s in SUBSTANCES if (not group or s.group == group) and all(getattr(s, f) is not None for f in fields)
    )
