"""Families over lists of integers: flat and nested."""

from __future__ import annotations

import random
from typing import Any

from elpo_envs.tasks.programs.operation import Family, step


def _draw_list(rng: random.Random) -> list[int]:
    span = rng.choice((4, 12, 30))
    return [rng.randint(-span, span) for _ in range(rng.randint(3, 9))]


LIST = Family(
    "list",
    "values",
    "a list of integers, which may be empty",
    ("transform_values", "process_list", "rework"),
    _draw_list,
    ([], [0], [-7], [3, 3], [5, -5, 5], [-1, -2, -3, -4], [2, 4, 4, 6, 9, 9, 9]),
    (
        step(
            "kept",
            "Keep only the values that are at least $n.",
            "$y = [v for v in $x if v >= $n]",
            ("wrong comparison", "v >= $n", "v > $n"),
            ("wrong comparison", "v >= $n", "v <= $n"),
            n=range(-8, 3),
        ),
        step(
            "scaled",
            "Multiply every value by $n and then add $m.",
            "$y = [v * $n + $m for v in $x]",
            ("wrong order of operations", "v * $n + $m", "(v + $m) * $n"),
            n=(2, 3, -2),
            m=range(1, 8),
        ),
        step(
            "distinct",
            "Drop repeats: of equal values keep only the first.",
            """
            $y = []
            for v in $x:
                if v not in $y:
                    $y.append(v)
            """,
            ("wrong comparison", "if v not in $y:", "if $y[-1:] != [v]:"),
            ("off by one", "for v in $x:", "for v in $x[1:]:"),
        ),
        step(
            "rotated",
            "Rotate the list $n places to the left: each time the first value goes to the end. "
            "An empty list stays empty.",
            """
            cut = $n % len($x) if $x else 0
            $y = $x[cut:] + $x[:cut]
            """,
            ("wrong order of operations", "$x[cut:] + $x[:cut]", "$x[-cut:] + $x[:-cut]"),
            ("off by one", "$n % len($x)", "($n - 1) % len($x)"),
            n=range(1, 6),
        ),
        step(
            "sums",
            "Replace every value by the sum of itself and all values before it.",
            """
            $y = []
            total = 0
            for v in $x:
                total += v
                $y.append(total)
            """,
            ("wrong initial value", "total = 0", "total = 1"),
            ("wrong order of operations", "total += v\n    $y.append(total)", "$y.append(total)\n    total += v"),
            ("wrong variable", "$y.append(total)", "$y.append(v)"),
        ),
        step(
            "differences",
            "Replace the list by the differences between neighbours, each value minus the one before it. "
            "A list of fewer than two values becomes empty.",
            "$y = [b - a for a, b in zip($x, $x[1:])]",
            ("wrong order of operations", "b - a", "a - b"),
            ("off by one", "$x[1:]", "$x[2:]"),
        ),
        step(
            "combined",
            "Add to every value except the first the value on its left as it was before this step.",
            """
            $y = list($x)
            for i in range(1, len($x)):
                $y[i] += $x[i - 1]
            """,
            ("aliasing", "list($x)", "$x"),
            ("off by one", "range(1, len($x))", "range(len($x))"),
            ("off by one", "range(1, len($x))", "range(1, len($x) - 1)"),
        ),
        step(
            "clipped",
            "Replace every value smaller than $n by $n, and every value larger than $m by $m.",
            """
            def clip(v):
                if v < $n:
                    return $n
                if v > $m:
                    return $m
                return v
            $y = [clip(v) for v in $x]
            """,
            ("missing return", "\n    return v\n", "\n"),
            ("wrong variable", "return $m", "return $n"),
            n=range(-9, 1),
            m=range(4, 16),
        ),
        step(
            "turned",
            "Cut the list into blocks of $n values from the left, where the last block may be shorter, "
            "and reverse the order within every block.",
            """
            $y = []
            for start in range(0, len($x), $n):
                $y.extend(reversed($x[start:start + $n]))
            """,
            ("off by one", "start + $n", "start + $n - 1"),
            ("wrong initial value", "range(0, len($x), $n)", "range(1, len($x), $n)"),
            n=(2, 3, 4),
        ),
        step(
            "ordered",
            "Sort the values by absolute value, smallest first. Values of equal absolute value keep their order.",
            "$y = sorted($x, key=abs)",
            ("wrong comparison", ", key=abs", ""),
            ("wrong comparison", "key=abs", "key=lambda v: -abs(v)"),
        ),
        step(
            "flipped",
            "Change the sign of the values at odd positions, where the first value is at position 0.",
            "$y = [-v if i % 2 == 1 else v for i, v in enumerate($x)]",
            ("off by one", "enumerate($x)", "enumerate($x, 1)"),
        ),
        step(
            "remainders",
            "Replace every value by its remainder on division by $n, from 0 to $n - 1 for negative values too.",
            "$y = [v % $n for v in $x]",
            ("wrong order of operations", "v % $n", "abs(v) % $n"),
            n=range(5, 14),
        ),
        step(
            "balance",
            "The result is the sum of the values at even positions minus the sum of those at odd positions, where the "
            "first value is at position 0. It is 0 for an empty list.",
            "$y = sum($x[::2]) - sum($x[1::2])",
            ("wrong variable", "$x[::2]", "$x"),
            ("off by one", "$x[1::2]", "$x[2::2]"),
            last=True,
        ),
        step(
            "second",
            "The result is the second largest of the different values, or 0 if there are fewer than two of them.",
            """
            ranked = sorted(set($x))
            $y = ranked[-2] if len(ranked) >= 2 else 0
            """,
            ("wrong variable", "set($x)", "$x"),
            ("off by one", "ranked[-2]", "ranked[1]"),
            last=True,
        ),
        step(
            "peaks",
            "The result is the number of values that are larger than both their neighbours. "
            "The first and the last value never count.",
            """
            $y = 0
            for i in range(1, len($x) - 1):
                if $x[i - 1] < $x[i] > $x[i + 1]:
                    $y += 1
            """,
            ("wrong comparison", "$x[i] > $x[i + 1]", "$x[i] < $x[i + 1]"),
            ("wrong initial value", "$y = 0", "$y = 1"),
            ("off by one", "len($x) - 1", "len($x) - 2"),
            last=True,
        ),
        step(
            "longest",
            "The result is the length of the longest stretch of neighbouring values in which each is larger than the "
            "one before. It is 0 for an empty list and 1 for a list without such neighbours.",
            """
            run = $y = min(1, len($x))
            for a, b in zip($x, $x[1:]):
                run = run + 1 if b > a else 1
                $y = max($y, run)
            """,
            ("wrong comparison", "b > a", "b >= a"),
            ("wrong initial value", "else 1", "else 0"),
            ("wrong variable", "max($y, run)", "run"),
            last=True,
        ),
    ),
)


