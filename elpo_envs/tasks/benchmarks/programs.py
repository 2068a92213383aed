"""HumanEval and MBPP.

Where the fields come from:

* HumanEval (github.com/openai/human-eval, `data/HumanEval.jsonl.gz`; `openai/openai_humaneval` on the hub): `task_id`
  ("HumanEval/0"), `prompt` (signature, docstring and sometimes functions and imports before it),
  `canonical_solution` (the body), `test` (defines `check(candidate)`), `entry_point`.
* MBPP (`mbpp/mbpp.jsonl` of github.com/google-research/google-research; `google-research-datasets/mbpp`): `task_id` (a
  number), `text`, `code`, `test_list`, `test_setup_code`, `challenge_test_list`. The setup of two tasks makes trees of
  classes that the program defines, so it runs after the program. Task ids tell the split: 1 to 10 are the
  prompt's examples, 11 to 510 test, 511 to 600 validation, 601 to 974 train.
* Sanitized MBPP (`mbpp/sanitized-mbpp.json`, one JSON list): `task_id`, `prompt` for `text`, `code`, `test_imports` (a
  list of statements that run before the program), `test_list`.

The paper's prompt for MBPP shows all three tests; the option `shown_tests` shows fewer, for agents that would
learn to match them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from elpo_envs.tasks.base import Task, TaskSource
from elpo_envs.tasks.benchmarks.base import Opened
from elpo_envs.tasks.benchmarks.rows import Row
from elpo_envs.tasks.benchmarks.source import eager_source, own_id

MBPP_OPTIONS = {
    "shown_tests": "how many of the tests the question shows, 0 to 3 (by default 3, as the paper's prompt)",
    "challenge_tests": "true also runs the few harder tests that some tasks have",
}
_MBPP_SPLITS = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}


def read_humaneval(opened: Opened) -> TaskSource:
    """HumanEval: complete a function."""

    def tasks() -> Iterator[tuple[Task, str]]:
        for index, row in enumerate(opened.rows()):
            prompt, entry_point = row.text("prompt", "question"), _identifier(row, "entry_point")
            if row.common:
                own, program = row.text("id"), row.text("solution")
                code = row.inner("tests").text("code")
            else:
                own, code = row.text("task_id"), row.text("test")
                program = prompt + row.text("canonical_solution")
            if not re.search(r"^def check\(", code, re.MULTILINE):
                raise row.error("the tests define no function check(candidate); give the published tests")
            question = (
                f"Complete the Python function `{entry_point}`. Give the whole program, with the lines that are "
                f"already here.\n\n{fenced(prompt)}"
            )
            metadata = {
                "kind": "program",
                "entry_point": entry_point,
                "starter_code": prompt,
                "tests": {"type": "humaneval", "prompt": prompt, "code": code, "entry_point": entry_point},
            }
            task_id = own_id("humaneval", opened.split, own)
            yield Task(task_id, index, opened.split, question, program, (), metadata), row.place

    return eager_source("humaneval", opened.split, tasks(), opened.origin)


def read_mbpp(opened: Opened) -> TaskSource:
    """MBPP and sanitized MBPP: write a function; the split is told by the task's number."""
    name = opened.benchmark.name
    shown = opened.options.get("shown_tests", 3)
    if isinstance(shown, bool) or not isinstance(shown, int) or not 0 <= shown <= 3:
        raise opened.bad_option("shown_tests", "a whole number from 0 to 3")
    challenge = opened.flag("challenge_tests", False)
    first, last = _MBPP_SPLITS[opened.split]

    def tasks() -> Iterator[tuple[Task, str]]:
        index = 0
        for row in opened.rows():
            number = _number(row)
            if not first <= number <= last:
                continue
            task = _mbpp_task(row, own_id(name, opened.split, str(number)), index, opened.split, shown, challenge)
            yield task, row.place
            index += 1

    return eager_source(name, opened.split, tasks(), opened.origin)


def fenced(code: str) -> str:
    """Code as a Markdown block."""
    return "```python\n" + code.rstrip().lstrip("\n") + "\n```"


def _mbpp_task(row: Row, task_id: str, index: int, split: str, shown: int, challenge: bool) -> Task:
    if row.common:
        tests = row.inner("tests")
        program, setup = row.text("solution"), tests.text_or_empty("imports")
        after, asserts = tests.text_or_empty("setup_after"), tests.texts("asserts", minimum=1)
        harder = tests.texts("challenge_asserts") if challenge else []
    else:
        program, asserts = row.text("code"), row.texts("test_list", minimum=1)
        setup = "\n".join(row.texts("test_imports")) if row.find("test_imports") else ""
        after = row.text_or_empty("test_setup_code")
        harder = row.texts("challenge_test_list") if challenge and row.find("challenge_test_list") else []
    entry_point = _called(row, asserts, program)
    form = {"type": "asserts", "setup": setup, "setup_after": after}
    metadata: dict[str, Any] = {
        "kind": "program",
        "entry_point": entry_point,
        "starter_code": "",
        "tests": {**form, "asserts": [*asserts, *harder]},
    }
    question = f"{row.text('text', 'prompt', 'question').strip()}\n\nCall the function `{entry_point}`."
    if shown:
        metadata["public_tests"] = {**form, "asserts": asserts[:shown]}
        examples = "\n".join([*after.splitlines(), *(line.strip() for line in asserts[:shown])])
        question += f" The program must pass:\n\n{fenced(examples)}"
    return Task(task_id, index, split, question, program, (), metadata)


def _number(row: Row) -> int:
    field = row.need("task_id", "id")
    text = row.plain(field).rpartition("/")[2]
    if not text.isdecimal():
        raise row.wrong(field, "the task's number")
    return int(text)


def _identifier(row: Row, field: str) -> str:
    name = row.text(field).strip()
    if not name.isidentifier():
        raise row.wrong(field, "the name of a Python function")
    return name


def _called(row: Row, asserts: Sequence[str], program: str) -> str:
    """The function that the tests call: the first name that the first test calls and the program defines."""
    if row.find("entry_point"):
        return _identifier(row, "entry_point")
    defined = set(re.findall(r"^[ \t]*def[ \t]+(\w+)[ \t]*\(", program, re.MULTILINE))
    for name in re.findall(r"(?<![\w.])(\w+)[ \t]*\(", asserts[0]):
        if name in defined:
            return str(name)
    raise row.error("the first test calls no function that the program defines; mend the program or the test")
