"""Our programs for LiveCodeBench's problems get the verdicts that they deserve, and the rules of its harness hold.

Agreement with that harness itself is measured by `benchmarks.livecodebench`, which needs a checkout of it.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from benchmarks.livecodebench import every_program
from benchmarks.livecodebench_habits import DIFFERENCES
from benchmarks.livecodebench_programs import Program, Variant, oracles, right_programs, variant
from elpo_envs.code_env import CodeExecEnv
from elpo_envs.grading.code import CodeGrader, CodeLimits, read_tests
from elpo_envs.sandbox import IsolationWarning
from elpo_envs.tasks.base import ExpertTurn, TaskSource, ToolCall
from elpo_envs.tasks.sources import load_source

pytestmark = pytest.mark.filterwarnings(f"ignore::{IsolationWarning.__module__}.{IsolationWarning.__name__}")
ROOT = Path(__file__).parent.parent
PROGRAMS = {f"{each.problem}: {each.name}": each for each in every_program()}
QUICK = (
    "abc305_e: right",
    "1899_d: right",
    "2839: right",
    "3243: right",
    "abc333_d: binary lines",
    "abc320_a: closes its output",
    "2873: tuples in a list",
    "abc335_b: a blank line between",
    "abc320_a: almost the number",
    "abc322_a: counts from 0",
    "2791: a set",
    "2755: prints instead of returning",
    "2839: ends the process with success",
    "2727: cheats by its own equality",
    "abc320_a: cheats by a caller's frame",
)
SUBMITTED = ("abc302_d: right", "3031: right", "abc304_a: begins at the oldest", "2728: a wrong name")


@pytest.fixture(scope="module")
def grader() -> Iterator[CodeGrader]:
    with CodeGrader(CodeLimits(total_s=120)) as grader:
        yield grader


@pytest.fixture(scope="module")
def source(data_dir: Path) -> TaskSource:
    if not (data_dir / "lcb_v1_public.jsonl.gz").exists():
        pytest.skip(f"{data_dir} holds no lcb_v1_public.jsonl.gz, the problems that the programs are for")
    return load_source("livecodebench", "test", {"release": "release_v1"}, str(data_dir), "code")


@pytest.fixture(scope="module")
def tests(source: TaskSource) -> dict[str, dict[str, Any]]:
    """Each problem's tests."""
    assert source.size is not None
    tasks = [source.get(index) for index in range(source.size)]
    return {task.task_id.rpartition("/")[2].lower(): dict(task.metadata["tests"]) for task in tasks}


def end(grader: CodeGrader, program: Program, tests: dict[str, dict[str, Any]]) -> str:
    grade = grader.grade(program.source, tests[program.problem])
    assert not grade.failed_infrastructure, grade.note
    assert grade.correct == (grade.n_passed == grade.n_tests)
    return grade.outcomes[-1].outcome


# --- the programs --------------------------------------------------------------------------------------------


def test_there_are_enough_programs_of_each_sort() -> None:
    programs = every_program()
    assert len(PROGRAMS) == len(programs), [name for name, count in Counter(map(repr, programs)).items() if count > 1]
    right = right_programs()
    functional = [problem for problem in right if problem.isdigit()]
    assert len(functional) >= 24 and len(right) - len(functional) >= 24
    wrong = Counter(each.problem.isdigit() for each in programs if not each.passes)
    assert wrong[True] >= 24 and wrong[False] >= 24
    assert {each.differs for each in programs} == {"", *DIFFERENCES}
    assert len({each.source for each in programs}) == len(programs)


def test_an_edit_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="2727, misspelt"):
        variant(right_programs()["2727"], Variant("2727", "misspelt", (("retrun", "return"),)))


@pytest.mark.parametrize("name", QUICK)
def test_a_program_ends_as_it_should(grader: CodeGrader, tests: dict[str, dict[str, Any]], name: str) -> None:
    assert end(grader, PROGRAMS[name], tests) == PROGRAMS[name].outcome


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_program_ends_as_it_should(grader: CodeGrader, tests: dict[str, dict[str, Any]]) -> None:
    ends = {name: end(grader, program, tests) for name, program in PROGRAMS.items()}
    assert ends == {name: program.outcome for name, program in PROGRAMS.items()}


@pytest.mark.parametrize(
    "names", [SUBMITTED, pytest.param(tuple(PROGRAMS), marks=pytest.mark.slow)], ids=("few", "all")
)
def test_a_program_that_is_submitted_gets_its_reward(source: TaskSource, names: tuple[str, ...]) -> None:
    ids = {task.task_id.lower(): task.task_id for task in map(source.get, range(source.size or 0))}
    env = gym.make("elpo/LiveCodeBench-v0", disable_env_checker=True)
    assert isinstance(env.unwrapped, CodeExecEnv)
    render = env.unwrapped.protocol.render
    rewards, outcomes = {}, {}
    for name in names:
        program = PROGRAMS[name]
        env.reset(options={"task_id": ids[f"livecodebench/test/{program.problem}"]})
        turn = render(ExpertTurn("", (ToolCall("submit", {"code": program.source}),)))
        _, rewards[name], terminated, truncated, info = env.step(turn)
        assert terminated and not truncated
        assert info["is_correct"] is program.passes
        outcomes[name] = info["grade"]["outcomes"][-1]["outcome"]
    env.close()
    assert rewards == {name: float(PROGRAMS[name].passes) for name in names}
    assert outcomes == {name: PROGRAMS[name].outcome for name in names}


