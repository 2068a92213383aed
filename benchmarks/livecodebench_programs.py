"""Programs for problems of LiveCodeBench's first release, all our own: right ones, and variants of them.

The right ones stand in `livecodebench_solutions`, a file each, named by the problem's id ("n" before a digit). What is
wrong with a variant, or unusual, is an edit of the right one, in `livecodebench_variants` and `livecodebench_habits`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elpo_envs.grading.code import Outcome

SOLUTIONS = Path(__file__).with_name("livecodebench_solutions")


@dataclass(frozen=True)
class Variant:
    """A variant of a right program.

    Attributes:
        problem: the problem's id, in lower case.
        name: what is special about it.
        edits: pairs of old and new text; each old one must be there.
        instead: a whole program, where the variant is no edit.
        ahead, behind: text that is put before the right program, or after it.
        outcome: how our grader ends its first test that does not pass; "passed" if all pass.
        differs: why LiveCodeBench's harness says the opposite, as a key of `DIFFERENCES`; "" where it agrees.
    """

    problem: str
    name: str
    edits: tuple[tuple[str, str], ...] = ()
    instead: str = ""
    ahead: str = ""
    behind: str = ""
    outcome: Outcome = "wrong"
    differs: str = ""


@dataclass(frozen=True)
class Program:
    """A program for a problem, and what is to be said of it; for the fields see `Variant`."""

    problem: str
    name: str
    source: str = field(repr=False)
    outcome: Outcome = "passed"
    differs: str = ""

    @property
    def passes(self) -> bool:
        """Whether it passes every test, by our grader."""
        return self.outcome == "passed"


def right_programs() -> dict[str, Program]:
    """The right program of each problem, by its id in lower case."""
    sources = {path.stem.removeprefix("n"): path.read_text(encoding="utf-8") for path in sorted(SOLUTIONS.glob("*.py"))}
    return {
        problem: Program(problem, "right", source, differs="open(0)" if "open(0" in source else "")
        for problem, source in sources.items()
    }


def variant(of: Program, given: Variant) -> Program:
    """The program that a variant is.

    Raises:
        ValueError: an edit's old text is not there.
    """
    source = given.instead or of.source
    for old, new in given.edits:
        if old not in source:
            raise ValueError(f"{given.problem}, {given.name}: the text to edit, {old!r}, is not there")
        source = source.replace(old, new)
    differs = given.differs or ("open(0)" if "open(0" in source and given.outcome == "passed" else "")
    return Program(given.problem, given.name, given.ahead + source + given.behind, given.outcome, differs)


def oracles(problem: str, tests: Mapping[str, Any]) -> tuple[Program, Program]:
    """A program that knows what to say to the inputs of these tests, and one that says otherwise to the last of them.

    They say nothing of how a problem is solved, but let every test of every problem be run.
    """
    cases = [(case["input"], case["output"]) for case in tests["cases"]]
    last = cases[-1][0]
    sources = []
    for spoiled in (False, True):
        if tests["type"] == "stdin":
            table = {given: output + "\n0" * (spoiled and given == last) for given, output in cases}
            sources.append(f"import sys\n\nprint({table!r}[sys.stdin.read()])\n")
        else:
            table = {
                json.dumps([json.loads(line) for line in given.split("\n")]): (
                    f"[{output}]" if spoiled and given == last else output
                )
                for given, output in cases
            }
            head = f"import json\n\n\nclass Solution:\n    def {tests['entry_point']}(self, *values):\n"
            sources.append(f"{head}        return json.loads({table!r}[json.dumps(values)])\n")
    return Program(problem, "oracle", sources[0]), Program(problem, "spoiled oracle", sources[1], "wrong")
