"""Families over text: strings and lists of words."""

from __future__ import annotations

import random

from elpo_envs.tasks.programs.operation import Family, step

_CHARACTERS = "aaabbccdeeeiorstuvxyzABCEILOSTZ0123456789   "


def _draw_text(rng: random.Random) -> str:
    text = "".join(rng.choice(_CHARACTERS) for _ in range(rng.randint(5, 16)))
    return text if rng.random() < 0.5 else "".join(c * rng.choice((1, 1, 2, 3)) for c in text[:9])


STRING = Family(
    "string",
    "text",
    "a string of the letters a-z and A-Z, digits and spaces, which may be empty",
    ("transform_text", "encode", "rewrite"),
    _draw_text,
    ("", " ", "z", "aA", "9 0", "AAAA", "level Level", "zz9  yy8"),
    (
        step(
            "shifted",
            "Move every letter from a to z $n places forward in the alphabet, where a follows z; "
            "all other characters, capitals too, stay.",
            """$y = "".join(chr((ord(c) - 97 + $n) % 26 + 97) if "a" <= c <= "z" else c for c in $x)""",
            ("off by one", "% 26", "% 25"),
            ("wrong comparison", "c <= ", "c < "),
            n=range(1, 20),
        ),
        step(
            "swapped",
            "Turn lower-case letters at even positions into capitals and capitals at even positions into lower case, "
            "where the first character is at position 0.",
            """$y = "".join(c.swapcase() if i % 2 == 0 else c for i, c in enumerate($x))""",
            ("off by one", "enumerate($x)", "enumerate($x, 1)"),
            ("wrong comparison", "== 0", "== 1"),
        ),
        step(
            "turned",
            "Write every word backwards, where words are separated by single spaces; the spaces stay where they are.",
            """$y = " ".join(word[::-1] for word in $x.split(" "))""",
            ("wrong order of operations", """word[::-1] for word in $x.split(" ")""", """$x.split(" ")[::-1]"""),
            ("off by one", "word[::-1]", "word[:0:-1]"),
        ),
        step(
            "squeezed",
            "Replace every run of equal neighbouring characters by one such character.",
            """
            $y = ""
            for c in $x:
                if not $y.endswith(c):
                    $y += c
            """,
            ("wrong comparison", "not $y.endswith(c)", "c not in $y"),
            ("wrong initial value", '$y = ""', "$y = $x[:2]"),
        ),
        step(
            "moved",
            "Move the first $n characters to the end, in their order; one of $n or fewer characters stays as it is.",
            "$y = $x[$n:] + $x[:$n]",
            ("off by one", "$x[:$n]", "$x[:$n - 1]"),
            ("wrong order of operations", "$x[$n:] + $x[:$n]", "$x[-$n:] + $x[:-$n]"),
            n=range(1, 6),
        ),
        step(
            "thinned",
            "Remove every character whose position is a multiple of $n, where the first character is at position 0.",
            """$y = "".join(c for i, c in enumerate($x) if i % $n != 0)""",
            ("off by one", "enumerate($x)", "enumerate($x, 1)"),
            ("wrong comparison", "!= 0", "== 0"),
            n=(2, 3, 4, 5, 6),
        ),
        step(
            "doubled",
            "Write every vowel (a, e, i, o, u and A, E, I, O, U) twice.",
            """$y = "".join(c * 2 if c in "aeiouAEIOU" else c for c in $x)""",
            ("wrong comparison", "c in", "c not in"),
            ("wrong variable", "aeiouAEIOU", "aeiou"),
        ),
        step(
            "counted_up",
            "Replace every digit d by the last digit of d + $n.",
            """$y = "".join(str((int(c) + $n) % 10) if c.isdigit() else c for c in $x)""",
            ("wrong order of operations", "(int(c) + $n) % 10", "int(c) + $n % 10"),
            n=range(1, 10),
        ),
        step(
            "split_up",
            "Write all characters at even positions first and then those at odd positions, each in their order, "
            "where the first character is at position 0.",
            "$y = $x[::2] + $x[1::2]",
            ("wrong order of operations", "$x[::2] + $x[1::2]", "$x[1::2] + $x[::2]"),
            ("off by one", "$x[1::2]", "$x[2::2]"),
        ),
        step(
            "padded",
            "If the length is not a multiple of $n, append as few characters * as make it one.",
            """
            def pad(line):
                if len(line) % $n == 0:
                    return line
                return line + "*" * ($n - len(line) % $n)
            $y = pad($x)
            """,
            ("missing return", "        return line\n", "        line\n"),
            ("wrong order of operations", "($n - len(line) % $n)", "(len(line) % $n)"),
            n=(3, 4, 5, 6),
        ),
        step(
            "coded",
            "Replace every run of equal neighbouring characters by one such character followed by the run's length.",
            """
            $y = ""
            run = 0
            for i, c in enumerate($x):
                run += 1
                if i + 1 == len($x) or $x[i + 1] != c:
                    $y += c + str(run)
                    run = 0
            """,
            ("wrong initial value", "run = 0\nfor", "run = 1\nfor"),
            ("wrong initial value", "str(run)\n        run = 0", "str(run)\n        run = 1"),
        ),
        step(
            "letters",
            "The result is a dict from each letter that occurs, capitals and lower case apart, to how often it occurs.",
            "$y = {c: $x.count(c) for c in $x if c.isalpha()}",
            ("wrong comparison", "c.isalpha()", "c.isalnum()"),
            ("wrong variable", "$x.count(c)", "$x.lower().count(c)"),
            last=True,
        ),
        step(
            "repeat_at",
            "The result is the position of the first character that already occurred before it, where the first "
            "character is at position 0. It is -1 if no character occurs twice.",
            """
            $y = -1
            for i, c in enumerate($x):
                if c in $x[:i]:
                    $y = i
                    break
            """,
            ("off by one", "$x[:i]", "$x[1:i]"),
            ("wrong variable", "        $y = i\n        break", "        $y = i"),
            ("wrong variable", "$y = i\n", "$y = $x.index(c)\n"),
            last=True,
        ),
        step(
            "digit_sum",
            "The result is the sum of all digits in the string, each counted as often as it occurs, plus the number of "
            "spaces. It is 0 if there is neither.",
            """
            $y = $x.count(" ")
            for c in $x:
                if c.isdigit():
                    $y += int(c)
            """,
            ("wrong initial value", '$x.count(" ")', "0"),
            ("wrong order of operations", "for c in $x:", "for c in set($x):"),
            last=True,
        ),
    ),
)

