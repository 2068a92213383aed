"""The language layer: what ordinary code may do, what it costs, and how its errors read."""

from __future__ import annotations

import ast
import dis
import functools
import random
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from elpo_envs.sandbox.interpreter import Interpreter
from elpo_envs.sandbox.language import DEFAULT_IMPORTS, Language, LanguagePolicy, RestrictedError
from elpo_envs.sandbox.language.names import DENIED, GUARDED, HARMLESS
from elpo_envs.sandbox.language.transform import GUARD, compile_restricted


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    monkeypatch.chdir(tmp_path)
    return Interpreter(7, language=Language(LanguagePolicy()))


def text(session: Interpreter, code: str) -> str:
    return session.execute(code)[0]


# --- syntax -------------------------------------------------------------------------------------------------

ADMITTED = {
    "augmented attribute": "class A: n = 1\na = A()\na.n += 2\na.n",
    "augmented item": "d = {'k': 1}\nd['k'] += 2\nd['k']",
    "augmented slice": "x = [1]\nx[1:] += [2]\nsum(x)",
    "annotated assignment": "x: int = 3\nx",
    "annotated attribute": "class A: pass\nA.n: int = 3\nA.n",
    "nonlocal": "def f():\n    n = 1\n    def g():\n        nonlocal n\n        n += 2\n    g()\n    return n\nf()",
    "global": "n = 1\ndef f():\n    global n\n    n += 2\nf()\nn",
    "match": "match [1, 2]:\n    case [a, b] if a < b: r = a + b\nr",
    "match class": "match 3:\n    case int(real=r) | float(r): pass\nr",
    "match mapping": "match {'a': 3, 'b': 4}:\n    case {'a': r, **rest}: pass\nr",
    "walrus": "[(n := 3), n][1]",
    "star expression": "a, *b = 1, 2, 3\nlen([*b, a])",
    "star call": "max(*[1, 2], *(3,), **{'key': None})",
    "nested unpacking": "for (a, (b, *c)), d in [((1, (2, 3)), 4)]: pass\nc[0]",
    "with unpacking": "import contextlib\nwith contextlib.nullcontext((1, 3)) as (a, b): pass\nb",
    "exception group": "try: raise ExceptionGroup('g', [ValueError(3)])\n"
    "except* ValueError as g: r = g.exceptions[0].args[0]\nr",
    "async": "async def f(): return 3\nc = f()\ntry: c.send(None)\nexcept StopIteration as e: r = e.value\nr",
    "async comprehension": "async def f(): return [x async for x in g()]\nasync def g(): yield 3\n"
    "try: f().send(None)\nexcept StopIteration as e: r = e.value[0]\nr",
    "await": "class W:\n    def __await__(self): yield 3\nasync def f(): await W()\nf().send(None)",
    "yield from": "def f(): yield from [1, 3]\nlist(f())[1]",
    "lambda defaults": "(lambda a, /, b=2, *, c: a + b + c)(1, c=0)",
    "decorator": "@lambda f: f()\ndef n(): return 3\nn",
    "metaclass": "class M(type):\n    n = 3\nclass A(metaclass=M): pass\nA.n",
    "class keywords": "class A:\n    def __init_subclass__(cls, n): cls.n = n\nclass B(A, n=3): pass\nB.n",
    "private names": "class A:\n    _x = 1\n    __y = 2\n    def f(self): return self._x + self.__y\nA().f()",
    "mangled from outside": "class A: __y = 3\nA._A__y",
    "mangled guarded name": "class A:\n    def f(self):\n        self.__os = 3\n        return self.__os\nA().f()",
    "underscore": "_ = 3\n_",
    "underscore variable": "_tmp_1 = 3\n_tmp_1",
    "name": "__name__ == '__main__' and 3",
    "dunder reads": "class A:\n    'doc'\n    def __init__(self): self.n = 3\n"
    "a = A()\n(a.__class__.__name__, a.__doc__, a.__dict__['n'], A.__module__, a.__init__())[2]",
    "dunder calls": "(1).__add__(2)",
    "dunder definitions": "class A:\n    def __reduce__(self): return int, ('3',)\n"
    "    def __len__(self): return 3\nlen(A())",
    "super": "class A:\n    def f(self): return 3\nclass B(A):\n    def f(self): return super().f()\nB().f()",
    "super with arguments": "class A:\n    def f(self): return 3\n"
    "class B(A):\n    def f(self): return super(B, self).f()\nB().f()",
    "a method called format": "class A:\n    def format(self, x): return x\nA().format(3)",
    "an attribute called os": "class A: pass\na = A()\na.os = 3\na.os",
    "deleting": "class A: n = 3\nA.m = 1\ndel A.m\nx = [1, 3]\ndel x[0]\nx[0]",
    "conversion in f-string": "f'{3!s:>1}' == '3' and 3",
    "print as a value": "p = print\np(end='')\n3",
    "type with three arguments": "type('A', (), {'n': 3})().n",
    "future annotations": "from __future__ import annotations\ndef f(x: Nope) -> Nope: return x\nf(3)",
    "long sum": "+".join(["1"] * 700) + " - 697",
    "many statements": "\n".join(f"x{i} = {i}" for i in range(3000)) + "\nx3",
}
TYPE_ALIASES = "type Pair[T] = tuple[T, T]\ndef first[T](p: Pair[T]) -> T: return p[0]\nclass A[T]: pass\nfirst((3, 1))"


