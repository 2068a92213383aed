r"""Units of measurement: the factor to base units, the dimension, and where zero lies.

The grammar of unit expressions is read here, within bounds; `pint` is asked about single names only ("kJ",
"mol"), so that text of a model never reaches its parser. A text may have several readings: "J/mol K" is J/(mol K)
or (J/mol) K, and "lb" a mass or a force; readings differ in dimension, so a comparison picks the one that fits.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from elpo_envs.grading.notation import Token, read_exponent, unreadable

if TYPE_CHECKING:
    import pint

_MAX_NAME = 30
_MAX_FACTORS = 16
_MAX_POWER = 12

_NOUNS = frozenset({
    "photon", "electron", "proton", "neutron", "particle", "molecule", "atom", "ion", "nucleus", "nuclei", "nucleon",
    "\u03b1-particle", "unit", "collision", "event", "decay", "bond", "monomer", "cell", "person", "people", "each",
    "east", "west", "north", "south", "up", "down", "upward", "downward", "left", "right", "dimensionless",
})  # fmt: skip
_SCALES = {"%": 0.01, "‰": 1e-3, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "dozen": 12.0}
_OWN_DIMENSIONS = {
    **dict.fromkeys(("$", "USD", "dollar", "dollars"), ("dollar", 1.0)),
    **dict.fromkeys(("¢", "cent", "cents"), ("dollar", 0.01)),
    **dict.fromkeys(("€", "EUR", "euro", "euros"), ("euro", 1.0)),
    **dict.fromkeys(("£", "GBP"), ("sterling", 1.0)),
    **dict.fromkeys(("¥", "JPY", "yen"), ("yen", 1.0)),
    **dict.fromkeys(("dB", "decibel", "decibels"), ("decibel", 1.0)),
}
_SPELLED = {
    "KJ": "kJ", "Kj": "kJ", "kPA": "kPa", "KPa": "kPa", "Kg": "kg", "KG": "kg", "Km": "km", "KHz": "kHz",
    "Kcal": "kcal", "Cal": "kcal", "AU": "au", "rev": "turn", "revs": "turn", "revolution": "turn",
    "revolutions": "turn", "Nm": "N m", "Torr": "torr", "\u03a9": "ohm", "cc": "cm^3", "kmph": "km/h", "kph": "km/h",
    "fps": "ft/s", "liters": "liter", "litres": "liter",
}  # fmt: skip
_COMPOUND = {
    "cm^3": (("cm", 3),),
    "km/h": (("km", 1), ("hour", -1)),
    "ft/s": (("ft", 1), ("s", -1)),
    "N m": (("N", 1), ("m", 1)),
}
_GLUED = frozenset({
    "J", "kJ", "K", "mol", "kg", "g", "m", "s", "N", "C", "V", "A", "W", "T", "Pa", "kPa", "L", "atm", "h", "F", "cm",
    "eV",
})  # fmt: skip
_PLAIN_NUMBERS = frozenset({
    "percent", "permille", "ppm", "radian", "degree", "arcminute", "arcsecond", "turn", "count", "steradian", "gradian",
})  # fmt: skip
_TEMPERATURES = {
    "C": "degree_Celsius", "Celsius": "degree_Celsius", "celsius": "degree_Celsius", "centigrade": "degree_Celsius",
    "F": "degree_Fahrenheit", "Fahrenheit": "degree_Fahrenheit", "fahrenheit": "degree_Fahrenheit",
    "K": "kelvin", "Kelvin": "kelvin", "kelvin": "kelvin",
}  # fmt: skip
_BEFORE = {"square": 2, "cubic": 3, "sq": 2, "cu": 3}
_BEHIND = {"squared": 2, "cubed": 3}


@dataclass(frozen=True)
class Unit:
    """x in this unit is `x * factor + offset` in base units of `dimension` (sorted pairs of base and power)."""

    factor: float = 1.0
    dimension: tuple[tuple[str, int], ...] = ()
    offset: float = 0.0


class UnknownUnitError(ValueError):
    """A name in the text is no unit."""


def read_unit(found: tuple[Token, ...]) -> tuple[Unit, ...]:
    """The possible readings of a unit expression, at least one.

    Raises UnknownUnitError where a name is no unit, NotAQuantityError where the text is no unit expression.
    """
    named = _join_names(found)
    readings = [
        _UnitReader(named, loose, force).read() for loose, force in itertools.product((False, True), (False, True))
    ]
    return tuple(dict.fromkeys(readings))


def _join_names(found: tuple[Token, ...]) -> tuple[Token, ...]:
    """Put together what is one name in several tokens: "°" and "C", "degrees" and "Celsius", "µ" and "m"."""
    joined: list[Token] = []
    at = 0
    while at < len(found):
        token, text = found[at], found[at].text
        following = found[at + 1].text if at + 1 < len(found) and found[at + 1].kind == "word" else ""
        at += 1
        if token.kind != "word":
            joined.append(token)
            continue
        if text in ("°", "deg", "degree", "degrees", "Degrees"):
            name = _TEMPERATURES.get(following, "degree")
            at += following in _TEMPERATURES or following in ("N", "S", "E", "W")
        elif text in ("°C", "degC", "celsius", "Celsius", "°F", "degF", "Fahrenheit", "fahrenheit"):
            name = _TEMPERATURES[text.removeprefix("°").removeprefix("deg")]
        elif (text == "µ" and following) or (text in ("k", "M", "G") and following == "Ω"):
            name = text + following
            at += 1
        elif text == "\u03b1" and [part.text for part in found[at : at + 2]] in (["-", "particle"], ["-", "particles"]):
            name = "\u03b1-particle"
            at += 2
        else:
            name = text
        joined.append(Token("word", name, token.spaced))
    return tuple(joined)


class _UnitReader:
    """One reading: `loose` puts all that follows a slash below it, `force` takes pounds as forces."""

    def __init__(self, found: tuple[Token, ...], loose: bool, force: bool) -> None:
        self._found = found
        self._loose = loose
        self._force = force
        self._at = 0
        self._factors = 0

    def read(self) -> Unit:
        unit = self._expression(0)
        if self._at < len(self._found):
            raise unreadable(f"{self._found[self._at].text!r} has no place in a unit")
        return unit

    def _kind(self) -> str:
        return self._found[self._at].kind if self._at < len(self._found) else ""

    def _word(self) -> str:
        return self._found[self._at].text if self._kind() == "word" else ""

    def _expression(self, depth: int) -> Unit:
        if depth > _MAX_FACTORS:
            raise unreadable("brackets are too deep")
        parts: list[tuple[Unit, int]] = []
        below = False
        while self._kind() not in ("", ")", "}"):
            if self._kind() == "/" or self._word() == "per":
                below = True
                self._at += 1
            elif self._kind() in ("*", "-") and parts:
                self._at += 1
            if not parts and self._kind() == "number" and self._found[self._at].text == "1":
                self._at += 1
                parts.append((Unit(), 1))
                continue
            unit, power = self._factor(depth)
            parts.append((unit, -power if below else power))
            below = below and self._loose
        if not parts:
            raise unreadable("there is no unit where one should stand")
        if len(parts) == 1 and parts[0][1] == 1:
            return parts[0][0]
        return product(parts)

    def _factor(self, depth: int) -> tuple[Unit, int]:
        self._factors += 1
        if self._factors > _MAX_FACTORS:
            raise unreadable(f"a unit of more than {_MAX_FACTORS} factors")
        kind = self._kind()
        word = self._word()
        self._at += 1
        if kind in ("(", "{"):
            unit = self._expression(depth + 1)
            self._close({"(": ")", "{": "}"}[kind])
            return self._powered(((unit, 1),))
        if kind == "frac":
            sides = []
            for _ in range(2):
                self._close("{")
                sides.append(self._expression(depth + 1))
                self._close("}")
            return self._powered(((sides[0], 1), (sides[1], -1)))
        if kind != "word":
            raise unreadable("a unit is not a name")
        if word in _BEFORE and self._kind() == "word":
            power = _BEFORE[word]
            unit, more = self._factor(depth)
            return unit, power * more
        parts = [(atom(name, self._force), size) for name, size in _names(word)]
        return self._powered(tuple(parts))

    def _close(self, mark: str) -> None:
        if self._kind() != mark:
            raise unreadable(f"a {mark} is missing in a unit")
        self._at += 1

    def _powered(self, parts: tuple[tuple[Unit, int], ...]) -> tuple[Unit, int]:
        """The parts with the exponent that follows; of names run together ("JK") it is the last one's."""
        power = 1
        if self._kind() == "^":
            power, self._at = read_exponent(self._found, self._at + 1)
        elif self._word() in _BEHIND:
            power = _BEHIND[self._word()]
            self._at += 1
        elif (exponent := self._plain_exponent()) is not None:
            power = exponent
        if abs(power) > _MAX_POWER:
            raise unreadable(f"a unit to a power beyond {_MAX_POWER}")
        if len(parts) == 1 and parts[0][1] == 1:
            return parts[0][0], power
        if len(parts) == 2 and parts[1][1] == 1 and parts[0][1] == 1:
            return product((parts[0], (parts[1][0], power))), 1
        return product(parts), power

    def _plain_exponent(self) -> int | None:
        """An exponent without a caret, glued to the name: "m2", "s-1"."""
        minus = self._kind() == "-" and not self._found[self._at].spaced
        at = self._at + minus
        if at < len(self._found) and self._found[at].kind == "number" and not self._found[at].spaced:
            digits = self._found[at].text
            if len(digits) == 1 and digits in "123456789":
                self._at = at + 1
                return -int(digits) if minus else int(digits)
        return None


