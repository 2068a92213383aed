"""Programs whose output is to be predicted: classes and shared lists."""

from __future__ import annotations

from elpo_envs.tasks.programs.operation import PrintingFamily, step
from elpo_envs.tasks.programs.printing_values import STEPS_OF_A_TOTAL, start_list, start_total

CLASSES = PrintingFamily(
    "classes",
    "total",
    start_total,
    (
        step(
            "counted",
            "",
            "total = Node(total).v - Node($n).count",
            ("wrong variable", "Node($n).count", "Node($n).v"),
            n=range(2, 20),
            define="""
            class Node:
                count = 0
                def __init__(self, v):
                    Node.count += 4
                    self.v = v + Node.count
            """,
        ),
        step(
            "overridden",
            "",
            "total += Square(total % $n).area() * $m",
            ("wrong variable", "Square(", "Shape("),
            n=(4, 5, 6),
            m=(2, 3),
            define="""
            class Shape:
                def __init__(self, side):
                    self.side = side
                def area(self):
                    return self.width() * 2
                def width(self):
                    return self.side + 1
            class Square(Shape):
                def width(self):
                    return self.side * 3 + 2
            """,
        ),
        step(
            "shared",
            "",
            "total += sum(Tag(total % $n).values)",
            ("off by one", "Tag(total % $n)", "Tag(total % $n + 1)"),
            n=(7, 9, 11),
            define="""
            class Tag:
                values = [2]
                def __init__(self, v):
                    self.values.append(v)
            """,
        ),
        step(
            "overloaded",
            "",
            "total = (Box(total) + Box($n) * $m).v",
            ("wrong order of operations", "Box(total) + Box($n) * $m", "(Box(total) + Box($n)) * $m"),
            n=range(3, 15),
            m=range(2, 6),
            define="""
            class Box:
                def __init__(self, v):
                    self.v = v
                def __add__(self, other):
                    return Box(self.v - other.v)
                def __mul__(self, times):
                    return Box(self.v + 3 * times)
            """,
        ),
        step(
            "truth",
            "",
            "total = (Odd(total) or $n) + $m",
            ("wrong comparison", " or ", " and "),
            n=range(30, 60),
            m=range(3, 12),
            define="""
            class Odd(int):
                def __bool__(self):
                    return self % 2 == 1
            """,
        ),
        step(
            "own_attribute",
            "",
            """
            one, two = Unit(), Unit()
            one.size += total % $n
            total += one.size * $m - two.size
            """,
            ("wrong variable", "one.size += total % $n", "Unit.size += total % $n"),
            n=(5, 7, 9),
            m=(2, 3, 4),
            define="""
            class Unit:
                size = 3
            """,
        ),
        *STEPS_OF_A_TOTAL,
    ),
    ("total", "total, total % 8"),
)

ALIASING = PrintingFamily(
    "aliasing",
    "xs",
    start_list,
    (
        step(
            "same",
            "",
            """
            ys = xs
            ys.append(len(xs) * $n)
            """,
            ("aliasing", "ys = xs", "ys = xs[:]"),
            n=(2, 3, 4, 5),
        ),
        step(
            "copied",
            "",
            """
            ys = xs[:]
            ys[0] += $n
            xs = ys[:2] + xs[:-1]
            """,
            ("aliasing", "ys = xs[:]", "ys = xs"),
            n=range(3, 10),
        ),
        step(
            "rows",
            "",
            """
            rows = [xs[:1]] * 3
            rows[0].append($n)
            xs = xs[2:] + rows[2]
            """,
            ("aliasing", "[xs[:1]] * 3", "[xs[:1] for _ in range(3)]"),
            n=range(21, 40),
        ),
        step(
            "kept_default",
            "",
            "xs = xs[-4:] + add(xs[-1] % $n)",
            ("mutated default argument", "add(xs[-1] % $n)", "add(xs[-1] % $n, [])"),
            n=(6, 7, 9),
            define="""
            def add(v, into=[1]):
                into.append(v)
                return into
            """,
        ),
        step(
            "turned",
            "",
            """
            xs, ys = xs[::-1], xs
            ys[0] += $n
            xs.append(ys[0])
            """,
            ("aliasing", "xs[::-1], xs", "xs[::-1], xs[:1]\nxs.pop()"),
            n=range(2, 9),
        ),
        step(
            "rebound",
            "",
            """
            ys = xs
            xs = xs + [$n]
            ys[0] -= xs[0] + 1
            xs += ys[:1]
            """,
            ("aliasing", "xs = xs + [$n]", "xs += [$n]"),
            n=range(30, 50),
        ),
        step(
            "swapped",
            "",
            "xs[0], xs[-1] = xs[-1], xs[0] + $n",
            ("wrong order of operations", "xs[-1], xs[0] + $n", "xs[-1] + $n, xs[0]"),
            n=range(2, 12),
        ),
        step(
            "sliced",
            "",
            """
            ys = xs[$n:]
            ys.reverse()
            xs += ys[:2]
            """,
            ("aliasing", "ys.reverse()", "reversed(ys)"),
            n=(1, 2, 3),
        ),
        step("popped", "", "xs.append(xs.pop($n) + xs[0])", ("off by one", "xs.pop($n)", "xs.pop($n - 1)"), n=(1, 2)),
        step(
            "shifted",
            "",
            "xs = [v % 20 + $n for v in xs]",
            ("wrong order of operations", "v % 20 + $n", "(v + $n) % 20"),
            n=range(2, 9),
        ),
    ),
    ("xs", "xs[::-1]", "len(xs), xs[1:]"),
)
