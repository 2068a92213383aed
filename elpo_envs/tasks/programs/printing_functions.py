"""Programs whose output is to be predicted: closures, generators, exceptions."""

from __future__ import annotations

from elpo_envs.tasks.programs.operation import PrintingFamily, step
from elpo_envs.tasks.programs.printing_values import STEPS_OF_A_TOTAL, start_list, start_total

CLOSURES = PrintingFamily(
    "closures",
    "total",
    start_total,
    (
        step(
            "counter",
            "",
            """
            bump = counter(total)
            total = bump($n) + bump($m) - total
            """,
            ("wrong variable", "bump($n) + bump($m)", "bump($n) + counter(total)($m)"),
            n=range(2, 9),
            m=range(2, 9),
            define="""
            def counter(start):
                def bump(by):
                    nonlocal start
                    start += by
                    return start
                return bump
            """,
        ),
        step(
            "late",
            "",
            """
            fs = [lambda v: v + i * $n for i in range($m)]
            total = fs[0](total)
            """,
            ("late binding", "lambda v:", "lambda v, i=i:"),
            n=range(3, 15),
            m=(3, 4, 5),
        ),
        step(
            "twice",
            "",
            "total = twice(lambda v: v // 2 + $n)(total)",
            ("wrong order of operations", "v // 2 + $n", "(v + $n) // 2"),
            n=range(15, 60, 5),
            define="""
            def twice(f):
                return lambda v: f(f(v))
            """,
        ),
        step(
            "default",
            "",
            """
            scale = lambda v, by=total % $n + 1: v + by * total
            total = 40
            total = scale($m)
            """,
            ("wrong variable", "by=total % $n + 1: v + by * total", "by=total: v + by"),
            n=(4, 5, 6, 7),
            m=range(2, 12),
        ),
        step(
            "keyed",
            "",
            """
            fs = {c: (lambda v, c=c: v + ord(c) - 90) for c in "abc"}
            total = fs[$n](total) - $m
            """,
            ("late binding", "lambda v, c=c:", "lambda v:"),
            n=("a", "b"),
            m=range(20, 40),
        ),
        step(
            "shadowed",
            "",
            "total = shadow(total % $n) + total",
            ("wrong variable", "shadow(total % $n)", "total % $n"),
            n=(5, 7, 11, 13),
            define="""
            def shadow(total):
                total += 3
                return total * 2
            """,
        ),
        step(
            "remembered",
            "",
            """
            add = remember()
            total = add(total) + add($n)
            """,
            ("wrong variable", "add(total) + add($n)", "add(total) + remember()($n)"),
            n=range(3, 20, 2),
            define="""
            def remember():
                seen = []
                return lambda v: seen.append(v) or sum(seen)
            """,
        ),
    ),
    ("total", "total, total % 9"),
)

