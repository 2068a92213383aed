"""Small files in the published form of each benchmark, with questions of our own."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def csv_bytes(*rows: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


GSM8K: Rows = [
    {
        "question": "Ana packs 48 boxes, then half as many. How many?",
        "answer": "48/2 = <<48/2=24>>24\n48+24=<<48+24=72>>72\n#### 72",
    },
    {"question": "A mill makes 40 bags of 30 kg. How many kg?", "answer": "40*30 = <<40*30=1200>>1,200 kg\n#### 1,200"},
]
MATH: Rows = [
    {
        "problem": "What is $1+1$?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": r"It is \boxed{1}, no, $\boxed{2}$.",
    },
    {"problem": "Halve one.", "level": "Level 2", "type": "Algebra", "solution": r"So $\boxed{\frac{1}{2}}$."},
    {"problem": "An empty box.", "level": "Level 3", "type": "Algebra", "solution": r"Nothing: $\boxed{}$."},
]
MATH500: Rows = [
    {
        "problem": "What is $3^2$?",
        "solution": r"$\boxed{9}$",
        "answer": "9",
        "subject": "Algebra",
        "level": 1,
        "unique_id": "test/algebra/12.json",
    }
]
ARC: Rows = [
    {
        "id": "Made_1",
        "question": {
            "stem": "Which is a metal?",
            "choices": [
                {"text": "oxygen", "label": "A"},
                {"text": "iron", "label": "B"},
                {"text": "salt", "label": "C"},
            ],
        },
        "answerKey": "B",
    },
    {
        "id": "Made_2",
        "question": {
            "stem": "What do plants take in?",
            "choices": [{"text": text, "label": str(n)} for n, text in enumerate(["light", "soap", "glass", "tin"], 1)],
        },
        "answerKey": "1",
    },
]
ARC_HUB: Rows = [
    {
        "id": "Made_2",
        "question": "What do plants take in?",
        "choices": {"text": ["light", "soap", "glass", "tin"], "label": ["1", "2", "3", "4"]},
        "answerKey": "4",
    }
]
OPENBOOKQA_HUB: Rows = [
    {
        "id": "7-1",
        "question_stem": "A stone falls because of",
        "choices": {"text": ["light", "gravity", "sound", "heat"], "label": ["A", "B", "C", "D"]},
        "answerKey": "B",
    }
]
MMLU_HUB: Rows = [
    {"question": "1+1 in Z_2?", "subject": "abstract_algebra", "choices": ["0", "1", "2", "3"], "answer": 0},
    {"question": "Who ruled?", "subject": "high_school_us_history", "choices": ["a", "b", "c", "d"], "answer": 1},
    {"question": "2+1 in Z_3?", "subject": "abstract_algebra", "choices": ["0", "1", "2", "3"], "answer": 0},
]
SCIBENCH_BOOKS: dict[str, Rows] = {
    "thermo": [
        {
            "problem_text": "Find the energy.",
            "answer_latex": " -1.20",
            "answer_number": "\u22121,200.5 ",
            "unit": " $10^{-19} \\mathrm{~J}$",
            "source": "thermo",
            "problemid": " 1.1",
            "comment": " ",
        }
    ],
    "atkins_sol": [
        {
            "problem_text": "Find $x$.",
            "solution": "It is 3.",
            "answer_number": "3.0",
            "unit": "",
            "source": "atkins",
            "problemid": "2.1",
        }
    ],
    "fund": [
        {
            "problem_text": "Find the charge.",
            "solution": "It is 4.",
            "answer_number": "4",
            "unit": "C",
            "source": "fund",
            "problemid": " Question 21.75",
        }
    ],
}
HUMANEVAL: Rows = [
    {
        "task_id": "HumanEval/0",
        "prompt": '\ndef twice(x):\n    """Two times x."""\n',
        "entry_point": "twice",
        "canonical_solution": "    return 2 * x\n",
        "test": "\n\ndef check(candidate):\n    assert candidate(2) == 4\n",
    }
]
MBPP: Rows = [
    {
        "task_id": number,
        "text": "Write a function to add one.",
        "code": "import math\r\ndef helper(x):\r\n    return x\r\ndef add_one(x):\r\n    return helper(x) + 1",
        "test_list": ["assert add_one(1) == 2", "assert add_one(2) == 3", "assert set([add_one(3)]) == set([4])"],
        "test_setup_code": "seven = 7" if number == 12 else "",
        "challenge_test_list": ["assert add_one(-1) == 0"] if number == 11 else [],
    }
    for number in (10, 11, 12, 510, 511, 600, 601, 974)
]
MBPP_SANITIZED: Rows = [
    {
        "source_file": "a.ipynb",
        "task_id": 82,
        "prompt": "Write a function to find half.",
        "code": "def half(x):\n  return x / 2",
        "test_imports": ["import math", "import re"],
        "test_list": ["assert math.isclose(half(1), 0.5)"],
    }
]


def _mbpp(folder: Path) -> None:
    put(folder / "mbpp.jsonl", lines(*MBPP))


def _math_folder(folder: Path) -> None:
    for number, row in enumerate(MATH[:2], start=1):
        put(folder / f"test/algebra/{number}.json", json.dumps(row, indent=1).encode())


def _scibench(folder: Path) -> None:
    for book, rows in SCIBENCH_BOOKS.items():
        put(folder / f"dataset/original/{book}.json", json.dumps(rows).encode())


def _mmlu(folder: Path) -> None:
    put(folder / "test/abstract_algebra_test.csv", csv_bytes(["1+1 in Z_2?", "0", "1", "2", "3", "A"]))
    put(folder / "test/astronomy_test.csv", csv_bytes(['Say "two,\nlines"', "p", "q", "r", "s", "D"]))
    put(folder / "test/philosophy_test.csv", csv_bytes(["Why?", "p", "q", "r", "s", "D"]))


AIME_URL = "https://artofproblemsolving.com/wiki/index.php/2024_AIME_I_Problems/Problem_1"
_GSM8K_TESTS = lines(*GSM8K)

# benchmark -> function that writes a folder in the published form, task ids, answers (split "test")
PUBLISHED: dict[str, tuple[Callable[[Path], Any], list[str], list[str]]] = {
    "gsm8k": (
        lambda folder: put(folder / "test.jsonl", _GSM8K_TESTS),
        ["gsm8k/test/0", "gsm8k/test/1"],
        ["72", "1200"],
    ),
    "math": (_math_folder, ["math/test/algebra/1.json", "math/test/algebra/2.json"], ["2", r"\frac{1}{2}"]),
    "math500": (
        lambda folder: put(folder / "test.jsonl", lines(*MATH500)),
        ["math500/test/algebra/12.json"],
        ["9"],
    ),
    "aime24": (
        lambda folder: put(
            folder / "test.jsonl",
            lines({"id": 60, "problem": "Find $n$.", "answer": "025", "url": AIME_URL}),
        ),
        ["aime24/test/60"],
        ["25"],
    ),
    "aime25": (
        lambda folder: (
            put(folder / "aime2025-I.jsonl", lines({"question": "Find $m$.", "answer": "70"})),
            put(folder / "aime2025-II.jsonl", lines({"question": "An angle?", "answer": "336^\\circ"})),
        ),
        ["aime25/test/aime2025-I/0", "aime25/test/aime2025-II/0"],
        ["70", "336"],
    ),
    "amc23": (
        lambda folder: put(folder / "test.jsonl", lines({"id": 0, "problem": "How many?", "answer": 27.0})),
        ["amc23/test/0"],
        ["27"],
    ),
    "arc_challenge": (
        lambda folder: put(folder / "ARC-Challenge/ARC-Challenge-Test.jsonl", lines(*ARC)),
        ["arc_challenge/test/Made_1", "arc_challenge/test/Made_2"],
        ["B", "A"],
    ),
    "arc_easy": (
        lambda folder: put(folder / "ARC-Easy-Test.jsonl", lines(*ARC_HUB)),
        ["arc_easy/test/Made_2"],
        ["D"],
    ),
    "openbookqa": (
        lambda folder: put(folder / "Data/Main/test.jsonl", lines(*ARC, *OPENBOOKQA_HUB)),
        ["openbookqa/test/Made_1", "openbookqa/test/Made_2", "openbookqa/test/7-1"],
        ["B", "A", "B"],
    ),
    "mmlu_stem": (
        _mmlu,
        ["mmlu_stem/test/abstract_algebra/0", "mmlu_stem/test/astronomy/0"],
        ["A", "D"],
    ),
    "scibench": (_scibench, ["scibench/test/fund/0", "scibench/test/thermo/0"], ["4", "-1200.5"]),
    "humaneval": (
        lambda folder: put(folder / "HumanEval.jsonl.gz", lines(*HUMANEVAL)),
        ["humaneval/test/HumanEval/0"],
        [HUMANEVAL[0]["prompt"] + HUMANEVAL[0]["canonical_solution"]],
    ),
    "mbpp": (_mbpp, ["mbpp/test/11", "mbpp/test/12", "mbpp/test/510"], [MBPP[0]["code"]] * 3),
    "mbpp_sanitized": (
        lambda folder: put(folder / "sanitized-mbpp.json", json.dumps(MBPP_SANITIZED).encode()),
        ["mbpp_sanitized/test/82"],
        [MBPP_SANITIZED[0]["code"]],
    ),
}
