"""The forms of tests, read from JSON values; see `read_tests`."""

from __future__ import annotations

import ast
import builtins
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from elpo_envs.grading.code.in_session.values import NotAValueError, encode

_BUILTINS = frozenset(dir(builtins))
_TEXT: tuple[type, str] = (str, "text")
_LIST: tuple[type, str] = (list, "a list")


@dataclass(frozen=True)
class StdinTests:
    """What a program prints for an input: pairs of input and expected output."""

    method: str
    cases: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ValueTests:
    """What a function returns: pairs of encoded arguments and the expected JSON value."""

    method: str
    entry_point: str
    cases: tuple[tuple[list[Any], Any], ...]


@dataclass(frozen=True)
class AssertionTests:
    """Test code that calls the program's functions.

    Attributes:
        method: "humaneval" or "asserts".
        before: runs ahead of the program, and ahead of the tests where these run.
        hidden: a name that `before` defines and that the program must define itself, or "".
        after: runs before each unit, with the program's names.
        units: each is one test, independent of the others.
        names: what the test code may want of the program, and where else that may come from: "program", "module"
            or "isclose" for each name.
        always: names that are the program's even if `before` defines them, or Python does.
    """

    method: str
    before: str
    hidden: str
    after: tuple[str, ...]
    units: tuple[str, ...]
    names: Mapping[str, str]
    always: tuple[str, ...]


CodeTests = StdinTests | ValueTests | AssertionTests


def read_tests(tests: Mapping[str, Any]) -> CodeTests:
    """Read one of these forms, told apart by "type":

    - "humaneval": "prompt", "code" (defines `check(candidate)`), "entry_point";
    - "asserts": "asserts" (one statement each), and if there are any "setup" (runs before the program), "setup_after"
      (behind it) and "entry_point";
    - "stdin": "cases", each with "input" and "output";
    - "functional": "entry_point" and "cases", each with "input" (one JSON value a line) and "output" (JSON);
    - "calls": "entry_point" and "cases", each with "args" and "expected".

    Raises:
        ValueError: a field is missing or malformed, there is no test, or test code is no Python.
    """
    kind = tests.get("type")
    if not isinstance(kind, str) or kind not in _READERS:
        raise ValueError(f"tests: field 'type' is {kind!r}; it must be one of {', '.join(_READERS)}")
    return _READERS[kind](tests)


def _field(data: Mapping[str, Any], name: str, kind: tuple[type, str], where: str = "tests") -> Any:
    if name not in data:
        raise ValueError(f"{where}: field {name!r} is missing")
    if not isinstance(data[name], kind[0]):
        raise ValueError(f"{where}: field {name!r} is {data[name]!r:.80}; it must be {kind[1]}")
    return data[name]


