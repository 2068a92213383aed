"""Units and currencies written behind (or before) a number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

PERCENT = "%"

_ALIASES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile",
    "g": "gram gm", "kg": "kilogram kilo", "mg": "milligram", "lb": "pound", "oz": "ounce", "t": "ton tonne",
    "ml": "milliliter millilitre", "l": "liter litre", "gal": "gallon", "pt": "pint", "qt": "quart",
    "s": "second sec", "min": "minute", "h": "hour hr", "d": "day", "wk": "week", "yr": "year",
    "degree": "deg", "rad": "radian", "$": "dollar usd buck", "¢": "cent", "€": "euro eur", "£": "gbp",
    PERCENT: "percent pct percentage",
}  # fmt: skip
_CANONICAL = {name: unit for unit, names in _ALIASES.items() for name in names.split()}
_COMPOUND = {"mph": "mi/h", "kph": "km/h", "kmh": "km/h", "fps": "ft/s", "sqft": "ft^2", "cc": "cm^3"}
_GLUED = frozenset(
    {
        "mm",
        "cm",
        "km",
        "ft",
        "yd",
        "mi",
        "kg",
        "mg",
        "lb",
        "lbs",
        "oz",
        "ml",
        "gal",
        "sec",
        "min",
        "hr",
        "hrs",
    }
    | {"mph", "kph", "cents", "dollars", "degrees", "hours", "minutes", "days"}
)
_POWERS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cubed": "^3", "cu": "^3"}
_EMPTY = frozenset({"unit", "a", "an", "the", "of", "total", "in", "about"})

_BRACES = re.compile(r"\\text|[{}]")
_TEXT_TAIL = re.compile(
    r"(?P<body>.*?[^\s\\])\s*(?P<unit>(?:\\text\{[^{}]*\}(?:\s*\^\s*\{?[23]\}?)?(?:\s*(?:/|\\cdot))?\s*)+)\Z",
    re.DOTALL,
)
_WORD_TAIL = re.compile(
    r"(?P<body>[-+]?\$?\s*(?:\d[\d,]*(?:\.\d+)?|\.\d+|\\frac\{\d+\}\{\d+\})(?:\s*/\s*\d+|\s+\d+/\d+)?)"
    r"(?P<gap>\s*)(?P<unit>(?:[A-Za-z][A-Za-z]+\.?|m/s)(?:[ /A-Za-z.-]|\^ ?\{?[23]\}?|[23])*)\Z"
)
_NOT_UNITS = re.compile(r"(?:pi|sqrt|sin|cos|tan|log|ln|exp|and|or|mod|times|x|oo|inf|infinity|e)\b|e\d")
_WORDS = re.compile(r"[A-Za-z$%€£¢]+|\^\s*[23]|/")


@dataclass(frozen=True)
class Quantity:
    """A number's text and the unit it carries ("%" for percent; empty for none)."""

    body: str
    unit: frozenset[str] = frozenset()

    @property
    def is_percent(self) -> bool:
        return self.unit == {PERCENT}


def compatible(a: Quantity, b: Quantity) -> bool:
    """True unless both carry units that contradict: "5 apples" agrees with "5 red apples" and with "5"."""
    return a.unit <= b.unit or b.unit <= a.unit


@lru_cache(maxsize=1024)
def split_unit(text: str) -> Quantity:
    """Split a normalised answer into its number and its unit. Text that has no unit comes back whole."""
    text = text.strip()
    sign, rest = ("-", text[1:].lstrip()) if text.startswith("-") else ("", text)
    unit: frozenset[str] = frozenset()
    if rest.startswith(("$", "US$", "USD", "€", "£")):
        symbol = {"€": "€", "£": "£"}.get(rest[0], "$")
        unit, rest = frozenset({symbol}), rest.removeprefix("US").lstrip("$€£").removeprefix("D").lstrip()
    if rest.endswith("$") and rest.count("$") == 1:
        rest, unit = rest[:-1], unit or frozenset({"$"})
    rest = rest.replace("$", "").rstrip()
    if rest.endswith(("%", "€", "£", "¢")) and len(rest) > 1:
        return Quantity(sign + rest[:-1].rstrip(), unit | {rest[-1]})
    if match := _TEXT_TAIL.match(rest) if rest.endswith(("}", "2", "3")) and "\\text{" in rest else None:
        words = canonical_unit(match["unit"])
        if words is not None:
            return Quantity(sign + match["body"].rstrip(), _join(unit, words))
    if (match := _WORD_TAIL.match(rest)) and not _NOT_UNITS.match(match["unit"]):
        glued = not match["gap"] and re.split(r"[^A-Za-z]", match["unit"])[0].lower() not in _GLUED
        words = None if glued else canonical_unit(match["unit"])
        if words is not None:
            return Quantity(sign + match["body"].rstrip(), _join(unit, words))
    return Quantity(sign + rest, unit)


def _join(symbol: frozenset[str], words: frozenset[str]) -> frozenset[str]:
    """`$5 dollars` is `$5`; `$5 per hour` keeps the rate as one unit."""
    return frozenset({"$" + word if word.startswith("/") else word for word in words}) | symbol


def canonical_unit(text: str) -> frozenset[str] | None:
    """The set of unit words in `text` ("square miles per hour" -> {"mi^2/h"}); None if it is not unit
    text."""
    plain = _BRACES.sub(" ", text)
    if not re.fullmatch(r"[A-Za-z0-9^/ .$%€£¢\\'()-]*", plain) or re.search(r"\d{2}|[014-9]", plain):
        return None
    words: list[str] = []
    power = ""
    divide = False
    for token in _WORDS.findall(plain.replace("\\cdot", " ").replace("\\", " ")):
        token = token.replace(" ", "").lower()
        if token.startswith("^"):
            if words:
                words[-1] += token
            continue
        if token in ("/", "per"):
            divide = True
            continue
        if token in _POWERS:
            if token in ("squared", "cubed") and words:
                words[-1] += _POWERS[token]
            else:
                power = _POWERS[token]
            continue
        word = _canonical_word(token)
        if token in _EMPTY and not (token == "in" and not words):
            power = ""
            continue
        word += power
        power = ""
        if divide and words:
            words[-1] += "/" + word
        else:
            words.append("/" + word if divide else word)
        divide = False
    return frozenset(word for word in words if not word.startswith("unit"))


def _canonical_word(word: str) -> str:
    if word in _COMPOUND:
        return _COMPOUND[word]
    if word in _ALIASES or word in _CANONICAL:
        return _CANONICAL.get(word, word)
    singular = word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word
    return _CANONICAL.get(singular, singular)
