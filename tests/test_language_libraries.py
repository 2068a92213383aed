"""Libraries as user code sees them, and modules that the code wrote itself."""

from __future__ import annotations

import importlib
import importlib.util
import operator
import sys
import traceback
import types
from pathlib import Path

import pytest

from elpo_envs.sandbox.interpreter import Interpreter
from elpo_envs.sandbox.language import DEFAULT_IMPORTS, Language, LanguagePolicy
from elpo_envs.sandbox.language.names import GUARDED

STANDARD = [name for name in DEFAULT_IMPORTS if name.partition(".")[0] in sys.stdlib_module_names]
INSTALLED = [name for name in DEFAULT_IMPORTS if importlib.util.find_spec(name) is not None]
CHANGED = (operator.attrgetter, operator.methodcaller, types.CodeType, traceback.walk_tb)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    monkeypatch.chdir(tmp_path)
    return Interpreter(7, language=Language(LanguagePolicy()))


def text(session: Interpreter, code: str) -> str:
    return session.execute(code)[0]


def write(tmp_path: Path, **modules: str) -> None:
    for name, source in modules.items():
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")


# --- libraries ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", INSTALLED)
def test_every_allowed_module_can_be_imported(session: Interpreter, name: str) -> None:
    star = "" if name == "__future__" else f"from {name} import *"
    assert session.execute(f"import {name}\n{star}") == ("", "empty")


@pytest.mark.parametrize("name", sorted(set(STANDARD) - {"sys", "__future__"}))
def test_a_view_has_all_that_is_public(session: Interpreter, name: str) -> None:
    session.execute(f"import {name} as view")
    view, real = session.namespace["view"], importlib.import_module(name)
    public = {key: value for key, value in vars(real).items() if not key.startswith("_")}
    for key, value in public.items():
        if not isinstance(value, types.ModuleType) and value not in CHANGED:
            assert getattr(view, key) is value, key
    assert set(dir(view)) - set(dir(real)) <= {"__all__", "__doc__", "__package__"}


@pytest.mark.parametrize("packages", [tuple(STANDARD), ("numpy", "sympy", "mpmath")], ids=["standard", "numeric"])
def test_no_module_that_is_not_allowed_can_be_reached_by_plain_names(
    session: Interpreter, packages: tuple[str, ...]
) -> None:
    policy, queue, seen = LanguagePolicy(), [], set()
    for name in packages:
        session.execute(f"import {name} as view")
        queue.append(session.namespace["view"])
    while queue:
        view = queue.pop()
        if id(view) in seen:
            continue
        seen.add(id(view))
        assert view.__name__ == "sys" or policy.allows(view.__name__) or policy.leads_to_allowed(view.__name__)
        assert view is not sys.modules.get(view.__name__)
        assert not {"__spec__", "__loader__", "__builtins__", "__file__", "__path__"} & set(vars(view))
        for key in dir(view):
            value = getattr(view, key, None)
            if isinstance(value, types.ModuleType):
                queue.append(value)
            elif isinstance(value, type):
                held = [n for n, v in vars(value).items() if isinstance(v, types.ModuleType)]
                assert set(held) <= GUARDED, (view.__name__, key, held)
    assert len(seen) > 50


def test_an_assignment_to_a_library_stays_in_the_session(session: Interpreter) -> None:
    assert text(session, "import math, random\nmath.pi = 3\nrandom.random = lambda: 0.5\nmath.pi, random.random()") == (
        "(3, 0.5)"
    )
    assert text(Interpreter(7, language=Language(LanguagePolicy())), "import math\nmath.pi > 3") == "True"
    assert text(session, "import math as m\nm.pi") == "3"


def test_submodules(session: Interpreter) -> None:
    assert text(session, "import collections.abc, json.decoder\njson.decoder.JSONDecodeError.__name__") == (
        "'JSONDecodeError'"
    )
    assert text(session, "import xml") != ""
    assert (
        text(session, "import numpy as np\nimport numpy.linalg as la\nla is np.linalg, np.random.seed(3)")
        == "(True, None)"
    )
    assert text(session, "from sympy.physics import units\nimport sympy.physics.units as u\nu is units") == "True"
    assert text(session, "import html.parser\nfrom html import parser\nparser is html.parser") == "True"