def _cases(tests: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Each case with the words that name it in errors."""
    cases = _field(tests, "cases", _LIST)
    if not cases:
        raise ValueError("tests: field 'cases' is empty; without tests there is no verdict")
    for at, case in enumerate(cases):
        if not isinstance(case, Mapping):
            raise ValueError(f"tests: case {at} is {case!r:.80}; it must be an object")
    return [(f"tests: case {at}", case) for at, case in enumerate(cases)]


def _read_stdin(tests: Mapping[str, Any]) -> StdinTests:
    return StdinTests(
        "stdin",
        tuple((_field(case, "input", _TEXT, at), _field(case, "output", _TEXT, at)) for at, case in _cases(tests)),
    )


def _json(text: str, where: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: field {name!r} holds {text!r:.80}, which is not JSON: {error}") from None


def _encoded(value: Any, where: str, name: str) -> Any:
    try:
        return encode(value)
    except NotAValueError as error:
        raise ValueError(
            f"{where}: field {name!r} holds something that is not JSON, or too much of it: {error}"
        ) from None


def _read_functional(tests: Mapping[str, Any]) -> ValueTests:
    cases = []
    for at, case in _cases(tests):
        lines = [line for line in _field(case, "input", _TEXT, at).split("\n") if line.strip()]
        expected = _json(_field(case, "output", _TEXT, at), at, "output")
        cases.append(([_encoded(_json(line, at, "input"), at, "input") for line in lines], expected))
        _encoded(expected, at, "output")
    return ValueTests("functional", _name(tests), tuple(cases))


def _read_calls(tests: Mapping[str, Any]) -> ValueTests:
    cases = []
    for at, case in _cases(tests):
        if "expected" not in case:
            raise ValueError(f"{at}: field 'expected' is missing")
        cases.append(([_encoded(value, at, "args") for value in _field(case, "args", _LIST, at)], case["expected"]))
        _encoded(case["expected"], at, "expected")
    return ValueTests("calls", _name(tests), tuple(cases))


def _name(tests: Mapping[str, Any]) -> str:
    name = str(_field(tests, "entry_point", _TEXT))
    if not name.isidentifier():
        raise ValueError(f"tests: field 'entry_point' is {name!r:.80}; it must be the name of a function")
    return name


def _read_humaneval(tests: Mapping[str, Any]) -> AssertionTests:
    prompt, code = _field(tests, "prompt", _TEXT), _field(tests, "code", _TEXT)
    name = _name(tests)
    if not any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in _parse(code, "code").body):
        raise ValueError("tests: field 'code' defines no function 'check'")
    unit = f"check({name})"
    wanted = _wanted([prompt], [code, unit], (name,))
    return AssertionTests("humaneval", prompt, name, (code,), (unit,), wanted, (name,))


def _read_asserts(tests: Mapping[str, Any]) -> AssertionTests:
    units = _field(tests, "asserts", _LIST)
    if not units:
        raise ValueError("tests: field 'asserts' is empty; without tests there is no verdict")
    if not all(isinstance(unit, str) for unit in units):
        raise ValueError("tests: field 'asserts' must be a list of texts, each one Python statement")
    setup = _field({"setup": "", **tests}, "setup", _TEXT)
    setup_after = _field({"setup_after": "", **tests}, "setup_after", _TEXT)
    always = (_name(tests),) if "entry_point" in tests else _tested_builtins(units)
    wanted = _wanted([setup], [setup_after, *units], always)
    return AssertionTests("asserts", setup, "", (setup_after,), tuple(units), wanted, always)


_READERS: dict[str, Callable[[Mapping[str, Any]], CodeTests]] = {
    "humaneval": _read_humaneval,
    "asserts": _read_asserts,
    "stdin": _read_stdin,
    "functional": _read_functional,
    "calls": _read_calls,
}


# --- which names test code wants of the program -------------------------------------------------------------


def _parse(text: str, field: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"tests: field {field!r} holds {text!r:.80}, which is not Python: {error}") from None


def _wanted(before: Iterable[str], tests: Iterable[str], always: tuple[str, ...]) -> dict[str, str]:
    """Names that the test code uses and does not define, with their sources.

    What the program itself could pass off for Python's own, to have a say in the verdict, is never taken from there:
    builtins, modules of the standard library, and `isclose`, which some tests use without importing it. Only names
    in `always` are the program's in any case.
    """
    for text in before:
        _parse(text, "setup")  # what it defines is known when it has run
    bound: set[str] = set()
    loaded: list[str] = []
    for text in tests:
        for node in ast.walk(_parse(text, "asserts")):
            if isinstance(node, ast.Name):
                (loaded.append if isinstance(node.ctx, ast.Load) else bound.add)(node.id)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                bound.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.add(node.name)
    names = dict.fromkeys(always, "program")
    for name in loaded:
        if name not in names and name not in bound and name not in _BUILTINS:
            names[name] = "module" if name in sys.stdlib_module_names else "isclose" if name == "isclose" else "program"
    return names


def _tested_builtins(units: list[str]) -> tuple[str, ...]:
    """The builtin that the assertions test, where they use no name but builtins: MBPP has a task to define `sum`.

    It is the function of the innermost call on the left, in all of them.
    """
    innermost = set()
    for unit in units:
        tree = _parse(unit, "asserts")
        if any(isinstance(node, ast.Name) and node.id not in _BUILTINS for node in ast.walk(tree)):
            return ()
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        named = [function.id for function in calls if isinstance(function, ast.Name)]
        innermost.add(_leftmost(tree) if named else "")
    (name, *others) = innermost
    return (name,) if name and not others else ()


def _leftmost(tree: ast.Module) -> str:
    statement = tree.body[0] if tree.body else None
    node: ast.expr | None = statement.test if isinstance(statement, ast.Assert) else None
    found = ""
    while node is not None:
        if isinstance(node, ast.Compare):
            node = node.left
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found = node.func.id
            node = next((each for each in node.args if isinstance(each, ast.Call)), None)
        else:
            break
    return found