def product(parts: tuple[tuple[Unit, int], ...] | list[tuple[Unit, int]]) -> Unit:
    """The product of units to powers. A temperature in it is a difference, so no offset is kept."""
    factor = 1.0
    dimension: dict[str, int] = {}
    for unit, power in parts:
        try:
            factor *= unit.factor**power
        except OverflowError as error:
            raise unreadable("a unit is too large") from error
        for base, size in unit.dimension:
            dimension[base] = dimension.get(base, 0) + size * power
    if not 0 < factor < math.inf:
        raise unreadable("a unit is too large or too small")
    return Unit(factor, tuple(sorted((base, size) for base, size in dimension.items() if size)))


def _names(word: str) -> tuple[tuple[str, int], ...]:
    """The unit names in one word with their powers: itself, an abbreviation's parts, or two symbols run
    together ("JK")."""
    word = _SPELLED.get(word, word)
    if word in _COMPOUND:
        return _COMPOUND[word]
    if _lookup(word) is not None:
        return ((word, 1),)
    splits = [(word[:at], word[at:]) for at in range(1, min(len(word), 4))]
    fitting = [split for split in splits if split[0] in _GLUED and split[1] in _GLUED]
    if len(fitting) == 1:
        return ((fitting[0][0], 1), (fitting[0][1], 1))
    return ((word, 1),)