@pytest.mark.parametrize("code", ADMITTED.values(), ids=ADMITTED)
def test_syntax(session: Interpreter, code: str) -> None:
    assert text(session, code) == "3"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with Python 3.12")
def test_type_parameters(session: Interpreter) -> None:
    assert text(session, TYPE_ALIASES) == "3"


def test_an_unknown_kind_of_node_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ast, "Slice", type("Novelty", (ast.Slice,), {"_fields": ast.Slice._fields}))
    tree = ast.parse("x[1:2]")
    tree.body[0].value.slice = ast.Slice(*[None] * 3, lineno=1, col_offset=2)
    monkeypatch.setattr("builtins.compile", lambda *_, **__: tree)
    with pytest.raises(RestrictedError, match="line 1: Novelty is not supported"):
        compile_restricted("x[1:2]", "<x>", "exec")


# --- errors -------------------------------------------------------------------------------------------------


def test_a_refusal_names_its_place(session: Interpreter) -> None:
    assert text(session, "x = 'é'\nif x:\n    y = x.__class__.__base__.z\n") == (
        '  File "<python>", line 3\n'
        "    y = x.__class__.__base__.z\n"
        "                    ^^^^^^^^\n"
        "RestrictedError: line 3: access to '__base__' is not allowed"
    )


def test_a_refusal_is_a_syntax_error_with_its_details() -> None:
    source = "a = 1\nb = 'éé'.__class__.__mro__"
    with pytest.raises(SyntaxError) as caught:
        Language(LanguagePolicy()).compile(source, "<cell>")
    error = caught.value
    assert isinstance(error, RestrictedError)
    assert (error.filename, error.lineno, error.text) == ("<cell>", 2, "b = 'éé'.__class__.__mro__")
    assert error.text[error.offset - 1 : error.end_offset - 1] == "__mro__"


def test_the_first_of_several_refusals_is_told(session: Interpreter) -> None:
    assert "line 2: access to 'mro'" in text(session, "def f():\n    int.mro()\nint.__bases__")


def test_nothing_of_a_refused_call_runs(session: Interpreter) -> None:
    assert text(session, "x = 1\nprint('ran')\nint.__bases__").count("ran") == 0
    assert "NameError" in text(session, "x")


BROKEN = ["def f(:", "[1, 2", "x = = 3", "return 5", "await x", "for", "'abc", "  x", "f(a=1, a=2)", "nonlocal x", "\0"]


@pytest.mark.parametrize("code", BROKEN)
def test_ordinary_syntax_errors_read_as_in_plain_python(session: Interpreter, code: str) -> None:
    assert text(session, code) == text(Interpreter(7), code)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_warnings_of_the_compiler_come_once(session: Interpreter) -> None:
    assert text(session, "x = 5\nx is 5") == text(Interpreter(7), "x = 5\nx is 5")


@pytest.mark.parametrize(
    "code",
    [
        "import os",
        "import random\nrandom._os",
        "getattr(int, 'mro')",
        "'{0.__bases__}'.strip().format(1)",
        "eval('1 +')",
    ],
)
def test_guards_are_never_in_a_traceback(session: Interpreter, code: str) -> None:
    session.execute(code)
    shown = text(session, f"import traceback\ntry:\n    exec({code!r})\nexcept Exception: traceback.print_exc()")
    assert "language" not in text(session, code) + shown
    assert shown.startswith("Traceback")


# --- cost ---------------------------------------------------------------------------------------------------

