"""Ways out of the language that are closed, each with a message that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from elpo_envs.sandbox.interpreter import Interpreter
from elpo_envs.sandbox.language import Language, LanguagePolicy


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    monkeypatch.chdir(tmp_path)
    return Interpreter(7, language=Language(LanguagePolicy()))


def last_line(session: Interpreter, code: str) -> str:
    text, kind = session.execute(code)
    assert kind == "error", text
    return text.split("\n")[-1]


# --- attributes ---------------------------------------------------------------------------------------------

WALKS = {
    "().__class__.__base__.__subclasses__()": "__base__",
    "object.__subclasses__()": "__subclasses__",
    "int.mro()": "mro",
    "bool.__mro__": "__mro__",
    "bool.__bases__": "__bases__",
    "(lambda: 0).__globals__": "__globals__",
    "(lambda: 0).__code__": "__code__",
    "(lambda: 0).__closure__": "__closure__",
    "(lambda: 0).__builtins__": "__builtins__",
    "import random\nrandom.Random.seed.__globals__['_os']": "__globals__",
    "import random\nrandom.__spec__.loader": "__spec__",
    "import random\nrandom.__loader__": "__loader__",
    "[].__reduce_ex__(2)": "__reduce_ex__",
    "class A: pass\nA().__reduce__()": "__reduce__",
    "def g(): yield\ng().gi_frame": "gi_frame",
    "def g(): yield\ng().gi_code": "gi_code",
    "x = 3\nx.co_code": "co_code",
    "async def c(): pass\nc().cr_frame": "cr_frame",
    "async def c(): yield\nc().ag_frame": "ag_frame",
    "try: 1 / 0\nexcept Exception as e: e.__traceback__.tb_frame": "tb_frame",
    "try: 1 / 0\nexcept Exception as e: e.__traceback__.tb_next": "tb_next",
    "import traceback\nnext(traceback.walk_stack(None))[0].f_back": "f_back",
    "def f(): pass\nf.__code__ = 3": "__code__",
    "class A: pass\ndel A.__bases__": "__bases__",
    "class A: pass\nA.__mro__ += ()": "__mro__",
    "f'{().__class__.__mro__}'": "__mro__",
    "[x.__class__.__base__ for x in ()]": "__base__",
    "lambda x=int.__base__: x": "__base__",
    "@int.__base__\ndef f(): pass": "__base__",
    "match 3:\n    case object(__mro__=m): pass": "__mro__",
    "match 3:\n    case object(__self__=m): pass": "__self__",
    "import numpy\nnumpy.ones(1).__array_namespace__()": "__array_namespace__",
}  # fmt: skip


@pytest.mark.parametrize(("code", "name"), WALKS.items())
def test_names_that_lead_out_are_refused_before_anything_runs(session: Interpreter, code: str, name: str) -> None:
    assert last_line(session, f"print('ran')\n{code}").endswith(f": access to {name!r} is not allowed")
    assert "ran\n" not in session.execute(f"print('ran')\n{code}")[0].split("  File")[0]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("getattr(int, '__sub' + 'classes__')()", "__subclasses__"),
        ("getattr(lambda: 0, '__globals__')", "__globals__"),
        ("setattr(lambda: 0, '__code__', None)", "__code__"),
        ("delattr(int, '__bases__')", "__bases__"),
        ("object.__getattribute__(lambda: 0, '__globals__')", "__globals__"),
        ("type.__getattribute__(object, '__subclasses__')()", "__subclasses__"),
        ("class A:\n    def f(self): return super().__getattribute__('__reduce__')\nA().f()", "__reduce__"),
        ("class S(str):\n    __hash__ = lambda s: 1\n    __eq__ = lambda s, o: False\ngetattr(int, S('mro'))", "mro"),
        ("import operator\noperator.attrgetter('__globals__')(operator.attrgetter)", "__globals__"),
        ("import operator\noperator.attrgetter('real', 'real.__class__.__mro__')(1)", "__mro__"),
        ("import operator\noperator.methodcaller('__subclasses__')(object)", "__subclasses__"),
        ("from operator import attrgetter as a\na('__mro__')(int)", "__mro__"),
        ("x = '{0.__class__.__mro__}'\nx.format(1)", "__mro__"),
        ("x = '{x.__class__.__bases__}'\nx.format_map({'x': 1})", "__bases__"),
        ("str.format('{0.__class__.__mro__}', 1)", "__mro__"),
        ("str.format_map('{x.__class__.__mro__}', {'x': 1})", "__mro__"),
        ("getattr('{0.__class__.__mro__}', 'format')(1)", "__mro__"),
        ("list(map(str.format, ['{0.__mro__}'], [int]))", "__mro__"),
        ("class S(str): pass\nS('{0.__mro__}').format(int)", "__mro__"),
        ("x = '{0:{1.__mro__}}'\nx.format(1, int)", "__mro__"),
        ("x = '{a[0].__mro__}'\nx.format(a=[int])", "__mro__"),
        ("import string\nstring.Formatter().format('{0.__class__.__mro__}', 1)", "__mro__"),
        ("import string\nstring.Formatter().get_field('0.__globals__', (string.capwords,), {})", "__globals__"),
        ("import pandas as pd\npd.eval('().__class__.__mro__')", "__mro__"),
        ("import pandas as pd\npd.DataFrame({'a': [1]}).eval('@pd.DataFrame.__mro__')", "__mro__"),
    ],
)
def test_names_given_as_text(session: Interpreter, code: str, name: str) -> None:
    if "pandas" in code:
        pytest.importorskip("pandas", reason="pandas is not installed")
    assert last_line(session, code).endswith(f"AttributeError: access to {name!r} is not allowed")


def test_denied_names_count_as_missing(session: Interpreter) -> None:
    code = "import functools\nclass W:\n    seen = []\n    def __setattr__(self, n, v): self.seen.append(n)\n"
    code += "functools.update_wrapper(W(), functools.wraps, assigned=('__globals__', '__name__'), updated=()).seen"
    assert session.execute(code)[0] == "['__name__', '__wrapped__']"
    for code in ("type.__dict__['__subclasses__']", "vars(type(lambda: 0))['__globals__']", "str.__dict__['format']"):
        assert last_line(session, code).startswith("KeyError: ")


@pytest.mark.parametrize("name", ["__builtins__", "_getattr_"])
def test_reserved_names(session: Interpreter, name: str) -> None:
    for code in (name, f"{name} = 1", f"del {name}", f"{name}['len']"):
        assert last_line(session, code) == f"RestrictedError: line 1: the name {name!r} is reserved"


def test_compile_gives_nothing_to_take_code_from(session: Interpreter) -> None:
    assert "CodeType" in last_line(session, "import types\ntypes.CodeType")
    assert last_line(session, "types.FunctionType(compile('1', 'x', 'eval'), {})").endswith("must be code, not Program")
    assert last_line(session, "compile('1', 'x', 'eval').replace(co_code=b'')").startswith("AttributeError")


def test_a_tree_that_changes_its_mind(session: Interpreter) -> None:
    setup = (
        "import ast\nclass Name(ast.Name):\n    reads = 0\n    @property\n    def id(self):\n"
        "        Name.reads += 1\n        return 'x' if Name.reads < 2 else 'x.__class__.__base__'\n"
        "tree = ast.parse('y', mode='eval')\n"
        "tree.body = ast.copy_location(Name(ctx=ast.Load()), tree.body)\nx = 3"
    )
    assert session.execute(setup)[1] == "empty"
    assert last_line(session, "for _ in range(4): print(eval(compile(tree, 'f', 'eval')))").startswith(
        "RestrictedError"
    )


# --- imports ------------------------------------------------------------------------------------------------

NOT_ALLOWED = "ImportError: import of {} is not allowed"
HIDDEN = "access to {!r} of module {!r} is not allowed"


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("import os", "'os'"),
        ("import os as o", "'os'"),
        ("import os.path", "'os.path'"),
        ("from os import path", "'os'"),
        ("from os import *", "'os'"),
        ("import math, subprocess", "'subprocess'"),
        ("import importlib", "'importlib'"),
        ("import builtins", "'builtins'"),
        ("import urllib.request", "'urllib.request'"),
        ("from urllib import request", "'urllib'"),
        ("import logging.config", "'logging.config'"),
        ("import numpy.ctypeslib", "'numpy.ctypeslib'"),
        ("from sympy.utilities import autowrap", "'autowrap' from 'sympy.utilities'"),
        ("from random import _os", "'_os' from 'random'"),
        ("from glob import os", "'os' from 'glob'"),
        ("from statistics import sys", "'sys' from 'statistics'"),
        ("from enum import bltns", "'bltns' from 'enum'"),
        ("__import__('os')", "'os'"),
        ("__import__('random', fromlist=['_os'])", "'_os' from 'random'"),
        ("vars(globals()['__builtins__'])['__import__']('os')", "'os'"),
        ("class S(str):\n    __eq__ = lambda s, o: o == 'math'\n    __hash__ = lambda s: hash('math')\n"
         "__import__(S('os'))", "'os'"),
        ("exec('import os')", "'os'"),
        ("eval(\"__import__('os')\")", "'os'"),
        ("eval(\"__import__('os')\", {'__builtins__': {'__import__': __import__}})", "'os'"),
        ("exec('import os', {'__builtins__': {'__import__': print}})", "'os'"),
        ("globals().pop('__builtins__')\nimport os", "'os'"),
        ("globals().pop('__builtins__')\nexec('import os')", "'os'"),
        ("globals().pop('__builtins__')\ndef f(): import os\nf()", "'os'"),
        ("import timeit\ntimeit.timeit('import os', number=1)", "'os'"),
        ("import timeit\ntimeit.repeat('1', setup='import os', number=1)", "'os'"),
        ("import sympy\nsympy.lambdify((), \"__import__('os').getcwd()\")()", "'os'"),
    ],
)  # fmt: skip
def test_imports(session: Interpreter, code: str, named: str) -> None:
    line = last_line(session, code)
    assert line.startswith(NOT_ALLOWED.format(named))
    assert " from " in named or "; allowed: bisect, collections, " in line


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import random\nrandom._os", "access to '_os' of module 'random' is not allowed"),
        ("import statistics\nstatistics.sys", "access to 'sys' of module 'statistics' is not allowed"),
        ("import statistics\ngetattr(statistics, 'sys')", "access to 'sys' of module 'statistics' is not allowed"),
        ("import glob\nglob.os.getcwd()", "access to 'os' of module 'glob' is not allowed"),
        ("import contextlib\ncontextlib.os", "access to 'os' of module 'contextlib' is not allowed"),
        ("import tokenize\ntokenize._builtin_open", "module 'tokenize' has no attribute '_builtin_open'"),
        ("import enum\nenum.bltns", "access to 'bltns' of module 'enum' is not allowed"),
        ("import logging\nlogging.os", "access to 'os' of module 'logging' is not allowed"),
        ("import warnings\nwarnings.catch_warnings()._module.sys", HIDDEN.format("sys", "warnings")),
        ("import numpy\nnumpy.f2py", "access to 'f2py' of module 'numpy' is not allowed"),
        ("import numpy\nnumpy.ones(1).ctypes._ctypes", "access to module 'ctypes' is not allowed"),
        ("import numpy.testing\nnumpy.testing.runstring", HIDDEN.format("runstring", "numpy.testing")),
        ("import operator\noperator.attrgetter('sys')(__import__('statistics'))", HIDDEN.format("sys", "statistics")),
        ("print.__self__", "access to module 'builtins' is not allowed"),
        ("getattr.__self__", "access to '__self__' is not allowed"),
        ("__import__.__self__", "access to '__self__' is not allowed"),
        ("import sys\nsys.exit.__self__", "access to module 'sys' is not allowed"),
        ("import sys\nsys._getframe()", "access to 'sys._getframe' is not allowed"),
        ("import sys\nsys.modules['os']", "access to 'sys.modules' is not allowed"),
        ("import sys\nsys.settrace(print)", "access to 'sys.settrace' is not allowed"),
    ],
)  # fmt: skip
def test_modules_behind_modules(session: Interpreter, code: str, message: str) -> None:
    assert last_line(session, code) == f"AttributeError: {message}"


def test_relative_imports(session: Interpreter) -> None:
    message = "ImportError: relative imports are not possible: this code is not part of a package"
    assert last_line(session, "from . import x") == message
    assert last_line(session, "from ..math import sin") == message


# --- text that libraries evaluate ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "import sympy\nsympy.sympify('().__class__.__base__.__subclasses__()')",
        "import sympy\nsympy.parse_expr('().__class__.__base__')",
        "import sympy\nsympy.S('x.__class__.__base__')",
        "import sympy\nsympy.lambdify((), '().__class__.__base__')()",
        "import timeit\ntimeit.timeit('().__class__.__base__', number=1)",
        "import mpmath\nmpmath.identify(3.1, ['().__class__.__base__'])",
        "eval('().__class__.__base__')",
        "exec('def f(): return int.__base__')",
        "eval(compile('int.__base__', 'f', 'eval'))",
        "import ast\neval(compile(ast.parse('int.__base__', mode='eval'), 'f', 'eval'))",
    ],
)
def test_object_walks_in_text(session: Interpreter, code: str) -> None:
    assert "access to '__base__' is not allowed" in last_line(session, code)


@pytest.mark.parametrize(
    "code",
    [
        "import sympy\nprint(sympy.sympify(\"__import__('os').getcwd()\"))",
        "import sympy\nprint(sympy.sympify(\"eval('1').getcwd()\"))",
        "import sympy\nprint(sympy.lambdify((), 'builtins.open')())",
        "import timeit\nprint(timeit.timeit('sys.modules', number=1))",
        "import typing\nclass Q: a: '_os.getcwd()'\nQ.__module__ = 'random'\nprint(typing.get_type_hints(Q))",
        "import typing\nclass Q: a: 'int.__base__'\nprint(typing.get_type_hints(Q))",
        "import io, numpy\nprint(numpy.load(io.BytesIO(b'cos\\ngetcwd\\n(tR.'), allow_pickle=True))",
    ],
)
def test_library_namespaces_are_out_of_reach(session: Interpreter, code: str, tmp_path: Path) -> None:
    assert str(tmp_path) not in session.execute(code)[0]
    assert session.execute(code)[1] == "error"


def test_own_modules_are_under_the_same_rules(session: Interpreter, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("import os")
    (tmp_path / "two.py").write_text("x = ().__class__.__base__")
    (tmp_path / "three.py").write_text("x = __import__")
    assert last_line(session, "import one").startswith(NOT_ALLOWED.format("'os'"))
    assert last_line(session, "import two").endswith("access to '__base__' is not allowed")
    assert last_line(session, "import three\nthree.x('subprocess')").startswith(NOT_ALLOWED.format("'subprocess'"))


def test_an_own_module_may_have_any_name(session: Interpreter, tmp_path: Path) -> None:
    """It runs as user code, so there is no harm in one called `os`; a library is never shadowed by one."""
    (tmp_path / "os.py").write_text("x = 'mine'")
    (tmp_path / "random.py").write_text("x = 'mine'")
    assert session.execute("import os\nos.x, dir(os)[-1]")[0] == "('mine', 'x')"
    assert last_line(session, "import random\nrandom.x") == "AttributeError: module 'random' has no attribute 'x'"
    assert session.execute("import random\nrandom.randint(1, 1)")[0] == "1"
