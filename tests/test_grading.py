"""The mathematics grader: a conformance table, properties, time bounds, threads, and the real data sets."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elpo_envs.grading import Grade, extract_boxed, grade_math, grade_response
from elpo_envs.grading import grade as grade_module
from elpo_envs.grading.symbolic import SymbolicWorker

EQUAL = [
    # integers and thousands separators
    ("72", "72"),
    ("072", "72"),
    ("+5", "5"),
    ("-5", "\u22125"),
    ("1,234", "1234"),
    ("1{,}234", "1234"),
    (r"10,\!080", "10080"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    (r"1\,234\,567", "1234567"),
    ("12 000", "12000"),
    ("72.", "72"),
    ("72.0", "72"),
    ("025", "25"),
    # decimals and fractions
    ("0.5", "1/2"),
    (".5", "0.50"),
    (r"\frac12", "0.5"),
    (r"\frac{1}{2}", r"\dfrac{1}{2}"),
    (r"\tfrac 59", "5/9"),
    (r"\frac9{19}", r"\frac{9}{19}"),
    (r"\frac{270}7", "270/7"),
    (r"-\frac{3}{4}", "-0.75"),
    (r"\frac{-3}{4}", r"-\frac{3}{4}"),
    (r"\frac{3}{-4}", "-3/4"),
    ("2/4", "1/2"),
    ("1 1/2", "3/2"),
    (r"1\frac{4}{5}", "1.8"),
    (r"-15\frac{3}{5}", "-15.6"),
    (r"137 \frac{1}{2}", "137.5"),
    (r"0.\overline{3}", "1/3"),
    (r"\frac{\frac{1}{2}}{3}", "1/6"),
    # percent
    ("50%", r"50\%"),
    ("50%", "50"),
    (r"50\%", "0.5"),
    ("50 percent", "50%"),
    ("12.5%", "1/8"),
    # money
    ("$12.50", "12.5"),
    (r"\$12.50", "12.50 dollars"),
    (r"\$32,\!348", "32348"),
    ("$1,234.50", "1234.5"),
    ("12 dollars", "$12"),
    ("-$5", "-5"),
    ("18 cents", "18"),
    # units and degrees
    ("5 cm", "5"),
    (r"5\text{ cm}", "5 cm"),
    ("5 centimeters", "5 cm"),
    ("5cm", "5"),
    (r"15\mbox{ cm}^2", "15"),
    (r"864 \mbox{ inches}^2", "864 square inches"),
    (r"864 \mbox{ inches}^2", "864"),
    ("5 apples", "5"),
    ("5 apples", "5 red apples"),
    ("60 miles per hour", "60 mph"),
    (r"7\text{ hours}.", "7"),
    (r"114\text{ square units}", "114"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90\u00b0"),
    ("90 degrees", r"90^\circ"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    (r"5.4 \text{ cents}", "5.4"),
    # LaTeX noise
    ("$72$", "72"),
    (r"\(72\)", "72"),
    (r"\[72\]", "72"),
    (r"\boxed{72}", "72"),
    ("**72**", "72"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    (r"3 \sqrt{13}", r"3\sqrt{13}"),
    (r"\sqrt 2", r"\sqrt{2}"),
    (r"11\sqrt2", r"11 \sqrt{2}"),
    (r"\approx 8.24 \text{ mph}", "8.24"),
    # irrational numbers
    (r"3\sqrt{13}", r"\sqrt{117}"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\frac{3}{\sqrt{10}}", r"\frac{3\sqrt{10}}{10}"),
    ("2pi", r"2\pi"),
    (r"2\pi", "2\u03c0"),
    ("sqrt(4)", "2"),
    (r"\frac{\pi}{6}", r"\pi/6"),
    (r"\sqrt[3]{8}", "2"),
    (r"6 - 5i", "-5i+6"),
    (r"\frac{1}{2}+\frac{\sqrt{3}}{2}i", r"\frac{1+i\sqrt3}{2}"),
    (r"\sin 2x", r"2\sin x\cos x"),
    # powers and scientific notation
    (r"1.5 \times 10^{3}", "1500"),
    (r"1.5\cdot10^3", "1.5e3"),
    ("2^{10}", "1024"),
    ("2**10", "1024"),
    ("10^{-2}", "0.01"),
    (r"2^{27} - 2^{11}", "134215680"),
    (r"6.72 \times 10^{-5}", ".0000672"),
    (r"2 \cdot 3", "6"),
    ("5!", "120"),
    (r"\binom{5}{2}", "10"),
    # sets, lists, plus-minus
    (r"\{1, 2, 3\}", r"\{3,1,2\}"),
    ("{1,2}", r"\{2,1\}"),
    ("3, 5, 7", "7,5,3"),
    ("1 and -2", "-2, 1"),
    (r"3 \text{ and } 5", "3,5"),
    ("1,-2", r"\{1,-2\}"),
    ("x=1 or x=-2", "1,-2"),
    ("x = 1, -2", "-2, 1"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
    (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1-\sqrt5, 1+\sqrt5\}"),
    (r"\pm 3", "-3, 3"),
    (r"\{5\}", "5"),
    (r"\emptyset", r"\{\}"),
    # tuples, intervals
    ("(1, 2)", "(1,2)"),
    ("(0.5, 2)", r"\left(\frac12, 2\right)"),
    ("(3,4]", r"\left(3, 4\right]"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"),
    ("(2, inf)", r"(2,\infty)"),
    (r"(2,+\infty)", r"(2,\infty)"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"-2 \le x \le 7", "[-2,7]"),
    ("x > 5", r"(5,\infty)"),
    ("5 < x", "x > 5"),
    (r"x < 1 \text{ or } x > 3", r"(-\infty,1)\cup(3,\infty)"),
    (r"-80\leq g(x)\leq 82", r"82 \ge g(x) \ge -80"),
    # choices and words
    ("(C)", "C"),
    (r"\text{(C)}", "C"),
    (r"\textbf{(C)}", "(C)"),
    (r"\text{Wednesday}", "wednesday"),
    (r"\text{Evelyn}", "Evelyn"),
    ("East", r"\text{east}"),
    ("Yes", r"\text{yes}"),
    (r"\text{two lines}", "two lines"),
    # bases, ratios, matrices
    ("2516_8", "2516_{8}"),
    ("861_{12}", "861_{12}"),
    ("3:1", "3 : 1"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
    (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\begin{pmatrix} -\frac13 \\ \frac{2}{3} \end{pmatrix}"),
    # equations and polynomials
    ("x=5", "5"),
    ("y = 2x + 3", "2x+3"),
    ("y = 2x + 3", "y - 2x = 3"),
    ("5x - 7y + 11z + 4 = 0", "-10x+14y-22z=8"),
    ("240/5 = 48", "48"),
    (r"\text{Area} = 5", "5"),
    ("(a+5)(b+2)", "ab+2a+5b+10"),
    ("x^2+3x+2", "(x+1)(x+2)"),
    ("2k+2", "2(k+1)"),
    (r"\frac{11+9a}{20}", r"\frac{9a}{20} + \frac{11}{20}"),
    ("p - q", "-q+p"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"30p \sqrt{p}", r"30 p^{3/2}"),
    (r"30p \sqrt{p}", r"30 \sqrt{p^3}"),
    (r"\sqrt[3]{-8}", "-2"),
    (r"\text{H, E}", "E, H"),
    ("7 m/s", r"7\text{ m/s}"),
    ("7 m/s", "7"),
]

UNEQUAL = [
    ("72", "71"),
    ("72", "-72"),
    ("1 1/2", "11/2"),
    ("1,234", "1.234"),
    ("0.333", "1/3"),
    ("0.3333333333", r"\frac13"),
    ("3.14", r"\pi"),
    ("1.41421356237", r"\sqrt{2}"),
    ("1.4142135623730951", r"\sqrt{2}"),
    ("50%", "5"),
    ("50%", "0.5%"),
    ("50", "0.5"),
    ("$5", "5 cents"),
    ("$5", "\u20ac5"),
    ("5 cm", "5 m"),
    ("5 cm", "5 cm^2"),
    ("5 apples", "5 oranges"),
    ("5 km", "5 km/h"),
    ("90 degrees", "90%"),
    ("12.50 dollars", "1250"),
    (r"\sqrt{2}", r"\sqrt{3}"),
    (r"3\sqrt{13}", r"13\sqrt{3}"),
    (r"\pi", r"2\pi"),
    ("6-5i", "6+5i"),
    (r"\{1,2\}", r"\{1,3\}"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", r"\{1,2\}"),
    ("(3,4]", "(3,4)"),
    ("[3,4]", "(3,4)"),
    (r"(2,\infty)", r"(-\infty,2)"),
    (r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2)"),
    (r"(1,2)\cup(3,4)", r"(1,3)\cup(2,4)"),
    ("x > 5", r"x \ge 5"),
    (r"\infty", r"-\infty"),
    ("A", "B"),
    ("(A)", "C"),
    ("x", "X"),
    ("Monday", "Tuesday"),
    (r"\text{even}", r"\text{odd}"),
    ("2516_8", "2516_7"),
    ("2516_8", "2516"),
    ("3:1", "1:3"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    ("x=5", "y=5"),
    ("x=5", "6"),
    ("y = 2x + 3", "y = 2x - 3"),
    ("y = 2x + 3", "y = 3x + 2"),
    ("x^2+3x+2", "x^2+3x+3"),
    ("|x|", "x"),
    (r"\overline{AB}", r"\overline{ab}"),
    (r"\sqrt{x}", r"-\sqrt{x}"),
    (r"\sqrt{x^2}", "x"),
    (r"1 \pm \sqrt{19}", r"1 + \sqrt{19}"),
    ("1/0", "2/0"),
    ("2 3", "6"),
    ("2 3", "23"),
    ("10^{1000}", "10^{1001}"),
    ("5 or 6", "5"),
    ("", "5"),
    ("$", "5"),
    ("the answer is blah", "5"),
    ("5 + ", "5"),
    ("__import__('os')", "1"),
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal(answer: str, gold: str) -> None:
    grade = grade_math(answer, gold)
    assert grade.correct, grade
    assert grade_math(gold, answer).correct


@pytest.mark.parametrize(("answer", "gold"), UNEQUAL)
def test_unequal(answer: str, gold: str) -> None:
    grade = grade_math(answer, gold)
    assert not grade.correct, grade
    assert not grade.timed_out
    assert not grade_math(gold, answer).correct


def test_numbers_and_most_wrong_answers_never_reach_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"asked the worker about {arguments}")

    monkeypatch.setattr(grade_module, "compare_symbolically", refuse)
    cheap = [pair for pair in EQUAL + UNEQUAL if all(char in "0123456789.,/%$-" for char in pair[0] + pair[1])]
    assert len(cheap) >= 25
    wrong = [
        (r"3\sqrt{13}", r"2\sqrt{13}"),
        (r"\frac{\pi}{2}", r"\frac{\pi}{3}"),
        ("(x+1)^2", "x^2+1"),
        ("(1,2]", "(1,2)"),
    ]
    for answer, gold in cheap + wrong:
        grade_math(answer, gold)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        (r"so \boxed{72}.", ["72"]),
        (r"\boxed{\frac{1}{2}} and \boxed{\{1,2\}}", [r"\frac{1}{2}", r"\{1,2\}"]),
        (r"\boxed{\boxed{5}}", [r"\boxed{5}"]),
        (r"\boxed 5 is it", ["5"]),
        (r"\fbox{7}", ["7"]),
        (r"\boxed {8}", ["8"]),
        (r"\boxed{9", []),
        (r"\boxed{9 \boxed{10}", ["10"]),
        (r"\boxed{a \} b}", [r"a \} b"]),
        (r"\boxed{}", [""]),
        (r"\boxedx{5}", []),
        ("no box", []),
    ],
)
def test_extract_boxed(text: str, boxes: list[str]) -> None:
    assert extract_boxed(text) == boxes


@pytest.mark.parametrize(
    ("response", "correct", "method"),
    [
        (r"It is \boxed{72}.", True, "exact"),
        (r"It is \boxed{72}, that is \boxed{72.0}.", True, None),
        (r"It is \boxed{72} or \boxed{71}.", False, "ambiguous"),
        (r"It is \boxed{71} or \boxed{72}.", False, "ambiguous"),
        ("It is 72.", False, "no_answer"),
        (r"\boxed{}", False, "no_answer"),
        (r"<tool_call>{'code': '\boxed{72}'}</tool_call>", False, "no_answer"),
        (r"<tool_response>\boxed{72}</tool_response>", False, "no_answer"),
        (r"<tool_response>\boxed{72}</tool_response> \boxed{71}", False, None),
        (r"<tool_response>\boxed{71}</tool_response> \boxed{72}", True, None),
        (r"<tool_response> cut off \boxed{72}", False, "no_answer"),
        (r"<tool_response></tool_call>\boxed{72}<tool_call></tool_response>", False, "no_answer"),
        ("```output\n\\boxed{72}\n```", False, "no_answer"),
        ("", False, "no_answer"),
    ],
)
def test_grade_response(response: str, correct: bool, method: str | None) -> None:
    grade = grade_response(response, "72")
    assert grade.correct is correct
    assert method is None or grade.method == method


def test_grade_says_what_was_judged() -> None:
    grade = grade_response(r"so $\boxed{\dfrac{1}{2}}$", "1/2")
    assert grade == Grade(True, "number", answer=r"\frac{1}{2}")


_PIECES = st.sampled_from(
    [
        *"0123456789+-*/^_=<>()[]{}|,.:;!$%&'\" xyeiABC~",
        *(r"\frac", r"\sqrt", r"\pi", r"\left(", r"\right]", r"\text{", r"\pm", r"\cup", r"\infty", r"\%"),
        *(
            r"\{",
            r"\}",
            r"\begin{pmatrix}",
            r"\end{pmatrix}",
            r"\\",
            r"\le",
            r"\in",
            r"\boxed{",
            r"\circ",
            r"\$",
        ),
        *(
            " cm",
            " and ",
            "sin",
            "1/2",
            "\u00bd",
            "\u221a",
            "\u2212",
            "\n",
            "**",
            "\\",
            "\u0661",
            "\u00b2",
            "\x00",
        ),
    ]
)
_MATHISH = st.lists(_PIECES, max_size=14).map("".join)
_ANY = st.one_of(st.text(max_size=60), _MATHISH)


@settings(max_examples=400, deadline=None)
@given(_ANY, _ANY)
@example("9**9**9", "9^{9^{9}}")
@example("\u00b2", "\u0661")
@example("{" * 1000, "(" * 1000)
def test_symmetric_and_never_raises(a: str, b: str) -> None:
    one, other = grade_math(a, b), grade_math(b, a)
    assert (one.correct, one.method) == (other.correct, other.method)
    assert isinstance(grade_response(a, b), Grade)


@settings(max_examples=300, deadline=None)
@given(_ANY)
def test_reflexive(text: str) -> None:
    grade = grade_math(text, text)
    assert grade.correct or grade.method == "no_answer"


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6), st.integers(1, 50))
def test_fractions_are_exact(top: int, bottom: int, scale: int) -> None:
    spelled = rf"\frac{{{top * scale}}}{{{bottom * scale}}}"
    assert grade_math(spelled, f"{top}/{bottom}").correct
    assert not grade_math(spelled, f"{top + 1}/{bottom}").correct
    assert grade_math(f"{top:,}", str(top)).correct


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9",
        "9^{9^{9^{9}}}",
        "10**100000",
        "1e999999",
        "9" * 1900,
        "9" * 100_000,
        "(" * 900 + "1" + ")" * 900,
        "-" * 1900,
        r"\frac{" * 300,
        "1," * 900,
        "x^" * 900 + "2",
        "((x+1)^{99})^{99}",
        "1+" * 900 + "1",
        "a b " * 450,
        r"\boxed{" * 250,
        "500!!!!",
        "{" * 1000 + "," + "}" * 1000,
        "1 " * 900 + "cm",
        "$" * 1999,
        "5 ab" + "^2" * 60 + "!",
        "5 ab" + "^{2}" * 60 + "!",
        r"5 \text{a}" + r" \text{a}" * 60 + " }",
        r"5 \text{a}" + r" \text{a} ^2 / " * 60 + " 2",
        "1 and " * 300,
        r"\frac" * 390,
        "x=" * 900,
        "1<" * 900 + "x",
        r"\pm 1" * 300,
        "1," * 30 + r"\sqrt{2}",
        ", ".join(str(n) for n in range(300)),
    ],
)
def test_hostile_answers_are_cheap(text: str) -> None:
    started = time.monotonic()
    assert not grade_math(text, "7").correct
    assert not grade_math(text, r"\sqrt{7}").correct
    grade_response(rf"\boxed{{{text}}}", r"x^2 + \frac{1}{2}")
    extract_boxed(r"\boxed{" * 50_000)
    assert time.monotonic() - started < 2.0


def test_work_is_bounded_and_the_worker_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grade_module._Work, "__init__", _short_work)
    assert grade_math(r"\lfloor 3.5 \rfloor", "3").correct  # the worker is up: its start is no work
    started = time.monotonic()
    grade = grade_math(r"\lfloor 9^{9^{9}} \rfloor", "3")
    assert time.monotonic() - started < 3.0
    assert (grade.correct, grade.timed_out) == (False, True)
    assert grade_math(r"\lfloor 4.5 \rfloor", "4").correct


def _short_work(self: grade_module._Work) -> None:
    self.left_s, self.questions, self.timed_out, self.note, self.method = 1.0, 0, False, "", "exact"


def test_waiting_for_the_worker_is_not_work() -> None:
    """A question that queued behind one that ran into its bound still gets all of its own bound."""
    worker = SymbolicWorker()
    assert worker.compare("1", r"\lfloor 1.5 \rfloor", "value", 5.0).equal
    slow = threading.Thread(target=worker.compare, args=(r"\lfloor 9^{9^{9}} \rfloor", "1", "value", 1.5))
    slow.start()
    time.sleep(0.2)
    verdict = worker.compare(r"\lfloor 2.5 \rfloor", "2", "value", 1.0)
    slow.join()
    worker.close()
    assert verdict.equal is True
    assert not verdict.timed_out


def test_many_threads() -> None:
    pairs = [(rf"{n}\sqrt{{13}}", rf"\sqrt{{{13 * n * n}}}", rf"\sqrt{{{13 * n * n + 1}}}") for n in range(2, 14)]
    failures: list[object] = []

    def run(offset: int) -> None:
        for at in range(len(pairs)):
            left, right, wrong = pairs[(at + offset) % len(pairs)]
            if not grade_math(left, right).correct or grade_math(left, wrong).correct:
                failures.append((left, right))

    threads = [threading.Thread(target=run, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_gets_a_worker_of_its_own() -> None:
    code = r"""
