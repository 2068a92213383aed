"""Families over dicts and over lists of records."""

from __future__ import annotations

import random

from elpo_envs.tasks.programs.operation import Family, step

_KEYS = ("ant", "axe", "bat", "bun", "cup", "cod", "dip", "elk", "ewe", "fox", "a", "b", "c")


def _draw_counts(rng: random.Random) -> dict[str, int]:
    keys = rng.sample(_KEYS, rng.randint(3, 7))
    return {key: rng.randint(-6, 15) for key in keys}


COUNTS = Family(
    "dict",
    "counts",
    "a dict from strings of lower-case letters to integers, which may be empty; the order of its keys does not matter",
    ("update_counts", "process_counts", "settle"),
    _draw_counts,
    (
        {},
        {"a": 0},
        {"bat": -4},
        {"fox": 3, "elk": 3},
        {"b": 5, "a": 5, "c": -5},
        {"ant": 1, "axe": 2, "a": 4, "bat": 8, "bun": -8},
    ),
    (
        step(
            "kept",
            "Remove the keys whose value is smaller than $n.",
            "$y = {key: v for key, v in $x.items() if v >= $n}",
            ("wrong comparison", ">=", ">"),
            ("wrong comparison", ">=", "<="),
            n=range(-4, 5),
        ),
        step(
            "scaled",
            "Multiply every value by $n and then add $m.",
            "$y = {key: v * $n + $m for key, v in $x.items()}",
            ("wrong order of operations", "v * $n + $m", "(v + $m) * $n"),
            n=(2, 3, -1),
            m=range(1, 8),
        ),
        step(
            "merged",
            "Merge the keys with the same first character: the new keys are these characters, and the value of each is "
            "the sum of the values merged into it.",
            """
            $y = {}
            for key, v in $x.items():
                $y[key[0]] = $y.get(key[0], 0) + v
            """,
            ("wrong initial value", "$y.get(key[0], 0)", "$y.get(key[0], 1)"),
            ("wrong variable", "$y.get(key[0], 0) + v", "v"),
        ),
        step(
            "completed",
            'Set the key "sum" to the sum of all values, including that of "sum" if there is such a key already; '
            "it is 0 for an empty dict.",
            """
            $y = dict($x)
            $y["sum"] = sum($x.values())
            """,
            ("wrong order of operations", "sum($x.values())", "sum($x.values()) - len($x)"),
            ("wrong initial value", "sum($x.values())", "sum($x.values(), 1)"),
        ),
        step(
            "shortened",
            "Remove the key with the largest value; of several such keys, the one that comes first in alphabetical "
            "order. An empty dict stays empty.",
            """
            $y = dict($x)
            if $y:
                del $y[min($x, key=lambda key: (-$x[key], key))]
            """,
            ("wrong comparison", "-$x[key]", "$x[key]"),
            ("wrong order of operations", "(-$x[key], key)", "(key, -$x[key])"),
        ),
        step(
            "passed_on",
            "Give every key the value that the next key in alphabetical order had before this step; "
            "the last key gets the value of the first.",
            """
            names = sorted($x)
            $y = {key: $x[names[(i + 1) % len(names)]] for i, key in enumerate(names)}
            """,
            ("off by one", "(i + 1)", "(i + 2)"),
            ("wrong order of operations", "(i + 1)", "(i - 1)"),
        ),
        step(
            "ranked",
            "Replace every value by 1 plus the number of values in the dict that are larger than it.",
            "$y = {key: 1 + sum(other > v for other in $x.values()) for key, v in $x.items()}",
            ("wrong comparison", "other > v", "other >= v"),
            ("wrong comparison", "other > v", "other < v"),
        ),
        step(
            "lowered",
            "Subtract the smallest value from every value.",
            "$y = {key: v - min($x.values()) for key, v in $x.items()}",
            ("wrong variable", "min($x.values())", "max($x.values())"),
            ("wrong order of operations", "v - min($x.values())", "min($x.values()) - v"),
        ),
        step(
            "signed",
            "Change the sign of the value of every key that has an odd number of characters and comes after $n "
            "in alphabetical order.",
            "$y = {key: -v if len(key) % 2 == 1 and key > $n else v for key, v in $x.items()}",
            ("wrong comparison", "key > $n", "key < $n"),
            ("wrong comparison", "== 1", "== 0"),
            n=("bb", "boy", "car", "cog"),
        ),
        step(
            "raised",
            "Replace negative values by 0 and add the number of keys that were negative to all the other values.",
            """
            below = sum(v < 0 for v in $x.values())
            $y = {key: 0 if v < 0 else v + below for key, v in $x.items()}
            """,
            ("wrong variable", "v + below", "v"),
            ("off by one", "sum(v < 0", "sum(v <= 0"),
            ("off by one", "0 if v < 0", "below if v < 0"),
        ),
        step(
            "ordered",
            "The result is the list of the keys, that with the largest value first; keys of equal value stand in "
            "alphabetical order.",
            "$y = sorted($x, key=lambda key: (-$x[key], key))",
            ("wrong comparison", "-$x[key]", "$x[key]"),
            ("wrong order of operations", "(-$x[key], key)", "(key, -$x[key])"),
            last=True,
        ),
        step(
            "groups",
            'The result is a dict from the text of each value that occurs (such as "-3") to the list of the keys with '
            "this value in alphabetical order.",
            """
            $y = {}
            for key in sorted($x):
                $y.setdefault(str($x[key]), []).append(key)
            """,
            ("wrong order of operations", "sorted($x)", "sorted($x, reverse=True)"),
            ("wrong variable", "$y.setdefault(str($x[key]), []).append(key)", "$y[str($x[key])] = [key]"),
            last=True,
        ),
        step(
            "balance",
            "The result is the sum of the values of the keys with an even number of characters minus the sum of the "
            "other values.",
            "$y = sum(v if len(key) % 2 == 0 else -v for key, v in $x.items())",
            ("wrong comparison", "== 0", "== 1"),
            ("wrong variable", "else -v", "else 0"),
            last=True,
        ),
    ),
)

