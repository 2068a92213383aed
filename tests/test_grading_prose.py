"""Final answers in text that was not asked for a box."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_envs.grading import answer_in_prose, choice_in_prose, grade_math


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"First \boxed{3}, but no: the result is \boxed{4}.", "4"),
        (r"\boxed{3} and \boxed{4}", "3, 4"),
        (r"$\boxed{3}$, $\boxed{4}$ or $x=\boxed{5}$.", "3, 4, 5"),
        (r"\boxed{3} cats and \boxed{4} dogs", "3, 4"),
        (r"\boxed{3} is where I began. \boxed{4}", "4"),
        (r"\boxed{3}" + "\n\n" + r"\boxed{4}", "4"),
        (r"\boxed{30} percent", r"30\%"),
        (r"It is $\boxed{30}$ \%.", r"30\%"),
        (r"\boxed{200} in the first year. Final answer: the sum is $450$.", "450"),
        (r"The final answer is $450$; as a check \boxed{451}", "451"),
        ("The final answer to your question is 12.", "12"),
        ("The answer, as $a = 3$ shows, is large. It has 17 digits.", "a = 3"),
        ("Answer: 17 of the 30 seats", "17"),
        ("Answer: it takes a long discussion of many things before anything is said of 17. So 18", "18"),
        ("So $a = 2$ and $b = 3$.", "a = 2, b = 3"),
        ("So \\[\n a = 2 \n\\]", "a = 2"),
        ("So $\n a = 2 \n$", "2"),
        (r"We find $x^2$, that is 49 in all", "49"),
        ("It costs $1,299.50 now", "1299.50"),
        ("1 250 000 people", "1250000"),
        ("Il paie 2,75 euros", "2.75"),
        ("0,125 of it", "0.125"),
        (r"thus -\frac{7}{9}", r"-\frac{7}{9}"),
        ("P = 3/8 of all", "3/8"),
        ("ABC12D", None),
        ("no number", None),
        ("", None),
    ],
)
def test_answer(text: str, answer: str | None) -> None:
    assert answer_in_prose(text) == answer


def test_only_what_is_asked_for_is_read() -> None:
    text = "Here $x = 2$, so 7"
    assert answer_in_prose(text) == "7"
    assert answer_in_prose(text, numbers=False) == "x = 2"
    assert answer_in_prose(text, formulas=False) == "7"
    assert answer_in_prose("7", numbers=False) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is B.", "B"),
        (r"\boxed{C}", "C"),
        ("B. Because A is too small", "B"),
        ("It must be D, all else is impossible", "D"),
        ("A and B are both possible", None),
        ("The answer is E.", None),
        ("nothing to say", None),
    ],
)
def test_choice(text: str, letter: str | None) -> None:
    assert choice_in_prose(text, ("A", "B", "C", "D")) == letter


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab 1,./$\\()[]{}%\n=-answer is", max_size=60))
def test_never_raises(text: str) -> None:
    answer = answer_in_prose(text)
    assert answer is None or grade_math(answer, "1").method
    choice_in_prose(text, ("A", "B"))


@pytest.mark.parametrize(
    "piece",
    ["$", r"\[", r"\(", r"\boxed{", r"\boxed{1}", "1,", "final answer", "final answer is ", "answer", " is", "1 000 "],
)
def test_long_texts_take_linear_time(piece: str) -> None:
    started = time.monotonic()
    answer_in_prose(piece * (200_000 // len(piece)))
    assert time.monotonic() - started < 8.0