def atom(name: str, force: bool = False) -> Unit:
    """The unit of one name; case matters. Raises UnknownUnitError for a name that is no unit."""
    if force and name in ("lb", "lbs", "pound", "pounds"):
        name = "lbf"
    unit = _lookup(name)
    if unit is None:
        raise UnknownUnitError(f"{name[:_MAX_NAME]!r} is not a known unit")
    return unit


@lru_cache(maxsize=1024)
def _lookup(name: str) -> Unit | None:
    if len(name) > _MAX_NAME:
        return None
    if name in _OWN_DIMENSIONS:
        dimension, factor = _OWN_DIMENSIONS[name]
        return Unit(factor, ((dimension, 1),))
    if name in _SCALES or name.removesuffix("s") in _SCALES:
        return Unit(_SCALES.get(name) or _SCALES[name.removesuffix("s")])
    if name in _NOUNS or name.removesuffix("s") in _NOUNS:
        return Unit()
    if name in ("G", "gauss"):  # a unit of the Gaussian system to pint, where fields have another dimension
        tesla = atom("T")
        return Unit(tesla.factor * 1e-4, tesla.dimension)
    found = _ask_pint(name)
    if found is None and len(name) >= 4 and name != name.lower():
        return _lookup(name.lower())  # a full name with a capital: Joules
    return found


_lock = threading.Lock()
_registry: pint.UnitRegistry[Any] | None = None


def _ask_pint(name: str) -> Unit | None:
    """What pint knows of a name. The shared registry keeps caches, so that one thread at a time asks it."""
    global _registry
    if not name.replace("_", "").isalpha():
        return None
    with _lock:
        if _registry is None:
            import pint

            _registry = pint.UnitRegistry()
        candidates = _registry.parse_unit_name(name)
        if not candidates:
            return None
        prefix, base, _ = candidates[0]
        try:
            zero, one = (
                _registry.Quantity(value, _registry.Unit(_registry.UnitsContainer({prefix + base: 1}))).to_root_units()
                for value in (0.0, 1.0)
            )
        except Exception:  # pint has errors of many kinds for units it cannot convert, such as milli-°C
            return None
        dimension: dict[str, Any] = {
            str(root): power for root, power in one.unit_items() if root not in ("radian", "count")
        }
    if not dimension and base not in _PLAIN_NUMBERS:
        return None  # logarithmic units and mathematical constants
    if any(power != int(power) for power in dimension.values()):
        return None
    powers = tuple(sorted((root, int(power)) for root, power in dimension.items()))
    return Unit(float(one.magnitude - zero.magnitude), powers, float(zero.magnitude))


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