HEAVY = """
import math
class Body:
    def __init__(self, x):
        self.x, self._v, self.parts = x, 1.0, []
    def step(self, dt):
        self.x += self._v * dt
        self._v = -self.x
        self.parts.append(self.x)
        return self.__class__.__name__, self.__len__()
    def __len__(self):
        return len(self.parts)
body = Body(1.0)
for i in range(100):
    body.step(0.1)
    body.x = math.sin(body.x) + body.parts[-1]
    "{:.2f} {}".format(body.x, i)
"""


def instructions(code: types.CodeType) -> Iterator[tuple[str, object]]:
    for instruction in dis.get_instructions(code):
        if isinstance(instruction.argval, types.CodeType):
            yield from instructions(instruction.argval)
        else:
            yield instruction.opname, instruction.argval


def test_attribute_heavy_code_compiles_to_the_byte_code_it_always_had() -> None:
    ours = list(instructions(compile_restricted(HEAVY, "<x>", "exec")))
    assert ours == list(instructions(compile(HEAVY, "<x>", "exec")))
    assert len(ours) > 100


def test_a_guarded_name_is_a_call_of_the_guard() -> None:
    assert (GUARD in {name for _, name in instructions(compile_restricted("x.os", "<x>", "exec"))}) is True


def test_reading_a_small_library_is_not_slowed_by_a_module_getattr(session: Interpreter) -> None:
    """Compiled code reads a module without `__getattr__` in one step."""
    session.execute("import math, random, json, collections, itertools, re, statistics")
    for name in ("math", "random", "json", "collections", "itertools", "re", "statistics"):
        assert type(session.namespace[name]) is types.ModuleType
        assert "__getattr__" not in vars(session.namespace[name])


def test_the_kinds_of_names_do_not_overlap() -> None:
    assert not DENIED & GUARDED and not DENIED & HARMLESS and not GUARDED & HARMLESS
    assert all(re.fullmatch(r"__\w+__", name) for name in HARMLESS)
    assert not any(name.startswith("__") and not name.endswith("__") for name in GUARDED)  # they would be mangled


# --- the process --------------------------------------------------------------------------------------------


def test_a_lent_process_is_given_back_as_it_was(session: Interpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("")
    path, names, functions = list(sys.path), set(sys.modules["string"].__dict__), dict(vars(functools))
    session.execute(
        "import string, functools, random, sympy\nsympy.sympify('x + 1')\nrandom.random = None\nstring.digits = ''"
    )
    assert sys.path == path
    assert set(sys.modules["string"].__dict__) == names
    assert vars(functools) == functions
    assert sys.modules["string"].digits == "0123456789" and callable(random.random)


def test_libraries_cannot_import_what_the_session_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with Language(LanguagePolicy()).lent():
        assert not {"", str(tmp_path)} & set(sys.path)
    assert "" in sys.path


# --- the policy ---------------------------------------------------------------------------------------------


def test_a_policy_of_ones_own() -> None:
    session = Interpreter(7, language=Language(LanguagePolicy(("math", "urllib.parse", "os.path"))))
    assert (
        text(session, "import math, urllib.parse\nfrom urllib import parse\nmath.floor(2.5), parse.quote('a b')")
        == "(2, 'a%20b')"
    )
    assert text(session, "import random").endswith(
        "ImportError: import of 'random' is not allowed; allowed: math, os, urllib"
    )
    assert (
        text(session, "import os.path\nfrom os import path\nos.path.join('a', 'b'), path is os.path") == "('a/b', True)"
    )
    assert text(session, "os.system").endswith("AttributeError: module 'os' has no attribute 'system'")
    assert text(session, "import sys").endswith("import of 'sys' is not allowed; allowed: math, os, urllib")
    assert text(Interpreter(7, language=Language(LanguagePolicy(()))), "import re").endswith("allowed: nothing")


@pytest.mark.parametrize("entry", ["", "a b", "a..b", "a.", 3])
def test_a_malformed_policy(entry: str) -> None:
    with pytest.raises(ValueError, match=r"allowed_imports must hold module names such as 'math' .* not "):
        LanguagePolicy(("math", entry))


def test_the_default_imports() -> None:
    assert len(set(DEFAULT_IMPORTS)) == len(DEFAULT_IMPORTS)
    policy = LanguagePolicy()
    assert all(map(policy.allows, ("math", "numpy.linalg", "urllib.parse", "collections.abc", "sympy.abc", "sys")))
    refused = "os subprocess socket ctypes importlib builtins pickle threading asyncio inspect gc shutil signal urllib"
    assert not any(map(policy.allows, (*refused.split(), "numpy.f2py", "numpy.ctypeslib", "logging.config", "mathx")))
