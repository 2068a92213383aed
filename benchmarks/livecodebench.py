"""LiveCodeBench's public harness beside our grader, and `elpo/LiveCodeBench-v0`, on programs that we wrote.

    python -m benchmarks.livecodebench [--quick] [--repeats 3] [--json PATH]
        [--harness CHECKOUT] [--harness-python PATH] [--limit 6] [--only programs,oracles]

ELPO_DATA names the folder with the problems. CHECKOUT is a copy of github.com/LiveCodeBench/LiveCodeBench, here or as
ELPO_LIVECODEBENCH; its interpreter needs numpy and tqdm, and is this one by default. Each pair of a problem and a
program goes to the harness, to `CodeGrader` and, as a call of `submit`, to the environment, in turn. The first round
is for the verdicts: every difference is printed with its reason. Rounds after it are for the time, without the pairs
that run until a limit ends them; one worker each. The oracles are, for every problem that is there, a program that
knows what its tests expect, and one that gets the last of them wrong; the environment is spared these. `--limit` is
the seconds for one test, on the clock there and of processor time here. `--threads` has no effect.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from rich.console import Console

from benchmarks.livecodebench_habits import BUILDING, DIFFERENCES, PRINTING, READING
from benchmarks.livecodebench_programs import Program, oracles, right_programs, variant
from benchmarks.livecodebench_variants import FUNCTIONAL_RIGHT, FUNCTIONAL_WRONG, STDIN_RIGHT, STDIN_WRONG
from benchmarks.measure import Options, Ratio, Report, Row, Sample, parse_options
from elpo_envs.code_env import CodeExecEnv
from elpo_envs.grading.code import CodeGrader, CodeLimits, Outcome
from elpo_envs.tasks.base import ExpertTurn, ToolCall
from elpo_envs.tasks.sources import load_source

ENV_ID = "elpo/LiveCodeBench-v0"
TOTAL_S = 600.0
_PROGRAM = Path(__file__).with_name("livecodebench_harness_program.py")
_QUICK_STEP = 16
_PARTS = ("programs", "oracles")


def every_program() -> tuple[Program, ...]:
    """The right programs and all variants of them."""
    right = right_programs()
    tables = (STDIN_WRONG, STDIN_RIGHT, FUNCTIONAL_WRONG, FUNCTIONAL_RIGHT, READING, PRINTING, BUILDING)
    return (*right.values(), *(variant(right[each.problem], each) for table in tables for each in table))


# --- the three who judge -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """What one of them says of a program.

    Attributes:
        passes: whether every test passed.
        end: how the last test ended that was run.
        n_run: how many tests were run.
        seconds: the time that it took.
    """

    passes: bool
    end: Outcome
    n_run: int
    seconds: float


class Harness:
    """The public harness, in a process of its own.

    Raises:
        RuntimeError: it ended; its own words stand on stderr.
    """

    def __init__(self, checkout: Path, python: Path, limit: int) -> None:
        self._process = subprocess.Popen(
            [str(python), str(_PROGRAM), str(checkout), str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def judge(self, program: Program, tests: Mapping[str, Any]) -> Judgement:
        """Its verdict: a result for each test up to the first that does not pass."""
        sample = {
            "inputs": [case["input"] for case in tests["cases"]],
            "outputs": [case["output"] for case in tests["cases"]],
            "fn_name": tests.get("entry_point"),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"sample": sample, "program": program.source}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        results, metadata = answer["results"], answer["metadata"]
        # As `compute_metrics_from_results` counts them.
        passes = all(isinstance(each, bool | int | float) and each > 0 for each in results)
        return Judgement(passes, _end(results, metadata), len(results), float(answer["seconds"]))

    def close(self) -> None:
        """End its process."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the harness ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _end(results: Sequence[Any], metadata: Mapping[str, Any]) -> Outcome:
    """Its last result in our words."""
    last = results[-1] if results else -2
    if metadata.get("error_code") == -5:  # the process of the program ended
        return "error"
    ends: dict[int, Outcome] = {-1: "timeout", -3: "timeout", -4: "error", 1: "passed"}
    return ends.get(int(last), "wrong")


class Grader:
    """Our grader."""

    def __init__(self, limit: float) -> None:
        self._grader = CodeGrader(CodeLimits(per_test_s=limit, total_s=TOTAL_S))

    def judge(self, program: Program, tests: Mapping[str, Any]) -> Judgement:
        """Raises RuntimeError where the sandbox fails, which says nothing of the program."""
        start = time.perf_counter()
        grade = self._grader.grade(program.source, tests)
        seconds = time.perf_counter() - start
        if grade.failed_infrastructure:
            raise RuntimeError(f"{program.problem}, {program.name}: {grade.note}")
        return Judgement(grade.correct, grade.outcomes[-1].outcome, len(grade.outcomes), seconds)

    def close(self) -> None:
        """End its sessions."""
        self._grader.close()


