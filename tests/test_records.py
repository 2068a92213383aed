"""Files of records as tasks, and GSM8K worked solutions as expert tool-call traces."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_envs.grading import grade_response
from elpo_envs.tasks.base import Task, ToolCall
from elpo_envs.tasks.gsm8k import calculate, expert_turns, final_value, python_expression, read_trace
from elpo_envs.tasks.records import MissingExtraError, RecordError, RecordSource

SOLUTION = "Ana packed 48/2 = <<48/2=24>>24 boxes in May.\nIn total she packed 48+24 = $<<48+24=72>>72 boxes.\n#### 72"


def write(folder: Path, name: str, *rows: Any) -> Path:
    path = folder / name
    lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    return path


def only(folder: Path, row: dict[str, Any]) -> Task:
    return RecordSource(write(folder, "one.jsonl", row), "train", "one").get(0)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.parquet"])
def test_every_file_type_gives_the_same_tasks(tmp_path: Path, name: str) -> None:
    rows = [{"question": f"What is {n}+{n}?", "answer": str(2 * n), "level": n} for n in range(5)]
    if name.endswith(".json"):
        path = tmp_path / name
        path.write_text(json.dumps(rows))
    elif name.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        path = tmp_path / name
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path = write(tmp_path, name, *rows)
    source = RecordSource(path, "test", "sums")
    assert source.size == 5
    assert [source.get(index).task_id for index in range(5)] == [f"sums/test/{index}" for index in range(5)]
    task = source.get(3)
    assert task == Task("sums/test/3", 3, "test", "What is 3+3?", "6", (), {"level": 3})
    assert source.by_id("sums/test/3") is task
    assert RecordSource(path).name == "rows"
    with pytest.raises(IndexError, match="index 5 is outside 0 to 4"):
        source.get(5)
    with pytest.raises(IndexError):
        source.get(-1)
    with pytest.raises(KeyError, match="sums/test/9"):
        source.by_id("sums/test/9")


@pytest.mark.parametrize("question", ["question", "problem", "prompt", "input"])
@pytest.mark.parametrize("answer", ["answer", "final_answer", "target", "ground_truth"])
def test_usual_field_names(tmp_path: Path, question: str, answer: str) -> None:
    task = only(tmp_path, {question: "q", answer: 5})
    assert (task.question, task.answer, task.expert, dict(task.metadata)) == ("q", "5", (), {})


def test_gsm8k_row(tmp_path: Path) -> None:
    task = only(tmp_path, {"question": "q", "answer": SOLUTION})
    assert task.answer == "72"
    assert task.metadata["solution"] == SOLUTION
    assert task.metadata["expert_supported"] is True
    assert task.metadata["expert_skipped"] == 0
    assert [call for turn in task.expert for call in turn.tool_calls] == [
        ToolCall("python", {"code": "48/2"}),
        ToolCall("python", {"code": "48+24"}),
    ]
    assert task.expert[-1].tool_calls == ()
    assert grade_response(task.expert[-1].content, "72").correct


def test_gsm8k_row_with_a_separate_answer(tmp_path: Path) -> None:
    task = only(tmp_path, {"id": "gsm8k/test/0", "question": "q", "answer": "72", "solution": SOLUTION})
    assert (task.task_id, task.answer, len(task.expert)) == ("one/train/gsm8k/test/0", "72", 3)
    source = RecordSource(tmp_path / "one.jsonl", "test", "gsm8k")
    assert source.get(0).task_id == "gsm8k/test/0"


def test_math_row(tmp_path: Path) -> None:
    text = r"First \boxed{1}, so the answer is $\boxed{\frac{1}{2}}$."
    task = only(tmp_path, {"problem": "q", "solution": text, "level": "Level 5", "unique_id": "algebra/1.json"})
    assert (task.answer, task.expert) == (r"\frac{1}{2}", ())
    assert task.metadata == {"solution": text, "level": "Level 5"}
    assert task.task_id == "one/train/algebra/1.json"


def test_metadata_is_json(tmp_path: Path) -> None:
    row = '{"question": "q", "answer": "1", "x": NaN, "y": {"z": [1, null, true]}}'
    task = RecordSource(write(tmp_path, "a.jsonl", row)).get(0)
    assert json.loads(json.dumps(task.metadata, allow_nan=False)) == {"x": "nan", "y": {"z": [1, None, True]}}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "q", "answer": "1"}, "{oops"], r"bad\.jsonl, line 2: not valid JSON"),
        ([{"question": "q", "result": "1"}], r"line 1: no answer field \(fields found: question, result\)"),
        ([{"text": "q", "answer": "1"}], r"line 1: no question field \(fields found: text, answer\)"),
        ([{"question": " ", "answer": "1"}], r"line 1: field 'question' is ' '"),
        ([{"question": "q", "answer": ""}], r"line 1: field 'answer' is ''"),
        ([{"question": "q", "answer": ["1"]}], r"line 1: field 'answer' is \['1'\]"),
        ([{"question": "q", "solution": "long\nproof"}], r"line 1: field 'solution' has neither a final"),
        (["[1, 2]"], r"line 1: a list; each record must be a JSON object"),
        (
            [{"id": 1, "question": "q", "answer": "1"}] * 2,
            r"line 2: the id 'bad/test/1' is already that of record 0",
        ),
        ([], r"bad\.jsonl has no rows"),
        (["", "  "], r"bad\.jsonl has no rows"),
    ],
)
def test_errors_say_where_and_what_to_do(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        RecordSource(write(tmp_path, "bad.jsonl", *rows))


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no data file .*none\.jsonl"):
        RecordSource(tmp_path / "none.jsonl")
    with pytest.raises(RecordError, match=r"unknown file type; use one of \.jsonl"):
        RecordSource(write(tmp_path, "a.csv", "question,answer"))
    (tmp_path / "a.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(RecordError, match="not a whole gzip file"):
        RecordSource(tmp_path / "a.jsonl.gz")
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(RecordError, match="not UTF-8"):
        RecordSource(tmp_path / "a.jsonl")
    with pytest.raises(RecordError, match="it must hold a list of records"):
        RecordSource(write(tmp_path, "a.json", {"question": "q", "answer": "1"}))


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"elpo\[parquet\]"):
        RecordSource(write(tmp_path, "a.parquet", "anything"))


def test_a_broken_parquet_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(RecordError, match="not a Parquet file"):
        RecordSource(write(tmp_path, "a.parquet", "anything"))


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("48/2=24", "48/2"),
        ("1,000*3=3000", "1000*3"),
        ("12 000/4=3000", "12000/4"),
        ("05+3=8", "5+3"),
        ("1.05+007=8.05", "1.05+7"),
        ("$2*3=$6", "2*3"),
        ("2x3=6", "2*3"),
        ("2 X 3", "2 * 3"),
        ("2\u00d73", "2*3"),
        ("6\u00f72", "6/2"),
        ("2(3)", "2*(3)"),
        ("(2)(3)", "(2)*(3)"),
        ("5+5=10=10", "5+5"),
        ("50%*20=10", "(50/100)*20"),
        (".5*4=2", ".5*4"),
        ("2^3=8", "2**3"),
        ("3 apples*2=6", "3 *2"),
        ("1\u00bd*2=3", "(1+1/2)*2"),
        ("[2+3]*2", "(2+3)*2"),
        ("-5+3", "-5+3"),
        ("9**9**9", None),
        ("5/0", None),
        ("4*x", None),
        ("two plus two", None),
        ("__import__('os').system('x')", None),
        ("((((1", None),
        ("=5", None),
        ("", None),
    ],
)
def test_python_expression(expression: str, code: str | None) -> None:
    assert python_expression(expression) == code


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789+-*/()., %x$=\u00bd\u00d7ab^<>#\n", max_size=40))
def test_any_annotation_gives_runnable_code_or_none(text: str) -> None:
    code = python_expression(text)
    if code is not None:
        assert eval(code) == calculate(code)
    read_trace(f"so {text} = <<{text}>>5 {text}")


def test_content_does_not_tell_the_result() -> None:
    solution = "He has 3 boxes, so 3*4 = 12 <<3*4=12>>12 pens and 12+5 = <<12+5=17>>17 in all.\n#### 17"
    contents = [step.content for step in read_trace(solution).steps if step.annotated]
    assert contents == ["He has 3 boxes, so 3*4", "12 pens and 12+5"]


def test_plain_arithmetic_is_read_where_it_is_true() -> None:
    solution = (
        "He had <<5*5=25>>25 jewels. With 2 fewer he has 25-2 = 23 jewels.\n"
        "That is 4/20 x 100% = 20%. Or 90 minutes / 450 minutes * 100% = 20%.\n"
        "So 20% * 40% = 8%. It cost $12 000 + $20 000 = $32 000.\n"
        "He thinks 30*=90 and 2+2 = 5 and x = 7."
    )
    steps = read_trace(solution).steps
    assert [step.code for step in steps if not step.annotated] == [
        "25 - 2",
        "4 / 20 * 100",
        "90 / 450 * 100",
        "( (20/100) * (40/100)) * 100",
        "12000 + 20000",
    ]


def test_no_expert_where_the_calculations_miss_the_answer() -> None:
    solution = "<<2+2=4>>4 and then he guessed.\n#### 9"
    assert expert_turns(solution, "9") == ()
    assert len(read_trace(solution).turns()) == 1
    assert expert_turns("nothing to calculate\n#### 9", "9") == ()
    assert read_trace("so <<a*b=9>>9\n#### 9").skipped == 1


@pytest.mark.parametrize(
    ("outputs", "value"),
    [
        (["24.0"], "24"),
        (["24"], "24"),
        (["5", "0.30000000000000004"], "0.3"),
        (["1\n2\n"], "2"),
        (["7", "  \n"], "7"),
        (["1e3"], "1000"),
        (["-0.0"], "0"),
        (["33.333333333333336"], "33.3333333333"),
        (["12345678901234567890"], "12345678901234567890"),
        (["Error: x"], "Error: x"),
        ([], ""),
    ],
)
def test_final_value(outputs: list[str], value: str) -> None:
    assert final_value(outputs) == value


def _data(name: str) -> Path:
    folder = os.environ.get("ELPO_DATA")
    if not folder:
        pytest.skip("ELPO_DATA is not set; it names a folder with the real data sets")
    return Path(folder) / f"{name}.jsonl.gz"


def test_replaying_real_gsm8k_annotations_scores_97_percent() -> None:
    """The boxed answer is what another Python printed for the last calculation, never the gold."""
    source = RecordSource(_data("gsm8k_test"), "test", "gsm8k")
    assert source.size == 1319
    tasks = [source.get(index) for index in range(source.size)]
    traces = [read_trace(task.metadata["solution"]) for task in tasks]
    programs = json.dumps([[step.code for step in trace.steps] for trace in traces])
    code = "import json,sys; print(json.dumps([[repr(eval(c)) for c in p] for p in json.load(sys.stdin)]))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], input=programs, capture_output=True, text=True, check=True
    )
    printed = json.loads(done.stdout)
    assert [trace.outputs() for trace in traces] == printed
    grades = [
        grade_response(rf"\boxed{{{final_value(outputs)}}}", task.answer)
        for task, outputs in zip(tasks, printed, strict=True)
    ]
    score = sum(grade.correct for grade in grades) / source.size
    assert score >= 0.97
    assert sum(trace.skipped for trace in traces) == 0
    assert [grade.correct for grade in grades] == [bool(source.get(index).expert) for index in range(source.size)]


@pytest.mark.parametrize(("name", "rows"), [("gsm8k_train", 7473), ("math500", 500), ("aime24", 30), ("aime25", 30)])
def test_real_files_are_read(name: str, rows: int) -> None:
    source = RecordSource(_data(name), "test")
    assert source.size == rows
    assert len({source.get(index).task_id for index in range(rows)}) == rows
    assert all(source.get(index).answer for index in range(rows))
