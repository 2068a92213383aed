"""Test code that calls the program: through stand-ins, in another session, by replayed rounds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest

from elpo_envs.grading.code import CodeGrader, CodeLimits
from elpo_envs.grading.code.forms import AssertionTests, read_tests
from elpo_envs.sandbox import IsolationWarning

pytestmark = pytest.mark.filterwarnings(f"ignore::{IsolationWarning.__module__}.{IsolationWarning.__name__}")


@pytest.fixture(scope="module")
def grader() -> Iterator[CodeGrader]:
    with CodeGrader(CodeLimits(per_test_s=10, total_s=240)) as grader:
        yield grader


def outcomes(grader: CodeGrader, program: str, tests: dict[str, Any]) -> list[str]:
    grade = grader.grade(program, tests, stop_at_first_failure=False)
    assert not grade.failed_infrastructure, grade.note
    return [each.outcome for each in grade.outcomes]


def asserts(*units: str, **more: str) -> dict[str, Any]:
    return {"type": "asserts", "asserts": list(units), **more}


PROMPT = '''from typing import List

def shift(x: int) -> int:
    """One more."""
    return x + 1

def bump(xs: List[int]) -> int:
    """The first item, shifted."""
'''


def humaneval(check: str) -> dict[str, Any]:
    body = "".join(f"    {line}\n" for line in check.splitlines())
    return {"type": "humaneval", "prompt": PROMPT, "code": f"def check(candidate):\n{body}", "entry_point": "bump"}


HONEST = "def bump(xs: List[int]) -> int:\n    return shift(xs[0])"
WRONG = "def bump(xs):\n    return xs[0] + 2 - len(xs) // 5"


@pytest.mark.parametrize(
    "check",
    [
        "assert candidate([1]) == 2 and candidate([5]) == 6",
        "for i in range(1500):\n    assert candidate([i]) == shift(i)",
        "y = 0\nfor i in range(12):\n    y = candidate([y])\nassert y == 12",
        "import random\nfor _ in range(20):\n    n = random.randint(0, 99)\n    assert bump([n]) - n == 1",
        "assert candidate([n for n in range(3)]) == 1\nif candidate([3]) > 3:\n    assert candidate([4]) == 5",
        "assert [candidate([i]) for i in (1, 2)] == sorted([candidate([2]), candidate([1])]) == [2, 3]",
        "y = 0\nwhile candidate([y]) < 5:\n    y += 1\nassert y == 4",
        "values = {candidate([i]): i for i in range(3)}\nassert values == {1: 0, 2: 1, 3: 2}",
    ],
)
def test_checks_of_many_shapes(grader: CodeGrader, check: str) -> None:
    assert outcomes(grader, HONEST, humaneval(check)) == ["passed"]
    assert outcomes(grader, "    return shift(xs[0])\n", humaneval(check)) == ["passed"]  # continues the prompt
    assert outcomes(grader, WRONG, humaneval(check)) == ["wrong"]
    assert outcomes(grader, "def bump(xs):\n    return None", humaneval(check)) == ["wrong"]
    assert outcomes(grader, "def other(xs):\n    return 1", humaneval(check)) == ["error"]  # the prompt's is hidden


def test_a_guess_that_was_wrong_is_corrected(grader: CodeGrader) -> None:
    # While guessing, every comparison holds: calls are asked for that are never made, and one of them hangs.
    check = "if candidate([1]) == 7:\n    candidate([])\n    candidate([9])\nassert candidate([2]) == 3"
    program = "def bump(xs):\n    while not xs:\n        pass\n    return xs[0] + 1"
    with CodeGrader(CodeLimits(per_test_s=1)) as grader:
        assert outcomes(grader, program, humaneval(check)) == ["passed"]


def test_state_lives_through_one_test_and_no_longer(grader: CodeGrader) -> None:
    program = "seen = []\ndef count(x):\n    seen.append(x)\n    return len(seen)"
    tests = asserts(
        "assert (count(1), count(1)) == (1, 2)",
        "assert count(1) == 1",
        "assert count(count(count(0))) == 3",
        "assert count(1) == 2",
    )
    assert outcomes(grader, program, tests) == ["passed", "passed", "passed", "wrong"]


def test_errors_come_over_by_type(grader: CodeGrader) -> None:
    program = (
        "class Odd(ValueError):\n    pass\n"
        "def f(x):\n    if x == 1:\n        raise Odd('no')\n"
        "    if x == 2:\n        raise SystemExit(0)\n    return [][x]"
    )
    raises = "try:\n    f({})\n    assert False\nexcept {} as error:\n    assert {}"
    tests = asserts(
        raises.format(1, "ValueError", "str(error) == 'no'"),
        raises.format(0, "IndexError", "True"),
        raises.format(0, "KeyError", "True"),
        raises.format(2, "Exception", "True"),
        "assert f(3) == 1",
    )
    assert outcomes(grader, program, tests) == ["passed", "passed", "error", "error", "error"]


def test_the_programs_classes_stay_in_its_session(grader: CodeGrader) -> None:
    program = (
        "class Node:\n    def __init__(self, value, left=None):\n        self.value, self.left = value, left\n"
        "    def double(self):\n        self.value *= 2\n        return self.value\n"
        "    def __eq__(self, other):\n        return True\n"
        "def total(node):\n    return node.value + total(node.left) if node else 0\n"
        "def chain(n):\n    return Node(n, chain(n - 1)) if n else None"
    )
    after = "root = Node(1)\nroot.left = Node(2, left=Node(3))"
    tests = asserts(
        "assert total(root) == 6 and root.left.left.value == 3",
        "assert root.double() == 2 and total(root) == 7",
        "assert total(chain(4)) == 10 and chain(0) is None",
        "assert chain(1) == 5",
        "assert total(root) == 7",
        setup_after=after,
    )
    assert outcomes(grader, program, tests) == ["passed", "passed", "passed", "wrong", "wrong"]
    assert outcomes(grader, "x = 1", tests) == ["error"] * 5


def test_what_a_call_changes_in_its_arguments_is_seen(grader: CodeGrader) -> None:
    program = "def f(xs, d, s=()):\n    xs.sort()\n    d['n'] = len(xs)\n    s.discard(1)"
    unit = "xs, d, s = [3, 1], {}, {1, 2}\nassert f(xs, d, s=s) is None and (xs, d, s) == ([1, 3], {'n': 2}, {2})"
    assert outcomes(grader, program, asserts(unit)) == ["passed"]


def test_an_object_counts_as_true_and_equals_nothing(grader: CodeGrader) -> None:
    program = (
        "import re\ndef f(x):\n    return re.search('a', x)\n"
        "class Sly(int):\n    def __eq__(self, other):\n        return True\n"
        "def g(x):\n    return Sly(x)\ndef h(x):\n    return [Sly(x)]"
    )
    tests = asserts(
        "assert f('ba')", "assert not f('b')", "assert f('a').start() == 0", "assert g(3) == 3", "assert h(1)"
    )
    assert outcomes(grader, program, tests) == ["passed", "passed", "passed", "wrong", "invalid"]


def test_no_plain_data_is_no_error_that_tests_can_expect(grader: CodeGrader) -> None:
    unit = "try:\n    f(1)\n    assert False\nexcept {}:\n    pass"
    tests = asserts(unit.format("TypeError"), unit.format("ValueError"), "try:\n    f(1)\nexcept:\n    pass")
    assert outcomes(grader, "def f(x):\n    return [object()]", tests) == ["invalid"] * 3
    assert outcomes(grader, "def f(x):\n    raise TypeError", tests) == ["passed", "error", "passed"]


def test_functions_and_iterators_as_results(grader: CodeGrader) -> None:
    program = (
        "def adder(n):\n    return lambda m: n + m\n"
        "def evens(n):\n    yield from range(0, n, 2)\ndef kind(x):\n    return type(x)"
    )
    tests = asserts("assert adder(3)(4) == 7", "assert list(evens(5)) == [0, 2, 4]", "assert kind(1) is int")
    assert outcomes(grader, program, tests) == ["passed"] * 3


def test_what_cannot_be_sent_says_nothing_about_the_program(grader: CodeGrader) -> None:
    grade = grader.grade("def f(g):\n    return g(1)", asserts("assert f(lambda x: x) == 1"))
    assert grade.failed_infrastructure and not grade.correct
    assert "function" in grade.note


# --- whose names they are ----------------------------------------------------------------------------------------


def test_only_what_tests_leave_undefined_is_the_programs() -> None:
    form = read_tests(
        asserts(
            "assert isclose(f(sys.maxsize), close) and sorted(g for g in f(1)) == helper(1)",
            setup_after="def close(x):\n    return local",
            setup="import math",
        )
    )
    assert isinstance(form, AssertionTests)
    assert form.names == {
        "f": "program",
        "helper": "program",
        "isclose": "isclose",
        "sys": "module",
        "local": "program",
    }
    assert form.always == ()


@pytest.mark.parametrize(
    ("units", "always"),
    [
        (("assert sum(10, 15) == 6", "assert sum(100, 150) == 93"), ("sum",)),
        (("assert set(sum(1, 2)) == set((3,))",), ("sum",)),
        (("assert max(1) == 1", "assert min(1) == 1"), ()),
        (("assert len(f(1)) == 1",), ()),
        (("assert True",), ()),
    ],
)
def test_a_builtin_is_the_programs_where_nothing_else_is_tested(
    units: tuple[str, ...], always: tuple[str, ...]
) -> None:
    form = read_tests(asserts(*units))
    assert isinstance(form, AssertionTests)
    assert form.always == always


def test_an_entry_point_may_bear_the_name_of_a_builtin(grader: CodeGrader) -> None:
    program = "def sum(a, b):\n    return a * b"
    assert outcomes(grader, program, asserts("assert sum(3, 4) == 12")) == ["passed"]
    assert outcomes(grader, program, asserts("assert set([sum(3, 4)]) == {12}", entry_point="sum")) == ["passed"]
    assert outcomes(grader, "x = 1", asserts("assert sum([3, 4]) == 7")) == ["error"]


def test_test_code_need_not_be_of_one_shape() -> None:
    for unit in ("f(1)", "assert f(1)", "x = f(1)\nassert x", "for i in (1, 2):\n    assert f(i)"):
        ast.parse(unit)
        form = read_tests(asserts(unit))
        assert isinstance(form, AssertionTests) and form.names == {"f": "program"}
