"""The programming-task generator: right references, telling tests, real bugs, exact difficulty, disjoint splits."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elpo_envs.grading import extract_boxed
from elpo_envs.sandbox import make_sandbox
from elpo_envs.tasks.base import ExpertTurn, Task
from elpo_envs.tasks.programs import FUNCTION_FAMILIES, KINDS, PRINTING_FAMILIES, ProgramSource, split_of
from elpo_envs.tasks.programs.draft import DrawnStep
from elpo_envs.tasks.programs.exercise import Exercise
from elpo_envs.tasks.programs.operation import with_bug
from elpo_envs.tasks.programs.running import one_step
from elpo_envs.tasks.programs.source import Prediction

PAIRS = [(kind, name) for kind in KINDS for name in (PRINTING_FAMILIES if kind == "output" else FUNCTION_FAMILIES)]
ROOT = Path(__file__).parents[1]


def passes(program: str, tests: dict[str, Any]) -> bool:
    """Whether the program gives every expected value, type and all; an exception is a failure."""
    scope: dict[str, Any] = {}
    exec(program, scope)
    for case in tests["cases"]:
        try:
            value = scope[tests["entry_point"]](*copy.deepcopy(case["args"]))
            given = json.dumps(value, sort_keys=True)
        except Exception:
            return False
        if given != json.dumps(case["expected"], sort_keys=True):
            return False
    return True


def printed(program: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    exec(program, {"__name__": "__main__"})
    return capsys.readouterr().out


def submitted(trace: tuple[ExpertTurn, ...]) -> str:
    (call,) = trace[-1].tool_calls
    assert call.name == "submit"
    return str(call.arguments["code"])


def no_floats(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) for k in value) and all(map(no_floats, value.values()))
    if isinstance(value, list):
        return all(map(no_floats, value))
    return value is None or isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**53)


def check_program(task: Task) -> None:
    tests, public = task.metadata["tests"], task.metadata["public_tests"]
    assert json.loads(json.dumps(dict(task.metadata))) == task.metadata
    assert all(no_floats([case["args"], case["expected"]]) for case in tests["cases"] + public["cases"])
    assert len(tests["cases"]) >= 12
    assert passes(task.answer, tests)
    assert passes(task.answer, public)
    shown = [json.dumps(case["args"]) for case in public["cases"]]
    assert not set(shown) & {json.dumps(case["args"]) for case in tests["cases"]}
    entry = tests["entry_point"]
    for case in public["cases"]:
        assert f"{entry}({', '.join(map(repr, case['args']))})" in task.question
        assert repr(case["expected"]) in task.question
    for value in [*(case["expected"] for case in tests["cases"]), None, 0, [], ""]:
        assert not passes(f"def {entry}(*args):\n    return {value!r}", tests)
    for position in range(len(tests["cases"][0]["args"])):
        assert not passes(f"def {entry}(*args):\n    return args[{position}]", tests)
    assert all(turn.tool_calls[0].name == "python" for turn in task.expert[:-1])
    assert len(task.expert) >= 2
    assert submitted(task.expert) == task.answer
    faulty = task.metadata["starter_code"]
    assert not passes(faulty, tests)
    if task.metadata["exercise"] == "repair":
        assert faulty in task.question
        assert not passes(faulty, {**public, "cases": public["cases"][:1]})
    assert len(re.findall(r"^\d+\. ", task.question, re.MULTILINE)) == task.metadata["steps"]


def check_output(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    program = task.expert[0].tool_calls[0].arguments["code"]
    assert program in task.question
    assert program.count("\n") + 1 <= 25
    assert printed(program, capsys) == task.answer + "\n"
    assert "\n" not in task.answer
    assert task.answer not in program
    assert extract_boxed(task.expert[-1].content) == [task.answer]


def check_family(kind: str, family: str, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    source = ProgramSource("train", min_steps=2, max_steps=4, kinds=[kind], families=[family])
    steps: Counter[int] = Counter()
    for index in range(count):
        task = source.get(index)
        assert "$" not in task.question
        assert (task.metadata["exercise"], task.metadata["family"]) == (kind, family)
        assert task.metadata["kind"] == ("output" if kind == "output" else "program")
        steps[task.metadata["steps"]] += 1
        if kind == "output":
            check_output(task, capsys)
        else:
            check_program(task)
    assert set(steps) == {2, 3, 4}


@pytest.mark.parametrize(("kind", "family"), PAIRS)
def test_tasks_are_right_and_their_tests_tell(kind: str, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_family(kind, family, 20, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "family"), PAIRS)
def test_a_thousand_tasks_are_right(kind: str, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_family(kind, family, 1000, capsys)


def test_there_are_enough_families_and_operations() -> None:
    assert len(FUNCTION_FAMILIES) >= 10
    assert len(PRINTING_FAMILIES) >= 8
    assert not set(FUNCTION_FAMILIES) & set(PRINTING_FAMILIES)
    for family in [*FUNCTION_FAMILIES.values(), *PRINTING_FAMILIES.values()]:
        names = [operation.name for operation in family.operations]
        assert len(set(names)) == len(names) >= 6
        assert sum(not operation.last for operation in family.operations) >= 6
        for operation in family.operations:
            assert operation.bugs
            assert all(with_bug(operation.code, bug) != operation.code for bug in operation.bugs)


@pytest.mark.parametrize("steps", [2, 5, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_the_knob_is_exact_and_no_step_can_be_left_out(kind: str, steps: int) -> None:
    source = ProgramSource("train", min_steps=steps, max_steps=steps, kinds=[kind])
    for index in range(12):
        assert source.get(index).metadata["steps"] == steps
        _, drawn = source.draw(index)
        if isinstance(drawn, Exercise):
            cases = drawn.shown + drawn.hidden
            for left_out in range(steps):
                values = [case.args[0] for case in cases]
                for i, drawn_step in enumerate(drawn.draft.steps):
                    if i != left_out:
                        run = one_step(drawn.draft.family.prelude, drawn_step.code("before", "after"))
                        values = [run(v, case.args[-1]) for v, case in zip(values, cases, strict=True)]
                assert values != [case.expected for case in cases]


@pytest.mark.parametrize("name", FUNCTION_FAMILIES)
def test_operations_leave_their_argument_alone(name: str) -> None:
    family, rng = FUNCTION_FAMILIES[name], random.Random(name)
    inputs = [*family.edges, *(family.draw(rng) for _ in range(20))]
    for operation in family.operations:
        n, m = (repr(c[0]) if c else "" for c in (operation.n, operation.m))
        run = one_step(family.prelude, DrawnStep(operation, n, m).code("before", "after"))
        for value in inputs:
            before = copy.deepcopy(value)
            result = run(value, 0)
            assert value == before
            assert json.loads(json.dumps(result)) == result


def test_every_kind_of_bug_occurs() -> None:
    source = ProgramSource("train", kinds=["repair"], families=["grid", "list", "nested", "words"])
    seen = {source.get(i).metadata["bug"] for i in range(200)}
    assert seen >= {
        "off by one",
        "wrong comparison",
        "wrong initial value",
        "mutated default argument",
        "wrong variable",
        "missing return",
        "wrong order of operations",
        "aliasing",
    }


def corruptions(kind: str, count: int) -> Iterator[tuple[Task, int, tuple[ExpertTurn, ...] | None]]:
    source = ProgramSource("train", min_steps=2, max_steps=5, kinds=[kind])
    for index in range(count):
        task = source.get(index)
        for at in range(task.metadata["steps"]):
            yield task, at, source.corrupt(task, at)


@pytest.mark.parametrize("kind", ["write", "repair"])
def test_a_corrupted_program_fails_the_hidden_tests(kind: str) -> None:
    made = [(task, trace) for task, _, trace in corruptions(kind, 30)]
    assert sum(trace is not None for _, trace in made) > 0.9 * len(made)
    for task, trace in made:
        if trace is not None:
            assert not passes(submitted(trace), task.metadata["tests"])
            assert len(trace) == len(task.expert)


def test_a_corrupted_prediction_is_another_line() -> None:
    made = [(task, trace) for task, _, trace in corruptions("output", 60)]
    assert sum(trace is not None for _, trace in made) > 0.6 * len(made)
    for task, trace in made:
        if trace is not None:
            (boxed,) = extract_boxed(trace[-1].content)
            assert boxed != task.answer


def test_corrupting_needs_a_step_and_a_task_of_the_source() -> None:
    source = ProgramSource("train")
    with pytest.raises(IndexError, match="step=9"):
        source.corrupt(source.get(0), 9)
    with pytest.raises(KeyError, match="programs/test"):
        source.corrupt(ProgramSource("test").get(0), 0)


def test_a_task_is_a_pure_function_of_its_index() -> None:
    a, b = (ProgramSource("validation", max_steps=6, seed=3) for _ in range(2))
    indices = [0, 5, 2**31 - 1]
    tasks = [a.get(i) for i in indices]
    assert [b.get(i) for i in reversed(indices)] == tasks[::-1]
    assert [a.by_id(task.task_id) for task in tasks] == tasks
    assert len({task.task_id for task in tasks}) == 3
    assert ProgramSource("train", seed=4).get(0).task_id == "programs/train/4-2-4-write+output+repair/0"
    assert ProgramSource("train", seed=4).get(0).question != ProgramSource("train", seed=5).get(0).question


def test_tasks_are_the_same_in_every_process() -> None:
    code = (
        "import hashlib\nfrom elpo_envs.tasks.programs import ProgramSource\n"
        "s = ProgramSource(max_steps=6)\n"
        "print(hashlib.sha256(repr([(s.get(i), s.corrupt(s.get(i), 1)) for i in range(40)]).encode()).hexdigest())"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("0", "4242")
    ]
    assert len(set(digests)) == 1


def test_splits_never_share_rules_or_programs() -> None:
    seen: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        seen[split] = set()
        for seed, index in itertools.product(range(2), range(25)):
            _, drawn = ProgramSource(split, max_steps=2, seed=seed).draw(index)
            text = drawn.printing.program() if isinstance(drawn, Prediction) else drawn.draft.rules
            assert split_of(text) == split
            assert text in ProgramSource(split, max_steps=2, seed=seed).get(index).question
            seen[split].add(text)
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


def test_generation_leaves_the_global_generators_alone() -> None:
    before, numbers = random.getstate(), np.random.get_state()[1].tolist()
    for index in range(10):
        ProgramSource("train", max_steps=8).get(index)
    assert random.getstate() == before
    assert np.random.get_state()[1].tolist() == numbers


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"split": "dev"}, "split='dev'"),
        ({"min_steps": 1}, "min_steps=1"),
        ({"max_steps": 9}, "max_steps=9"),
        ({"min_steps": 5, "max_steps": 4}, "min_steps=5"),
        ({"kinds": ["solve"]}, "kinds=['solve']"),
        ({"kinds": []}, "kinds=[]"),
        ({"kinds": "write"}, "kinds='write'"),
        ({"families": ["trees"]}, "families=['trees']"),
        ({"families": []}, "families=[]"),
        ({"kinds": ["output"], "families": ["list"]}, "families=['list']"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        ProgramSource(**kwargs)


def test_index_out_of_range_and_foreign_ids_are_refused() -> None:
    source = ProgramSource("train")
    for index in (-1, 2**31):
        with pytest.raises(IndexError, match=str(index)):
            source.get(index)
    for task_id in ("gsm8k/train/3", "programs/train/0-2-4-write+output+repair/07", "programs/train/0-2-4-write/1"):
        with pytest.raises(KeyError, match=task_id.replace("+", r"\+")):
            source.by_id(task_id)


def test_expert_traces_run_in_the_sandbox() -> None:
    """Every family's programs, run by the tool as the expert runs them, print what the question shows."""
    sandbox = make_sandbox()
    try:
        for kind, family in PAIRS:
            source = ProgramSource("train", min_steps=4, max_steps=4, kinds=[kind], families=[family])
            task = source.get(0)
            sandbox.open(0)
            result = sandbox.run(task.expert[-2].tool_calls[0].arguments["code"])
            assert result.kind == "ok", (task.task_id, result)
            shown = task.metadata.get("public_tests", {"cases": [{"expected": task.answer}]})
            assert result.text.strip() == "\n".join(str(case["expected"]) for case in shown["cases"])
    finally:
        sandbox.close()