import os
from elpo_envs.grading import grade_math
assert grade_math(r"\lfloor 1.5 \rfloor", "1").correct
child = os.fork()
ok = grade_math(r"\lfloor 2.5 \rfloor", "2").correct and grade_math(r"3\sqrt{2}", r"\sqrt{18}").correct
if child == 0:
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
assert ok and os.waitstatus_to_exitcode(status) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=Path(__file__).parents[1])


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_the_worker_ends_with_its_host() -> None:
    code = r"""
import os, signal
from elpo_envs.grading import grade_math, symbolic
assert grade_math(r"\lfloor 1.5 \rfloor", "1").correct
print(symbolic._WORKER._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[1],
    )
    status = Path("/proc") / done.stdout.strip() / "stat"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        time.sleep(0.05)
    assert not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def _rows(name: str) -> list[dict[str, str]]:
    folder = os.environ.get("ELPO_DATA")
    if not folder:
        pytest.skip("ELPO_DATA is not set; it names a folder with the real data sets")
    with gzip.open(Path(folder) / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# Pairs of neighbouring rows whose answers really are equal by the rules of the grader.
_REALLY_EQUAL = {("5", "x=5")}


@pytest.mark.parametrize("name", ["math500", "gsm8k_test", "aime24", "aime25", "amc23"])
def test_real_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(name)
    asked: list[object] = []
    original = grade_module.compare_symbolically
    monkeypatch.setattr(grade_module, "compare_symbolically", lambda *a: asked.append(a) or original(*a))
    wrong: list[object] = []
    for at, row in enumerate(rows):
        gold = row["answer"]
        if not grade_math(gold, gold).correct or not grade_response(rf"so \boxed{{{gold}}}.", gold).correct:
            wrong.append(gold)
        if name == "math500" and not grade_math(extract_boxed(row["solution"])[-1], gold).correct:
            wrong.append(row["solution"])
        others = (rows[(at + step) % len(rows)]["answer"] for step in range(1, len(rows)))
        other = next(text for text in others if text != gold)
        if grade_math(other, gold).correct and tuple(sorted((other, gold))) not in _REALLY_EQUAL:
            wrong.append((other, gold))
    assert wrong == []
    assert len(asked) <= 0.01 * len(rows)
