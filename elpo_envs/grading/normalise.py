r"""One spelling for the many ways of typing the same answer. String rules only, no mathematics.

In normalised text a literal set brace `\{` is "⦃", `\}` is "⦄", words typeset as text are `\text{words}`, a
degree sign is `\text{degree}`, an escaped dollar is "$" and an escaped percent sign is "%".
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_LENGTH = 2000

_UNICODE = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2010": "-", "\u2011": "-", "\uff0d": "-",
        "\u00d7": r"\times ", "\u22c5": r"\cdot ", "\u00b7": r"\cdot ", "\u00f7": "/", "\u2044": "/",
        "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u00b0": r"^\circ ", "\u03b8": r"\theta ",
        "\u00b1": r"\pm ", "\u2213": r"\mp ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ",
        "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ", "\u2248": r"\approx ",
        "\u2205": r"\emptyset ", "\u211d": r"\mathbb{R}",
        "\u00b2": "^2", "\u00b3": "^3", "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}",
        "\u00be": r"\frac{3}{4}", "\u2153": r"\frac{1}{3}", "\u2154": r"\frac{2}{3}",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2007": " ", "\u200b": "", "\ufeff": "",
        "\u2019": "'", "\u2018": "'", "\uff0c": ",", "\uff1d": "=", "\uff05": "%",
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
    }
)  # fmt: skip
_UNICODE_ROOT = re.compile(r"\u221a\s*(\d+(?:\.\d+)?|[A-Za-z]|(?=[({]))")
_DRESS = (
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|emph|math(?:rm|bf|it|sf)|boldsymbol|bm|pmb|mbox|hbox|rm|bf)(?![A-Za-z])\s*"
)
_TEXT = re.compile(_DRESS + r"(?=\{)")
_DRESSED = re.compile(_DRESS + r"\{(.*)\}\Z", re.DOTALL)
_OPERATOR = re.compile(r"\\operatorname\*?\s*\{([A-Za-z]+)\}")
_DELIMITER = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*(\.?)")
_INVISIBLE = re.compile(r"(?<!\\)\\!\s*|\\(?:displaystyle|textstyle|limits|nolimits|phantom\{[^{}]*\})(?![A-Za-z])")
_THOUSANDS_GAP = re.compile(r"(?<=\d)(?:\\[,; ]|,\\[,; ])(?=\d{3}(?!\d))")
_SPACE = re.compile(r"(?<!\\)\\[,;:> ]|\\(?:quad|qquad|thinspace|enspace|hspace\{[^{}]*\})(?![A-Za-z])|~|\s+")
_FRAC = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_SHORT_ROOT = re.compile(r"\\sqrt\s*([0-9]|[A-Za-z](?![A-Za-z]))")
_SHORT_FRAC = re.compile(r"\\frac\s*([0-9]|[A-Za-z](?![A-Za-z]))")
_SHORT_DENOMINATOR = re.compile(r"(\\frac\{(?:[^{}]|\{[^{}]*\})*\})\s*([0-9]|[A-Za-z](?![A-Za-z]))")
_PLAIN_ROOT = re.compile(r"(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)")
_PLAIN_NAME = re.compile(r"(?<![A-Za-z\\])(pi|sin|cos|tan|log|ln|inf|infinity|oo)(?![A-Za-z])")
_PLAIN_NAMES = {"inf": "infty", "infinity": "infty", "oo": "infty"}
_LONG_EXPONENT = re.compile(r"\^\s*(-?[0-9]{2,}|-[0-9])(?![0-9.])")
_DEGREE = re.compile(r"\^?\s*\{?\s*(?:\\circ|\\degree)(?![A-Za-z])\s*\}?")
_RENAMED = re.compile(
    r"\\(leq|geq|leqslant|geqslant|neq|cdotp|lbrace|rbrace|langle|rangle|lvert|rvert|vert|varnothing|pounds"
    r"|arcsin|arccos|arctan|to|dollar)(?![A-Za-z])"
)
_NAMES = {
    "leq": r"\le ", "geq": r"\ge ", "leqslant": r"\le ", "geqslant": r"\ge ", "neq": r"\ne ",
    "cdotp": r"\cdot ", "lbrace": "⦃", "rbrace": "⦄", "langle": "(", "rangle": ")",
    "lvert": "|", "rvert": "|", "vert": "|", "varnothing": r"\emptyset ", "pounds": "£",
    "dollar": "$",
}  # fmt: skip
_OUTER = ((r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$"), ("$", "$"), ("**", "**"), ("`", "`"))
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}\Z", re.DOTALL)
_SINGLE = re.compile(r"\{([^{}\\])\}(?![0-9A-Za-z])")
_OVER_ESCAPED = re.compile(r"\\\\(?=[A-Za-z{}])")
_NEEDLESS_SPACE = re.compile(r"(?<![0-9]) | (?![0-9])")
_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?\Z")


@lru_cache(maxsize=1024)
def normalise(text: str) -> str:
    """`text` in the normal spelling above; "" when nothing is left. Idempotent on its common outputs."""
    text = text.strip()
    if _PLAIN.match(text):
        return text
    if not text.isascii():
        text = _UNICODE_ROOT.sub(lambda m: r"\sqrt{" + m[1] + "}" if m[1] else r"\sqrt", text.translate(_UNICODE))
    text = _without_wrappers(text).replace("{,}", ",")
    if "\\" in text:
        text = _latex(text)
    elif "~" in text:
        text = text.replace("~", " ")
    text = _plain_mathematics(_SPACE.sub(" ", text).strip())
    return text[:-1].rstrip() if text.endswith((".", ",", ";")) and len(text) > 1 else text


def squeeze(text: str) -> str:
    r"""The key for literal comparison: no `\text`, no needless braces, no spaces except between digits."""
    if "\\" in text:
        text = text.replace("\\text{", "{")
        text = _SINGLE.sub(r"\1", text)
    return _NEEDLESS_SPACE.sub("", text)


def _without_wrappers(text: str) -> str:
    """Strip matching outer math delimiters, emphasis and a box, and a full stop after them, repeatedly."""
    for _ in range(8):
        before = text
        if text.endswith(".") and len(text) > 1:
            text = text[:-1].rstrip()
        for left, right in _OUTER:
            inner = text[len(left) : -len(right)]
            if (
                len(text) > len(left) + len(right)
                and text.startswith(left)
                and text.endswith(right)
                and left not in inner
                and not inner.endswith("\\")
            ):
                text = inner.strip()
        if (match := _BOXED.match(text)) and _balanced(match[1]):
            text = match[1].strip()
        if (match := _DRESSED.match(text)) and _balanced(match[1]) and any(char.isdigit() for char in match[1]):
            text = match[1].strip()
        if text == before:
            break
    return text


def _balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0


def _plain_mathematics(text: str) -> str:
    """Mathematics typed without LaTeX in LaTeX's spelling: `2pi`, `sqrt(3)`, `2**10`, `oo`."""
    if "sqrt" in text:
        text = _PLAIN_ROOT.sub(r"\\sqrt{\1}", text)
    text = _PLAIN_NAME.sub(lambda match: "\\" + _PLAIN_NAMES.get(match[1], match[1]) + " ", text)
    return _LONG_EXPONENT.sub(r"^{\1}", text.replace("**", "^")) if "^" in text or "**" in text else text


def _latex(text: str) -> str:
    if r"\begin" not in text:  # no rows to break: the backslashes of a JSON or Python string
        text = _OVER_ESCAPED.sub(r"\\", text)
    text = _THOUSANDS_GAP.sub("", _INVISIBLE.sub("", text))
    text = re.sub(r"(?<!\\)\\\{", "⦃", _DELIMITER.sub("", text))
    text = re.sub(r"(?<!\\)\\\}", "⦄", text)
    text = re.sub(r"(?<!\\)\\([$%&#])", r"\1", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", _FRAC.sub(r"\\frac", text))
    text = _SHORT_FRAC.sub(r"\\frac{\1}", text)
    text = _SHORT_DENOMINATOR.sub(r"\1{\2}", text)
    text = _OPERATOR.sub(r"\\\1 ", _TEXT.sub(r"\\text", text))
    text = _RENAMED.sub(lambda m: _NAMES.get(m[1], "\\" + m[1]), text)
    return _DEGREE.sub(r"\\text{degree}", text)
