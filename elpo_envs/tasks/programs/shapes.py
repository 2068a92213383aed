"""Families over intervals and grids."""

from __future__ import annotations

import random

from elpo_envs.tasks.programs.operation import Family, step


def _draw_intervals(rng: random.Random) -> list[list[int]]:
    starts = [rng.randint(-10, 25) for _ in range(rng.randint(3, 6))]
    return [[a, a + rng.choice((0, 1, 2, 3, 5, 8, 12))] for a in starts]


INTERVALS = Family(
    "intervals",
    "intervals",
    "a list of closed intervals [start, end] with integers start <= end, in any order and perhaps overlapping; "
    "the list may be empty",
    ("combine_intervals", "process_intervals", "schedule"),
    _draw_intervals,
    ([], [[0, 0]], [[-5, 5]], [[1, 3], [3, 6]], [[4, 9], [5, 6]], [[2, 4], [2, 4]], [[7, 8], [1, 2], [4, 5]]),
    (
        step(
            "merged",
            "Sort the intervals by start and merge those that overlap or share an end point, until no two of them do.",
            """
            $y = []
            for a, b in sorted($x):
                if $y and a <= $y[-1][1]:
                    $y[-1][1] = max($y[-1][1], b)
                else:
                    $y.append([a, b])
            """,
            ("wrong comparison", "a <= ", "a < "),
            ("wrong variable", "max($y[-1][1], b)", "b"),
            ("wrong order of operations", "sorted($x)", "$x"),
        ),
        step(
            "moved",
            "Add $n to the start and to the end of every interval.",
            "$y = [[a + $n, b + $n] for a, b in $x]",
            ("wrong variable", "b + $n", "b"),
            ("wrong order of operations", "[a + $n, b + $n]", "[a - $n, b - $n]"),
            n=(-7, -4, 2, 3, 6, 9),
        ),
        step(
            "widened",
            "Make every interval start $n earlier and end $n later.",
            "$y = [[a - $n, b + $n] for a, b in $x]",
            ("wrong variable", "b + $n", "b"),
            ("wrong order of operations", "a - $n", "a + $n"),
            n=(1, 2, 3, 4),
        ),
        step(
            "kept",
            "Keep only the intervals with a length (end minus start) of at least $n.",
            "$y = [[a, b] for a, b in $x if b - a >= $n]",
            ("wrong comparison", ">=", ">"),
            ("off by one", "b - a", "b - a + 1"),
            n=(1, 2, 3, 5),
        ),
        step(
            "clipped",
            "Keep of every interval only the part from $n to $m inclusive, and remove the intervals that have no point "
            "there.",
            "$y = [[max(a, $n), min(b, $m)] for a, b in $x if a <= $m and b >= $n]",
            ("wrong comparison", "b >= $n", "b > $n"),
            ("wrong variable", "min(b, $m)", "b"),
            n=range(-6, 3),
            m=range(14, 24),
        ),
        step(
            "gaps",
            "Sort the intervals by start, ties by end, and replace the list by the gaps: for neighbours [a, b] and "
            "[c, d] in this order with c > b the gap is [b, c]; other neighbours have no gap.",
            """
            in_order = sorted($x)
            $y = []
            for (a, b), (c, d) in zip(in_order, in_order[1:]):
                if c > b:
                    $y.append([b, c])
            """,
            ("wrong variable", "$y.append([b, c])", "$y.append([b, d])"),
            ("wrong comparison", "c > b", "c > a"),
            ("off by one", "in_order[1:]", "in_order[2:]"),
        ),
        step(
            "ordered",
            "Sort the intervals by length (end minus start), longest first; intervals of equal length by start, "
            "smallest first.",
            "$y = sorted($x, key=lambda interval: (interval[0] - interval[1], interval[0]))",
            ("wrong comparison", "interval[0] - interval[1], ", "interval[1] - interval[0], "),
            ("wrong variable", "(interval[0] - interval[1], interval[0])", "interval[1]"),
        ),
        step(
            "split",
            "Cut every interval that begins before $n and ends after $n into two at $n: [start, $n] and [$n, end], "
            "which take its place in this order.",
            """
            $y = []
            for a, b in $x:
                if a < $n < b:
                    $y += [[a, $n], [$n, b]]
                else:
                    $y.append([a, b])
            """,
            ("wrong comparison", "a < $n < b", "a <= $n <= b"),
            ("off by one", "[$n, b]]", "[$n + 1, b]]"),
            n=range(0, 16),
        ),
        step(
            "halved",
            "Replace the end of every interval by the middle of the interval, rounded down "
            "(towards minus infinity) to an integer.",
            "$y = [[a, (a + b) // 2] for a, b in $x]",
            ("wrong order of operations", "(a + b) // 2", "a + b // 2"),
            ("off by one", "(a + b) // 2", "(a + b + 1) // 2"),
        ),
        step(
            "mirrored",
            "Mirror every interval at 0, so that [start, end] becomes [-end, -start].",
            "$y = [[-b, -a] for a, b in $x]",
            ("wrong order of operations", "[-b, -a]", "[-a, -b]"),
        ),
        step(
            "covered",
            "The result is the number of integers that lie in at least one of the intervals, ends included.",
            """
            points = set()
            for a, b in $x:
                points.update(range(a, b + 1))
            $y = len(points)
            """,
            ("off by one", "b + 1", "b"),
            last=True,
        ),
        step(
            "crowd",
            "The result is the largest number of intervals that have one integer in common, ends included. "
            "It is 0 for an empty list.",
            "$y = max([sum(c <= a <= d for c, d in $x) for a, b in $x], default=0)",
            ("wrong comparison", "c <= a <= d", "c <= a < d"),
            ("wrong comparison", "max(", "min("),
            last=True,
        ),
        step(
            "length",
            "The result is the sum of the lengths (end minus start) of the intervals, each multiplied by its position "
            "in the list, where the first interval has position 1.",
            "$y = sum(i * (b - a) for i, (a, b) in enumerate($x, 1))",
            ("off by one", "enumerate($x, 1)", "enumerate($x)"),
            ("wrong order of operations", "i * (b - a)", "i * b - a"),
            last=True,
        ),
    ),
)


