"""The family over one integer."""

from __future__ import annotations

import random

from elpo_envs.tasks.programs.operation import Family, step


def _draw_number(rng: random.Random) -> int:
    number = rng.randint(1, 10 ** rng.randint(2, 6))
    return -number if rng.random() < 0.25 else number


NUMBER = Family(
    "number",
    "number",
    "an integer, which may be 0 or negative",
    ("transform_number", "compute", "reckon"),
    _draw_number,
    (0, 1, -1, 10, -10, 64, 99, 1000, -125),
    (
        step(
            "branched",
            "If it is even, halve it; otherwise multiply it by 3 and add 1.",
            """
            def branch(v):
                if v % 2 == 0:
                    return v // 2
                return 3 * v + 1
            $y = branch($x)
            """,
            ("wrong order of operations", "3 * v + 1", "3 * (v + 1)"),
            ("missing return", "        return v // 2", "        v //= 2"),
            ("wrong comparison", "== 0", "!= 0"),
        ),
        step(
            "reduced",
            "Replace it by its remainder on division by $n, from 0 to $n - 1 for negative numbers too.",
            "$y = $x % $n",
            ("wrong order of operations", "$x % $n", "abs($x) % $n"),
            ("wrong order of operations", "$x % $n", "$x // $n"),
            n=(499, 512, 997, 1009, 4096, 9973),
        ),
        step(
            "heavier",
            "Add the sum of its decimal digits; the sign does not count as part of the digits.",
            "$y = $x + sum(int(d) for d in str(abs($x)))",
            ("wrong order of operations", "$x + sum", "$x - sum"),
            ("off by one", "str(abs($x))", "str(abs($x))[1:]"),
        ),
        step(
            "turned",
            "Write its decimal digits in reverse order and keep the sign; zeros that come to stand in front vanish.",
            "$y = int(str(abs($x))[::-1]) * (-1 if $x < 0 else 1)",
            ("wrong comparison", "$x < 0", "$x > 0"),
            ("missing sign", " * (-1 if $x < 0 else 1)", ""),
        ),
        step(
            "mixed",
            "Replace it by its bitwise exclusive or with $n, as Python's ^ computes it.",
            "$y = $x ^ $n",
            ("wrong operator", "^", "|"),
            ("wrong operator", "^", "&"),
            n=(5, 21, 37, 85, 170, 255, 341),
        ),
        step(
            "divided",
            "Divide it by $n and round down, towards minus infinity for negative numbers too.",
            "$y = $x // $n",
            ("off by one", "$x // $n", "-(-$x // $n)"),
            ("off by one", "// $n", "// ($n + 1)"),
            n=(2, 3, 5, 7),
        ),
        step(
            "rest",
            "Subtract from it the largest square of an integer that is not larger than its absolute value.",
            """
            root = int(abs($x) ** 0.5)
            $y = $x - root ** 2
            """,
            ("off by one", "int(abs($x) ** 0.5)", "int(abs($x) ** 0.5) + 1"),
            ("wrong order of operations", "$x - root ** 2", "($x - root) ** 2"),
        ),
        step(
            "scaled",
            "Multiply it by $n and then subtract $m.",
            "$y = $x * $n - $m",
            ("wrong order of operations", "$x * $n - $m", "($x - $m) * $n"),
            n=(2, 3, 4, 5, 6, 7),
            m=range(1, 30),
        ),
        step(
            "lifted",
            "Add $n times the number of ones in the binary form of its absolute value.",
            """$y = $x + $n * bin(abs($x)).count("1")""",
            ("wrong variable", 'count("1")', 'count("0")'),
            ("wrong order of operations", "$x + $n * bin", "($x + $n) * bin"),
            n=(3, 4, 5, 10, 11),
        ),
        step(
            "odd_part",
            "Divide it by 2 as long as it is even; 0 stays 0.",
            """
            $y = $x
            while $y != 0 and $y % 2 == 0:
                $y //= 2
            """,
            ("wrong comparison", "while", "if"),
            ("off by one", "$y % 2 == 0", "$y % 4 == 0"),
        ),
        step(
            "nested",
            "Add the sum of all integers from 1 up to and including its last decimal digit; the sign does not matter.",
            """
            $y = $x
            for i in range(1, abs($x) % 10 + 1):
                $y += i
            """,
            ("off by one", "% 10 + 1", "% 10"),
            ("wrong initial value", "$y = $x\n", "$y = 0\n"),
        ),
        step(
            "digits",
            "The result is the list of its decimal digits as integers, the last digit first, without the sign.",
            "$y = [int(d) for d in reversed(str(abs($x)))]",
            ("wrong order of operations", "reversed(str(abs($x)))", "str(abs($x))"),
            ("off by one", "str(abs($x))", "str(abs($x))[1:]"),
            last=True,
        ),
        step(
            "numeral",
            "The result is a string: its absolute value written in base $n, without zeros in front; 0 gives the "
            'string "0".',
            """
            rest_value = abs($x)
            $y = str(rest_value % $n)
            while rest_value >= $n:
                rest_value //= $n
                $y = str(rest_value % $n) + $y
            """,
            ("wrong comparison", ">= $n", "> $n * $n"),
            ("wrong order of operations", "str(rest_value % $n) + $y", "$y + str(rest_value % $n)"),
            n=range(2, 10),
            last=True,
        ),
        step(
            "divisor",
            "Let r be the remainder of its absolute value on division by $n, plus 2. The result is the smallest "
            "divisor of r that is larger than 1.",
            """
            r = abs($x) % $n + 2
            $y = 2
            while r % $y != 0:
                $y += 1
            """,
            ("off by one", "% $n + 2", "% $n + 3"),
            ("wrong comparison", "r % $y != 0", "r % $y != 0 and $y < 9"),
            n=(50, 90, 120, 200),
            last=True,
        ),
        step(
            "tally",
            "The result is the list of ten counts: how often each of the digits 0 to 9 occurs in its decimal form.",
            "$y = [str($x).count(str(d)) for d in range(10)]",
            ("off by one", "range(10)", "range(1, 11)"),
            ("off by one", "range(10)", "range(9)"),
            last=True,
        ),
    ),
)
