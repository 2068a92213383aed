"""The grader of multiple choice: letters in every dress, ambiguity, prose, order of options, and the real data."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_envs.grading.choice import choice_letters, choice_order, format_choices, grade_choice

CHOICES = ["41 J", "42 J", "43 J", "vitamin C"]

# Box, letter read, method.
BOXES = [
    ("B", "B", "letter"),
    ("b", "B", "letter"),
    ("(B)", "B", "letter"),
    ("(b)", "B", "letter"),
    ("[B]", "B", "letter"),
    ("B.", "B", "letter"),
    ("B)", "B", "letter"),
    ("B:", "B", "letter"),
    ("( B )", "B", "letter"),
    ("$B$", "B", "letter"),
    ("**B**", "B", "letter"),
    (r"\(B\)", "B", "letter"),
    (r"\text{B}", "B", "letter"),
    (r"\text{(B)}", "B", "letter"),
    (r"\mathrm{B}", "B", "letter"),
    (r"\mathbf{B}", "B", "letter"),
    (r"\textbf{(B)}", "B", "letter"),
    (r"\textbf{(B) }42 J", "B", "letter"),
    (r"\textbf{B. }\text{42 J}", "B", "letter"),
    ("B. 42 J", "B", "letter"),
    ("(B) 42 J", "B", "letter"),
    ("B) text", "B", "letter"),
    ("B: 42 J", "B", "letter"),
    ("B, 42 J", "B", "letter"),
    ("B - 42 J", "B", "letter"),
    ("B 42 J", "B", "letter"),
    ("B. 42 joules", "B", "letter"),
    ("Option B", "B", "letter"),
    ("option (B)", "B", "letter"),
    ("Answer: B", "B", "letter"),
    ("The answer is B", "B", "letter"),
    ("The correct answer is (B).", "B", "letter"),
    ("B, B", "B", "letter"),
    ("42 J", "B", "text"),
    ("42J", "B", "text"),
    ("42 j.", "B", "text"),
    (r"42\text{ J}", "B", "text"),
    (r"42~\mathrm{J}", "B", "text"),
    ("Vitamin C", "D", "text"),
    ("VITAMIN  C", "D", "text"),
    ("D. vitamin C", "D", "letter"),
    ("D. Vitamin C.", "D", "letter"),
    ("A", "A", "letter"),
    ("a", "A", "letter"),
    ("A or B", None, "ambiguous"),
    ("A and B", None, "ambiguous"),
    ("Both A and B", None, "ambiguous"),
    ("A/B", None, "ambiguous"),
    ("A, B", None, "ambiguous"),
    ("B, A", None, "ambiguous"),
    ("A B", None, "ambiguous"),
    ("AB", None, "ambiguous"),
    ("A, B, C, D", None, "ambiguous"),
    ("A, B, C or D", None, "ambiguous"),
    ("ABCD", None, "ambiguous"),
    ("(A) or (B)", None, "ambiguous"),
    ("(A), (B)", None, "ambiguous"),
    (r"\text{A or B}", None, "ambiguous"),
    ("A. or B", None, "ambiguous"),
    ("B. 43 J", None, "ambiguous"),
    ("B) 42 J or C", None, "ambiguous"),
    ("B 43 J", None, "ambiguous"),
    ("all of the above", None, "ambiguous"),
    ("All the above.", None, "ambiguous"),
    ("any of these", None, "ambiguous"),
    ("E", None, "outside"),
    ("(Z)", None, "outside"),
    ("E. 44 J", None, "outside"),
    ("44 J", None, "unreadable"),
    ("not B", None, "unreadable"),
    ("B is wrong", None, "unreadable"),
    ("none of the above", None, "unreadable"),
    ("2", None, "unreadable"),
    ("42 J or 43 J", None, "unreadable"),
    ("Β", None, "unreadable"),  # noqa: RUF001 (a Greek Beta)
]

# Turn without a box, letter read.
PROSE = [
    ("The answer is (B)", "B"),
    ("The answer is B.", "B"),
    ("The answer is: B", "B"),
    ("the final answer is **B**.", "B"),
    ("Answer: B", "B"),
    ("ANSWER: B", "B"),
    ("**Answer:** B", "B"),
    ("**Final Answer: (B)**", "B"),
    ("Answer: B. 42 J", "B"),
    ("Answer:\nB", "B"),
    ("The answer is option B.", "B"),
    ("The best choice is (B).", "B"),
    ("the correct option is [B]", "B"),
    (r"The answer is \(B\).", "B"),
    (r"The answer is $\text{B}$.", "B"),
    ("The answer is B because it is cold.", "B"),
    ("The answer is B, not A.", "B"),
    ("Option (A) is wrong, since 41 is prime. The correct answer is B.", "B"),
    ("I thought that the answer is A. Wait. The answer is B.", "B"),
    ("Let me see.\n\n**B**", "B"),
    ("Let me see.\n(B)\n", "B"),
    ("B.", "B"),
    ("B", "B"),
    ("The answer is a force.", None),
    ("The answer is A force.", None),
    ("a", None),
    ("It is clear that a is larger than b", None),
    ("A. 41 J\nB. 42 J\nC. 43 J", None),
    ("The answer is not B.", None),
    ("My answer is I don't know.", None),
    ("Option (A) is wrong.", None),
    ("The answer is A or B.", None),
    ("The answer is A, B, C or D.", None),
    ("The answers are A and B.", None),
    ("The answer is B and C.", None),
    ("The answer is E.", None),
    ("The answer is 42 J.", None),
    ("The answer is Boron.", None),
    ("<tool_response>The answer is B.</tool_response>", None),
    ("<tool_call>The answer is B.</tool_call>", None),
    ("", None),
]


@pytest.mark.parametrize(("box", "letter", "method"), BOXES)
def test_box(box: str, letter: str | None, method: str) -> None:
    for gold in "ABCD":
        grade = grade_choice(rf"The answer is C, so \boxed{{{box}}}.", gold, CHOICES)
        assert (grade.answer, grade.method) == (letter, method), grade
        assert grade.correct == (gold == letter)


@pytest.mark.parametrize(("turn", "letter"), PROSE)
def test_prose(turn: str, letter: str | None) -> None:
    for gold in "ABCD":
        grade = grade_choice(turn, gold, CHOICES)
        assert grade.answer == letter, grade
        assert grade.correct == (gold == letter)


@pytest.mark.parametrize(
    ("turn", "letter", "method"),
    [
        (r"\boxed{B} and again \boxed{(B) 42 J}", "B", "letter"),
        (r"\boxed{B} and \boxed{C}", None, "ambiguous"),
        (r"\boxed{A}\boxed{B}\boxed{C}\boxed{D}", None, "ambiguous"),
        (r"\boxed{B} and \boxed{43 J}", None, "ambiguous"),
        (r"\boxed{B} and \boxed{A or B}", None, "ambiguous"),
        (r"\boxed{B} and \boxed{E}", None, "ambiguous"),
        (r"first \boxed{m = 7 kg}, so \boxed{B}", "B", "letter"),
        (r"\boxed{} so the answer is B", "B", "letter"),
        (r"\boxed{?} so the answer is B", None, "unreadable"),
        (r"<tool_response>\boxed{A}</tool_response> \boxed{B}", "B", "letter"),
        (r"<tool_response>\boxed{B}</tool_response>", None, "no_answer"),
    ],
)
def test_several_boxes(turn: str, letter: str | None, method: str) -> None:
    grade = grade_choice(turn, "B", CHOICES)
    assert (grade.answer, grade.method, grade.correct) == (letter, method, letter == "B")


@pytest.mark.parametrize(
    ("box", "choices", "letter"),
    [
        ("all of the above", ["x", "y", "All of the above"], "C"),
        ("AB", ["A", "B", "AB", "O"], "C"),
        ("A", ["B", "A", "AB", "O"], "A"),  # a capital is a label, whatever the texts are
        ("b", ["b", "c", "a", "d"], None),  # a lower-case letter may be meant as either
        ("b", ["a", "b", "c", "d"], "B"),
        ("x", ["x", "y"], "A"),
        ("Bb Bb", ["BB BB", "BB Bb", "Bb Bb", "Bb bb"], "C"),
        ("bB", ["BB", "Bb", "bb"], None),
        ("O", ["food", "water", "nutrients", "O"], "D"),
        ("C. -1", ["0", "1", "-1", "12"], "C"),
        ("C. 1", ["0", "1", "-1", "12"], None),
        ("same", ["same", "same ", "other"], None),
        ("A force", ["a mass", "a force", "a length"], "B"),
        (r"\frac{1}{2}", ["$\\frac{1}{2}$", "1"], "A"),
        ("50%", ["40%", r"50\%"], "B"),
        ("10", ["1", "0", "10"], "C"),
        ("A and B", ["x", "y", "z", "A and B"], "D"),
        ("D. A and B", ["x", "y", "z", "A and B"], "D"),
        ("E", list("vwxyz"), "E"),
        ("2 3", ["23", "2 3", "3"], "B"),
        ("23", ["2 3", "23", "3"], "B"),
        (r"\text{2 3}", ["23", "2 3", "3"], None),  # in a dress of its own, either
        ("**", ["//", "**", "is"], "B"),
        ("2*3", ["23", "2*3", "3"], "B"),
    ],
)
def test_other_choices(box: str, choices: list[str], letter: str | None) -> None:
    assert grade_choice(rf"\boxed{{{box}}}", "A", choices).answer == letter


def test_labels_and_lines() -> None:
    assert choice_letters(3) == ("A", "B", "C")
    assert choice_letters(0) == ()
    assert choice_letters(26)[-1] == "Z"
    for n in (-1, 27):
        with pytest.raises(ValueError, match=f"n is {n}"):
            choice_letters(n)
    assert format_choices(["one", "two"]) == "A. one\nB. two"
    with pytest.raises(ValueError, match="at most 26"):
        format_choices(["x"] * 27)


def test_a_gold_answer_that_is_no_letter_is_told_apart() -> None:
    for gold in ("E", "", "AB", "42 J", "1"):
        grade = grade_choice(r"\boxed{B}", gold, CHOICES)
        assert (grade.correct, grade.method) == (False, "bad_gold")
    assert grade_choice(r"\boxed{B}", "A", []).method == "bad_gold"
    assert grade_choice(r"\boxed{B}", " b ", CHOICES).correct


def test_order_is_fixed_for_ever_and_uniform() -> None:
    assert choice_order("arc/test/7", 4) == ORDER_OF_ARC_7
    assert choice_order("arc/test/7", 0) == ()
    code = "from elpo_envs.grading.choice import choice_order; print(choice_order('arc/test/7', 4))"
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert run.stdout.strip() == str(ORDER_OF_ARC_7)
    seen = Counter(choice_order(f"task/{index}", 4) for index in range(4800))
    assert len(seen) == 24
    assert all(140 < count < 260 for count in seen.values())  # 200 each, four standard deviations


ORDER_OF_ARC_7 = (1, 0, 3, 2)


def test_choices_without_a_letter_are_none() -> None:
    choices = [f"word {n}" for n in range(30)]
    assert grade_choice(r"\boxed{word 25}", "Z", choices).correct
    assert not grade_choice(r"\boxed{word 26}", "Z", choices).correct


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200), st.sampled_from(["A", "B", "", "é"]), st.lists(st.text(max_size=20), max_size=30))
def test_never_raises(text: str, gold: str, choices: list[str]) -> None:
    for turn in (text, rf"\boxed{{{text}}}", f"The answer is {text}"):
        grade = grade_choice(turn, gold, choices)
        assert not grade.correct or grade.answer == gold


_DRESS = st.sampled_from(["{}", "({})", r"\text{{{}}}", "{}.", "[{}]", "Option {}", r"\mathbf{{({})}}", "$ {} $"])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 26), st.data(), _DRESS)
def test_every_letter_in_every_dress(n: int, data: st.DataObject, dress: str) -> None:
    letters = choice_letters(n)
    letter, gold = data.draw(st.sampled_from(letters)), data.draw(st.sampled_from(letters))
    choices = [f"choice number {at}" for at in range(n)]
    boxed = dress.format(letter)
    assert grade_choice(rf"\boxed{{{boxed}}}", gold, choices).correct == (letter == gold)
    other = data.draw(st.sampled_from(letters))
    if other != letter:
        assert grade_choice(rf"\boxed{{{boxed}}} \boxed{{{other}}}", letter, choices).method == "ambiguous"


@pytest.mark.parametrize(
    "turn",
    [
        "answer " * 150_000,
        "answer: A or " * 80_000,
        "answer is" + " " * 1_000_000,
        r"\text{" * 200_000,
        r"\boxed{" * 150_000,
        r"\boxed{" + "the " * 990 + "}",
        r"\boxed{" + "is : " * 790 + "}",
        (r"\boxed{" + "A," * 1_990 + "x}") * 64,
        (r"\boxed{" + "and" * 1_300 + "}") * 64,
        (r"\boxed{" + r"\text{" * 600 + "}" * 601) * 64,
        "\n" * 1_000_000,
        "*" * 1_000_000,
        "B " * 500_000,
    ],
    ids=lambda turn: repr(turn[:12]),
)
def test_a_megabyte_takes_linear_time(turn: str) -> None:
    started = time.perf_counter()
    grade_choice(turn, "B", CHOICES)
    assert time.perf_counter() - started < 10.0


@pytest.mark.parametrize("name", ["arc_challenge_test", "openbookqa_test", "mmlu_stem_test"])
def test_real_data(name: str) -> None:
    folder = os.environ.get("ELPO_DATA")
    if folder is None:
        pytest.skip("ELPO_DATA is not set; it names a folder with the real data sets")
    with gzip.open(Path(folder) / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    missed = []
    for row in rows:
        for letter in choice_letters(len(row["choices"])):
            grade = grade_choice(rf"So \boxed{{{letter}}}.", row["answer"], row["choices"])
            assert grade.correct == (letter == row["answer"]), row["id"]
            labelled = f"{letter}. {row['choices'][ord(letter) - 65]}"
            grade = grade_choice(rf"So \boxed{{{labelled}}}.", row["answer"], row["choices"])
            assert not grade.correct or letter == row["answer"], row["id"]
            if letter == row["answer"] and not grade.correct:
                missed.append((row["id"], labelled, grade))
    assert len(missed) <= 0.002 * len(rows), missed