class Environment:
    """Our environment: a program is handed in by a call of `submit`."""

    def __init__(self, limit: float) -> None:
        self._env = gym.make(ENV_ID, grading_limits={"per_test_s": limit, "total_s": TOTAL_S})
        unwrapped = self._env.unwrapped
        assert isinstance(unwrapped, CodeExecEnv)
        self._unwrapped = unwrapped
        source = load_source("livecodebench", "test", domain="code")
        ids = (source.get(index).task_id for index in range(source.size or 0))
        self._ids = {task_id.rpartition("/")[2].lower(): task_id for task_id in ids}

    def tests(self) -> dict[str, Mapping[str, Any]]:
        """The tests of each problem, as its task holds them."""
        tests = {}
        for problem, task_id in self._ids.items():
            self._env.reset(options={"task_id": task_id})
            tests[problem] = self._unwrapped.task.metadata["tests"]
        return tests

    def judge(self, program: Program, _tests: Mapping[str, Any]) -> Judgement:
        """The reward of the episode."""
        start = time.perf_counter()
        self._env.reset(options={"task_id": self._ids[program.problem]})
        turn = ExpertTurn("", (ToolCall("submit", {"code": program.source}),))
        _, reward, terminated, _truncated, info = self._env.step(self._unwrapped.protocol.render(turn))
        seconds = time.perf_counter() - start
        if not terminated:
            raise RuntimeError(f"{program.problem}, {program.name}: the episode goes on ({info['error_kind']})")
        outcomes = info["grade"]["outcomes"]
        return Judgement(reward == 1.0, outcomes[-1]["outcome"], len(outcomes), seconds)

    def close(self) -> None:
        """End its sessions."""
        self._env.close()


# --- verdicts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """A program, and what each of those who judged it says."""

    program: Program
    kind: str
    judgements: Mapping[str, Judgement]

    def agree(self) -> bool:
        """Whether all verdicts are the same."""
        return len({each.passes for each in self.judgements.values()}) == 1

    def end_alike(self) -> bool:
        """Whether they also ran as many tests, and the last one ended the same way."""
        return len({(each.end, each.n_run) for each in self.judgements.values()}) == 1

    def explained(self) -> bool:
        """Whether our verdict is the expected one, and the harness's too: the same, or the opposite for a reason."""
        ours = [each for name, each in self.judgements.items() if name != "harness"]
        theirs = self.judgements.get("harness")
        expected = self.program.passes == bool(self.program.differs)
        return all(each.end == self.program.outcome and each.passes == self.program.passes for each in ours) and (
            theirs is None or theirs.passes != expected
        )

    def limited(self) -> bool:
        """Whether a time limit ended it."""
        return any(each.end == "timeout" for each in self.judgements.values()) or self.program.differs == "swallowed"

    def to_json(self) -> dict[str, str]:
        """How the program ended, by each of them."""
        told = {name: str(each.end) for name, each in self.judgements.items()}
        return {"problem": self.program.problem, "program": self.program.name, "kind": self.kind, **told}


Judges = Mapping[str, Callable[[Program, Mapping[str, Any]], Judgement]]


def _summary(compared: Sequence[Compared]) -> dict[str, Any]:
    reasons: dict[str, list[dict[str, str]]] = {}
    for each in compared:
        if not each.agree():
            reasons.setdefault(each.program.differs, []).append(each.to_json())
    alike = [each for each in compared if each.agree()]
    return {
        "problems": len({each.program.problem for each in compared}),
        "programs": len(compared),
        "of them stdin": sum(each.kind == "stdin" for each in compared),
        "right": sum(each.program.passes for each in compared),
        "same verdict": len(alike),
        "same verdict, and the same end": sum(each.end_alike() for each in alike),
        "differences": [
            {"reason": DIFFERENCES.get(key, "none known"), "programs": found} for key, found in reasons.items()
        ],
        "same verdict, another end": [each.to_json() for each in alike if not each.end_alike()],
        "not as expected": [each.to_json() for each in compared if not each.explained()],
    }