def test_the_tests_are_the_ones_of_the_file(tests: dict[str, dict[str, Any]], data_dir: Path) -> None:
    with gzip.open(data_dir / "lcb_v1_public.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == len(tests) == 400
    for row in rows:
        own = tests[row["id"].partition("/")[2].lower()]
        assert own["cases"] == [{key: case[key] for key in ("input", "output")} for case in row["tests"]["cases"]]
        assert own["type"] == row["tests"]["type"] and own.get("entry_point") == row.get("entry_point")
        assert len(read_tests(own).cases) == len(own["cases"])  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_programs_that_know_the_tests_pass_them_all(grader: CodeGrader, tests: dict[str, dict[str, Any]]) -> None:
    """And those that get the last one wrong pass all but that."""
    for problem, own in tests.items():
        knowing, spoiled = (grader.grade(each.source, own) for each in oracles(problem, own))
        assert knowing.correct, problem
        assert [each.outcome for each in spoiled.outcomes] == ["passed"] * (len(own["cases"]) - 1) + ["wrong"], problem


@pytest.mark.slow
def test_the_benchmark_runs_without_the_harness(source: TaskSource, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "ELPO_LIVECODEBENCH"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.livecodebench", "--quick", "--repeats", "1", "--json", tmp_path / "it.json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "without LiveCodeBench's harness" in " ".join(done.stdout.split())
    report = json.loads((tmp_path / "it.json").read_text())
    assert [summary["not as expected"] for summary in report["verdicts"].values()] == [[], []]
    assert all(summary["programs"] > 10 for summary in report["verdicts"].values())
    assert {row["name"] for row in report["rows"]} == {"grader", "environment"}


# --- rules of the harness that its problems' samples, or these programs, brought to light ----------------------


def stdin(text: str, output: str) -> dict[str, Any]:
    return {"type": "stdin", "cases": [{"input": text, "output": output}]}


def value(output: Any) -> dict[str, Any]:
    return {"type": "functional", "entry_point": "f", "cases": [{"input": "1", "output": json.dumps(output)}]}


@pytest.mark.parametrize("closing", ["sys.stdout.close()", "sys.stdout = None", "import os\nos.close(1)"])
def test_output_that_is_closed_at_the_end_was_printed(grader: CodeGrader, closing: str) -> None:
    program = f"import sys\nprint(input(), flush=True)\n{closing}\n"
    assert grader.grade(program, stdin("3\n", "3")).correct
    assert not grader.grade(program, stdin("3\n", "4")).correct


def test_printing_to_a_closed_output_is_an_error(grader: CodeGrader) -> None:
    (outcome,) = grader.grade("import sys\nprint(3)\nsys.stdout.close()\nprint(4)", stdin("", "3")).outcomes
    assert outcome.outcome == "error" and "closed file" in outcome.note


@pytest.mark.parametrize("digits", [4_301, 49_999])
def test_long_integers_are_read_and_printed(grader: CodeGrader, digits: int) -> None:
    assert grader.grade("print(int(input()))", stdin("7" * digits, "7" * digits)).correct
    program = f"class Solution:\n    def f(self, n):\n        return str(10**{digits - 1})"
    assert grader.grade(program, value("1" + "0" * (digits - 1))).correct


def test_names_of_sys_need_no_import_but_streams_do(grader: CodeGrader) -> None:
    assert grader.grade("print(maxsize > getrecursionlimit())", stdin("", "True")).correct
    assert grader.grade("class Solution:\n    def f(self, n):\n        return maxsize > n", value(True)).correct
    (outcome,) = grader.grade("print(stdin.read())", stdin("3\n", "3")).outcomes
    assert outcome.outcome == "error" and "stdin" in outcome.note


def test_what_is_too_large_to_be_sent_is_no_fault_of_the_program(grader: CodeGrader) -> None:
    most = 8 << 20
    program = "import sys\nprint(len(sys.stdin.read()))"
    assert grader.grade(program, stdin("1" * most, str(most))).correct
    for tests in (stdin("1" * (most + 1), str(most + 1)), stdin("", "é" * (most // 2 + 1))):
        grade = grader.grade(program, tests)
        assert grade.failed_infrastructure and not grade.correct and str(most) in grade.note


def test_what_cannot_come_back_is_no_fault_of_the_program(grader: CodeGrader) -> None:
    """Digits without a pattern, as many as no reply can hold; half of them can be, and are."""
    program = "import random\nr = random.Random(1)\nprint(hex(r.getrandbits({bits}))[2:])"
    solution = "class Solution:\n    def f(self, n):\n        import random\n        r = random.Random(1)\n"
    solution += "        return hex(r.getrandbits({bits}))[2:]"
    for bits, fits in ((4 * 2_500_000, True), (4 * 5_500_000, False)):
        expected = hex(random.Random(1).getrandbits(bits))[2:]
        for source, tests in ((program, stdin("", expected)), (solution, value(expected))):
            grade = grader.grade(source.format(bits=bits), tests)
            assert (grade.correct, grade.failed_infrastructure) == (fits, not fits), grade.note


@pytest.mark.slow
def test_a_long_list_is_a_value(grader: CodeGrader) -> None:
    program = "class Solution:\n    def f(self, n):\n        return [i % 10 for i in range(n)]"
    tests = value([i % 10 for i in range(510_000)])
    tests["cases"][0]["input"] = "510000"
    assert grader.grade(program, tests).correct
    too_long = {**tests, "cases": [{"input": json.dumps([0] * 1_000_001), "output": "0"}]}
    with pytest.raises(ValueError, match=r"case 0: field 'input' .* too many items"):
        read_tests(too_long)