_NAMES = ("Ada", "Ben", "Cem", "Dea", "Eva", "Finn", "Gus", "Ida", "Olu", "Uma")
_GROUPS = ("north", "south", "west")


def _row(name: str, group: str, score: int) -> dict[str, str | int]:
    return {"name": name, "group": group, "score": score}


def _draw_rows(rng: random.Random) -> list[dict[str, str | int]]:
    return [_row(rng.choice(_NAMES), rng.choice(_GROUPS), rng.randint(-5, 20)) for _ in range(rng.randint(3, 6))]


RECORDS = Family(
    "records",
    "rows",
    'a list of dicts with the keys "name" (a string), "group" ("north", "south" or "west") and "score" (an integer); '
    "the list may be empty, and names may occur more than once",
    ("update_rows", "process_rows", "report"),
    _draw_rows,
    (
        [],
        [_row("Ada", "north", 0)],
        [_row("Gus", "west", -3), _row("Gus", "west", -3)],
        [_row("Ida", "south", 7), _row("Ada", "south", 7), _row("Ada", "west", 7)],
        [_row("Uma", "north", 12), _row("Ben", "south", -1), _row("Uma", "west", 5), _row("Ben", "south", 20)],
    ),
    (
        step(
            "kept",
            "Keep only the rows with a score of at least $n.",
            """$y = [row for row in $x if row["score"] >= $n]""",
            ("wrong comparison", ">=", ">"),
            ("wrong comparison", ">=", "<="),
            n=range(-2, 6),
        ),
        step(
            "ordered",
            "Sort the rows by score, largest first; rows of equal score by name in alphabetical order, and rows that "
            "are equal in both keep their order.",
            """$y = sorted($x, key=lambda row: (-row["score"], row["name"]))""",
            ("wrong comparison", """-row["score"]""", """row["score"]"""),
            ("wrong order of operations", """(-row["score"], row["name"])""", """(row["name"], -row["score"])"""),
        ),
        step(
            "rewarded",
            "Add $n to the score of every row of the group $m.",
            """
            $y = []
            for row in $x:
                bonus = $n if row["group"] == $m else 0
                $y.append({**row, "score": row["score"] + bonus})
            """,
            ("wrong comparison", "==", "!="),
            ("wrong order of operations", """row["score"] + bonus""", """row["score"] - bonus"""),
            n=range(2, 10),
            m=_GROUPS,
        ),
        step(
            "best",
            "Keep of every group only the row with the largest score, of several such rows the first; "
            "the rows that stay keep their order.",
            """
            best_rows = {}
            for row in $x:
                if row["group"] not in best_rows or row["score"] > best_rows[row["group"]]["score"]:
                    best_rows[row["group"]] = row
            $y = [row for row in $x if best_rows[row["group"]] is row]
            """,
            ("wrong comparison", """row["score"] > """, """row["score"] < """),
            ("wrong variable", """["score"]:\n""", """["score"] + 1:\n"""),
        ),
        step(
            "doubled",
            "Double the score of every row whose name begins with a vowel (A, E, I, O, U).",
            """
            def score(row):
                if row["name"][0] in "AEIOU":
                    return 2 * row["score"]
                return row["score"]
            $y = [{**row, "score": score(row)} for row in $x]
            """,
            ("wrong comparison", " in ", " not in "),
            ("missing return", """        return 2 * row["score"]""", """        2 * row["score"]"""),
        ),
        step(
            "running",
            "Replace every score by the sum of it and of the scores of all earlier rows of the same group, "
            "as they were before this step.",
            """
            sums = {}
            $y = []
            for row in $x:
                sums[row["group"]] = sums.get(row["group"], 0) + row["score"]
                $y.append({**row, "score": sums[row["group"]]})
            """,
            ("wrong initial value", """sums.get(row["group"], 0)""", """sums.get(row["group"], 1)"""),
            ("wrong variable", """sums.get(row["group"], 0)""", """sums.get(row["name"], 0)"""),
        ),
        step(
            "latest",
            "Of several rows with the same name keep only the last; the rows that stay keep their order.",
            """
            $y = []
            for i, row in enumerate($x):
                if row["name"] not in [other["name"] for other in $x[i + 1:]]:
                    $y.append(row)
            """,
            ("wrong order of operations", "$x[i + 1:]", "$x[:i]"),
            ("off by one", "$x[i + 1:]", "$x[i + 2:]"),
        ),
        step(
            "handed_on",
            "Give every row the score that the row before it had before this step; the first row gets that of the "
            "last row.",
            """
            scores = [row["score"] for row in $x]
            $y = [{**row, "score": scores[i - 1]} for i, row in enumerate($x)]
            """,
            ("off by one", "scores[i - 1]", "scores[i - 2]"),
            ("wrong variable", "scores[i - 1]", "scores[0]"),
        ),
        step(
            "moved",
            "Put every row with a score below $n into the group $m.",
            """$y = [{**row, "group": $m} if row["score"] < $n else row for row in $x]""",
            ("wrong comparison", "<", "<="),
            ("wrong comparison", "<", ">"),
            n=range(1, 12),
            m=_GROUPS,
        ),
        step(
            "totals",
            "The result is a dict from each group that occurs to the sum of its scores.",
            """
            $y = {}
            for row in $x:
                $y[row["group"]] = $y.get(row["group"], 0) + row["score"]
            """,
            ("wrong initial value", """$y.get(row["group"], 0)""", """$y.get(row["group"], 1)"""),
            ("wrong variable", """$y.get(row["group"], 0) + row["score"]""", """row["score"]"""),
            last=True,
        ),
        step(
            "above",
            "The result is the list of the names of the rows whose score is larger than the mean of all scores, "
            "in the order of the rows.",
            """
            all_scores = [row["score"] for row in $x]
            $y = [row["name"] for row in $x if row["score"] * len(all_scores) > sum(all_scores)]
            """,
            ("wrong comparison", "> sum", "< sum"),
            ("off by one", "len(all_scores)", "(len(all_scores) - 1)"),
            last=True,
        ),
        step(
            "names",
            'The result is one string: for every row its name, a colon and its score, such as "Ada:7", '
            'with "; " between rows.',
            """$y = "; ".join(row["name"] + ":" + str(row["score"]) for row in $x)""",
            ("wrong variable", """row["name"] + ":\"""", """row["group"] + ":\""""),
            ("off by one", "for row in $x", "for row in $x[1:]"),
            last=True,
        ),
    ),
)
