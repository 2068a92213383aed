r"""The final answer of text that was not asked for a box: recorded traces, other people's data.

Never use it for rewards: a text that names many numbers in many ways has a better chance than one that commits itself.

The reading order, the first that finds something decides:
1. a `\boxed{}`, or what follows "final answer is"; the later of the two. Neighbouring boxes with only "and", "or", a
   comma or marks between them are one list.
2. the formula or number within 50 characters of the last word "answer" that has one there.
3. the last formula or number.

Formulas are `$...$` and `\(...\)` on one line, `$$...$$` and `\[...\]`, and a lone `\frac` of numbers; joined by "and",
"or" or a comma they are one list. A comma in a bare number groups thousands where it can, else it is a decimal comma.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from elpo_envs.grading.choice import choice_letters, grade_choice
from elpo_envs.grading.extract import find_boxes

_MAX_LENGTH = 200_000
_NEAR = 50
_FAR = 100
_MAX_GAP = 40

_DELIMITER = re.compile(r"\\[$\\]|\\[\[\]()]|\$\$|\$|\n")
_CLOSERS = {"$$": "$$", "$": "$", r"\[": r"\]", r"\(": r"\)"}
_MARKUP = re.compile(r"\\(?:text|quad|qquad|[()\[\],;: ]|begin|end)|\{align\*?\}")
_NAME_TAIL = re.compile(r"[A-Za-z](?:_\{?\w{1,9}\}?)?\s?=\s?\Z")
_CONNECTIVE = re.compile(r"(?<![A-Za-z])(?:and|or)(?![A-Za-z])")
_FINAL = re.compile(r"final answer", re.IGNORECASE)
_ANSWER = re.compile(r"answer", re.IGNORECASE)
_IS = re.compile(r"\bis\b:?[\s\"'*\\]*")
_PERCENT = re.compile(r"\s*(?:\$|\\\)|\\\])?\s*(?:\\?%|[Pp]ercent(?:age)?\b|[Pp]ct\b)")
_NUMBER = re.compile(
    r"(?<![\w.\\$€£¥-])(?P<sign>-?)[$€£¥]?"
    r"(?P<number>[1-9]\d{0,2}(?:[ ,]\d{3})+(?!\d)(?:\.\d+)?|\d+,\d+(?![\d,])|\d+(?:\.\d+)?|\.\d+)"
    r"(?P<under>\s*/\s*\d+)?"
)
_LABEL = re.compile(r"\s*\**\(?([A-Z])[.,:)]")
_LETTER = re.compile(r"(?<![A-Za-z0-9'])[A-Z](?![A-Za-z0-9'])")
_FRACTION = re.compile(r"-?\\[dtc]?frac\{-?\d+(?:\.\d+)?\}\{-?\d+(?:\.\d+)?\}")
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:[ ,]\d{3})+(?:\.\d+)?")


@dataclass(frozen=True)
class _Found:
    """A candidate and its place."""

    answer: str
    start: int
    end: int


def _place(found: _Found) -> int:
    return found.start


def answer_in_prose(text: str, formulas: bool = True, numbers: bool = True) -> str | None:
    """The final answer in `text`, or None where there is none.

    Args:
        text: any text; of more than 200,000 characters the last ones are read.
        formulas: whether boxes and LaTeX formulas are read.
        numbers: whether bare numbers in the prose are read.
    """
    text = text[-_MAX_LENGTH:]
    boxes = _joined(text, [_Found(box.content, box.start, box.end) for box in find_boxes(text)]) if formulas else []
    maths = _joined(text, [f for f in _formulas(text) if not _holds_box(f.answer)]) if formulas else []
    if formulas:
        bare = [_Found(match[0], *match.span()) for match in _FRACTION.finditer(text)]
        maths = sorted([*maths, *_outside(bare, maths)], key=_place)
    both = sorted([*maths, *_outside(_numbers(text), maths)], key=_place) if numbers else maths
    final = _anchored(text, both, _FINAL, _after_is)
    committed = [found for found in (boxes[-1] if boxes else None, final) if found is not None]
    if committed:
        return max(committed, key=_place).answer
    if near := _anchored(text, both, _ANSWER, _right_after):
        return near.answer
    return both[-1].answer if both else None


def choice_in_prose(text: str, letters: Sequence[str]) -> str | None:
    """The letter that `text` answers: as `grade_choice` reads it, or a label in front, or the only letter named."""
    stated = grade_choice(text, "A", choice_letters(26)).answer
    if stated is None and (label := _LABEL.match(text)):
        stated = label[1]
    if stated is None and len(named := set(_LETTER.findall(text)) & set(letters)) == 1:
        (stated,) = named
    return stated if stated in letters else None


def _formulas(text: str) -> list[_Found]:
    """Delimited formulas in order; one pass. A `$` that follows a digit opens nothing: it is a currency."""
    found: list[_Found] = []
    opened: tuple[str, int, int] | None = None
    for match in _DELIMITER.finditer(text):
        mark = match[0]
        if opened is None:
            if mark in _CLOSERS and not (mark == "$" and text[match.start() - 1 : match.start()].isdigit()):
                opened = (_CLOSERS[mark], match.start(), match.end())
        elif mark == opened[0]:
            if answer := text[opened[2] : match.start()].strip():
                found.append(_Found(answer, opened[1], match.end()))
            opened = None
        elif mark == "\n" and opened[0] in ("$", r"\)"):
            opened = None
    return found


def _holds_box(formula: str) -> bool:
    return r"\boxed" in formula or r"\fbox" in formula


def _joined(text: str, found: Sequence[_Found]) -> list[_Found]:
    """Neighbours with nothing but a connective or marks between them become one list; percent signs are taken in."""
    groups: list[list[_Found]] = []
    for item in found:
        if percent := _PERCENT.match(text, item.end):
            item = _Found(item.answer + r"\%", item.start, percent.end())
        if groups and _connects(text[groups[-1][-1].end : item.start]):
            groups[-1].append(item)
        else:
            groups.append([item])
    return [_Found(", ".join(item.answer for item in group), group[0].start, group[-1].end) for group in groups]


def _connects(gap: str) -> bool:
    if len(gap) > _MAX_GAP or "\n\n" in gap:
        return False
    plain = _NAME_TAIL.sub("", _MARKUP.sub(" ", gap))
    return _CONNECTIVE.search(plain) is not None or not any(char.isalnum() or char in "=<>." for char in plain)


def _outside(found: Sequence[_Found], formulas: Sequence[_Found]) -> list[_Found]:
    """Those that stand in none of the formulas."""
    starts = [formula.start for formula in formulas]
    return [item for item in found if (at := bisect_left(starts, item.end) - 1) < 0 or formulas[at].end <= item.start]


def _numbers(text: str) -> list[_Found]:
    found: list[_Found] = []
    for match in _NUMBER.finditer(text):
        digits = match["number"]
        digits = re.sub("[ ,]", "", digits) if _THOUSANDS.fullmatch(digits) else digits.replace(",", ".")
        answer = match["sign"] + digits + (match["under"] or "")
        end = match.end()
        if percent := _PERCENT.match(text, end):
            answer, end = answer + r"\%", percent.end()
        found.append(_Found(answer, match.start(), end))
    return found


def _anchored(
    text: str, found: Sequence[_Found], anchor: re.Pattern[str], starts: Callable[[str, int], Sequence[int]]
) -> _Found | None:
    """What begins where `starts` says, behind the last anchor that has something there."""
    places = [item.start for item in found]
    for match in reversed(list(anchor.finditer(text))):
        for start in starts(text, match.end()):
            at = bisect_left(places, start)
            reach = _NEAR if starts is _right_after else 2
            if at < len(found) and places[at] <= start + reach and "\n\n" not in text[start : places[at]]:
                return found[at]
    return None


def _after_is(text: str, at: int) -> list[int]:
    return [match.end() for match in _IS.finditer(text, at, at + _FAR)]


def _right_after(text: str, at: int) -> list[int]:
    return [at]
