"""The pairs that `benchmarks.grading` has graded: what they are, and whether they are equal by construction."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

_NUMBER = re.compile(r"-?\d+")
_FRACTION = re.compile(r"(-?)\\d?frac\{(\d+)\}\{(\d+)\}")
_POINT = re.compile(r"(?:\\left)?\s*\(([^(),]+),([^(),]+?)(?:\\right)?\)")


@dataclass(frozen=True)
class Pair:
    """An answer beside a gold answer.

    Attributes:
        answer: what is graded.
        gold: the reference.
        equal: whether they are equal, by how they were made.
        name: what kind of pair it is, and from which row.
    """

    answer: str
    gold: str
    equal: bool
    name: str


def numbers(seed: int, count: int) -> list[Pair]:
    """Integers and fractions in the spellings of GSM8K and MATH; every second pair is unequal."""
    rng = random.Random(f"numbers {seed}")
    return [_number_pair(rng, at) for at in range(count)]


def _number_pair(rng: random.Random, at: int) -> Pair:
    equal = at % 2 == 0
    kind = ("integer", "thousands", "point zero", "fraction", "cancelled", "decimal", "negative fraction")[at // 2 % 7]
    n, top, bottom = rng.randrange(2, 10**6), rng.randrange(1, 200), rng.randrange(2, 60)
    scale = rng.randrange(2, 9)
    off = 0 if equal else rng.choice((-1, 1))
    match kind:
        case "integer":
            answer, gold = f"{n + off}", f"{n}"
        case "thousands":
            answer, gold = f"{1000 * n + off:,}", f"{1000 * n}"
        case "point zero":
            answer, gold = f"{n + off}.0", f"{n}"
        case "fraction":
            answer, gold = f"{top + off}/{bottom}", rf"\frac{{{top}}}{{{bottom}}}"
        case "cancelled":
            answer, gold = rf"\frac{{{scale * top + off}}}{{{scale * bottom}}}", rf"\frac{{{top}}}{{{bottom}}}"
        case "decimal":
            answer, gold = f"{(top + off) / 8}", rf"\frac{{{top}}}{{8}}"
        case _:
            answer, gold = rf"-\frac{{{top + off}}}{{{bottom}}}", rf"\frac{{-{top}}}{{{bottom}}}"
    return Pair(answer, gold, equal, kind)


def written_variants(folder: Path) -> list[Pair]:
    """The answers of MATH500 beside other spellings of themselves, and beside wrong ones.

    Raises FileNotFoundError where the folder has no `math500.jsonl.gz`.
    """
    with gzip.open(folder / "math500.jsonl.gz", "rt", encoding="utf-8") as lines:
        golds = [json.loads(line)["answer"] for line in lines]
    return [
        Pair(answer, gold, equal, f"{kind}, row {at}")
        for at, gold in enumerate(golds)
        for kind, answer, equal in _variants(golds, at)
    ]


def _variants(golds: Sequence[str], at: int) -> Iterator[tuple[str, str, bool]]:
    gold = golds[at]
    yield "the same", gold, True
    yield "spaces", f" {gold} ".replace("=", " = ").replace(",", ", " if "(" in gold else ","), True
    if "(" in gold and r"\left" not in gold:
        yield "sized brackets", gold.replace("(", r"\left(").replace(")", r"\right)"), True
    if r"\frac" in gold:
        yield "display fractions", gold.replace(r"\frac", r"\dfrac"), True
    if _NUMBER.fullmatch(gold):
        n = int(gold)
        yield "point zero", f"{n}.0", True
        yield "named", f"x = {n}", True
        yield "as a fraction", rf"\frac{{{3 * n}}}{{3}}", True
        yield "as a sum", f"{n - 1} + 1", True
        yield "one more", f"{n + 1}", False
        if n:
            yield "other sign", f"{-n}", False
    if match := _FRACTION.fullmatch(gold):
        value = Fraction(int(match[1] + match[2]), int(match[3]))
        yield "with a slash", f"{value.numerator}/{value.denominator}", True
        yield "not cancelled", rf"{match[1]}\frac{{{7 * int(match[2])}}}{{{7 * int(match[3])}}}", True
        yield "upside down", rf"{match[1]}\frac{{{match[3]}}}{{{match[2]}}}", abs(value) == 1
        yield "rounded to 3 places", f"{float(value):.3f}", Fraction(f"{float(value):.3f}") == value
    if (match := _POINT.fullmatch(gold)) and match[1].strip() != match[2].strip():
        yield "swapped", f"({match[2]},{match[1]})", False
    others = (golds[(at + step) % len(golds)] for step in range(1, len(golds)))
    other = next(text for text in others if text.rpartition("=")[2] != gold.rpartition("=")[2])
    yield "the next row's", other, False


def hostile() -> list[Pair]:
    """Answers made to be expensive. None of them equals its gold answer."""
    deep = 400
    texts = {
        "tower of powers": "9^{9^{9^{9}}}",
        "tower, spelled as Python": "9**9**9**9",
        "power of a power": "((10^{100})^{100})^{100}",
        "negative tower": "2^{-9^{9^{9}}}",
        "roots of a tower": r"\sqrt[3]{7^{7^{7^{7}}}}",
        "factorial of a factorial": "(99!)!",
        "huge factorial": "123456789!",
        "repeated factorial": "9!!!!!!",
        "binomial": r"\binom{987654321}{123456789}",
        "floor of a tower": r"\lfloor 9^{9^{9}} \rfloor",
        "modulus of a tower": r"7^{7^{7^{7}}} \bmod 1000",
        "endless sum": r"\sum_{k=1}^{10000000} \frac{1}{k^3+k+1}",
        "sum over a tower": r"\sum_{n=1}^{9^{9^{9}}} n!",
        "hard integral": r"\int_0^1 \frac{\sin(x^x)\ln(x+\sqrt{x})}{\sqrt{1+x^7}} dx",
        "limit": r"\lim_{x \to 0} \frac{\sin(\sin(\tan(x^{5}))) - \tan(\tan(\sin(x^{5})))}{x^{35}}",
        "polynomial to expand": "(a+b+c+d+e+f+g+h)^{60} - (a+b+c+d+e+f+g)^{60}",
        "powers of polynomials": "((x+1)^{99}+(x-1)^{97})^{99}",
        "product of polynomials": "".join(f"(x^{{{n}}}+{n}y^{{{n + 1}}}+z)" for n in range(1, 60)),
        "nested roots": r"\sqrt{2+" * 60 + "2" + "}" * 60,
        "nested logarithms": r"\ln(3+" * 60 + "x" + ")" * 60,
        "many roots": "+".join(rf"\sqrt{{{n}}}" for n in range(2, 42)),
        "deep brackets": "(" * deep + "1" + ")" * deep,
        "deep fractions": r"\frac{1}{1+" * deep + "1" + "}" * deep,
        "open brackets": "(" * 5000,
        "open fractions": r"\frac{" * 1500,
        "100 kB of digits": "7" * 100_000,
        "2 kB of digits": "7" * 1990,
        "power of 2 kB of digits": "7" * 900 + "^{" + "7" * 900 + "}",
        "huge exponent": "1e999999999",
        "set of 20,000 numbers": r"\{" + ",".join(map(str, range(20_000))) + r"\}",
        "set of 40 roots": r"\{" + ",".join(rf"\sqrt{{{n}}}" for n in range(2, 42)) + r"\}",
        "set of 60 polynomials": r"\{" + ",".join(f"(x+{n})^{{9}}" for n in range(1, 61)) + r"\}",
        "many signs": r"\pm 1" * 60,
        "matrix of towers": r"\begin{pmatrix} 9^{9^{9}} & 1 \\ 1 & 9^{9^{9}} \end{pmatrix}",
        "power of a matrix": r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}^{99999999}",
        "matrices": r"\begin{pmatrix}" + r"\\".join(["&".join(["x"] * 12)] * 12) + r"\end{pmatrix}",
        "inequality": "+".join(f"x^{{{n}}}" for n in range(2, 60)) + " > 0",
        "equation": "x^{99}+" * 80 + "y = 0",
        "control characters": "\x00\x1b[2J" * 400,
        "many boxes": "} and \\boxed{".join(rf"\sum_{{k=1}}^{{{30_000 + n}}} k^{{9}}" for n in range(20)),
        "text with commands": r"\text{\text{\text{" * 300,
    }
    golds = ("7", r"\sqrt{7} + \pi", r"\lfloor x \rfloor + \sum_{k=1}^{n} k", r"(-\infty, 3)", r"\{\sqrt{3}, x^9, 5\}")
    return [Pair(text, golds[at % len(golds)], False, name) for at, (name, text) in enumerate(texts.items())] + [
        Pair(text, gold, False, f"{name} / {against}")
        for name, text, against, gold in (
            ("tower", "9^{9^{9}}", "tower", "8^{9^{9}}"),
            ("floors", r"\lfloor 9^{9^{9}} \rfloor", "floors", r"\lfloor 8^{9^{9}} \rfloor"),
            ("floors", _floors(0), "floors of others", _floors(1)),
            ("sum", r"\sum_{k=1}^{1000000} k^{99}", "sum", r"\sum_{k=1}^{1000001} k^{99}"),
            ("polynomial", "(x+y+z+1)^{80}", "polynomial", "(x+y+z+1)^{80}+1"),
            ("trigonometry", r"\sin^{40}x+\cos^{40}x", "trigonometry", r"(\sin^{2}x+\cos^{2}x)^{20}"),
            ("roots", _roots(0), "roots", _roots(1)),
        )
    ]


def _floors(off: int) -> str:
    return ", ".join(rf"\lfloor 9^{{9^{{{n + off}}}}} \rfloor" for n in range(8, 16))


def _roots(off: int) -> str:
    return "+".join(rf"\sqrt{{{n}}}" for n in range(2, 30)) + f"+{off}"
