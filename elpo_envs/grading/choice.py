r"""Multiple choice: which letter an assistant turn answers, and the order in which options are shown.

The answer is what stands in `\boxed{}`; only a turn without a box is read for a final statement ("The correct
answer is (B).", or a letter alone on the last line). A turn that names more than one letter has no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Literal

from elpo_envs.grading.extract import extract_boxed, without_tool_text
from elpo_envs.grading.grade import Grade

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MAX_CHOICE = 4000  # characters of a box or a choice that are compared

_TYPESET = re.compile(r"\\(?:text|math|operator)[a-z]*\*?\s{0,9}\{([^{}]*)\}")
_DELIMITER = re.compile(r"\\[()\[\]]|\\left(?![a-z])|\\right(?![a-z])|\\(?=[%#&_])|[$*`]")
_SPACE = re.compile(r"\\[,;:! ]|~|\s+")
_LEAD = re.compile(r"(?:the|my|final|correct|right|best|answer|option|choice|is)\b[\s:]*|:\s*", re.IGNORECASE)
_BARE = re.compile(r"[(\[{]?\s?([A-Za-z])\s?[)\]}]?\s?[.:,;]?")
_LABELLED = re.compile(
    r"[(\[]?\s?(?P<label>[A-Z])(?:\s?[.:)\]](?:\s?[.:,-](?=\s))?|\s?[-\u2013\u2014,](?=\s))\s?(?P<text>.*)", re.DOTALL
)
_SPACED = re.compile(r"(?P<label>[A-Z])\s(?P<text>.*)", re.DOTALL)
_BETWEEN = re.compile(r"[\s,;/&|()\[\]+.]+")
_CONNECTING = frozenset({"and", "or", "both", "either", "all", "of", "options", "choices", ""})
_JOINED = re.compile(r"(?:\b(?:or|and|nor)\s|[/&|,]|\Z|\A)\s?[(\[]?([A-Z])[)\]]?(?![A-Za-z0-9'])")
_EVERY = re.compile(
    r"(?:all|both|any)\s(?:of\s)?(?:the\s|these\s)?(?:above|these|them|options|choices|following)\.?", re.IGNORECASE
)

_STATEMENT = re.compile(
    r"\b(?:answer|(?:correct|right|best)\s{1,9}(?:option|choice))\s{0,9}"
    r"(?:is\b|would\sbe\b|must\sbe\b|:|=)[\s:]{0,9}"
    r"(?:(?:the\s{1,9})?(?:option|choice|letter)\s{0,9}:?\s{0,9})?"
    r"(?:[(\[]\s?([A-Z])\s?[)\]]|([A-Z])(?![A-Za-z0-9'\u2019]))",
    re.IGNORECASE,
)
_AFTER_LETTER = re.compile(r"\s{0,9}(?:\Z|\n|[^\w\s]|(?:because|since|as|for|with|or|and)\b)")
_ALTERNATIVE = re.compile(
    r"\s{0,9}(?:,\s{0,9}(?:or|and)\b|or\b|and\b|[,/&|])\s{0,9}(?:option\s|choice\s)?[(\[]?([A-Z])[)\]]?(?![\w'\u2019])"
)


@dataclass(frozen=True)
class _Reading:
    """What one text answers: a letter, or why it is none."""

    letter: str | None
    method: Literal["letter", "text", "ambiguous", "outside", "unreadable"]
    note: str = ""


def choice_letters(n: int) -> tuple[str, ...]:
    """The labels "A", "B", ... of `n` choices. Raises ValueError unless 0 <= n <= 26."""
    if not 0 <= n <= len(LETTERS):
        raise ValueError(f"n is {n}; a question may have at most {len(LETTERS)} choices, and not fewer than 0")
    return tuple(LETTERS[:n])


def format_choices(choices: Sequence[str]) -> str:
    """The choices as lines "A. text". Raises ValueError for more than 26."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(choice_letters(len(choices)), choices, strict=True))


