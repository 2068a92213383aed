"""The family over times of day."""

from __future__ import annotations

import random

from elpo_envs.tasks.programs.operation import Family, plain, step


def _draw_times(rng: random.Random) -> list[str]:
    times = [f"{rng.randrange(24):02d}:{rng.randrange(60):02d}" for _ in range(rng.randint(3, 7))]
    return [*times, rng.choice(times)] if rng.random() < 0.4 else times


TIMES = Family(
    "times",
    "times",
    'a list of times of day as strings "HH:MM", from "00:00" to "23:59"; it may be empty',
    ("plan_times", "adjust_times", "process_times"),
    _draw_times,
    ([], ["00:00"], ["23:59"], ["12:00", "12:00"], ["23:59", "00:00", "00:01"], ["08:30", "07:45", "08:30", "19:15"]),
    (
        step(
            "moved",
            "Move every time $n minutes later; a time past midnight begins again at 00:00.",
            "$y = [clock(minutes(t) + $n) for t in $x]",
            ("wrong order of operations", "+ $n", "- $n"),
            n=(7, 15, 45, 75, 100, 135, 200, 500),
        ),
        step(
            "ordered",
            "Sort the times, latest first.",
            "$y = sorted($x, reverse=True)",
            ("wrong comparison", ", reverse=True", ""),
            ("wrong comparison", "reverse=True", "key=lambda t: t[::-1], reverse=True"),
        ),
        step(
            "distinct",
            "Of equal times keep only the first.",
            """
            $y = []
            for t in $x:
                if t not in $y:
                    $y.append(t)
            """,
            ("wrong comparison", "t not in $y", "$y[-1:] != [t]"),
            ("off by one", "for t in $x:", "for t in $x[1:]:"),
        ),
        step(
            "kept",
            "Remove the times before $n:00; a time of exactly $n:00 stays.",
            "$y = [t for t in $x if minutes(t) >= 60 * $n]",
            ("wrong comparison", ">=", "<="),
            ("off by one", "60 * $n", "60 * ($n + 1)"),
            n=(10, 11, 12),
        ),
        step(
            "rounded",
            "Round every time down to a full multiple of $n minutes after the hour.",
            "$y = [clock(minutes(t) - minutes(t) % $n) for t in $x]",
            ("wrong order of operations", "minutes(t) - minutes(t) % $n", "minutes(t) % $n"),
            ("off by one", "minutes(t) % $n", "minutes(t) % $n + $n"),
            n=(5, 10, 15, 20, 30),
        ),
        step(
            "mirrored",
            'Replace every time by the time that is left from it until midnight, also as "HH:MM"; 00:00 stays 00:00.',
            "$y = [clock(-minutes(t)) for t in $x]",
            ("off by one", "-minutes(t)", "1439 - minutes(t)"),
        ),
        step(
            "gaps",
            "Replace every time except the first by the time that passes from the one before it (as it was before "
            'this step) until it, also as "HH:MM"; where it is the earlier of the two, it is of the next day.',
            "$y = $x[:1] + [clock(minutes(b) - minutes(a)) for a, b in zip($x, $x[1:])]",
            ("wrong order of operations", "minutes(b) - minutes(a)", "minutes(a) - minutes(b)"),
            ("off by one", "$x[:1] + ", ""),
        ),
        step(
            "added",
            "Append one more time, $n minutes after the last one (past midnight it begins again at 00:00); "
            "an empty list stays empty.",
            "$y = $x + [clock(minutes(t) + $n) for t in $x[-1:]]",
            ("wrong variable", "$x[-1:]", "$x[:1]"),
            ("wrong order of operations", "+ $n", "* $n"),
            n=(10, 30, 50, 90),
        ),
        step(
            "doubled",
            "Double the minutes since midnight of every time in the first half of the day (before 12:00); "
            "the other times stay.",
            "$y = [clock(2 * minutes(t)) if minutes(t) < 720 else t for t in $x]",
            ("wrong comparison", "< 720", "> 720"),
            ("wrong variable", "2 * minutes(t)", "minutes(t)"),
        ),
        step(
            "total",
            "The result is the sum of the minutes since midnight of all times, 0 for an empty list.",
            "$y = sum(minutes(t) for t in $x)",
            ("wrong variable", "for t in $x", "for t in set($x)"),
            ("off by one", "for t in $x", "for t in $x[1:]"),
            last=True,
        ),
        step(
            "by_hour",
            'The result is a dict from each hour that occurs, as the two digits before the colon such as "07", to the '
            "number of times in that hour.",
            """
            $y = {}
            for t in $x:
                hour = t[:2]
                $y[hour] = $y.get(hour, 0) + 1
            """,
            ("wrong initial value", "$y.get(hour, 0)", "$y.get(hour, 1)"),
            ("off by one", "t[:2]", "t[:1]"),
            last=True,
        ),
        step(
            "latest",
            'The result is the latest time, or "none" for an empty list.',
            '$y = max($x, default="none")',
            ("wrong comparison", "max", "min"),
            ("wrong variable", "max($x, ", "max($x[1:], "),
            last=True,
        ),
        step(
            "span",
            "The result is the number of minutes between the earliest and the latest time, 0 for an empty list.",
            "$y = minutes(max($x)) - minutes(min($x)) if $x else 0",
            ("wrong variable", "minutes(min($x))", "minutes($x[0])"),
            ("wrong variable", "minutes(max($x))", "minutes($x[-1])"),
            last=True,
        ),
    ),
    prelude=plain(
        '''
        def minutes(t):
            """Minutes from midnight to the time of day t."""
            return 60 * int(t[:2]) + int(t[3:])


        def clock(m):
            """The time of day m minutes after midnight."""
            return f"{m // 60 % 24:02d}:{m % 60:02d}"
        '''
    ),
)