def _draw_grid(rng: random.Random) -> list[list[int]]:
    height, width = rng.randint(2, 4), rng.randint(2, 4)
    return [[rng.randint(-6, 9) for _ in range(width)] for _ in range(height)]


GRID = Family(
    "grid",
    "grid",
    "a list of rows, each a list of integers; all rows have the same length of at least 1, and there may be no row "
    "at all",
    ("transform_grid", "process_grid", "rearrange"),
    _draw_grid,
    ([], [[5]], [[-1, 2, -3]], [[1], [0], [4]], [[0, 0], [0, 0]], [[1, 2], [3, 4]], [[9, -9, 9], [-9, 9, -9]]),
    (
        step(
            "transposed",
            "Turn rows into columns: the first column becomes the first row, and so on.",
            "$y = [list(column) for column in zip(*$x)]",
            ("wrong order of operations", "zip(*$x)", "zip(*$x[::-1])"),
        ),
        step(
            "turned",
            "Turn the grid by 90 degrees clockwise: the first column, read from bottom to top, becomes the first row.",
            "$y = [list(column) for column in zip(*$x[::-1])]",
            ("wrong order of operations", "zip(*$x[::-1])", "list(zip(*$x))[::-1]"),
            ("wrong order of operations", "$x[::-1]", "$x"),
        ),
        step(
            "mirrored",
            "Reverse the order of the values in every row whose number is even, where the first row has number 0.",
            "$y = [row[::-1] if i % 2 == 0 else list(row) for i, row in enumerate($x)]",
            ("off by one", "enumerate($x)", "enumerate($x, 1)"),
            ("wrong comparison", " if i % 2 == 0 else list(row)", ""),
        ),
        step(
            "sums",
            "In every row, replace each value by the sum of itself and all values to its left.",
            """
            def add_up(row):
                out = []
                for v in row:
                    out.append(v + (out[-1] if out else 0))
                return out
            $y = [add_up(row) for row in $x]
            """,
            ("mutated default argument", "def add_up(row):\n    out = []", "def add_up(row, out=[]):"),
            ("wrong initial value", "if out else 0", "if out else 1"),
            ("wrong variable", "out[-1] if", "out[0] if"),
        ),
        step(
            "stacked",
            "Add to every value, except in the first row, the value above it as it was before this step.",
            """
            $y = [list(row) for row in $x]
            for i in range(1, len($x)):
                for j in range(len($x[i])):
                    $y[i][j] += $x[i - 1][j]
            """,
            ("aliasing", "[list(row) for row in $x]", "list($x)"),
            ("off by one", "range(1, len($x))", "range(len($x))"),
            ("off by one", "range(len($x[i]))", "range(1, len($x[i]))"),
        ),
        step(
            "ordered",
            "Sort the rows by their sums, smallest first; rows of equal sums keep their order.",
            "$y = sorted($x, key=sum)",
            ("wrong comparison", ", key=sum", ""),
            ("wrong comparison", "key=sum", "key=max"),
        ),
        step(
            "scaled",
            "Multiply every value by $n and then add the number of its column, where the first column has number 0.",
            "$y = [[v * $n + j for j, v in enumerate(row)] for row in $x]",
            ("off by one", "enumerate(row)", "enumerate(row, 1)"),
            ("wrong order of operations", "v * $n + j", "(v + j) * $n"),
            n=(2, 3, -1, -2),
        ),
        step(
            "replaced",
            "Replace every value smaller than $n by $m.",
            "$y = [[$m if v < $n else v for v in row] for row in $x]",
            ("wrong comparison", "v < $n", "v <= $n"),
            ("wrong comparison", "v < $n", "v > $n"),
            n=range(-4, 4),
            m=(0, 5, 7, 10),
        ),
        step(
            "extended",
            "Append one more row that holds the sum of every column; a grid without rows stays as it is.",
            "$y = [list(row) for row in $x] + [[sum(column) for column in zip(*$x)]][: len($x)]",
            ("wrong variable", "sum(column)", "max(column)"),
            ("wrong order of operations", "zip(*$x)", "zip(*$x[1:])"),
        ),
        step(
            "spread",
            "Make a grid of the same size in which every value is the sum of all values of its row minus the "
            "old value at its place.",
            """
            $y = [[0] * len(row) for row in $x]
            for i, row in enumerate($x):
                for j, v in enumerate(row):
                    $y[i][j] = sum(row) - v
            """,
            ("aliasing", "[[0] * len(row) for row in $x]", "[[0] * len(row) for row in $x[:1]] * len($x)"),
            ("wrong order of operations", "sum(row) - v", "v - sum(row)"),
        ),
        step(
            "diagonal",
            "The result is the sum of the values on the diagonal that starts at the first value of the first row and "
            "goes down to the right until the grid ends; 0 for a grid without rows.",
            "$y = sum(row[i] for i, row in enumerate($x) if i < len(row))",
            ("wrong comparison", "i < len(row)", "i < len(row) - 1"),
            ("wrong variable", "row[i]", "row[-1 - i]"),
            last=True,
        ),
        step(
            "snake",
            "The result is the list of all values, the first row from left to right, the second from right to left, "
            "the third from left to right again, and so on.",
            """
            $y = []
            for i, row in enumerate($x):
                $y += row if i % 2 == 0 else row[::-1]
            """,
            ("off by one", "enumerate($x)", "enumerate($x, 1)"),
            ("wrong comparison", " if i % 2 == 0 else row[::-1]", ""),
            last=True,
        ),
        step(
            "largest",
            "The result is the list [row, column, value] of the largest value, counted from 0; of several such places "
            "the one in the smallest row, then in the smallest column. It is [] for a grid without rows.",
            """
            $y = []
            for i, row in enumerate($x):
                for j, v in enumerate(row):
                    if not $y or v > $y[2]:
                        $y = [i, j, v]
            """,
            ("wrong comparison", "v > $y[2]", "v >= $y[2]"),
            ("wrong variable", "[i, j, v]", "[j, i, v]"),
            last=True,
        ),
    ),
)