def choice_order(task_id: str, n: int) -> tuple[int, ...]:
    """A permutation of range(n) that depends on the task id alone: place i shows the source's choice order[i].

    The indices are sorted by the SHA-256 of the id and the index, so that the order is the same in every
    process, on every machine, and in every version.
    """
    name = task_id.encode("utf-8", "surrogatepass")
    return tuple(sorted(range(n), key=lambda at: sha256(name + b"\n" + str(at).encode()).digest()))


def grade_choice(response: str, gold: str, choices: Sequence[str]) -> Grade:
    r"""Whether an assistant turn answers the letter `gold` ("A", "B", ...) of `choices`.

    A box may hold the letter in any dress ("B", "(b)", "\text{B}", "B. 42 J") or the very text of one choice,
    compared without dress, space and case; choices that differ in these alone are told apart by them. A capital
    that is a label is read as the label even where it is another choice's text. Outside a box only a capital
    letter counts, and the last statement decides. Tool calls and tool output are not read. Never raises, and
    takes time linear in `response`.

    Methods: "letter", "text", "no_answer"; "ambiguous" for several letters, for "all of the above" where it is
    no choice, for a letter with another choice's text, and for a text that two choices share; "outside" for a
    letter that labels no choice; "unreadable" for a box that is no option; "bad_gold" where `gold` labels no
    choice, which is an error in the data. Choices beyond the 26th have no letter and are none.
    """
    choices = choices[: len(LETTERS)]
    letters = LETTERS[: len(choices)]
    wanted = gold.strip().upper()
    if len(wanted) != 1 or wanted not in letters:
        return Grade(False, "bad_gold", note=f"the gold answer {gold[:40]!r} is not one of the letters {letters!r}")
    text = without_tool_text(response)
    boxes = [box for box in extract_boxed(text) if box.strip()]
    reading = _read_boxes(boxes, choices) if boxes else _read_statement(text, letters)
    if reading is None:
        return Grade(False, "no_answer", note=r"no \boxed{} answer and no final statement of a letter")
    return Grade(reading.letter == wanted, reading.method, answer=reading.letter, note=reading.note)


def _read_boxes(boxes: Sequence[str], choices: Sequence[str]) -> _Reading:
    """One reading of all boxes. A box that is no option (an intermediate result) yields to one that is."""
    choices = [choice[:_MAX_CHOICE] for choice in choices]
    readings = [_read_box(box, choices) for box in dict.fromkeys(boxes)]
    options = [reading for reading in readings if reading.method != "unreadable"] or readings
    for reading in options:
        if reading.method == "ambiguous":
            return reading
        if reading.letter != options[0].letter:
            return _Reading(None, "ambiguous", "the turn boxes different options")
    return options[0]


def _read_box(box: str, choices: Sequence[str]) -> _Reading:
    if len(box) > _MAX_CHOICE:
        return _Reading(None, "unreadable", "the boxed text is too long to be an option")
    letters = LETTERS[: len(choices)]
    plain = _plain(box)
    keys = [_key(choice) for choice in choices]
    folded = [key.casefold() for key in keys]
    same = [letter for letter, key in zip(letters, folded, strict=True) if key and key == _key(box).casefold()]
    if len(same) > 1:  # "Bb" among "BB", "Bb" and "bb"
        same = [letter for letter, key in zip(letters, keys, strict=True) if key == _key(box)] or same
    if len(same) != 1:  # "a b" beside "ab", or an option "**" of nothing but dress
        spelt = " ".join(box.split())
        very = [letter for letter, choice in zip(letters, choices, strict=True) if " ".join(choice.split()) == spelt]
        same = very or same
    core = _without_lead(plain)
    if bare := _BARE.fullmatch(core):
        letter = bare[1].upper()
        if len(same) == 1 and letter not in letters:
            return _Reading(same[0], "text")
        if len(same) == 1 and bare[1].islower() and letter != same[0]:
            return _Reading(None, "ambiguous", f"{plain!r} is a label and the text of another choice")
        return _labelled(letter, letters)
    if len(same) == 1:
        return _Reading(same[0], "text")
    if same:
        return _Reading(None, "ambiguous", f"the choices {', '.join(same)} have that text")
    if _EVERY.fullmatch(core):
        return _Reading(None, "ambiguous", "all options at once are no answer")
    labelled = _LABELLED.fullmatch(core)
    dressed = labelled or _SPACED.fullmatch(core)
    if dressed and _key(dressed["text"]).casefold() in folded:
        return _with_text(dressed["label"], dressed["text"], folded)
    named = _listed(core) & set(letters)
    if len(named) > 1:
        return _Reading(None, "ambiguous", f"names the options {', '.join(sorted(named))}")
    if labelled:
        return _with_text(labelled["label"], labelled["text"], folded)
    return _Reading(None, "unreadable", "the boxed text is neither a label nor the text of a choice")


