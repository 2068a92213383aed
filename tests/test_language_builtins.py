"""The builtins of user code, and its stand-in for `sys`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from elpo_envs.sandbox.interpreter import Interpreter
from elpo_envs.sandbox.language import Language, LanguagePolicy
from elpo_envs.sandbox.language.system import MAX_RECURSION

NO_BREAKPOINT = "breakpoint() is not available: nobody can type at its prompt; print what you want to see"


@pytest.fixture
def session() -> Interpreter:
    return Interpreter(7, language=Language(LanguagePolicy()))


def text(session: Interpreter, code: str) -> str:
    return session.execute(code)[0]


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("getattr(3, 'real'), getattr(3, 'nope', 7), getattr(3, '__bases__', 7)", "(3, 7, 7)"),
        ("hasattr([], '__iter__'), hasattr(int, '__subclasses__'), hasattr([], 'x')", "(True, False, False)"),
        ("getattr('{0}!', 'format')(1), getattr(str, 'format')('{}', 2)", "('1!', '2')"),
        ("class A: pass\na = A()\nsetattr(a, 'x', 1)\ndelattr(a, 'x')\nvars(a)", "{}"),
        ("getattr(1)", "TypeError: getattr() missing 1 required positional argument: 'name'"),
        ("getattr(1, 'a', 2, 3)", "TypeError: getattr expected at most 3 arguments, got 4"),
        ("getattr(1, 2)", "TypeError: attribute name must be string, not 'int'"),
        ("vars(3)", "TypeError: vars() argument must have __dict__ attribute"),
        ("def f(a):\n    b = 2\n    return vars(), locals()\nf(1)", "({'a': 1, 'b': 2}, {'a': 1, 'b': 2})"),
        ("x = 1\nvars() is globals(), 'x' in dir()", "(True, True)"),
        ("def f():\n    y = 5\n    return eval('y'), eval('y', {'y': 2}), eval('y', {}, {'y': 3})\nf()", "(5, 2, 3)"),
        ("def f():\n    exec('z = 1')\n    return 'z' in globals()\nf()", "False"),
        ("exec('z = 4')\nz", "4"),
        ("g = {}\nexec('def f(): return len([1])', g)\ng['f']()", "1"),
        ("eval('abs(-1)', {'__builtins__': {}})", "NameError: name 'abs' is not defined"),
        ("eval('f\"{x:.1f}\" + \"{}\".format(x)', {'__builtins__': {}}, {'x': 2})", "'2.02'"),
        ("eval('  1 + 1'), eval(b'2'), eval(compile('3', 'x', 'eval'))", "(2, 2, 3)"),
        ("eval(3)", "TypeError: eval() arg 1 must be a string, bytes or code object"),
        ("exec('x', [])", "TypeError: globals must be a dict, not list"),
        ("compile('x', 'f', 'nope')", "ValueError: compile() mode must be 'exec', 'eval' or 'single'"),
        ("compile(3, 'f', 'exec')", "TypeError: compile() arg 1 must be a string, bytes or AST object"),
        ("import ast\neval(compile(ast.parse('1 + 2', mode='eval'), 'f', 'eval'))", "3"),
        ("import ast\nast.dump(compile('x', 'f', 'eval', ast.PyCF_ONLY_AST))[:10]", "'Expression'"),
        ("eval('+'.join(['1'] * 1500))", "1500"),
        ("type(3), isinstance(3, type(3)), callable(len), len(dir(3)) > 9", "(<class 'int'>, True, True, True)"),
        ("memoryview(b'ab')[0], bytearray(b'x'), complex('1j')", "(97, bytearray(b'x'), 1j)"),
        ("exit(3)", "SystemExit: 3 (the interpreter keeps running)"),
        ("quit()", "SystemExit: 0 (the interpreter keeps running)"),
        ("breakpoint()", f"RuntimeError: {NO_BREAKPOINT}"),
        ("help(int)", "RuntimeError: help() is not available: print(x.__doc__) shows what x says about itself"),
        ("int.__dict__['real'].__get__(3), 'mro' in type.__dict__", "(3, False)"),
        ("class A:\n    def __reduce__(self): return 1\n'__reduce__' in A.__dict__", "True"),
        ("class A:\n    def __getattribute__(self, n): return object.__getattribute__(self, n)\nA().__dict__", "{}"),
        ("class A:\n    def __getattribute__(self, n): return super().__getattribute__(n)\n    x = 3\nA().x", "3"),
        ("[].append.__self__, (lambda: 0).__name__, max.__self__ if False else 1", "([], '<lambda>', 1)"),
    ],
)  # fmt: skip
def test_builtins(session: Interpreter, code: str, shown: str) -> None:
    assert text(session, code).split("\n")[-1] == shown


def test_operator_shortcuts(session: Interpreter) -> None:
    session.execute("from operator import attrgetter, methodcaller\nimport datetime\nd = datetime.date(2024, 5, 6)")
    assert (
        text(session, "attrgetter('year')(d), attrgetter('month', 'day')(d), attrgetter('year.real')(d)")
        == "(2024, (5, 6), 2024)"
    )
    assert text(session, "class A: os = 3\nattrgetter('os')(A), attrgetter('os', 'os.real')(A)") == "(3, (3, 3))"
    assert text(session, "methodcaller('format', 3)('{}'), methodcaller('replace', day=1)(d).day") == "('3', 1)"


def test_each_session_has_builtins_of_its_own(tmp_path: Path) -> None:
    one, two = (Interpreter(7, language=Language(LanguagePolicy())) for _ in range(2))
    one.execute("globals()['__builtins__'].len = None")
    assert text(one, "len") == ""
    assert text(two, "len([1])") == "1"
    assert len([1]) == 1


def test_builtins_come_back_for_the_next_call(session: Interpreter) -> None:
    session.execute("globals().clear()")
    assert text(session, "import os").endswith(" more")
    assert text(session, "len([1])") == "1"


# --- sys ----------------------------------------------------------------------------------------------------


def test_the_stand_in_for_sys(session: Interpreter) -> None:
    shown = "sys.maxsize, sys.version_info[0], sys.platform, sys.argv, sys.path, sys.float_info.dig, sys.byteorder"
    assert text(session, f"import sys\n{shown}") == repr(
        (sys.maxsize, 3, sys.platform, [""], [""], sys.float_info.dig, sys.byteorder)
    )
    assert text(session, "sys.modules").endswith("AttributeError: access to 'sys.modules' is not allowed")
    assert text(session, "sys.nope").endswith("AttributeError: module 'sys' has no attribute 'nope'")
    assert text(session, "from sys import maxsize as m, stdin\nm > 0, stdin.read()") == "(True, '')"
    assert (
        text(session, "from sys import modules").split("\n")[-1].startswith("ImportError: cannot import name 'modules'")
    )


def test_the_recursion_limit_is_bounded_and_put_back(session: Interpreter) -> None:
    limit = sys.getrecursionlimit()
    assert text(session, "import sys\nsys.setrecursionlimit(5000)\nsys.getrecursionlimit()") == "5000"
    assert text(session, "sys.setrecursionlimit(10**9)\nsys.getrecursionlimit()") == str(MAX_RECURSION)
    assert text(session, "sys.setrecursionlimit(0)").endswith("recursion limit must be greater or equal than 1")
    assert sys.getrecursionlimit() == limit


def test_redirected_streams(session: Interpreter) -> None:
    code = "import io, sys\nkept, sys.stdout = sys.stdout, io.StringIO()\nprint('in')\n"
    code += "got, sys.stdout = sys.stdout.getvalue(), kept\ngot"
    assert text(session, code) == "'in\\n'"
