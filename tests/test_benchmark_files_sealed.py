"""GPQA's protected archive and LiveCodeBench's packed tests, on files of our own in the published forms."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import struct
import zipfile
import zlib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from _benchmark_fixtures import csv_bytes, lines, put

from elpo_envs.grading.choice import choice_order
from elpo_envs.tasks.base import Task
from elpo_envs.tasks.benchmarks import BENCHMARKS, lcb_files
from elpo_envs.tasks.benchmarks.gpqa import PASSWORD
from elpo_envs.tasks.records import RecordError

GPQA_HEADER = [
    "Pre-Revision Question",
    "Question",
    "Correct Answer",
    "Incorrect Answer 1",
    "Incorrect Answer 2",
    "Incorrect Answer 3",
    "Explanation",
    "Subdomain",
    "Record ID",
    "High-level domain",
]
GPQA_CSV = csv_bytes(
    GPQA_HEADER,
    *(
        [
            "old",
            f"Made question,\n{n}?",
            f"right {n}\n",
            "wrong a",
            "wrong b",
            "wrong c",
            "why",
            "Optics",
            f"rec{n}",
            "Physics",
        ]
        for n in range(12)
    ),
)


def protected(data: bytes, password: str, name: str = "dataset/gpqa_diamond.csv") -> bytes:
    """A zip archive with one member in the traditional encryption (APPNOTE.TXT, section 6.1)."""
    table = [0] * 256
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        table[byte] = value
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(byte: int) -> None:
        keys[0] = (keys[0] >> 8) ^ table[(keys[0] ^ byte) & 255]
        keys[1] = ((keys[1] + (keys[0] & 255)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = (keys[2] >> 8) ^ table[(keys[2] ^ (keys[1] >> 24)) & 255]

    for byte in password.encode():
        update(byte)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    crc = zlib.crc32(data)
    sealed = bytearray()
    for byte in bytes(11) + bytes([crc >> 24]) + packed:
        half = keys[2] | 2
        sealed.append(byte ^ ((half * (half ^ 1)) >> 8 & 255))
        update(byte)
    shared = struct.pack("<HHHHHIII", 20, 1, 8, 0, 33, crc, len(sealed), len(data))
    local = b"PK\x03\x04" + shared + struct.pack("<HH", len(name), 0) + name.encode()
    central = b"PK\x01\x02" + struct.pack("<H", 20) + shared + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0)
    directory = central + name.encode()
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), len(local) + len(sealed), 0)
    return local + bytes(sealed) + directory + end


def gpqa(path: Path, **options: Any) -> list[Task]:
    source = BENCHMARKS["gpqa_diamond"].open("test", path=path, options=options)
    assert source.size is not None
    return [source.get(index) for index in range(source.size)]


def test_gpqa_is_read_from_the_archive_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "dataset.zip", protected(GPQA_CSV, PASSWORD))
    assert zipfile.ZipFile(tmp_path / "dataset.zip").infolist()[0].flag_bits & 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = gpqa(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["dataset.zip"]
    plain = gpqa(put(tmp_path / "plain" / "gpqa_diamond.csv", GPQA_CSV))
    assert found == plain
    assert len(found) == 12
    for number, task in enumerate(found):
        assert task.task_id == f"gpqa_diamond/test/rec{number}"
        order = choice_order(task.task_id, 4)
        options = [f"right {number}", "wrong a", "wrong b", "wrong c"]
        assert task.metadata["choices"] == [options[place] for place in order]
        assert task.answer == "ABCD"[order.index(0)]
        assert f"{task.answer}. right {number}" in task.question.splitlines()
        assert task.metadata["subject"] == "Optics" and "why" not in json.dumps(task.metadata)
    assert len({task.answer for task in found}) > 2


def test_gpqa_with_another_password(tmp_path: Path) -> None:
    path = put(tmp_path / "dataset.zip", protected(GPQA_CSV, "another"))
    assert len(gpqa(path, password="another")) == 12
    with pytest.raises(
        RecordError, match=r"does not open with this password .* set the option password|not a whole zip"
    ):
        gpqa(path)
    with pytest.raises(ValueError, match="option password=3 of gpqa_diamond must be text"):
        gpqa(path, password=3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no archive", "is not a whole zip archive"),
        (protected(GPQA_CSV, PASSWORD)[:-300], "is not a whole zip archive"),
        (protected(GPQA_CSV, PASSWORD, "dataset/gpqa_main.csv"), "has 0 files called gpqa_diamond.csv"),
        (protected(b"\xff\xfe", PASSWORD), "is not UTF-8"),
        (protected(bytes(65 * 2**20), PASSWORD), "is longer than 67108864 bytes"),
        (protected(csv_bytes(["Question"], ["?"]), PASSWORD), "line 2: no field 'Correct Answer'"),
    ],
    ids=["text", "cut", "other", "latin", "bomb", "columns"],
)
def test_gpqa_bad_archives(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        gpqa(put(tmp_path / "dataset.zip", data))


def case(given: str, expected: str, kind: str = "stdin") -> dict[str, str]:
    return {"input": given, "output": expected, "testtype": kind}


def packed(cases: object, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases), protocol))).decode()


STDIN: dict[str, Any] = {
    "question_title": "Sum",
    "question_content": 'Print the sum; the field "private_test_cases": "x" is only text here.',
    "platform": "atcoder",
    "question_id": "abc400_a",
    "contest_id": "abc400",
    "contest_date": "2024-08-10T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps([case("1 2\n", "3\n")]),
    "private_test_cases": packed([case("4 5\n", "9\n"), case("0 0\n", "0\n")]),
    "metadata": "{}",
}
FUNCTIONAL: dict[str, Any] = {
    **STDIN,
    "question_id": "3000",
    "contest_date": "2023-05-01T00:00:00",
    "starter_code": "class Solution:\n    def total(self, a: List[int]) -> int:\n        ",
    "public_test_cases": json.dumps([case("[1, 2]", "3", "functional")]),
    "private_test_cases": json.dumps([case("[4]", "4", "functional")]),
    "metadata": json.dumps({"func_name": "total"}),
}


def lcb(path: Path, **options: Any) -> list[Task]:
    source = BENCHMARKS["livecodebench"].open("test", path=path, options=options)
    assert source.size is not None
    return [source.get(index) for index in range(source.size)]


@pytest.mark.parametrize("name", ["test6.jsonl", "test6.jsonl.gz", "test6.json", "test6.parquet"])
def test_both_kinds_of_problems_from_every_file_type(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".json"):
        put(path, json.dumps([STDIN, FUNCTIONAL]).encode())
    elif name.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist([STDIN, FUNCTIONAL]), path)
    else:
        put(path, b"\n" + lines(STDIN) + b"\r\n" + lines(FUNCTIONAL).rstrip())
    first, second = lcb(path)
    assert [first.task_id, second.task_id] == ["livecodebench/test/abc400_a", "livecodebench/test/3000"]
    assert first.answer == "" and first.metadata["kind"] == "program"
    assert first.metadata["public_tests"] == {"type": "stdin", "cases": [{"input": "1 2\n", "output": "3\n"}]}
    assert [c["output"] for c in first.metadata["tests"]["cases"]] == ["3\n", "9\n", "0\n"]
    assert "standard input" in first.question and first.question.startswith("Print the sum")
    assert first.metadata["contest_date"] == "2024-08-10" and first.metadata["difficulty"] == "easy"
    assert second.metadata["tests"] == {
        "type": "functional",
        "entry_point": "total",
        "cases": [{"input": "[1, 2]", "output": "3"}, {"input": "[4]", "output": "4"}],
    }
    assert second.metadata["public_tests"]["entry_point"] == "total"
    assert "`total`" in second.question and FUNCTIONAL["starter_code"].rstrip() in second.question
    for task in (first, second):
        assert json.loads(json.dumps(task.metadata)) == task.metadata
        hidden = task.metadata["tests"]["cases"][1:]
        assert not any(c["input"] in task.question for c in hidden)


def test_dates_filter_and_bad_dates_are_named(tmp_path: Path) -> None:
    path = put(tmp_path / "x.jsonl", lines(STDIN, FUNCTIONAL))
    assert [task.task_id for task in lcb(path, start_date="2024-08-10")] == ["livecodebench/test/abc400_a"]
    assert [task.task_id for task in lcb(path, end_date="2023-05-01")] == ["livecodebench/test/3000"]
    assert len(lcb(path, start_date="2023-05-01", end_date="2024-08-10")) == 2
    with pytest.raises(RecordError, match="no rows of livecodebench"):
        lcb(path, start_date="2025-01-01")
    with pytest.raises(ValueError, match="option start_date='May' of livecodebench must be a day"):
        lcb(path, start_date="May")
    bad = put(tmp_path / "y.jsonl", lines({**STDIN, "contest_date": "soon"}))
    with pytest.raises(RecordError, match="line 1: field 'contest_date' is 'soon'; it must be a day"):
        lcb(bad, start_date="2025-01-01")


def test_releases_are_the_published_files_together(tmp_path: Path) -> None:
    for number in range(1, 7):
        row = {**STDIN, "question_id": f"q{number}"}
        put(tmp_path / ("test.jsonl" if number == 1 else f"test{number}.jsonl"), lines(row))

    def numbers(**options: Any) -> str:
        return "".join(task.task_id[-1] for task in lcb(tmp_path, **options))

    assert numbers() == numbers(release="release_v6") == "123456"
    assert numbers(release="release_v1") == "1"
    assert numbers(release="release_v3") == "123"
    assert numbers(release="v5") == "5"
    assert numbers(release="v2_v4") == "234"
    for wrong in ("v7", "v4_v2", "release_v0", 6, "latest"):
        with pytest.raises(ValueError, match=r"option release=.* of livecodebench must be release_v1 to release_v6"):
            numbers(release=wrong)
    with pytest.raises(ValueError, match="is read whole; drop the option release"):
        lcb(tmp_path / "test2.jsonl", release="release_v3")
    (tmp_path / "test4.jsonl").unlink()
    assert numbers(release="release_v3") == "123"
    with pytest.raises(FileNotFoundError, match=r"lacks test4\.jsonl; add it, or set the option release"):
        numbers()


def test_the_file_of_public_tests_only_stands_in_for_release_v1_alone(tmp_path: Path) -> None:
    row = {
        "id": "lcb/1_A",
        "question": "Print it.",
        "answer": "",
        "domain": "code",
        "source": "s",
        "split": "test",
        "tests": {"type": "stdin", "cases": [{"input": "1", "output": "1"}]},
        "level": "easy",
        "subject": "codeforces",
        "extra": {"title": "A", "contest_id": "1", "contest_date": "2023-08-21T00:00:00"},
    }
    put(tmp_path / "lcb_v1_public.jsonl.gz", lines(row))
    (task,) = lcb(tmp_path)
    assert task.task_id == "livecodebench/test/1_A" and task.metadata["private_tests"] is False
    assert lcb(tmp_path, release="release_v1") == [task] == lcb(tmp_path, end_date="2023-08-21")
    with pytest.raises(FileNotFoundError, match="holds none of"):
        lcb(tmp_path, release="release_v2")


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("pwned"),)


def raw(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_of_one_text_is_read(protocol: int, tmp_path: Path) -> None:
    cases = [case("é \u2028 \\ \n", "\U0001f600")]
    text = pickle.dumps(json.dumps(cases, ensure_ascii=False), protocol)
    row = {**STDIN, "private_test_cases": raw(text)}
    (task,) = lcb(put(tmp_path / "x.jsonl", lines(row)))
    assert task.metadata["tests"]["cases"][1] == {"input": "é \u2028 \\ \n", "output": "\U0001f600"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"private_test_cases": raw(pickle.dumps(Payload()))}, "pickle with the instruction .*; only one text"),
        ({"private_test_cases": raw(pickle.dumps(["a", "b"]))}, "only one text is allowed"),
        ({"private_test_cases": raw(pickle.dumps(datetime(2024, 1, 1)))}, "only one text is allowed"),
        ({"private_test_cases": raw(pickle.dumps("[]")[:-1])}, "is not a pickled text"),
        ({"private_test_cases": raw(b"garbage")}, "is not a pickled text|only one text"),
        ({"private_test_cases": raw(b"")}, "is not a pickled text"),
        ({"private_test_cases": "%%%"}, "must be a JSON list, or base64 text"),
        ({"private_test_cases": base64.b64encode(b"not zlib").decode()}, "is not zlib data"),
        ({"private_test_cases": packed([])[:-8] + "AAAA"}, "is not zlib data|is cut short"),
        ({"private_test_cases": raw(pickle.dumps("[" * 200_000))}, "'private_test_cases' is not valid JSON"),
        ({"private_test_cases": packed({"input": "1"})}, "must be a list of test cases"),
        ({"private_test_cases": packed(["1"])}, "case 0 is a str; it must be a JSON object"),
        ({"private_test_cases": packed([{"input": 1, "output": ""}])}, "case 0: field 'input' is 1; it must be text"),
        ({"private_test_cases": packed([case("1", "1", "functional")])}, "must be of the kind 'stdin'"),
        ({"private_test_cases": packed([case("1", "1"), case("1", "1", "other")])}, "mixes cases of the kinds"),
        ({"private_test_cases": None}, "no field 'private_test_cases'"),
        ({"public_test_cases": "[", "private_test_cases": ""}, "field 'public_test_cases' is not valid JSON"),
        ({"public_test_cases": "[]", "private_test_cases": ""}, "the tests are of the kind ''"),
        ({"public_test_cases": json.dumps([case("1", "1", "x")]), "private_test_cases": ""}, "of the kind 'x'"),
        ({"question_content": 3}, "field 'question_content' is 3; it must be non-empty text"),
        ({**FUNCTIONAL, "metadata": "{}"}, "a functional problem needs func_name in metadata"),
        ({**FUNCTIONAL, "metadata": "[1]"}, "field 'metadata' is .* it must be a JSON object"),
        ({**FUNCTIONAL, "metadata": '{"func_name": 3}'}, "func_name is text"),
    ],
)
def test_bad_problems_are_found_when_they_are_read(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path / "x.jsonl", lines(FUNCTIONAL, {**STDIN, **change, "question_id": "bad"}))
    source = BENCHMARKS["livecodebench"].open("test", path=path)
    assert source.get(0).task_id == "livecodebench/test/3000"
    with pytest.raises(RecordError, match=message) as caught:
        source.get(1)
    assert str(caught.value).startswith(f"{path}, line 2")
    assert not (tmp_path / "pwned").exists()


def test_decompression_is_bounded(tmp_path: Path) -> None:
    bomb = raw(pickle.dumps(json.dumps([case("0" * 3_000_000, "1")])))
    path = put(tmp_path / "x.jsonl", lines({**STDIN, "private_test_cases": bomb}))
    with pytest.raises(RecordError, match=r"decompresses to more than 1048576 bytes; .* raise max_tests_mb"):
        lcb(path, max_tests_mb=1)
    assert len(lcb(path, max_tests_mb=4)[0].metadata["tests"]["cases"][1]["input"]) == 3_000_000
    exact = raw(pickle.dumps(json.dumps([case("0" * 10, "1")])))
    size = len(zlib.decompress(base64.b64decode(exact))) / 2**20
    path = put(tmp_path / "y.jsonl", lines({**STDIN, "private_test_cases": exact}))
    assert len(lcb(path, max_tests_mb=size)[0].metadata["tests"]["cases"]) == 2
    with pytest.raises(RecordError, match="decompresses to more than"):
        lcb(path, max_tests_mb=size - 1 / 2**20)
    for wrong in (0, -1, True, "many"):
        with pytest.raises(ValueError, match=r"option max_tests_mb=.* must be a number of megabytes"):
            lcb(path, max_tests_mb=wrong)


def test_a_packed_file_is_bounded_and_damage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "x.jsonl.gz", lines(STDIN, FUNCTIONAL))
    monkeypatch.setattr(lcb_files, "MOST_UNPACKED", 500)
    with pytest.raises(RecordError, match=r"unpacks to more than 500 bytes; give it as plain \.jsonl"):
        lcb(path)
    monkeypatch.undo()
    path.write_bytes(gzip.compress(lines(STDIN, FUNCTIONAL))[:-9])
    with pytest.raises(RecordError, match="is not a whole gzip file"):
        lcb(path)


def test_only_the_task_that_is_asked_for_is_decoded(tmp_path: Path) -> None:
    rows = [{**STDIN, "question_id": f"q{n}", "private_test_cases": "%%%" if n != 5 else packed([])} for n in range(9)]
    source = BENCHMARKS["livecodebench"].open("test", path=put(tmp_path / "x.jsonl", lines(*rows)))
    assert source.size == 9
    assert source.by_id("livecodebench/test/q5").index == 5
    assert pickle.loads(pickle.dumps(source)).get(5) == source.get(5)
    with pytest.raises(RecordError, match="line 5"):
        source.get(4)
    repeated = put(tmp_path / "y.jsonl", lines(STDIN, STDIN))
    with pytest.raises(RecordError, match="line 2: the id 'livecodebench/test/abc400_a' is already that of"):
        BENCHMARKS["livecodebench"].open("test", path=repeated)