_WORDS = (
    "apple",
    "bee",
    "cat",
    "dodo",
    "eel",
    "fig",
    "goose",
    "ibis",
    "jam",
    "kiwi",
    "level",
    "noon",
    "oak",
    "otter",
    "pea",
    "pepper",
    "queue",
    "radar",
    "rat",
    "sea",
    "tea",
    "tree",
    "umbra",
    "unit",
    "vine",
    "wave",
    "yak",
    "zebra",
    "a",
    "is",
    "on",
    "up",
)


def _draw_words(rng: random.Random) -> list[str]:
    words = [rng.choice(_WORDS) for _ in range(rng.randint(3, 8))]
    return [*words, rng.choice(words)] if rng.random() < 0.6 else words


WORDS = Family(
    "words",
    "words",
    "a list of strings of lower-case letters; the list may be empty, and so may a string in it",
    ("transform_words", "edit_words", "process_words"),
    _draw_words,
    ([], [""], ["a"], ["tea", "tea"], ["", "up", ""], ["eel", "level", "noon"], ["tree", "sea", "tea", "a", "sea"]),
    (
        step(
            "kept",
            "Keep only the strings of at least $n characters.",
            "$y = [word for word in $x if len(word) >= $n]",
            ("wrong comparison", ">=", ">"),
            ("wrong comparison", ">=", "<"),
            n=(1, 2, 3, 4),
        ),
        step(
            "simplified",
            "In every string, keep of equal characters only the first.",
            """
            def simplify(word):
                kept_letters = []
                for c in word:
                    if c not in kept_letters:
                        kept_letters.append(c)
                return "".join(kept_letters)
            $y = [simplify(word) for word in $x]
            """,
            (
                "mutated default argument",
                "def simplify(word):\n    kept_letters = []",
                "def simplify(word, kept_letters=[]):",
            ),
            ("wrong comparison", "c not in kept_letters", "kept_letters[-1:] != [c]"),
        ),
        step(
            "ordered",
            "Sort the strings by length, shortest first, and those of equal length in alphabetical order "
            "(Python's order of strings).",
            "$y = sorted($x, key=lambda word: (len(word), word))",
            ("wrong comparison", "(len(word), word)", "len(word)"),
            ("wrong order of operations", "(len(word), word)", "(word, len(word))"),
        ),
        step(
            "distinct",
            "Of equal strings keep only the last.",
            "$y = [word for i, word in enumerate($x) if word not in $x[i + 1:]]",
            ("off by one", "$x[i + 1:]", "$x[i + 2:]"),
            ("wrong order of operations", "$x[i + 1:]", "$x[:i]"),
        ),
        step(
            "turned",
            "Write backwards every string whose first character is a vowel (a, e, i, o, u); an empty string stays.",
            """$y = [word[::-1] if word[:1] in "aeiou" else word for word in $x]""",
            ("wrong comparison", "word[:1] in", "word[-1:] in"),
            ("wrong comparison", "word[:1] in", "word[:1] not in"),
        ),
        step(
            "paired",
            "Join the strings in pairs, the first with the second, the third with the fourth and so on; "
            "a last string without a partner stays.",
            """$y = ["".join($x[i:i + 2]) for i in range(0, len($x), 2)]""",
            ("wrong initial value", "range(0, ", "range(1, "),
            ("off by one", "range(0, len($x), 2)", "range(0, len($x) - 1, 2)"),
        ),
        step(
            "measured",
            "Append to every string the number of its characters, in decimal.",
            "$y = [word + str(len(word)) for word in $x]",
            ("off by one", "len(word)", "len(word) - 1"),
            ("wrong order of operations", "word + str(len(word))", "str(len(word)) + word"),
        ),
        step(
            "rotated",
            "In every string, move the first character to the end; an empty string stays.",
            "$y = [word[1:] + word[:1] for word in $x]",
            ("wrong order of operations", "word[1:] + word[:1]", "word[-1:] + word[:-1]"),
            ("off by one", "word[:1]", "word[:2]"),
        ),
        step(
            "marked",
            "Replace every string that is equal to an earlier one in the list by $n; the first of equal ones stays.",
            "$y = [$n if word in $x[:i] else word for i, word in enumerate($x)]",
            ("off by one", "$x[:i]", "$x[:i - 1]"),
            ("wrong variable", "word in $x[:i]", "$x.count(word) > 1"),
            n=("x", "it", "same"),
        ),
        step(
            "shared",
            "Append to every string except the first the first character of the string before it, as it was before "
            "this step; nothing is appended where that string is empty.",
            """
            $y = list($x)
            for i in range(1, len($x)):
                $y[i] = $x[i] + $x[i - 1][:1]
            """,
            ("wrong variable", "$x[i - 1][:1]", "$x[i][:1]"),
            ("off by one", "range(1, len($x))", "range(len($x))"),
            ("off by one", "[:1]", "[:2]"),
        ),
        step(
            "initials",
            "The result is a dict from each first character to the number of strings that begin with it; "
            "empty strings are not counted.",
            """
            $y = {}
            for word in $x:
                if word:
                    $y[word[0]] = $y.get(word[0], 0) + 1
            """,
            ("wrong initial value", "$y.get(word[0], 0)", "$y.get(word[0], 1)"),
            ("wrong variable", "word[0]", "word[-1]"),
            last=True,
        ),
        step(
            "longest",
            "The result is the longest string, of equally long ones the first, and the empty string for an empty list.",
            """
            $y = ""
            for word in $x:
                if len(word) > len($y):
                    $y = word
            """,
            ("wrong comparison", ">", ">="),
            ("wrong comparison", "len(word) > len($y)", "word > $y"),
            last=True,
        ),
        step(
            "joined",
            "The result is one string: all strings in their order with $n between neighbours.",
            "$y = $n.join($x)",
            ("wrong order of operations", "join($x)", "join($x[::-1])"),
            ("off by one", "join($x)", "join($x[1:])"),
            n=("-", ", ", "+", "/"),
            last=True,
        ),
    ),
)
