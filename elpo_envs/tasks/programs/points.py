"""The family over points in the plane."""

from __future__ import annotations

import random

from elpo_envs.tasks.programs.operation import Family, step


def _draw_points(rng: random.Random) -> list[list[int]]:
    points = [[rng.randint(-9, 9), rng.randint(-9, 9)] for _ in range(rng.randint(3, 6))]
    return [*points, list(rng.choice(points))] if rng.random() < 0.3 else points


POINTS = Family(
    "points",
    "points",
    "a list of points [x, y] with integer coordinates; the list may be empty, and points may occur more than once",
    ("transform_points", "trace_path", "process_points"),
    _draw_points,
    ([], [[0, 0]], [[-3, 4]], [[1, 1], [1, 1]], [[0, 5], [5, 0], [-5, 0]], [[3, 4], [4, 3], [-4, -3], [0, 5]]),
    (
        step(
            "moved",
            "Add $n to every x and subtract $m from every y.",
            "$y = [[px + $n, py - $m] for px, py in $x]",
            ("wrong order of operations", "py - $m", "py + $m"),
            ("wrong variable", "px + $n", "px + $m"),
            n=(-4, -3, 2, 5, 6),
            m=(1, 3, 4, 7),
        ),
        step(
            "turned",
            "Turn every point by 90 degrees counterclockwise about [0, 0]: [x, y] becomes [-y, x].",
            "$y = [[-py, px] for px, py in $x]",
            ("wrong order of operations", "[-py, px]", "[py, -px]"),
            ("wrong variable", "[-py, px]", "[-py, py]"),
        ),
        step(
            "kept",
            "Keep only the points with |x| + |y| of at most $n.",
            "$y = [[px, py] for px, py in $x if abs(px) + abs(py) <= $n]",
            ("wrong comparison", "<=", "<"),
            ("wrong order of operations", "abs(px) + abs(py)", "abs(px + py)"),
            n=range(9, 16),
        ),
        step(
            "ordered",
            "Sort the points by their distance from [0, 0], nearest first; points at equal distance by x and then by "
            "y, smallest first.",
            "$y = sorted($x, key=lambda p: (p[0] ** 2 + p[1] ** 2, p))",
            ("wrong comparison", "(p[0] ** 2 + p[1] ** 2, p)", "p"),
            ("wrong comparison", "p[0] ** 2 + p[1] ** 2, p", "-p[0] ** 2 - p[1] ** 2, p"),
        ),
        step(
            "distinct",
            "Of equal points keep only the first.",
            "$y = [p for i, p in enumerate($x) if p not in $x[:i]]",
            ("off by one", "$x[:i]", "$x[1:i]"),
            ("wrong order of operations", "$x[:i]", "$x[i + 1:]"),
        ),
        step(
            "moves",
            "Replace the list by the moves between neighbours: the point minus the one before it, for x and for y. "
            "A list of fewer than two points becomes empty.",
            "$y = [[c - a, d - b] for (a, b), (c, d) in zip($x, $x[1:])]",
            ("wrong order of operations", "[c - a, d - b]", "[a - c, b - d]"),
            ("wrong variable", "d - b", "d - a"),
        ),
        step(
            "path",
            "Replace every point by the sum of itself and all points before it, for x and for y.",
            """
            $y = []
            px = py = 0
            for dx, dy in $x:
                px += dx
                py += dy
                $y.append([px, py])
            """,
            ("wrong initial value", "px = py = 0", "px = py = 1"),
            ("wrong variable", "$y.append([px, py])", "$y.append([px, dy])"),
        ),
        step(
            "closed",
            "Append the first point once more at the end; an empty list stays empty.",
            "$y = $x + $x[:1]",
            ("off by one", "$x[:1]", "$x[-1:]"),
            ("off by one", "$x[:1]", "$x[1:2]"),
        ),
        step(
            "refined",
            "Insert between neighbours the point halfway between them, with both coordinates rounded down "
            "(towards minus infinity).",
            """
            $y = $x[:1]
            for (a, b), (c, d) in zip($x, $x[1:]):
                $y += [[(a + c) // 2, (b + d) // 2], [c, d]]
            """,
            ("wrong order of operations", "(a + c) // 2", "a + c // 2"),
            ("wrong initial value", "$y = $x[:1]", "$y = []"),
        ),
        step(
            "swapped",
            "Swap x and y of every point at an odd position, where the first point is at position 0.",
            "$y = [[py, px] if i % 2 == 1 else [px, py] for i, (px, py) in enumerate($x)]",
            ("off by one", "enumerate($x)", "enumerate($x, 1)"),
        ),
        step(
            "box",
            "The result is the list [smallest x, smallest y, largest x, largest y], or [] for an empty list.",
            """
            xs = [px for px, py in $x]
            ys = [py for px, py in $x]
            $y = [min(xs), min(ys), max(xs), max(ys)] if $x else []
            """,
            (
                "wrong order of operations",
                "[min(xs), min(ys), max(xs), max(ys)]",
                "[min(xs), max(xs), min(ys), max(ys)]",
            ),
            ("wrong variable", "max(ys)]", "max(xs)]"),
            last=True,
        ),
        step(
            "walked",
            "The result is the sum over all neighbours of the difference in x plus the difference in y, both without "
            "sign. It is 0 for fewer than two points.",
            "$y = sum(abs(a - c) + abs(b - d) for (a, b), (c, d) in zip($x, $x[1:]))",
            ("wrong order of operations", "abs(a - c) + abs(b - d)", "abs(a - c + b - d)"),
            ("off by one", "$x[1:]", "$x[2:]"),
            last=True,
        ),
        step(
            "area",
            "The result is the sum of a*d - b*c over all pairs of a point [a, b] and the next point [c, d], where the "
            "next point of the last one is the first; 0 for an empty list.",
            "$y = sum(a * d - b * c for (a, b), (c, d) in zip($x, $x[1:] + $x[:1]))",
            ("wrong order of operations", "a * d - b * c", "b * c - a * d"),
            ("off by one", "$x[1:] + $x[:1]", "$x[1:]"),
            last=True,
        ),
    ),
)
