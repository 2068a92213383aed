"""Programs whose output is to be predicted: loops, conditions, arithmetic."""

from __future__ import annotations

import random

from elpo_envs.tasks.programs.operation import PrintingFamily, step


def start_total(rng: random.Random) -> str:
    """A first line that sets `total`."""
    return f"total = {rng.randint(11, 99)}"


def start_list(rng: random.Random) -> str:
    """A first line that sets `xs`."""
    return f"xs = {[rng.randint(0, 20) for _ in range(rng.randint(6, 8))]}"


STEPS_OF_A_TOTAL = (
    step(
        "plain",
        "",
        "total = total * 2 - $n",
        ("wrong order of operations", "total * 2 - $n", "(total - $n) * 2"),
        n=range(3, 30),
    ),
    step(
        "modular",
        "",
        "total = total % $n + $m",
        ("off by one", "total % $n", "total // $n"),
        n=range(31, 70, 4),
        m=range(5, 25),
    ),
)
"""Plain arithmetic between the steps that a family is about."""

LOOPS = PrintingFamily(
    "loops",
    "total",
    start_total,
    (
        step(
            "weighted",
            "",
            """
            for i in range($n, $m):
                total += i * (i % 3)
            """,
            ("off by one", "range($n, $m)", "range($n, $m + 2)"),
            n=(1, 2, 3, 4),
            m=range(7, 14),
        ),
        step(
            "skipping",
            "",
            """
            for i in range($m):
                if i % $n:
                    total += i
            """,
            ("wrong comparison", "if i % $n:", "if i % $n == 0:"),
            n=(2, 3, 4),
            m=range(6, 15),
        ),
        step(
            "halving",
            "",
            """
            while total > $n:
                total = total // 2 - 1
            """,
            ("off by one", "total // 2 - 1", "total // 2"),
            n=range(8, 30),
        ),
        step(
            "nested",
            "",
            """
            for i in range($n):
                for j in range(i):
                    total += i * j + 1
            """,
            ("off by one", "range(i)", "range(i + 1)"),
            n=(3, 4, 5, 6),
        ),
        step(
            "digits",
            "",
            """
            for c in str(abs(total)):
                total += int(c) * $n
            """,
            ("wrong order of operations", "int(c) * $n", "int(c) + $n"),
            n=(2, 3, 4, 7),
        ),
        step(
            "searching",
            "",
            """
            for i in range($n, 2, -1):
                if total % i == 0:
                    break
            total -= i * $m
            """,
            ("off by one", "range($n, 2, -1)", "range($n - 1, 2, -1)"),
            ("wrong comparison", "== 0", "!= 0"),
            n=(6, 7, 8, 9),
            m=(2, 3, 5),
        ),
        step(
            "doubling",
            "",
            """
            i = $n
            while i < $m:
                total, i = total + i, i * 2
            """,
            ("wrong order of operations", "total + i, i * 2", "total + i * 2, i * 2"),
            n=(1, 2, 3),
            m=range(20, 60, 7),
        ),
        step(
            "reading_on",
            "",
            """
            for i in range(total % $n + 1):
                total += i * $m
            """,
            ("off by one", "total % $n + 1", "total % $n + 2"),
            n=(5, 6, 7),
            m=(2, 3),
        ),
    ),
    ("total", "total, total % 7", "total // 3, total"),
)

CONDITIONS = PrintingFamily(
    "conditions",
    "total",
    start_total,
    (
        step(
            "one_of",
            "",
            "total += $n if total % 3 else -$m",
            ("wrong comparison", "total % 3", "total % 3 == 0"),
            n=range(3, 20),
            m=range(2, 9),
        ),
        step(
            "fallback",
            "",
            "total = (total % $n or $m) + total",
            ("wrong comparison", "or", "and"),
            n=(2, 3, 4, 5),
            m=range(11, 30),
        ),
        step(
            "chained",
            "",
            "total += ($n < total % 20 <= $m) * 9 + 1",
            ("wrong comparison", "$n < total % 20 <= $m", "not $n < total % 20 <= $m"),
            n=range(2, 8),
            m=range(10, 17),
        ),
        step(
            "limits",
            "",
            "total = max(total, $n) - min(total, $m)",
            ("wrong comparison", "min(total, $m)", "max(total, $m)"),
            n=range(40, 120, 9),
            m=range(5, 40, 7),
        ),
        step(
            "indexed",
            "",
            "total += [$n, $m][total % 4 > 1]",
            ("wrong comparison", "> 1", "<= 1"),
            n=range(3, 30, 4),
            m=range(4, 40, 5),
        ),
        step(
            "counted",
            "",
            "total += len({total % 3, total % 4, total % 5}) * $n",
            ("wrong variable", "{total % 3, total % 4, total % 5}", "[total % 3, total % 4, total % 5, 0]"),
            n=(5, 7, 11),
        ),
        step(
            "branches",
            "",
            """
            if total % 2 == 0:
                total = total // 2 + $n
            elif total % $m == 1:
                total -= 5
            """,
            ("wrong comparison", "total % 2 == 0", "total % 2 == 1"),
            n=range(20, 60, 3),
            m=(3, 4, 5),
        ),
        step(
            "both",
            "",
            "total = total - $n if total % 2 and total > $m else total + $n // 2",
            ("wrong comparison", "total > $m", "total <= $m"),
            ("wrong comparison", " and ", " or "),
            n=range(10, 40, 4),
            m=range(20, 60, 6),
        ),
    ),
    ("total", "total, total > 60", "total % 10, total"),
)

ARITHMETIC = PrintingFamily(
    "arithmetic",
    "v",
    lambda rng: f"v = {rng.choice((-1, 1)) * rng.randint(35, 900)}",
    (
        step(
            "parts",
            "",
            "v = v // $n - v % $n",
            ("wrong order of operations", "v // $n - v % $n", "v % $n - v // $n"),
            n=range(3, 10),
        ),
        step(
            "negated",
            "",
            "v = -v // $n + 100",
            ("wrong order of operations", "-v // $n", "-(v // $n + 1)"),
            n=range(2, 8),
        ),
        step("mixed", "", "v = v ^ $n << 2", ("wrong order of operations", "$n << 2", "$n << 1"), n=range(5, 30)),
        step(
            "divmod",
            "",
            """
            q, r = divmod(v, -$n)
            v = q * 10 - r
            """,
            ("wrong variable", "q * 10 - r", "r * 10 - q"),
            n=range(3, 10),
        ),
        step("turned", "", "v = int(str(abs(v))[::-1]) - $n", ("off by one", "- $n", "+ $n"), n=range(5, 90, 4)),
        step(
            "masked",
            "",
            "v = (v << 1 & 255) + $n",
            ("wrong order of operations", "v << 1 & 255", "v >> 1 & 255"),
            n=range(3, 20),
        ),
        step(
            "modular",
            "",
            "v = v * $n % $m",
            ("wrong order of operations", "v * $n % $m", "v * ($n % $m + 1)"),
            n=range(7, 30),
            m=range(97, 140),
        ),
        step("inverted", "", "v = ~v * $n", ("wrong operator", "~v", "-v"), n=(2, 3)),
        step("bits", "", """v += bin(abs(v)).count("1") * $n""", ("wrong variable", '"1"', '"0"'), n=range(6, 14)),
        step(
            "rounded",
            "",
            "v = round(v / 2) + $n",
            ("wrong order of operations", "v / 2", "v / 2 + 1"),
            n=range(10, 60, 7),
        ),
    ),
    ("v", "v, v % 7", "v // 10, v"),
)