GENERATORS = PrintingFamily(
    "generators",
    "xs",
    start_list,
    (
        step(
            "skipped",
            "",
            "xs = list(skip(xs, $n))",
            ("off by one", "skip(xs, $n)", "skip(xs, $n + 1)"),
            n=(3, 4),
            define="""
            def skip(items, k):
                for i, v in enumerate(items):
                    if i % k != 1:
                        yield v
            """,
        ),
        step(
            "taken_by_two",
            "",
            """
            it = iter(xs)
            xs = [v * 2 - next(it, $n) for v in it] + xs[:3]
            """,
            ("wrong order of operations", "v * 2 - next(it, $n)", "v * 2 - $n"),
            n=range(3, 9),
        ),
        step(
            "used_up",
            "",
            """
            g = (v * $n for v in xs)
            xs = [next(g), sum(g)] + xs[2:]
            """,
            ("aliasing", "sum(g)", "sum(v * $n for v in xs)"),
            n=(2, 3),
        ),
        step(
            "running",
            "",
            "xs = list(running(xs, $n))",
            ("wrong initial value", "running(xs, $n)", "running(xs, $n + 1)"),
            n=range(0, 6),
            define="""
            def running(items, total):
                for v in items:
                    total = (total + v) % 30
                    yield total
            """,
        ),
        step(
            "mixed",
            "",
            "xs = list(mix(xs, reversed(xs)))[:$n]",
            ("wrong order of operations", "mix(xs, reversed(xs))", "mix(reversed(xs), xs)"),
            n=(6, 7, 8),
            define="""
            def mix(a, b):
                for p, q in zip(a, b):
                    yield p
                    yield q
            """,
        ),
        step(
            "until",
            "",
            "xs = list(until(xs, $n)) + xs[-2:]",
            ("off by one", "until(xs, $n)", "until(xs, $n - 6)"),
            n=range(8, 25),
            define="""
            def until(items, limit):
                for v in items:
                    if v > limit:
                        return
                    yield v + 1
            """,
        ),
        step(
            "filtered",
            "",
            "xs = [i * $n + v for i, v in enumerate(v for v in xs if v % $m)] + xs[:2]",
            ("wrong comparison", "v % $m)", "v % $m == 0)"),
            n=(2, 3, 5),
            m=(2, 3),
        ),
        step(
            "zipped",
            "",
            "xs = [a - b for a, b in zip(iter(xs), (v for v in xs if v > $n))] + xs[-3:]",
            ("wrong comparison", "v > $n", "v <= $n"),
            n=range(3, 10),
        ),
        step(
            "shifted",
            "",
            "xs = [v % 10 + $n for v in xs if v != $m]",
            ("wrong order of operations", "v % 10 + $n", "(v + $n) % 10"),
            n=range(2, 9),
            m=range(12),
        ),
    ),
    ("xs", "sum(xs), xs", "xs[::-1]"),
)

EXCEPTIONS = PrintingFamily(
    "exceptions",
    "total",
    start_total,
    (
        step(
            "zero",
            "",
            """
            try:
                total += 100 // (total % $n)
            except ZeroDivisionError:
                total -= $m
            """,
            ("off by one", "total % $n", "total % $n + 1"),
            n=(2, 3, 4),
            m=range(4, 11),
        ),
        step(
            "shaky",
            "",
            "total += shaky(total + $n) + len(seen)",
            ("wrong variable", "shaky(total + $n)", "shaky($n)"),
            n=range(0, 8),
            define="""
            seen = []
            def shaky(v):
                try:
                    return 60 // (v % 4)
                except ZeroDivisionError:
                    return -9
                finally:
                    seen.append(v)
            """,
        ),
        step(
            "parsed",
            "",
            "total += parse(str(total)[-2:] + $n)",
            ("wrong order of operations", "str(total)[-2:] + $n", "$n + str(total)[-2:]"),
            n=("x", "7", "", "1e", "-"),
            define="""
            def parse(text):
                try:
                    return int(text)
                except ValueError:
                    return len(text) * 5
            """,
        ),
        step(
            "overruled",
            "",
            "total = overrule(total) + $n",
            ("off by one", "overrule(total)", "overrule(total + 1)"),
            n=range(5, 30, 3),
            define="""
            def overrule(v):
                try:
                    return v * 10
                finally:
                    if v % 2:
                        return v + 7
            """,
        ),
        step(
            "looked_up",
            "",
            """
            try:
                total += [31, 17, 46][total % $n]
            except IndexError:
                total -= $m
            """,
            ("wrong order of operations", "total % $n", "-(total % 3)"),
            n=(4, 5, 6),
            m=range(3, 11),
        ),
        step(
            "raised",
            "",
            "total = check(total, $n)",
            ("off by one", "check(total, $n)", "check(total, $n + 40)"),
            n=range(30, 90, 6),
            define="""
            def check(v, limit):
                try:
                    if v > limit:
                        raise ValueError(v - limit)
                    v += 5
                except ValueError as error:
                    return error.args[0] * 2
                else:
                    return v + 20
            """,
        ),
        *STEPS_OF_A_TOTAL,
    ),
    ("total", "total, total % 8"),
)