def _without_lead(text: str) -> str:
    """`text` without words such as "The answer is" or "Option" in front of what they announce."""
    at = 0
    while (match := _LEAD.match(text, at)) and match.end() < len(text):
        at = match.end()
    return text[at:]


def _listed(text: str) -> set[str]:
    """The capital letters of a text that consists of nothing but labels: "A or B", "A, B, C", "ABC"."""
    words = [word for word in _BETWEEN.split(text) if word.lower() not in _CONNECTING]
    if all(word.isascii() and word.isalpha() and word.isupper() for word in words):
        return set("".join(words))
    return set()


def _with_text(letter: str, rest: str, folded: Sequence[str]) -> _Reading:
    """A label with text behind it. Text that belongs to another choice, or a second label, contradicts."""
    letters = LETTERS[: len(folded)]
    reading = _labelled(letter, letters)
    key = _key(rest).casefold()
    if reading.letter is None or key == folded[letters.index(letter)]:
        return reading
    others = {other for other, choice in zip(letters, folded, strict=True) if choice == key}
    others |= {name for name in _JOINED.findall(rest) if name in letters and name != letter}
    if rest[:2].rstrip(".):") in letters and rest[:1] not in ("", letter):
        others.add(rest[0])
    if others:
        return _Reading(None, "ambiguous", f"labelled {letter}, but also names {', '.join(sorted(others))}")
    return reading


def _labelled(letter: str, letters: str) -> _Reading:
    if letter not in letters:
        return _Reading(None, "outside", f"{letter} labels no choice")
    return _Reading(letter, "letter")


def _read_statement(text: str, letters: str) -> _Reading | None:
    """The last statement of an answer in prose; a letter alone on the last line is the last of all."""
    text = _DELIMITER.sub("", _TYPESET.sub(r"\1", text)).rstrip()
    last_line = text[text.rfind("\n") + 1 :].strip()
    if len(last_line) <= 8 and (alone := _BARE.fullmatch(last_line)) and alone[1].isupper():
        return _labelled(alone[1], letters)
    found: _Reading | None = None
    for match in _STATEMENT.finditer(text):
        letter = match[1] or match[2]
        if not letter.isupper() or not _AFTER_LETTER.match(text, match.end()):
            continue
        other = _ALTERNATIVE.match(text, match.end())
        if other and other[1].isupper() and other[1] != letter and other[1] in letters:
            found = _Reading(None, "ambiguous", f"states the options {letter} and {other[1]}")
        else:
            found = _labelled(letter, letters)
    return found


def _plain(text: str) -> str:
    r"""`text` without its dress: math delimiters, `\text{}`, emphasis, needless space."""
    for _ in range(4):
        inner = _TYPESET.sub(r" \1 ", text)
        if inner == text:
            break
        text = inner
    return _SPACE.sub(" ", _DELIMITER.sub("", _SPACE.sub(" ", text))).strip().strip("\"'\u201c\u201d").strip()


@lru_cache(maxsize=1024)
def _key(text: str) -> str:
    """`text` without dress and space, as texts of choices are compared (after `casefold`)."""
    return re.sub(r"\s+", "", _plain(text)).removesuffix(".")