# Every operation of three families a second time, written from its rule in English.


def _runs(text: str) -> list[str]:
    return [m.group() for m in re.finditer(r"(.)\1*", text, re.DOTALL)]


def _clamped(v: int, low: int, high: int) -> int:
    return sorted((low, v, high))[1]


def _caesar(text: str, n: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return text.translate(str.maketrans(alphabet, alphabet[n:] + alphabet[:n]))


def _base(v: int, n: int) -> str:
    return str(v) if v < n else _base(v // n, n) + str(v % n)


def _longest_rise(x: list[int]) -> int:
    spans = [x[i:j] for i in range(len(x)) for j in range(i + 1, len(x) + 1)]
    return max((len(s) for s in spans if all(a < b for a, b in itertools.pairwise(s))), default=0)


def _odd_part(v: int) -> int:
    return v if v == 0 or v % 2 else _odd_part(v // 2)


Oracle = Callable[[Any, Any, Any], Any]
ORACLES: dict[str, dict[str, Oracle]] = {
    "list": {
        "kept": lambda x, n, m: list(filter(lambda v: not v < n, x)),
        "scaled": lambda x, n, m: [m + n * v for v in x],
        "distinct": lambda x, n, m: list(dict.fromkeys(x)),
        "rotated": lambda x, n, m: [x[(i + n) % len(x)] for i in range(len(x))],
        "sums": lambda x, n, m: list(itertools.accumulate(x)),
        "differences": lambda x, n, m: [x[i] - x[i - 1] for i in range(1, len(x))],
        "combined": lambda x, n, m: [v + (x[i - 1] if i else 0) for i, v in enumerate(x)],
        "clipped": lambda x, n, m: [_clamped(v, n, m) for v in x],
        "turned": lambda x, n, m: [v for i in range(0, len(x), n) for v in x[i : i + n][::-1]],
        "ordered": lambda x, n, m: [v for size in range(200) for v in x if abs(v) == size],
        "flipped": lambda x, n, m: [v * (-1) ** i for i, v in enumerate(x)],
        "remainders": lambda x, n, m: [v - n * math.floor(v / n) for v in x],
        "balance": lambda x, n, m: sum(v * (-1) ** i for i, v in enumerate(x)),
        "second": lambda x, n, m: max((v for v in x if v < max(x)), default=0),
        "peaks": lambda x, n, m: sum(b > max(a, c) for a, b, c in zip(x, x[1:], x[2:], strict=False)),
        "longest": lambda x, n, m: _longest_rise(x),
    },
    "string": {
        "shifted": lambda x, n, m: _caesar(x, n),
        "swapped": lambda x, n, m: "".join(
            x[i] if i % 2 else (x[i].lower() if x[i].isupper() else x[i].upper()) for i in range(len(x))
        ),
        "turned": lambda x, n, m: re.sub(r"[^ ]+", lambda word: "".join(reversed(word.group())), x),
        "squeezed": lambda x, n, m: "".join(run[0] for run in _runs(x)),
        "moved": lambda x, n, m: x if len(x) <= n else "".join([*list(x)[n:], *list(x)[:n]]),
        "thinned": lambda x, n, m: "".join(x[i] for i in range(len(x)) if i not in range(0, len(x), n)),
        "doubled": lambda x, n, m: re.sub("([aeiouAEIOU])", r"\1\1", x),
        "counted_up": lambda x, n, m: re.sub(r"\d", lambda d: str(int(d.group()) + n)[-1], x),
        "split_up": lambda x, n, m: "".join(x[i] for i in sorted(range(len(x)), key=lambda i: (i % 2, i))),
        "padded": lambda x, n, m: x.ljust(math.ceil(len(x) / n) * n, "*"),
        "coded": lambda x, n, m: "".join(f"{run[0]}{len(run)}" for run in _runs(x)),
        "letters": lambda x, n, m: dict(Counter(re.findall("[A-Za-z]", x))),
        "repeat_at": lambda x, n, m: min(
            (j for i in range(len(x)) for j in range(i + 1, len(x)) if x[i] == x[j]), default=-1
        ),
        "digit_sum": lambda x, n, m: sum(1 if c == " " else "0123456789".find(c) for c in re.findall("[0-9 ]", x)),
    },
    "number": {
        "branched": lambda x, n, m: 3 * x + 1 if x & 1 else x >> 1,
        "reduced": lambda x, n, m: x - n * math.floor(x / n),
        "heavier": lambda x, n, m: x + sum(map("0123456789".index, str(x).lstrip("-"))),
        "turned": lambda x, n, m: int(math.copysign(1, x)) * int("".join(reversed(str(x).lstrip("-")))),
        "mixed": lambda x, n, m: (x | n) - (x & n),
        "divided": lambda x, n, m: math.floor(x / n),
        "rest": lambda x, n, m: x - math.isqrt(abs(x)) ** 2,
        "scaled": lambda x, n, m: n * x - m,
        "lifted": lambda x, n, m: x + n * abs(x).bit_count(),
        "odd_part": lambda x, n, m: _odd_part(x),
        "nested": lambda x, n, m: x + [0, 1, 3, 6, 10, 15, 21, 28, 36, 45][int(str(x)[-1])],
        "digits": lambda x, n, m: [int(d) for d in str(x) if d != "-"][::-1],
        "numeral": lambda x, n, m: _base(abs(x), n),
        "divisor": lambda x, n, m: next(d for d in itertools.count(2) if (abs(x) % n + 2) % d == 0),
        "tally": lambda x, n, m: [Counter(str(x))[d] for d in "0123456789"],
    },
}


@pytest.mark.parametrize("name", ORACLES)
def test_a_second_implementation_agrees_with_the_reference(name: str) -> None:
    family, rng = FUNCTION_FAMILIES[name], random.Random(name)
    assert set(ORACLES[name]) == {operation.name for operation in family.operations}
    inputs = [*family.edges, *(family.draw(rng) for _ in range(40))]
    for operation in family.operations:
        for n, m in itertools.product(operation.n or [None], (operation.m or [None])[:3]):
            drawn = DrawnStep(operation, repr(n), repr(m))
            run = one_step(family.prelude, drawn.code("before", "after"))
            for value in inputs:
                assert run(value, 0) == ORACLES[name][operation.name](value, n, m), (operation.name, value, n, m)
