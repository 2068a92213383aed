"""Grading programs: every form of tests, LiveCodeBench's rules, limits, and what malformed tests give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from elpo_envs.grading.code import CodeGrader, CodeLimits, grade_code
from elpo_envs.grading.code.compare import same_output, same_value
from elpo_envs.grading.code.in_session.message import Message
from elpo_envs.grading.code.in_session.values import NotAValueError, decode, encode
from elpo_envs.grading.code.wire import read_message
from elpo_envs.sandbox import IsolationWarning, available

pytestmark = pytest.mark.filterwarnings(f"ignore::{IsolationWarning.__module__}.{IsolationWarning.__name__}")


@pytest.fixture(scope="module")
def grader() -> Iterator[CodeGrader]:
    with CodeGrader(CodeLimits(per_test_s=10, total_s=120)) as grader:
        yield grader


def outcomes(grader: CodeGrader, program: str, tests: dict[str, Any]) -> list[str]:
    grade = grader.grade(program, tests, stop_at_first_failure=False)
    assert not grade.failed_infrastructure, grade.note
    assert grade.correct == all(each.outcome == "passed" for each in grade.outcomes)
    assert grade.n_passed == sum(each.outcome == "passed" for each in grade.outcomes)
    assert len(grade.outcomes) == grade.n_tests
    json.dumps(grade.to_json()).encode()
    return [each.outcome for each in grade.outcomes]


# --- standard input and output -------------------------------------------------------------------------------

ECHO = {"type": "stdin", "cases": [{"input": "3\n1 2\nab é\n", "output": "3 1 2 ab é"}]}
READERS = {
    "input": "print(input(), input(), input())",
    "binary lines": (
        "import sys\nread = sys.stdin.buffer.readline\nprint(*(read().decode().strip() for _ in range(3)))"
    ),
    "read": "import sys\nprint(*sys.stdin.read().split('\\n')[:3])",
    "binary read": "import sys\nprint(*sys.stdin.buffer.read().decode().splitlines())",
    "open(0)": "print(*open(0).read().splitlines())",
    "iteration": "import sys\nprint(*(line.strip() for line in sys.stdin))",
    "fileinput": "import fileinput\nprint(*(line.strip() for line in fileinput.input()))",
    "descriptor": "import os\nprint(*os.read(0, os.fstat(0).st_size).decode().splitlines())",
    "main guard": "def main():\n    print(input(), input(), input())\nif __name__ == '__main__':\n    main()",
    "exit": "import sys\nprint(input(), input(), input())\nsys.exit(0)",
    "exit in a handler": "import sys\ntry:\n    print(input(), input(), input())\nfinally:\n    exit()",
    "binary output": "import sys\nsys.stdout.buffer.write(' '.join(open(0).read().splitlines()).encode())",
    "descriptor output": "import os\nos.write(1, ' '.join(open(0).read().splitlines()).encode())",
    "output at exit": "import atexit\natexit.register(print, *open(0).read().splitlines())",
    "a thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\n"
        "def main():\n    print(input(), input(), input())\n"
        "thread = threading.Thread(target=main)\nthread.start()\nthread.join()"
    ),
    "stream replaced": (
        "import io, os, sys\n"
        "class Fast(io.StringIO):\n    def flush(self):\n        os.write(1, self.getvalue().encode())\n"
        "sys.stdout = Fast()\nprint(input(), input(), input())"
    ),
    "customary imports": "a: List[str] = [input() for _ in range(int(sqrt(9)))]\nprint(*a, sep=' ')",
}


@pytest.mark.parametrize("program", READERS.values(), ids=READERS)
def test_programs_read_and_print_as_they_like(grader: CodeGrader, program: str) -> None:
    assert outcomes(grader, program, ECHO) == ["passed"]


def test_output_is_captured_whole(grader: CodeGrader) -> None:
    program = "for i in range(int(input())):\n    print(i * 7919 % 100003)"
    expected = "\n".join(str(i * 7919 % 100003) for i in range(200_000))
    tests = {"type": "stdin", "cases": [{"input": "200000", "output": expected}, {"input": "3", "output": "0 1 2"}]}
    assert outcomes(grader, program, tests) == ["passed", "wrong"]


def test_input_is_given_whole_and_recursion_may_be_deep(grader: CodeGrader) -> None:
    program = (
        "def f(n):\n    return n and 1 + f(n - 1)\nnumbers = list(map(int, input().split()))\nprint(f(len(numbers)))"
    )
    text = " ".join(map(str, range(40_000)))
    assert outcomes(grader, program, {"type": "stdin", "cases": [{"input": text, "output": "40000\n"}]}) == ["passed"]


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("YES\nNO\n", "YES\nNO", True),
        ("\n  YES  \n NO\n\n", "YES\nNO", True),
        ("yes", "YES", False),
        ("1.50 2", "1.5 2.0", True),
        ("0.1000000001", "0.1", False),
        ("1e3", "1000", True),
        ("1  2", "1 2", True),
        ("a  b", "a b", False),
        ("1\n2", "1 2", False),
        ("1", "1\n2", False),
        ("1\n\n2", "1\n2", False),
        ("nan", "nan", True),
        ("sNaN", "1", False),
        ("1e999999999999999999999", "1", False),
        ("", "", True),
        ("x" * 10, "1", False),
    ],
)
def test_outputs_are_compared_as_livecodebench_does(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected) is same


# --- values --------------------------------------------------------------------------------------------------


def test_functional_cases_take_one_json_value_a_line(grader: CodeGrader) -> None:
    tests = {
        "type": "functional",
        "entry_point": "scale",
        "cases": [
            {"input": "[1, 2]\n3", "output": "[3, 6]"},
            {"input": '["a"]\n2\n', "output": '["aa"]'},
            {"input": "[]\n2", "output": "[]"},
        ],
    }
    method = (
        "class Solution:\n    def scale(self, xs: List[int], k: int) -> List[int]:\n        return [x * k for x in xs]"
    )
    assert outcomes(grader, method, tests) == ["passed"] * 3
    assert outcomes(grader, "def scale(xs, k):\n    return tuple(x * k for x in xs)", tests) == ["passed"] * 3
    assert outcomes(grader, "def scale(xs, k):\n    return [x * 3 for x in xs]", tests) == ["passed", "wrong", "passed"]
    assert outcomes(grader, "def other(xs, k):\n    return []", tests) == ["error"] * 3


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (((1, 2), [3]), [[1, 2], [3]], True),
        (2, 2.0, True),
        (True, 1, True),
        (0.1 + 0.2, 0.3, False),
        (None, None, True),
        (None, False, False),
        ("1", 1, False),
        ("a", "a", True),
        (2**70, 2**70, True),
        (-(2**70), 2**70, False),
        (float("inf"), float("inf"), True),
        (float("nan"), float("nan"), False),
        ({1, 2}, [1, 2], False),
        ({"a": (1,), "b": {}}, {"b": {}, "a": [1]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({1: 2}, {"1": 2}, False),
        ([1], [1, 2], False),
        ((x for x in [1]), [1], False),
        ([], None, False),
        ([], {}, False),
        ("", [], False),
        (0, [], False),
    ],
)
def test_values_are_compared_as_livecodebench_does(value: Any, expected: Any, same: bool) -> None:
    assert same_value(json.loads(json.dumps(encode(value))), expected) is same


@pytest.mark.parametrize(
    "forged",
    [
        [], ["l"], ["d", 1], ["d", [1]], ["d", ["a", 1], ["a", 1]], ["i", "zz"], ["i", 3], ["f", []], ["x", 1], [[]],
        ["d", [["l"], 1]], {"a": 1}, [["l", 1]],
    ],
)  # fmt: skip
def test_forged_encodings_equal_nothing(forged: Any) -> None:
    for expected in (1, "a", None, [1], {"a": 1}, {"a": 1, "b": 1}, True):
        assert not same_value(forged, expected)


def test_plain_data_survives_the_way_out() -> None:
    from collections import Counter, OrderedDict, deque
    from datetime import date, datetime
    from decimal import Decimal
    from fractions import Fraction

    values = [
        None, True, 0, -(2**63), 2**63, 10**5000, 0.1, float("-inf"), 1 - 2j, "é\ud800", b"\0\xff", bytearray(b"x"),
        [1, (2, {3: {"a": {4, 5}}})], frozenset({1}), deque([1]), Counter("aab"), OrderedDict(b=1, a=2),
        range(3, 9, 2), Decimal("1.50"), Fraction(1, 3), date(2020, 2, 29), datetime(2020, 2, 29, 1), int, (), {},
    ]  # fmt: skip
    for value in values:
        back = decode(json.loads(json.dumps(encode(value))))
        assert (back, type(back)) == (value, type(value))
    assert list(decode(encode(map(str, [1, 2])))) == ["1", "2"]
    assert decode(encode({"a": 1}.keys())) == {"a"}


def test_objects_of_own_classes_are_no_values() -> None:
    class Number(int):
        pass

    class Text(str):
        pass

    class Anything:
        __class__ = int

        def __eq__(self, other: object) -> bool:
            return True

    loop: list[Any] = []
    loop.append(loop)
    many: list[Any] = []
    for _ in range(60):
        many = [many, many]
    for value in (Number(1), Text("a"), Anything(), [Number(1)], {"a": Anything()}, len, object(), loop, many):
        with pytest.raises(NotAValueError):
            encode(value)


def test_messages_are_read_or_refused() -> None:
    assert read_message("noise\n" + repr(Message(["é", [1, 2.5, None]]))) == ["é", [1, 2.5, None]]
    good = repr(Message(["a"]))
    bomb = repr(Message(["a" * (65 << 20)]))
    for text in ("", "passed", good[:-5], good[:20], good + "!", repr(Message([{"a": 1}])), bomb, "elpo-reply:é"):
        with pytest.raises(ValueError):
            read_message(text)


def test_calls_compare_returned_values_on_a_branch_each(grader: CodeGrader) -> None:
    tests = {
        "type": "calls",
        "entry_point": "count",
        "cases": [{"args": [n, {"a": [1]}], "expected": {"calls": 1, "n": n, "a": [1]}} for n in range(4)],
    }
    program = "calls = 0\ndef count(n, d):\n    global calls\n    calls += 1\n    return {'calls': calls, 'n': n, **d}"
    assert outcomes(grader, program, tests) == ["passed"] * 4  # not 1, 2, 3, 4


# --- limits ----------------------------------------------------------------------------------------------------

SQUARE = {"type": "calls", "entry_point": "f", "cases": [{"args": [n], "expected": n * n} for n in range(4)]}


def test_a_hang_costs_one_test() -> None:
    program = (
        "def f(n):\n    while n == 1:\n        pass\n    if n == 2:\n        bytearray(10**10)\n"
        "    if n == 3:\n        return f(3)\n    return n * n"
    )
    with CodeGrader(CodeLimits(per_test_s=1, total_s=60)) as grader:
        assert outcomes(grader, program, SQUARE) == ["passed", "timeout", "memory", "error"]
        stopped = grader.grade(program, SQUARE)
        assert [each.outcome for each in stopped.outcomes] == ["passed", "timeout"]
        assert (stopped.correct, stopped.n_passed, stopped.n_tests) == (False, 1, 4)
        assert outcomes(grader, "while True:\n    pass", SQUARE) == ["timeout"] * 4
        assert outcomes(grader, "def f(n):\n    return n * n", SQUARE) == ["passed"] * 4


def test_all_tests_together_are_bounded() -> None:
    sleep = "import time\ndef f(n):\n    time.sleep(30)"
    grade = grade_code(sleep, SQUARE, limits=CodeLimits(per_test_s=1, total_s=1.5), stop_at_first_failure=False)
    assert [each.outcome for each in grade.outcomes] == ["timeout"] * 4
    assert grade.outcomes[-1].note == "the time for all tests was over"


def test_notes_do_not_tell_what_was_expected(grader: CodeGrader) -> None:
    secret = "71234567"
    for program, tests in (
        ("print(1)", {"type": "stdin", "cases": [{"input": "", "output": secret}]}),
        ("def f():\n    return 1", {"type": "calls", "entry_point": "f", "cases": [{"args": [], "expected": secret}]}),
        ("def f():\n    return 1", {"type": "asserts", "asserts": [f"assert f() == {secret}, '{secret}'"]}),
    ):
        grade = grader.grade(program, tests)
        assert not grade.correct and grade.outcomes[0].note
        assert secret not in json.dumps(grade.to_json())


@pytest.mark.parametrize("backend", [name for name in ("fork", "replay") if name in available()])
def test_verdicts_are_the_same_on_every_backend(backend: str) -> None:
    with CodeGrader(CodeLimits(per_test_s=10), sandbox=backend) as grader:
        assert outcomes(grader, "def f(n):\n    return n * n", SQUARE) == ["passed"] * 4
        assert outcomes(grader, "def f(n):\n    return n", SQUARE) == ["passed", "passed", "wrong", "wrong"]
        assert outcomes(grader, READERS["binary lines"], ECHO) == ["passed"]
        asserts = {"type": "asserts", "setup": "import math", "asserts": ["assert math.isclose(f(2), 4)"] * 2}
        assert outcomes(grader, "def f(n):\n    return n * n", asserts) == ["passed", "passed"]
        assert outcomes(grader, "import os\ndef f(n):\n    os._exit(0)", asserts) == ["error", "error"]


def test_a_closed_grader_can_be_used_again() -> None:
    grader = CodeGrader()
    for _ in range(2):
        assert grader.grade("def f(n):\n    return n * n", SQUARE).correct
        grader.close()
        grader.close()


# --- malformed tests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({}, "'type'"),
        ({"type": "other"}, "'other'"),
        ({"type": []}, "'type'"),
        ({"type": "stdin"}, "'cases' is missing"),
        ({"type": "stdin", "cases": []}, "'cases' is empty"),
        ({"type": "stdin", "cases": ["x"]}, "case 0"),
        ({"type": "stdin", "cases": [{"input": "x"}]}, "case 0: field 'output' is missing"),
        ({"type": "stdin", "cases": [{"input": 1, "output": ""}]}, "'input' is 1; it must be text"),
        ({"type": "functional", "entry_point": "f", "cases": [{"input": "x", "output": "1"}]}, "not JSON"),
        ({"type": "functional", "entry_point": "f()", "cases": [{"input": "1", "output": "1"}]}, "'entry_point'"),
        ({"type": "calls", "entry_point": "f", "cases": [{"args": [1]}]}, "'expected' is missing"),
        ({"type": "calls", "entry_point": "f", "cases": [{"args": [object()], "expected": 1}]}, "not JSON"),
        ({"type": "asserts", "asserts": []}, "'asserts' is empty"),
        ({"type": "asserts", "asserts": [1]}, "list of texts"),
        ({"type": "asserts", "asserts": ["assert f("]}, "not Python"),
        ({"type": "humaneval", "prompt": "", "code": "x = 1", "entry_point": "f"}, "'check'"),
    ],
)
def test_malformed_tests_are_refused_with_the_field(grader: CodeGrader, tests: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="tests") as error:
        grader.grade("x = 1", tests)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["per_test_s", "total_s", "memory_mb", "wall_factor"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), True, "6"])
def test_limits_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        CodeLimits(**{name: value})