def _show(console: Console, title: str, summary: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{name} {value}" for name, value in summary.items() if isinstance(value, int))
    console.print(f"[bold]{title}[/bold]: {counts}, not as expected {len(summary['not as expected'])}\n")
    for difference in summary["differences"]:
        console.print(difference["reason"], style="bold")
        _list(console, difference["programs"])
    for name in ("same verdict, another end", "not as expected"):
        if summary[name]:
            console.print(name, style="bold")
            _list(console, summary[name])


def _list(console: Console, programs: Sequence[Mapping[str, str]]) -> None:
    for each in programs:
        ends = ", ".join(f"{name} {end}" for name, end in list(each.items())[3:])
        console.print(f"  {each['problem']}, {each['program']}: {ends}", highlight=False)
    console.print()


# --- the run -------------------------------------------------------------------------------------------------


def _judge_all(programs: Sequence[Program], tests: Mapping[str, Mapping[str, Any]], judges: Judges) -> list[Compared]:
    compared = []
    with Console(stderr=True).status("") as status:
        for number, program in enumerate(programs):
            status.update(f"{number + 1} of {len(programs)}: {program.problem}, {program.name}")
            own = tests[program.problem]
            judgements = {name: judge(program, own) for name, judge in judges.items()}
            compared.append(Compared(program, own["type"], judgements))
    return compared


def _measure(report: Report, rounds: Sequence[Sequence[Compared]]) -> None:
    names = list(rounds[0][0].judgements)
    for kind in ("stdin", "functional"):
        rates: dict[str, Sample] = {}
        for name in names:
            seconds = [[each.judgements[name].seconds for each in one if each.kind == kind] for one in rounds]
            rates[name] = Sample(tuple(len(one) / sum(one) for one in seconds))
            report.add(Row(name, "peer" if name == "harness" else "ours", "pairs/s", rates[name], kind))
        for name in names:
            if name != "harness" and "harness" in rates:
                report.ratios.append(Ratio(f"{name} / harness", rates[name].over(rates["harness"]), kind))


@contextmanager
def _judges(checkout: Path | None, python: Path, limit: int) -> Iterator[tuple[Judges, Environment]]:
    with ExitStack() as stack:
        judges: dict[str, Callable[[Program, Mapping[str, Any]], Judgement]] = {}
        if checkout is not None:
            harness = Harness(checkout, python, limit)
            stack.callback(harness.close)
            judges["harness"] = harness.judge
        grader, environment = Grader(limit), Environment(limit)
        stack.callback(grader.close)
        stack.callback(environment.close)
        yield {**judges, "grader": grader.judge, "environment": environment.judge}, environment


def run(options: Options, only: Sequence[str], checkout: Path | None, python: Path, limit: int) -> int:
    """Compare, print and write; how many verdicts are not as expected."""
    step = _QUICK_STEP if options.quick else 1
    report = Report("livecodebench", {"seconds for a test": limit, "harness": checkout is not None})
    summaries = {}
    with _judges(checkout, python, limit) as (judges, environment):
        tests = environment.tests()
        if "programs" in only:
            compared = _judge_all(every_program()[::step], tests, judges)
            summaries["our programs"] = _summary(compared)
            timed = [each.program for each in compared if not each.limited()]
            _measure(report, [_judge_all(timed, tests, judges) for _ in range(options.repeats)])
        if "oracles" in only:
            knowing = [program for problem in list(tests)[::step] for program in oracles(problem, tests[problem])]
            without = {name: judge for name, judge in judges.items() if name != "environment"}
            summaries["programs that know the tests of all problems"] = _summary(_judge_all(knowing, tests, without))
    console = Console()
    for title, summary in summaries.items():
        _show(console, title, summary)
    report.finish(replace(options, json_path=None))
    if options.json_path is not None:
        options.json_path.parent.mkdir(parents=True, exist_ok=True)
        options.json_path.write_text(json.dumps({**report.to_json(), "verdicts": summaries}, indent=1) + "\n")
    if checkout is None:
        console.print("without LiveCodeBench's harness: no checkout given (--harness or ELPO_LIVECODEBENCH)")
    return sum(len(summary["not as expected"]) for summary in summaries.values())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--harness", type=Path, default=os.environ.get("ELPO_LIVECODEBENCH"))
    parser.add_argument("--harness-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--only", default=",".join(_PARTS))
    own, rest = parser.parse_known_args(argv)
    options = parse_options(f"{__doc__.splitlines()[0]} Also: {parser.format_usage().partition(' ')[2]}", rest)
    if "ELPO_DATA" not in os.environ:
        parser.error(
            "ELPO_DATA is not set; it names the folder with lcb_v1_public.jsonl.gz or LiveCodeBench's own files"
        )
    only = own.only.split(",")
    if unknown := sorted(set(only) - set(_PARTS)):
        parser.error(f"--only {', '.join(unknown)} is not among {', '.join(_PARTS)}")
    if own.limit < 1:
        parser.error(f"--limit {own.limit} must be at least 1")
    sys.exit(1 if run(options, only, own.harness, own.harness_python, own.limit) else 0)


if __name__ == "__main__":
    main()
