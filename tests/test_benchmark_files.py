"""Published benchmark files as tasks, on small files of the same forms."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _benchmark_fixtures import (
    AIME_URL,
    ARC,
    GSM8K,
    HUMANEVAL,
    MATH,
    MBPP,
    MBPP_SANITIZED,
    MMLU_HUB,
    OPENBOOKQA_HUB,
    PUBLISHED,
    SCIBENCH_BOOKS,
    csv_bytes,
    lines,
    put,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_envs.tasks.base import Task, TaskSource
from elpo_envs.tasks.benchmarks import BENCHMARKS
from elpo_envs.tasks.records import RecordError


def tasks(source: TaskSource) -> list[Task]:
    assert source.size is not None
    return [source.get(index) for index in range(source.size)]


def read(name: str, path: Path, split: str = "test", **options: Any) -> list[Task]:
    return tasks(BENCHMARKS[name].open(split, path=path, options=options))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_published_form_gives_tasks(name: str, tmp_path: Path) -> None:
    write, ids, answers = PUBLISHED[name]
    write(tmp_path)
    source = BENCHMARKS[name].open("test", path=tmp_path)
    found = tasks(source)
    assert (source.name, source.split, source.size) == (name, "test", len(ids))
    assert [task.task_id for task in found] == ids
    assert [task.answer for task in found] == answers
    assert [task.index for task in found] == list(range(len(ids)))
    for task in found:
        assert task.split == "test"
        assert source.by_id(task.task_id) == task
        assert json.loads(json.dumps(task.metadata)) == task.metadata
    copied = pickle.loads(pickle.dumps(source))
    assert tasks(copied) == found
    with pytest.raises(IndexError, match=f"index {len(ids)} is outside 0 to {len(ids) - 1}"):
        source.get(len(ids))
    with pytest.raises(IndexError):
        source.get(-1)
    with pytest.raises(KeyError, match="nowhere"):
        source.by_id("nowhere")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_folder_of_the_benchmarks_own_is_found_in_the_data_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, ids, _ = PUBLISHED[name]
    write(tmp_path / name)
    assert [task.task_id for task in tasks(BENCHMARKS[name].open("test", data_dir=tmp_path))] == ids
    monkeypatch.setenv("ELPO_DATA", str(tmp_path))
    assert [task.task_id for task in tasks(BENCHMARKS[name].open("test"))] == ids


def test_a_name_that_tells_no_benchmark_counts_only_in_its_own_folder(tmp_path: Path) -> None:
    put(tmp_path / "test.jsonl", lines(*GSM8K))
    with pytest.raises(FileNotFoundError, match=r"gsm8k, split 'test': .* holds none of gsm8k_test\.jsonl\.gz"):
        BENCHMARKS["gsm8k"].open("test", data_dir=tmp_path)
    assert len(read("gsm8k", tmp_path)) == 2


def test_the_registry_is_whole() -> None:
    assert {name: benchmark.domain for name, benchmark in BENCHMARKS.items()} == {
        **dict.fromkeys(("gsm8k", "math", "math500", "aime24", "aime25", "amc23"), "math"),
        **dict.fromkeys(
            ("gpqa_diamond", "arc_challenge", "arc_easy", "openbookqa", "mmlu_stem", "scibench"), "science"
        ),
        **dict.fromkeys(("humaneval", "mbpp", "mbpp_sanitized", "livecodebench"), "code"),
    }
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert set(benchmark.files) == set(benchmark.splits) == set(benchmark.hub.splits)
        assert "/" in benchmark.hub_id and benchmark.hub.revision
        assert benchmark.splits[0] == "test"


def test_gsm8k_has_experts_and_no_thousands_commas(tmp_path: Path) -> None:
    first, second = read("gsm8k", put(tmp_path / "any_name.jsonl", lines(*GSM8K)))
    assert [turn.tool_calls[0].arguments["code"] for turn in first.expert[:-1]] == ["48/2", "48+24"]
    assert first.expert[-1].content.endswith("\\boxed{72}.")
    assert second.answer == "1200" and second.expert[-1].content.endswith("\\boxed{1200}.")


def test_math_leaves_out_only_empty_boxes_and_keeps_numbers(tmp_path: Path) -> None:
    rows = [MATH[0], MATH[2], MATH[1]]
    found = read("math", put(tmp_path / "math_train.jsonl", lines(*rows)), "train")
    assert [(task.task_id, task.answer, task.index) for task in found] == [
        ("math/train/0", "2", 0),
        ("math/train/2", r"\frac{1}{2}", 1),
    ]
    assert found[0].metadata["level"] == "Level 1" and found[0].metadata["subject"] == "Algebra"


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"ID": "2024-I-4", "Problem": "Find.", "Solution": "It is 116.", "Answer": 116}, "116"),
        ({"id": 0, "problem": "Find.", "solution": r"\boxed{073}", "url": AIME_URL}, "73"),
        ({"id": 0, "problem": "Find.", "solution": "", "answer": "000", "year": "2024"}, "0"),
        ({"id": 0, "problem": "Find.", "answer": 7.0}, "7"),
    ],
)
def test_every_published_form_of_aime(row: dict[str, Any], answer: str, tmp_path: Path) -> None:
    (task,) = read("aime24", put(tmp_path / "x.jsonl", lines(row)))
    assert task.answer == answer
    assert task.task_id == f"aime24/test/{row.get('ID', row.get('id'))}"


def test_other_years_of_aime_are_left_out(tmp_path: Path) -> None:
    old = {"id": 1, "problem": "Find.", "answer": "3", "url": AIME_URL.replace("2024", "2022")}
    new = {"id": 2, "problem": "Find.", "answer": "4", "url": AIME_URL}
    assert [task.task_id for task in read("aime24", put(tmp_path / "x.jsonl", lines(old, new)))] == ["aime24/test/2"]
    with pytest.raises(RecordError, match="no rows of aime25"):
        read("aime25", tmp_path / "x.jsonl")


def test_labels_become_letters_and_options_are_shown(tmp_path: Path) -> None:
    first, second = read("arc_challenge", put(tmp_path / "x.jsonl", lines(*ARC)))
    assert first.question == "Which is a metal?\n\nA. oxygen\nB. iron\nC. salt"
    assert first.metadata == {"kind": "choice", "choices": ["oxygen", "iron", "salt"]}
    assert second.question.endswith("A. light\nB. soap\nC. glass\nD. tin")
    assert second.answer == "A"


def test_shuffling_follows_the_task_id_and_keeps_the_right_text(tmp_path: Path) -> None:
    rows = [{**ARC[1], "id": f"made_{number}"} for number in range(40)]
    path = put(tmp_path / "x.jsonl", lines(*rows))
    plain, shuffled = read("arc_easy", path), read("arc_easy", path, shuffle_choices=True)
    assert {task.answer for task in plain} == {"A"}
    assert {task.answer for task in shuffled} == set("ABCD")
    for task in shuffled:
        assert task.metadata["choices"]["ABCD".index(task.answer)] == "light"
        assert f"{task.answer}. light" in task.question
    later = read("arc_easy", put(tmp_path / "y.jsonl", lines(*reversed(rows))), shuffle_choices=True)
    assert {task.task_id: task.question for task in later} == {task.task_id: task.question for task in shuffled}


def test_mmlu_on_the_hub_has_the_ids_of_the_csv_files(tmp_path: Path) -> None:
    PUBLISHED["mmlu_stem"][0](tmp_path)
    from_csv = read("mmlu_stem", tmp_path)
    from_hub = read("mmlu_stem", put(tmp_path / "x.jsonl", lines(*MMLU_HUB)))
    assert [task.task_id for task in from_hub] == [f"mmlu_stem/test/abstract_algebra/{n}" for n in (0, 1)]
    assert from_hub[0] == from_csv[0]
    assert from_csv[1].question.startswith('Say "two,\nlines"\n\nA. p')
    alone = put(tmp_path / "val/astronomy_val.csv", csv_bytes(["q", "1", "2", "3", "4", "C"]))
    assert read("mmlu_stem", alone, "validation")[0].task_id == "mmlu_stem/validation/astronomy/0"


def test_scibench_keeps_power_of_ten_in_the_unit_and_books_apart(tmp_path: Path) -> None:
    PUBLISHED["scibench"][0](tmp_path)
    charge, energy = read("scibench", tmp_path)
    assert energy.metadata["unit"] == r"$10^{-19} \mathrm{~J}$"
    assert energy.metadata["tolerance"] == 0.05 and energy.metadata["kind"] == "number"
    assert energy.question.endswith(r"Give the answer as a number in $10^{-19} \mathrm{~J}$.")
    assert energy.metadata["subject"] == "physics" and charge.metadata["solution"] == "It is 4."
    (worked,) = read("scibench", tmp_path, "train")
    assert worked.task_id == "scibench/train/atkins_sol/0" and worked.question.endswith("Give the answer as a number.")
    table = [row for rows in SCIBENCH_BOOKS.values() for row in rows]
    path = put(tmp_path / "table.jsonl", lines(*table))
    assert [task.task_id for task in read("scibench", path)] == ["scibench/test/0", "scibench/test/2"]
    assert [task.task_id for task in read("scibench", path, "train")] == ["scibench/train/1"]


def test_humaneval_tests_and_program(tmp_path: Path) -> None:
    PUBLISHED["humaneval"][0](tmp_path)
    (task,) = read("humaneval", tmp_path)
    row = HUMANEVAL[0]
    assert task.metadata == {
        "kind": "program",
        "entry_point": "twice",
        "starter_code": row["prompt"],
        "tests": {"type": "humaneval", "prompt": row["prompt"], "code": row["test"], "entry_point": "twice"},
    }
    assert "`twice`" in task.question and row["prompt"].strip() in task.question
    assert "candidate(2) == 4" not in task.question
    space: dict[str, Any] = {}
    exec(task.answer + "\n" + row["test"], space)
    space["check"](space["twice"])


def test_mbpp_splits_tests_and_options(tmp_path: Path) -> None:
    path = put(tmp_path / "mbpp.jsonl", lines(*MBPP))
    numbers = {split: [task.task_id for task in read("mbpp", path, split)] for split in BENCHMARKS["mbpp"].splits}
    assert numbers == {
        "prompt": ["mbpp/prompt/10"],
        "test": [f"mbpp/test/{n}" for n in (11, 12, 510)],
        "validation": ["mbpp/validation/511", "mbpp/validation/600"],
        "train": ["mbpp/train/601", "mbpp/train/974"],
    }
    first, second, _ = read("mbpp", path)
    assert first.metadata["entry_point"] == "add_one"
    form = {"type": "asserts", "setup": "", "setup_after": "", "asserts": MBPP[1]["test_list"]}
    assert first.metadata["tests"] == first.metadata["public_tests"] == form
    assert all(text in first.question for text in MBPP[1]["test_list"])
    assert second.metadata["tests"]["setup_after"] == "seven = 7" and "seven = 7" in second.question
    harder = read("mbpp", path, challenge_tests=True, shown_tests=1)[0]
    assert harder.metadata["tests"]["asserts"] == [*MBPP[1]["test_list"], "assert add_one(-1) == 0"]
    assert harder.metadata["public_tests"]["asserts"] == MBPP[1]["test_list"][:1]
    assert "add_one(2)" not in harder.question and "add_one(-1)" not in harder.question
    hidden = read("mbpp", path, shown_tests=0)[0]
    assert "public_tests" not in hidden.metadata and "assert" not in hidden.question and "`add_one`" in hidden.question


def test_sanitized_mbpp_imports_run_before_the_program(tmp_path: Path) -> None:
    PUBLISHED["mbpp_sanitized"][0](tmp_path)
    (task,) = read("mbpp_sanitized", tmp_path)
    assert task.metadata["tests"]["setup"] == "import math\nimport re"
    assert task.metadata["entry_point"] == "half"


COMMON = {"id": "x/1", "question": "Which?", "domain": "science", "source": "s", "split": "test", "answer": "B"}


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("gsm8k", {"question": "?"}, r"line 1: no field 'answer' \(fields found: question\); add it"),
        (
            "gsm8k",
            {"question": "?", "answer": "72"},
            "field 'answer' is '72'; it must be a worked solution with a last",
        ),
        ("gsm8k", {"question": " ", "answer": "#### 7"}, "field 'question'"),
        ("math", {"problem": "?", "solution": "no box"}, r"field 'solution' is 'no box'; it must be .*\\boxed"),
        ("math", {"problem": "?", "solution": 3}, "field 'solution' is 3; it must be non-empty text"),
        ("math500", {"problem": "?", "answer": True, "unique_id": "a"}, "field 'answer' is True; it must be non-empty"),
        (
            "aime24",
            {"problem": "?", "answer": "1234"},
            "field 'answer' is '1234'; it must be a whole number from 0 to 999",
        ),
        ("aime24", {"problem": "?", "answer": "-3"}, "field 'answer' is '-3'"),
        ("aime25", {"problem": "?", "answer": "x+1"}, "field 'answer' is 'x.1'; it must be a whole number"),
        ("aime25", {"problem": "?", "answer": "7", "year": "soon"}, "field 'year' is 'soon'; it must be a year"),
        ("amc23", {"problem": "?", "answer": 2.5}, "field 'answer' is 2.5; it must be a whole number"),
        ("arc_easy", {**ARC[0], "answerKey": "E"}, "field 'answerKey' is 'E'; it must be one of the labels A, B, C"),
        ("arc_easy", {**ARC[0], "answerKey": None}, "no field 'answerKey'"),
        ("arc_easy", {"id": "a", "question": "?", "choices": ["p"], "answerKey": "A"}, "field 'choices' is .*objects"),
        (
            "openbookqa",
            {"id": "a", "question_stem": "?", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"},
            "as many labels as texts",
        ),
        (
            "openbookqa",
            {"id": "a", "question_stem": "?", "choices": {"text": ["a", " "], "label": ["A", "B"]}, "answerKey": "A"},
            "choice 2 is blank",
        ),
        (
            "arc_easy",
            {**COMMON, "choices": ["only one"]},
            "field 'choices' is .*; it must be a list of 2 or more texts",
        ),
        (
            "arc_easy",
            {**COMMON, "choices": ["p", "q"], "answer": "C"},
            "field 'answer' is 'C'; it must be a letter from",
        ),
        ("arc_easy", {**COMMON, "choices": "pq"}, "field 'choices' is 'pq'; it must be a list of texts"),
        (
            "mmlu_stem",
            {**MMLU_HUB[0], "answer": 4},
            "field 'answer' is 4; it must be a letter from A to D, or an index",
        ),
        (
            "scibench",
            {"problem_text": "?", "answer_number": "about 3"},
            "field 'answer_number' is 'about 3'; it must be a n",
        ),
        ("scibench", {"problem_text": "?", "answer_number": "inf"}, "it must be a number"),
        ("scibench", {"problem_text": "?", "answer_number": "3", "unit": 7}, "field 'unit' is 7; it must be text"),
        ("humaneval", {**HUMANEVAL[0], "entry_point": "a b"}, "field 'entry_point' is 'a b'; it must be the name of a"),
        ("humaneval", {**HUMANEVAL[0], "test": "assert True"}, r"define no function check\(candidate\)"),
        ("mbpp", {**MBPP[1], "test_list": []}, r"field 'test_list' is \[\]; it must be a list of 1 or more texts"),
        ("mbpp", {**MBPP[1], "test_list": [3]}, "field 'test_list' is .*; it must be a list of texts"),
        ("mbpp", {**MBPP[1], "task_id": "first"}, "field 'task_id' is 'first'; it must be the task's number"),
        ("mbpp", {**MBPP[1], "code": "f = 3"}, "calls no function that the program defines"),
        ("mbpp", {**MBPP[1], "code": "def other(): pass"}, "calls no function that the program defines"),
    ],
)
def test_bad_rows_name_file_line_field_and_mend(name: str, row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = put(tmp_path / "bad.jsonl", lines(row))
    with pytest.raises(RecordError, match=message) as caught:
        read(name, path)
    assert str(caught.value).startswith(f"{path}, line 1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        (
            "astronomy_test.csv",
            csv_bytes(["q", "1", "2", "3", "4", "A"], ["q", "1"]),
            "line 2: 2 columns where 6 are expected",
        ),
        ("bad.csv", b'"open quote', "line 1: not valid CSV"),
        ("bad.csv", b"\xff\xfe", "is not UTF-8"),
        ("astronomy_test.csv", csv_bytes(["q", "1", "2", "3", "4", "E"]), "field 'answer' is 'E'; it must be a letter"),
        ("history_test.csv", csv_bytes(["q", "1", "2", "3", "4", "A"]), "the file's name tells no STEM subject"),
        ("bad.json", b'{"problem": ', "not valid JSON"),
        ("bad.json", b"3", "it must hold a list"),
        ("bad.jsonl", b"[1]\n", "line 1: a list; each record must be a JSON object"),
        ("bad.txt", b"", "unknown file type"),
        ("empty.jsonl", b"", "no rows of mmlu_stem, split 'test'"),
    ],
)
def test_bad_files(file: str, data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        read("mmlu_stem", put(tmp_path / file, data))


def test_ids_that_repeat_are_an_error(tmp_path: Path) -> None:
    path = put(tmp_path / "x.jsonl", lines(ARC[0], ARC[1], ARC[0]))
    with pytest.raises(RecordError, match=r"line 3: the id 'arc_easy/test/Made_1' is already that of .*line 1; make"):
        read("arc_easy", path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b, p: b["gsm8k"].open("dev", path=p), "split='dev' of gsm8k does not exist; choose test, train"),
        (lambda b, p: b["gsm8k"].open("test", path=p, options={"shuffle": 1}), "option 'shuffle' of gsm8k is unknown"),
        (lambda b, p: b["arc_easy"].open("test", path=p, options={"shuffle_choices": 1}), "must be true or false"),
        (
            lambda b, p: b["mbpp"].open("test", path=p, options={"shown_tests": 4}),
            "shown_tests=4 of mbpp must be a whole",
        ),
        (lambda b, p: b["gsm8k"].open("test", path=p, options={"hub": True}), "give one of them"),
        (lambda b, p: b["gsm8k"].open("test", options={"hub": 3}), "option hub=3 must be true or a local folder"),
        (lambda b, p: b["gsm8k"].open("test", options={"hub": True, "hub_revision": 3}), "hub_revision=3 must be text"),
        (lambda b, p: b["gsm8k"].open("test"), "gsm8k needs its files: set path, data_dir, the variable ELPO_DATA"),
    ],
)
def test_bad_arguments(
    call: Callable[..., object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ELPO_DATA", raising=False)
    path = put(tmp_path / "x.jsonl", lines(*MBPP))
    with pytest.raises(ValueError, match=message):
        call(BENCHMARKS, path)


def test_missing_places_are_named(tmp_path: Path) -> None:
    for name in BENCHMARKS:
        with pytest.raises(FileNotFoundError, match=f"{name}: there is no file or folder .*gone"):
            BENCHMARKS[name].open("test", path=tmp_path / "gone")
        with pytest.raises(FileNotFoundError, match=f"{name}, split 'test': .* holds none of"):
            BENCHMARKS[name].open("test", data_dir=tmp_path)
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            BENCHMARKS[name].open("test", data_dir=tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        BENCHMARKS["gsm8k"].open("test", options={"hub": str(tmp_path / "gone")})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ROWS = {
    "gsm8k": GSM8K[0],
    "math": MATH[0],
    "aime24": {"id": 1, "problem": "?", "answer": "3", "url": AIME_URL, "year": 2024},
    "arc_easy": ARC[0],
    "openbookqa": OPENBOOKQA_HUB[0],
    "mmlu_stem": MMLU_HUB[0],
    "scibench": SCIBENCH_BOOKS["thermo"][0],
    "humaneval": HUMANEVAL[0],
    "mbpp": MBPP[1],
    "mbpp_sanitized": MBPP_SANITIZED[0],
}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_value_in_any_field_gives_tasks_or_a_record_error(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(ROWS)))
    row = dict(ROWS[name])
    for field in data.draw(st.lists(st.sampled_from(sorted(row)), min_size=1, max_size=2)):
        row[field] = data.draw(JSON)
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder) / "x.jsonl", lines(row))
        try:
            found = read(name, path)
        except RecordError as error:
            assert str(path) in str(error)
        else:
            assert all(json.loads(json.dumps(task.metadata)) == task.metadata for task in found)


DUMP = """
import json, sys
from elpo_envs.tasks.benchmarks import BENCHMARKS
for name in sys.argv[2:]:
    options = {"shuffle_choices": True} if "shuffle_choices" in BENCHMARKS[name].options else {}
    source = BENCHMARKS[name].open("test", data_dir=sys.argv[1], options=options)
    for index in range(source.size):
        task = source.get(index)
        print(json.dumps([task.task_id, task.question, task.answer, repr(task.expert), task.metadata]))
"""


def test_tasks_are_the_same_in_every_process(tmp_path: Path) -> None:
    for name, (write, _, _) in PUBLISHED.items():
        write(tmp_path / name)
    printed = [
        subprocess.run(
            [sys.executable, "-c", DUMP, str(tmp_path), *PUBLISHED],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent.parent,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert printed[0].count("\n") == sum(len(ids) for _, ids, _ in PUBLISHED.values())