def test_messages_for_what_is_missing(session: Interpreter) -> None:
    def last(code: str) -> str:
        return text(session, code).split("\n")[-1]

    assert last("import math\nmath.nope") == "AttributeError: module 'math' has no attribute 'nope'"
    assert last("import numpy\nnumpy.nope") == "AttributeError: module 'numpy' has no attribute 'nope'"
    assert last("from math import nope") == "ImportError: cannot import name 'nope' from 'math' (unknown location)"
    assert last("import numpy.nope") == "ModuleNotFoundError: No module named 'numpy.nope'"
    assert last("numpy") == "<module 'numpy'>"
    code = "try: numpy.nope\nexcept AttributeError as e: caught = e\ncaught.obj is numpy, caught.__context__"
    assert last(code) == "(True, None)"


def test_imports_by_functions_written_in_c(session: Interpreter) -> None:
    session.execute("import datetime")
    sys.modules.pop("_strptime", None)
    assert text(session, "datetime.datetime.strptime('2/1/23', '%d/%m/%y').month") == "1"
    assert text(session, "__import__('os', {}, {}, [])").endswith("<module 'os'>") is False
    assert text(
        session, "g = {}\nos = __import__('os', g, g, [], 0)\ndir(os), vars(os).keys() & {'system', 'sys'}"
    ) == ("(['__doc__', '__loader__', '__name__', '__package__', '__spec__'], set())")


def test_libraries_that_read_text(session: Interpreter) -> None:
    assert text(session, "import sympy\nsympy.sympify('x**2 + sin(y)').diff('x')") == "2*x"
    assert text(session, "sympy.sympify('+'.join(f'x{i}' for i in range(400))).func.__name__") == "'Add'"
    assert text(session, "import timeit\nn = []\ntimeit.timeit('n.append(1)', globals=globals(), number=3) > 0, n") == (
        "(True, [1, 1, 1])"
    )
    code = "from __future__ import annotations\nimport typing\nclass A:\n    x: list[int]\ntyping.get_type_hints(A)"
    assert text(session, code) == "{'x': list[int]}"
    assert text(session, "import string\nstring.Formatter().format('{0.real:>3}', 5)") == "'  5'"


# --- modules of one's own -----------------------------------------------------------------------------------


def test_own_modules(session: Interpreter, tmp_path: Path) -> None:
    write(
        tmp_path,
        geometry="import math\nRUNS = []\nRUNS.append(1)\ndef area(r):\n    return round(math.pi * r * r, 2)\n",
        uses="import geometry\nfrom geometry import area as a\nvalue = a(2)\n",
        typed="from __future__ import annotations\nfrom dataclasses import dataclass as d\n@d\nclass P:\n    x: int\n",
        accents="# -*- coding: latin-1 -*-\nname = 'é'\n",
    )
    assert text(session, "import geometry\nimport geometry as g\ngeometry.area(1), g is geometry, g.RUNS") == (
        "(3.14, True, [1])"
    )
    assert text(session, "import uses\nuses.value, uses.geometry is geometry, uses.__name__") == "(12.57, True, 'uses')"
    assert text(session, "from typed import *\nP(3)") == "P(x=3)"
    assert text(session, "geometry.RUNS.append(2)\nimport geometry as again\nagain.RUNS") == "[1, 2]"
    assert text(session, "import accents\nlen(accents.name)") == "2"
    assert (
        text(session, "from geometry import nope").split("\n")[-1].startswith("ImportError: cannot import name 'nope'")
    )
    assert "geometry" not in sys.modules


def test_an_own_module_that_fails_is_tried_again(session: Interpreter, tmp_path: Path) -> None:
    write(tmp_path, shaky="1 / 0\n", wrong="def f(:\n")
    assert text(session, "import shaky").endswith("ZeroDivisionError: division by zero")
    assert text(session, "import wrong").endswith("SyntaxError: invalid syntax")
    write(tmp_path, shaky="x = 1\n")
    assert text(session, "import shaky\nshaky.x") == "1"


def test_own_modules_can_import_each_other(session: Interpreter, tmp_path: Path) -> None:
    write(tmp_path, one="import two\nx = 1\n", two="import one\ndef f():\n    return one.x\n")
    assert text(session, "import one\none.two.f()") == "1"


def test_a_module_that_is_allowed_but_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = Interpreter(7, language=Language(LanguagePolicy(("not_installed_here",))))
    assert text(session, "import not_installed_here").endswith("No module named 'not_installed_here'")
    write(tmp_path, not_installed_here="x = 1\n")
    assert text(session, "import not_installed_here\nnot_installed_here.x") == "1"
