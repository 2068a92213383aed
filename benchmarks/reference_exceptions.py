"""Rows that are known not to score as they should, and why that is right: no grader could do better, or should."""

from __future__ import annotations

from collections.abc import Mapping

_SEVERAL = "the published solution boxes other results, too, and a turn that boxes different answers has none"
_LABEL = "the option's text is an option's letter, and a letter in the box is read as the label"
_SMALL_LABEL = "the option's text is another option's letter in lower case, so that it may be meant as either"
_SAME = "two options have the same text, so that the text does not tell which is meant"
_APPROXIMATE = "the answer is a fraction and its approximation, and the changed digit is the approximation's"

_BOXES = (
    334, 504, 1425, 2489, 3326, 3460, 3563, 3694, 3997, 4253, 5270, 5419, 5446, 6780, 6816, 6843, 6922, 7225, 7321,
    7414, 7417, 7493,
)  # fmt: skip

EXPLAINED: Mapping[tuple[str, str], str] = {
    **{(f"math/train/{number}", "as published"): _SEVERAL for number in _BOXES},
    ("math/train/1982", "one digit changed"): _APPROXIMATE,
    ("mmlu_stem/test/college_physics/25", "text"): _LABEL,
    ("mmlu_stem/test/electrical_engineering/115", "next text"): _LABEL,
    ("mmlu_stem/test/elementary_mathematics/113", "text"): _SAME,
    ("mmlu_stem/test/high_school_computer_science/65", "text"): _SMALL_LABEL,
}
"""By task id and form."""
