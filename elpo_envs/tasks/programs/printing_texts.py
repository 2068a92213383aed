"""Programs whose output is to be predicted: slices, string methods, dict order."""

from __future__ import annotations

import random

from elpo_envs.tasks.programs.operation import PrintingFamily, step
from elpo_envs.tasks.programs.printing_values import start_list


def _start_text(rng: random.Random) -> str:
    return f's = "{"".join(rng.choice("aabbcdeeXYZ") for _ in range(rng.randint(9, 13)))}"'


def _start_dict(rng: random.Random) -> str:
    keys = rng.sample("abcdefg", rng.randint(4, 5))
    items = ", ".join(f'"{key}": {rng.randint(0, 12)}' for key in keys)
    return f"d = {{{items}}}"


SLICES = PrintingFamily(
    "slices",
    "xs",
    start_list,
    (
        step("turned", "", "xs = xs[$n:] + xs[:$n]", ("off by one", "xs[:$n]", "xs[:$n - 1]"), n=(1, 2, 3)),
        step("mirrored", "", "xs[::2] = xs[::2][::-1]", ("off by one", "xs[::2] = xs[::2]", "xs[1::2] = xs[1::2]")),
        step(
            "folded",
            "",
            "xs[$n:$m] = [sum(xs[$n:$m])]",
            ("off by one", "[sum(xs[$n:$m])]", "[sum(xs[$n:$m + 1])]"),
            n=(1, 2),
            m=(3, 4),
        ),
        step("from_end", "", "xs = xs[-$n:] + xs[:-$n]", ("off by one", "xs[-$n:]", "xs[1 - $n:]"), n=(2, 3)),
        step("thinned", "", "del xs[1::$n]", ("wrong initial value", "xs[1::$n]", "xs[2::$n]"), n=(3, 4)),
        step("echoed", "", "xs += xs[$n:0:-1]", ("off by one", "xs[$n:0:-1]", "xs[$n::-1]"), n=(2, 3)),
        step("inserted", "", "xs[1:1] = xs[-2:]", ("off by one", "xs[-2:]", "xs[-1:]")),
        step(
            "differences",
            "",
            "xs = [a - b for a, b in zip(xs, xs[1:] + xs[:1])]",
            ("wrong order of operations", "a - b", "b - a"),
        ),
        step("moved", "", "xs.insert($n, xs.pop())", ("off by one", "xs.pop()", "xs.pop(0)"), n=(1, 2, 3)),
        step(
            "steps",
            "",
            "xs = xs[::3] + xs[1::3] + xs[2::3]",
            ("wrong order of operations", "xs[::3] + xs[1::3]", "xs[1::3] + xs[::3]"),
        ),
    ),
    ("xs", "xs[::-1]", "len(xs), xs"),
)

METHODS = PrintingFamily(
    "methods",
    "s",
    _start_text,
    (
        step(
            "cased",
            "",
            "s = s[$n:].upper() + s[:$n].lower()",
            ("wrong order of operations", "upper() + s[:$n].lower()", "lower() + s[:$n].upper()"),
            n=(2, 3, 4),
        ),
        step(
            "swapped_parts",
            "",
            """
            head, _, tail = s.partition($n)
            s = tail + head
            """,
            ("wrong variable", "tail + head", "head + tail"),
            n=("a", "b", "e", "c"),
        ),
        step(
            "rejoined",
            "",
            "s = $m.join(s.split($n)[::-1])",
            ("wrong order of operations", "[::-1]", ""),
            n=("a", "b", "e"),
            m=("-", "q", ""),
        ),
        step("sorted_by", "", """s = "".join(sorted(s, key=str.lower))""", ("wrong comparison", ", key=str.lower", "")),
        step(
            "stripped",
            "",
            "s = s.strip($n) + str(len(s))",
            ("wrong order of operations", "strip", "lstrip"),
            ("wrong variable", "len(s)", "len(s.strip($n))"),
            n=("ab", "de", "aX", "bcY"),
        ),
        step(
            "repeated",
            "",
            """s = "".join(c * (i % 3) for i, c in enumerate(s)) + s[:2]""",
            ("off by one", "enumerate(s)", "enumerate(s, 1)"),
        ),
        step(
            "mapped",
            "",
            """s = s.translate(str.maketrans("abe", $n))""",
            ("wrong order of operations", """maketrans("abe", $n)""", """maketrans($n, "abe")"""),
            n=("bea", "Xac", "eba"),
        ),
        step(
            "swapped_case", "", "s = s[:$n].swapcase() + s[$n:]", ("off by one", "s[:$n]", "s[:$n + 1]"), n=(3, 4, 5, 6)
        ),
        step(
            "filled",
            "",
            "s = s[:5].rjust($n, $m) + s[5:]",
            ("wrong order of operations", "rjust", "ljust"),
            n=(7, 8),
            m=("*", "0", "k"),
        ),
        step("titled", "", "s = s.title()[::-1]", ("wrong order of operations", "title()[::-1]", "title()")),
    ),
    ("s", "s[::-1]", "len(s), s"),
)

DICT_ORDER = PrintingFamily(
    "dict_order",
    "d",
    _start_dict,
    (
        step(
            "to_end",
            "",
            "d[$n] = d.pop($n, 0) + $m",
            ("wrong initial value", "d.pop($n, 0)", "d.get($n, 1)"),
            n=tuple("abcdefg"),
            m=range(2, 9),
        ),
        step(
            "by_value",
            "",
            "d = dict(sorted(d.items(), key=lambda p: (p[1], p[0])))",
            ("wrong comparison", "(p[1], p[0])", "p[0]"),
        ),
        step(
            "to_front",
            "",
            "d = {$n: $m, **d}",
            ("wrong order of operations", "{$n: $m, **d}", "{**d, $n: $m}"),
            n=tuple("abcdefg"),
            m=range(20, 30),
        ),
        step(
            "crossed",
            "",
            "d = dict(zip(d, reversed(d.values())))",
            ("wrong order of operations", "zip(d, reversed(d.values()))", "zip(reversed(d), d.values())"),
        ),
        step(
            "renamed",
            "",
            """
            first = next(iter(d))
            d[first + $n] = d.pop(first)
            """,
            ("wrong order of operations", "first + $n", "$n + first"),
            n=("x", "y", "a"),
        ),
        step(
            "marked",
            "",
            """
            for key in list(d):
                if d[key] % $n == 0:
                    d[key.upper()] = d.pop(key) + 1
            """,
            ("wrong comparison", "== 0", "!= 0"),
            n=(2, 3, 4),
        ),
        step(
            "last_first",
            "",
            """
            key, value = d.popitem()
            d = {key: value + $n, **d}
            """,
            ("wrong order of operations", "{key: value + $n, **d}", "{**d, key: value + $n}"),
            n=range(1, 7),
        ),
        step(
            "defaulted",
            "",
            "d.setdefault($n, len(d) + $m)",
            ("off by one", "len(d) + $m", "len(d) - $m"),
            n=tuple("abcdefgz"),
            m=(10, 20, 30),
        ),
        step(
            "sums",
            "",
            "d = {key: value + sum(d.values()) % $n for key, value in d.items()}",
            ("wrong order of operations", "value + sum(d.values()) % $n", "(value + sum(d.values())) % $n"),
            n=(5, 7, 9),
        ),
    ),
    ("d", "list(d.items())", '"".join(d), list(d.values())'),
)
