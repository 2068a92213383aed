"""What the sandbox shows of a call: streams, values, errors, and how much of it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elpo_envs.sandbox import Limits, ReplaySandbox, Sandbox
from elpo_envs.sandbox.interpreter import Interpreter


@pytest.fixture
def sandbox() -> Iterator[ReplaySandbox]:
    box = ReplaySandbox()
    box.open(7)
    yield box
    box.close()


HEAD = "Traceback (most recent call last):\n"
NEXT = "The above exception was the direct cause of the following exception:"
SHOWN = {
    "x = 3 * 12\nx": ("36", "ok"),
    "x = 5": ("", "empty"),
    "": ("", "empty"),
    "# nothing": ("", "empty"),
    "None": ("", "empty"),
    "'a\\nb'": (r"'a\nb'", "ok"),
    "print('a'); print('b', end='')": ("a\nb", "ok"),
    "print('a', end='')\n5": ("a\n5", "ok"),
    "import sys\nprint('1')\nprint('2', file=sys.stderr)\nprint('3')": ("1\n2\n3", "ok"),
    "print(1)\nx = 2": ("1", "ok"),
    "for i in range(2):\n    i": ("", "empty"),
    "import sys\nn = sys.stdout.buffer.write('\\u00e9\\n'.encode())": ("\u00e9", "ok"),
    "class A: pass\nA()": ("<__main__.A object at 0x7f0000000000>", "ok"),
    "__name__": ("'__main__'", "ok"),
    "print('\\ud800')": ("\\ud800", "ok"),
    "import sys\nsys.stdout.close(); sys.stderr.close(); sys.__stdout__ = None\nprint(1)": ("1", "ok"),
    "import sys\nsys.stdout = None": ("", "empty"),
    "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as s: print(1)\ns.getvalue()": (
        "'1\\n'",
        "ok",
    ),
    "c = d + 1": (
        HEAD + "  File \"<python>\", line 1, in <module>\n    c = d + 1\nNameError: name 'd' is not defined",
        "error",
    ),
    "print('before')\n1 / 0": (
        "before\n" + HEAD + '  File "<python>", line 2, in <module>\n    1 / 0\nZeroDivisionError: division by zero',
        "error",
    ),
    "def f():\n    return [][1]\nf()": (
        HEAD
        + '  File "<python>", line 3, in <module>\n    f()\n'
        + '  File "<python>", line 2, in f\n    return [][1]\n'
        + "IndexError: list index out of range",
        "error",
    ),
    "import json\njson.loads('{')": (
        HEAD
        + "  File \"<python>\", line 2, in <module>\n    json.loads('{')\njson.decoder.JSONDecodeError: "
        + "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "error",
    ),
    "x = = 3": ('  File "<python>", line 1\n    x = = 3\n        ^\nSyntaxError: invalid syntax', "error"),
    "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e": (
        HEAD
        + '  File "<python>", line 2, in <module>\n    1 / 0\nZeroDivisionError: division by zero\n\n'
        + f"{NEXT}\n\n"
        + HEAD
        + "  File \"<python>\", line 4, in <module>\n    raise KeyError('k') from e\nKeyError: 'k'",
        "error",
    ),
    "input('? ')": (
        "? \n" + HEAD + "  File \"<python>\", line 1, in <module>\n    input('? ')\nEOFError: EOF when reading a line",
        "error",
    ),
    "exit()": ("SystemExit: 0 (the interpreter keeps running)", "error"),
    "print(1)\nquit(3)": ("1\nSystemExit: 3 (the interpreter keeps running)", "error"),
    "import sys\nsys.exit('bye')": ("SystemExit: bye (the interpreter keeps running)", "error"),
    "raise SystemExit": ("SystemExit: 0 (the interpreter keeps running)", "error"),
    "raise KeyboardInterrupt": ("KeyboardInterrupt (the interpreter keeps running)", "error"),
    "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E": (
        HEAD + '  File "<python>", line 3, in <module>\n    raise E\nE: <E whose str() raised SystemExit>',
        "error",
    ),
}


def test_what_a_call_shows(sandbox: ReplaySandbox) -> None:
    assert {code: _pair(sandbox, code) for code in SHOWN} == SHOWN


@pytest.mark.parametrize("code", SHOWN)
def test_lending_a_process_shows_the_same(code: str) -> None:
    assert Interpreter(7).execute(code) == SHOWN[code]


def _pair(box: Sandbox, code: str) -> tuple[str, str]:
    execution = box.run(code)
    return execution.text, execution.kind


def test_a_lent_process_is_given_back() -> None:
    state, streams, main = random.getstate(), (sys.stdin, sys.stdout, sys.stderr), sys.modules["__main__"]
    first, second = Interpreter(1), Interpreter(1)
    code = "import random, numpy\n(random.random(), float(numpy.random.rand()))"
    import numpy

    numpy_state = numpy.random.get_state()[1].tolist()  # type: ignore[index]
    texts = [first.execute(code), second.execute(code), first.execute(code), second.execute(code)]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    assert random.getstate() == state
    assert numpy.random.get_state()[1].tolist() == numpy_state  # type: ignore[index]
    assert (sys.stdin, sys.stdout, sys.stderr) == streams
    assert sys.modules["__main__"] is main


def test_output_past_sys_stdout_joins_in_order(sandbox: ReplaySandbox) -> None:
    code = "import os\nprint(1)\n_ = os.system('echo two; echo three >&2')\nprint(4)\n_ = os.write(1, b'five')"
    assert sandbox.run(code).text == "1\ntwo\nthree\n4\nfive"
    assert sandbox.run("print(6)").text == "6"


def test_deep_recursion_is_shown_briefly(sandbox: ReplaySandbox) -> None:
    text = sandbox.run("def f(n):\n    return f(n + 1)\nf(0)").text
    assert "[Previous line repeated" in text and text.endswith("RecursionError: maximum recursion depth exceeded")
    text = sandbox.run("def g(n): return h(n)\ndef h(n): return g(n)\ng(0)").text
    assert "frames omitted]" in text and len(text) < 1500


def test_functions_show_the_source_of_the_call_that_defined_them(sandbox: ReplaySandbox) -> None:
    sandbox.run("def f(x):\n    return 1 / x")
    sandbox.run("y = 2")
    assert "    f(0)\n" in (text := sandbox.run("f(0)").text) and "    return 1 / x\n" in text
    assert sandbox.run("import inspect\nprint(inspect.getsource(f))").text == "def f(x):\n    return 1 / x"


@pytest.mark.parametrize("flood", ["'x' * 10**7", "'é' * 10**6", "*range(10**6)", "'\\n' * 10**6", "*'ab' * 10**5"])
def test_long_output_is_cut_in_the_middle(flood: str) -> None:
    box = ReplaySandbox(Limits(output_chars=300))
    box.open(0)
    text = box.run(f"print('start')\nprint({flood})\n1 / 0").text
    box.close()
    assert len(text) <= 300
    assert text.startswith("start\n") and text.endswith("ZeroDivisionError: division by zero")
    assert " characters omitted] ...\n" in text


@given(parts=st.lists(st.text(max_size=120), max_size=12))
@settings(max_examples=80, deadline=None)
def test_bounded_output_is_a_prefix_and_a_suffix(parts: list[str]) -> None:
    text, _ = Interpreter(0, output_chars=100).execute("\n".join(f"print({part!r}, end='')" for part in parts))
    whole = "".join(parts).rstrip("\n").encode("utf-8", "backslashreplace").decode()
    assert len(text) <= 100
    if len(whole) <= 100:
        assert text == whole
    else:
        before, _, rest = text.partition("\n... [")
        number, _, after = rest.partition(" characters omitted] ...\n")
        assert whole == before + whole[len(before) : len(before) + int(number)] + after


def test_printing_without_end_takes_no_memory() -> None:
    box = ReplaySandbox(Limits(memory_mb=200))
    box.open(0)
    execution = box.run("s = 'x' * 10**6\nfor _ in range(1000): print(s)")
    assert execution.kind == "ok" and len(execution.text) <= 4000
    shown, _, rest = execution.text.partition("\n... [")
    omitted, _, end = rest.partition(" characters omitted] ...\n")
    assert int(omitted) == 1000 * (10**6 + 1) - 1 - len(shown) - len(end)
    box.close()


def test_a_huge_repr_and_huge_memory_are_bounded(sandbox: ReplaySandbox) -> None:
    sandbox.run("class Big:\n    def __repr__(self): return 'r' * 10**7")
    assert len(sandbox.run("Big()").text) <= 4000
    execution = sandbox.run("b = bytearray(4 << 30)")
    assert execution.kind == "error" and execution.text.endswith("MemoryError")
    assert sandbox.run("1").text == "1"