def _draw_nested(rng: random.Random, depth: int = 0) -> list[Any]:
    def item() -> Any:
        return _draw_nested(rng, depth + 1) if depth < 3 and rng.random() < 0.4 else rng.randint(-9, 20)

    return [item() for _ in range(rng.randint(0 if depth else 3, 5 - depth))]


NESTED = Family(
    "nested",
    "tree",
    "a list whose items are integers or again such lists, to any depth; it and any list in it may be empty",
    ("rebuild_tree", "process_tree", "walk_tree"),
    _draw_nested,
    ([], [[]], [0], [[[]], []], [-3, [4]], [[1, [2, [3, [4]]]]], [7, [7, []], [-7, [7]]]),
    (
        step(
            "scaled",
            "Multiply every number, at any depth, by $n and then add $m.",
            """
            def scale(item):
                if isinstance(item, list):
                    return [scale(child) for child in item]
                return item * $n + $m
            $y = scale($x)
            """,
            ("wrong order of operations", "item * $n + $m", "(item + $m) * $n"),
            (
                "missing return",
                "        return [scale(child) for child in item]",
                "        [scale(child) for child in item]\n        return item",
            ),
            n=(2, 3, -1),
            m=range(1, 6),
        ),
        step(
            "deepened",
            "Add to every number $n times its depth, where a number that stands directly in the outermost list has "
            "depth 1.",
            """
            def deepen(items, depth):
                return [deepen(item, depth + 1) if isinstance(item, list) else item + $n * depth for item in items]
            $y = deepen($x, 1)
            """,
            ("wrong initial value", "deepen($x, 1)", "deepen($x, 0)"),
            ("wrong variable", "deepen(item, depth + 1)", "deepen(item, depth)"),
            n=range(1, 6),
        ),
        step(
            "mirrored",
            "Reverse the order of the items of every list, at every depth.",
            """
            def mirror(item):
                if not isinstance(item, list):
                    return item
                return [mirror(child) for child in reversed(item)]
            $y = mirror($x)
            """,
            ("wrong variable", "[mirror(child) for child in reversed(item)]", "list(reversed(item))"),
            ("wrong order of operations", "reversed(item)", "item"),
        ),
        step(
            "thinned",
            "Remove every number that is divisible by $n, at any depth; the lists stay, even if they become empty.",
            """
            def thin(items):
                kept = []
                for item in items:
                    if isinstance(item, list):
                        kept.append(thin(item))
                    elif item % $n != 0:
                        kept.append(item)
                return kept
            $y = thin($x)
            """,
            ("wrong comparison", "item % $n != 0", "item % $n == 0"),
            ("wrong variable", "kept.append(thin(item))", "kept.append(item)"),
            n=(2, 3, 4, 5),
        ),
        step(
            "raised",
            "Replace every list that stands directly in the outermost list by its items, in their order; "
            "lists inside those stay as they are.",
            """
            $y = []
            for item in $x:
                if isinstance(item, list):
                    $y.extend(item)
                else:
                    $y.append(item)
            """,
            ("wrong order of operations", "$y.extend(item)", "$y.extend(reversed(item))"),
            ("off by one", "$y.extend(item)", "$y.extend(item[1:])"),
        ),
        step(
            "summed",
            "Append to every list, at every depth, the sum of the numbers that stand directly in it, "
            "which is 0 if there is none.",
            """
            def sum_up(items):
                total = 0
                out = []
                for item in items:
                    if isinstance(item, list):
                        out.append(sum_up(item))
                    else:
                        out.append(item)
                        total += item
                return out + [total]
            $y = sum_up($x)
            """,
            ("wrong initial value", "total = 0", "total = 1"),
            ("wrong variable", "out.append(sum_up(item))", "out.append(item)"),
        ),
        step(
            "pruned",
            "Remove every empty list from the list it stands in, at every depth, and also every list that becomes "
            "empty by this; the outermost list stays.",
            """
            def prune(items):
                pruned_items = [prune(item) if isinstance(item, list) else item for item in items]
                return [item for item in pruned_items if item != []]
            $y = prune($x)
            """,
            ("wrong variable", "for item in pruned_items if", "for item in items if"),
        ),
        step(
            "wrapped",
            "Put every number that stands directly in the outermost list and is larger than $n into a list of its own.",
            "$y = [[item] if not isinstance(item, list) and item > $n else item for item in $x]",
            ("wrong comparison", "item > $n", "item >= $n"),
            ("wrong comparison", "item > $n", "item < $n"),
            n=range(-3, 9),
        ),
        step(
            "total",
            "The result is the sum of all numbers at any depth, each multiplied by its depth, where a number that "
            "stands directly in the outermost list has depth 1.",
            """
            def weigh(items, depth):
                return sum(weigh(item, depth + 1) if isinstance(item, list) else item * depth for item in items)
            $y = weigh($x, 1)
            """,
            ("wrong initial value", "weigh($x, 1)", "weigh($x, 0)"),
            ("wrong variable", "item * depth", "item"),
            last=True,
        ),
        step(
            "depth",
            "The result is the depth of the whole list: 1 for a list without lists in it, and otherwise one more than "
            "the largest depth among the lists in it.",
            """
            def deepest(items):
                return 1 + max([deepest(item) for item in items if isinstance(item, list)], default=0)
            $y = deepest($x)
            """,
            ("wrong initial value", "default=0", "default=1"),
            ("wrong comparison", "max([", "min(["),
            last=True,
        ),
        step(
            "flat",
            "The result is the list of all numbers at any depth, from left to right.",
            """
            def flatten(items):
                numbers = []
                for item in items:
                    numbers += flatten(item) if isinstance(item, list) else [item]
                return numbers
            $y = flatten($x)
            """,
            ("wrong order of operations", "for item in items:", "for item in reversed(items):"),
            ("off by one", "for item in items:", "for item in items[1:]:"),
            last=True,
        ),
    ),
)
