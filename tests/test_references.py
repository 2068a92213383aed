"""References of benchmarks through the registered environments: right in every form, and wrong answers are not."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _benchmark_fixtures import ARC_HUB, HUMANEVAL, MBPP_SANITIZED, PUBLISHED, lines, put

from elpo_envs.sandbox import IsolationWarning
from elpo_envs.tasks.base import Task, TaskSource
from elpo_envs.tasks.benchmarks import BENCHMARKS
from elpo_envs.tasks.benchmarks.source import eager_source

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # the benchmarks are not part of the installed packages

from benchmarks.reference_exceptions import EXPLAINED  # noqa: E402
from benchmarks.reference_turns import attempts, hollow  # noqa: E402
from benchmarks.references import COLLECTIONS, Collection, Outcome, is_there, main, try_collection  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{IsolationWarning.__module__}.{IsolationWarning.__name__}"),
    pytest.mark.filterwarnings("ignore:.*invalid escape sequence"),  # of published programs
]
BY_NAME = {collection.name: collection for collection in COLLECTIONS}
PROGRAMS = ("humaneval", "mbpp", "mbpp_sanitized")
SAMPLE = 20
# A solution that boxes an intermediate result.
OF_OUR_ROWS = {"math": {("math/test/algebra/1.json", "as published"): "scored 0: ambiguous"}}
ROWS = {
    "gsm8k_test": 1319, "gsm8k_train": 7473, "math_train": 7498, "math500": 500, "aime24": 30, "aime25": 30,
    "amc23": 40, "arc_challenge_test": 1172, "arc_challenge_train": 1119, "openbookqa_test": 500,
    "openbookqa_train": 4957, "mmlu_stem_test": 3018, "mmlu_stem_validation": 321, "mmlu_stem_dev": 90,
    "scibench": 692, "humaneval": 164, "mbpp": 974, "mbpp_sanitized": 427,
}  # fmt: skip


def misses(outcome: Outcome) -> dict[tuple[str, str], str]:
    """Scores and reasons by task id and form."""
    return {
        (miss.task_id, tally.form): f"scored {miss.reward:g}: {miss.reason}"
        for tally in outcome.tallies
        for miss in tally.misses
    }


def turns(kind: str, answer: str, *others: str, **metadata: Any) -> dict[str, tuple[bool, str]]:
    """The forms of a task, and whether each is right; `others` are the answers of the rows behind it."""
    about = {"kind": kind, **metadata}
    tasks = [(Task(f"made/test/{n}", n, "test", "?", text, (), about), "") for n, text in enumerate([answer, *others])]
    source = eager_source("made", "test", tasks, "made")
    return {
        attempt.form: (
            attempt.right,
            attempt.turn.content or str(attempt.turn.tool_calls[0].arguments["code"]),
        )
        for attempt in attempts(source, 0)
    }


@pytest.mark.parametrize("dataset", [name for name in PUBLISHED if name != "mbpp_sanitized"])
def test_our_rows_in_the_published_form(dataset: str, tmp_path: Path) -> None:
    PUBLISHED[dataset][0](tmp_path / dataset)
    [collection] = [quick(each) for each in COLLECTIONS if each.dataset == dataset and "test" in each.splits]
    assert is_there(collection, tmp_path)
    outcome = try_collection(collection, tmp_path)
    expected = OF_OUR_ROWS.get(dataset, {})
    assert misses(outcome) == expected
    assert outcome.rows == outcome.solved + len(expected) >= 1
    assert {tally.right for tally in outcome.tallies} == {True, False}


def test_a_wrong_reference_and_indistinguishable_options_are_reported(tmp_path: Path) -> None:
    program = {**HUMANEVAL[0], "canonical_solution": "    return x * x + 1\n"}
    lenient = {**HUMANEVAL[0], "task_id": "HumanEval/1", "test": "def check(candidate):\n    candidate(2)\n"}
    put(tmp_path / "HumanEval.jsonl", lines(program, lenient))
    twins = {"text": ["soap", "soap", "tin"], "label": ["A", "B", "C"]}
    put(tmp_path / "ARC-Easy-Test.jsonl", lines({**ARC_HUB[0], "choices": twins, "answerKey": "B"}))
    assert misses(try_collection(BY_NAME["humaneval"], tmp_path)) == {
        ("humaneval/test/HumanEval/0", "submit"): "scored 0: humaneval, test 1 wrong",
        ("humaneval/test/HumanEval/0", "fenced"): "scored 0: humaneval, test 1 wrong",
        ("humaneval/test/HumanEval/1", "hollow"): "scored 1: humaneval",
        ("humaneval/test/HumanEval/0", "another row's"): "scored 1: humaneval",
        ("humaneval/test/HumanEval/1", "another row's"): "scored 1: humaneval",
    }
    outcome = try_collection(BY_NAME["arc_easy_test"], tmp_path)
    assert misses(outcome) == {("arc_easy/test/Made_2", "text"): "scored 0: ambiguous"}
    assert (outcome.solved, outcome.wrong) == (0, (3, 0))


def test_a_split_without_a_reference_gives_nothing(tmp_path: Path) -> None:
    put(tmp_path / "sanitized-mbpp.json", json.dumps(MBPP_SANITIZED).encode())
    collection = Collection("part", "elpo/MBPP-Sanitized-v0")
    outcome = try_collection(collection, tmp_path)
    assert [tally.form for tally in outcome.tallies] == ["submit", "fenced", "hollow"]  # no row is there but one
    assert misses(outcome) == {}
    assert turns("program", "", "x = 1") == {}


def test_the_report_has_everything_but_the_text_of_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, report = tmp_path / "data", tmp_path / "out" / "references.json"
    for name in ("gsm8k", "arc_challenge"):
        PUBLISHED[name][0](data / name)
    twins = {"text": ["soap", "soap", "tin"], "label": ["A", "B", "C"]}
    put(data / "ARC-Easy-Test.jsonl", lines({**ARC_HUB[0], "choices": twins, "answerKey": "A"}))
    only = ["gsm8k_test", "arc_challenge_test", "arc_easy_test", "math500"]
    assert main(["--data", str(data), "--json", str(report), "--only", *only]) == 0
    text, printed = report.with_suffix(".txt").read_text(encoding="utf-8"), capsys.readouterr().out
    whole: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    assert whole["benchmark"] == "references" and "math500" in whole["missing"]
    assert [each["collection"] for each in whole["collections"]] == only[:3]
    assert not set(only[:3]) & set(whole["missing"])
    easy = whole["collections"][2]
    assert (easy["rows"], easy["right_in_every_form"], easy["wrong_scored_1"]) == (1, 0, 0)
    [form] = [each for each in easy["forms"] if each["misses"]]
    assert form["misses"] == [{"task_id": "arc_easy/test/Made_2", "reward": 0.0, "reason": "ambiguous"}]
    assert "arc_easy/test/Made_2, text (right) scored 0, ambiguous: unexplained" in text
    for output in (text, printed, json.dumps(whole)):
        assert "math500" in output
        assert not any(words in output for words in ("boxes", "plants", "soap", "iron", "1,200"))


def test_a_report_keeps_what_is_not_played_again(tmp_path: Path) -> None:
    data, report = tmp_path / "data", tmp_path / "references.json"
    for name in ("math", "arc_challenge"):
        PUBLISHED[name][0](data / name)
    run = ["--data", str(data), "--json", str(report)]
    assert main([*run, "--only", "arc_challenge_test"]) == 0
    before = json.loads(report.read_text(encoding="utf-8"))["collections"]
    assert main([*run, "--only", "math_test"]) == 0
    after = json.loads(report.read_text(encoding="utf-8"))["collections"]
    assert [each["collection"] for each in after] == ["math_test", "arc_challenge_test"]
    assert after[1] == before[0]
    assert [Outcome.from_json(each).to_json() for each in after] == after
    assert "arc_challenge_test, next text" in report.with_suffix(".txt").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="was made with the settings"):
        main([*run, "--only", "math_test", "--sample", "1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "'nowhere' does not exist"),
        (["--sample", "0"], "--sample 0 must be at least 1"),
        (["--only", "gsm9k"], "gsm8k_test"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_forms_of_mathematics() -> None:
    solution = r"First \boxed{3}, then \boxed{\frac{1}{2}}."
    forms = turns("math", r"\frac{1}{2}", r"x = \frac 12", "0.75", solution=solution)
    assert forms["worked"] == (True, "First {3}, then {\\frac{1}{2}}.\n\\boxed{\\frac{1}{2}}")
    assert forms["as published"] == (True, solution)
    assert forms["respelt"] == (True, r"\boxed{\dfrac{1}{2}}")
    assert forms["another row's"] == (False, r"\boxed{0.75}")  # not the row whose answer is the same, named
    assert forms["one digit changed"] == (False, r"\boxed{\frac{1}{3}}")
    forms = turns("math", "1200", solution="It is 1,200.\n#### 1,200")
    assert forms["worked"] == (True, "It is 1,200.\n\\boxed{1,200}")
    assert forms["respelt"] == (True, r"\boxed{1{,}200}")
    assert "another row's" not in forms and "as published" not in forms
    assert "one digit changed" not in turns("math", "x+y", "y")


def test_forms_of_choices_and_quantities() -> None:
    forms = turns("choice", "C", choices=["soap", "iron", "tin", "Tin."])
    assert forms["next letter"] == (False, r"\boxed{D}")
    assert forms["next text"] == (False, r"\boxed{soap}")
    assert forms["label and text"] == (True, r"\boxed{C. tin}")
    assert "next text" not in turns("choice", "A", choices=["a b", "AB"])
    forms = turns("number", "-0.052", unit=r"$\mathrm{kJ}$", tolerance=0.05)
    assert forms["with unit"] == (True, r"\boxed{-0.052 \mathrm{kJ}}")
    assert forms["power of ten"] == (True, r"\boxed{-5.2 \times 10^{-2} \mathrm{kJ}}")
    assert forms["too large"] == (False, r"\boxed{-0.0442 \mathrm{kJ}}")
    assert forms["too small"] == (False, r"\boxed{-0.0598 \mathrm{kJ}}")
    assert forms["ten times"] == (False, r"\boxed{-0.52}")
    assert forms["negated"] == (False, r"\boxed{0.052 \mathrm{kJ}}")
    assert forms["another dimension"] == (False, r"\boxed{-0.052 \mathrm{cd}}")
    forms = turns("number", "0", unit=r"$10^{-3} \mathrm{~J}$", tolerance=0.05)
    assert forms["with unit"] == (True, r"\boxed{0 \times 10^{-3} \mathrm{~J}}")
    assert forms["too large"] == (False, r"\boxed{0.15 \times 10^{-3} \mathrm{~J}}")
    assert not forms.keys() & {"negated", "ten times", "power of ten"}
    assert turns("number", "5", unit=r"$\$$", tolerance=0.05)["with unit"] == (True, r"\boxed{5 \$}")


def test_a_hollow_program_defines_the_same_names_and_does_nothing() -> None:
    program = "import math\nclass A:\n    def f(self):\n        return 1\ndef g():\n    return lambda: 2\n"
    scope: dict[str, Any] = {}
    exec(hollow(program), scope)
    assert scope["A"]().f() is None and scope["g"]() is None and scope["math"]


def quick(collection: Collection) -> Collection:
    """Of programs only one split: each has an environment of its own, with a sandbox to start."""
    return replace(collection, splits=("test",)) if collection.dataset in PROGRAMS else collection


def played(collection: Collection, data_dir: Path, sample: int | None = None) -> Outcome:
    if not is_there(collection, data_dir):
        pytest.skip(f"ELPO_DATA has no file of {collection.dataset}, split {' or '.join(collection.splits)}")
    return try_collection(collection, data_dir, sample=sample)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_sample_of_the_real_rows(name: str, data_dir: Path) -> None:
    outcome = played(quick(BY_NAME[name]), data_dir, 2 if name in PROGRAMS else SAMPLE)
    assert misses(outcome).keys() <= EXPLAINED.keys()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ROWS)
def test_every_real_row(name: str, data_dir: Path) -> None:
    outcome = played(BY_NAME[name], data_dir)
    assert outcome.rows == ROWS[name]
    assert misses(outcome).keys() == explained(BY_NAME[name])
    assert outcome.solved >= (1.0 if name in PROGRAMS else 0.99) * outcome.rows


def explained(collection: Collection) -> set[tuple[str, str]]:
    places = {f"{collection.dataset}/{split}/" for split in collection.splits}
    return {(task, form) for task, form in EXPLAINED if any(task.startswith(place) for place in places)}


def test_what_is_explained_is_there(data_dir: Path) -> None:
    forms: Mapping[str, set[str]] = {
        kind: set(turns(kind, answer, "11", **about))
        for kind, answer, about in (
            ("math", "5", {"solution": r"\boxed{5}"}),
            ("choice", "A", {"choices": ["one", "two"]}),
        )
    }
    sources: dict[tuple[str, str], TaskSource] = {}
    for task_id, form in EXPLAINED:
        dataset, split, _ = task_id.split("/", 2)
        if (dataset, split) not in sources:
            try:
                sources[dataset, split] = BENCHMARKS[dataset].open(split, data_dir=data_dir)
            except FileNotFoundError:
                pytest.skip(f"ELPO_DATA has no file of {dataset}, split {split}")
        assert form in forms[sources[dataset, split].by_id(task_id).metadata["kind"]]
