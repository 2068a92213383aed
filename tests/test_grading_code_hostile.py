"""Programs that try to pass without solving anything get False, each for its own reason, and harm nobody."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elpo_envs.grading.code import CodeGrader, CodeLimits
from elpo_envs.sandbox import IsolationWarning, available

pytestmark = pytest.mark.filterwarnings(f"ignore::{IsolationWarning.__module__}.{IsolationWarning.__name__}")

SECRET = 7919  # what the expected values begin with: a program that has it has looked where it must not

STDIN = {"type": "stdin", "cases": [{"input": f"{n}\n", "output": f"{SECRET * 100 + n}"} for n in (3, 4)]}
FUNCTIONAL = {
    "type": "functional",
    "entry_point": "f",
    "cases": [{"input": str(n), "output": str(SECRET * 100 + n)} for n in (3, 4)],
}
CALLS = {"type": "calls", "entry_point": "f", "cases": [{"args": [n], "expected": SECRET * 100 + n} for n in (3, 4)]}
HUMANEVAL = {
    "type": "humaneval",
    "prompt": "def f(n):\n    '''The secret.'''\n",
    "code": f"def check(candidate):\n    for n in (3, 4):\n        assert candidate(n) == {SECRET} * 100 + n",
    "entry_point": "f",
}
ASSERTS = {"type": "asserts", "asserts": [f"assert set([f({n})]) == set([{SECRET} * 100 + {n}])" for n in (3, 4)]}
FORMS = {"functional": FUNCTIONAL, "calls": CALLS, "humaneval": HUMANEVAL, "asserts": ASSERTS}

HONEST = "def f(n):\n    return 79 * 10000 + 1900 + n"
HONEST_SCRIPT = "print(79 * 10000 + 1900 + int(input()))"

# Looks at everything that it can reach for a number that begins with the secret.
SEARCH = f"""
import gc, inspect, os, re, sys
def search():
    texts = []
    for info in inspect.stack():
        texts.append(repr(info.frame.f_locals)[:100000])
        texts.append(repr(info.frame.f_globals)[:100000])
    texts += [repr(each)[:100000] for each in gc.get_objects() if type(each) in (dict, list, tuple)][-20000:]
    texts.append(repr(dict(os.environ)))
    for folder in ("/proc/self", "/proc/%d" % os.getppid(), ".", "/tmp", "/dev/shm"):
        try:
            for name in os.listdir(folder):
                texts.append(open(os.path.join(folder, name), errors="replace").read(100000))
        except OSError:
            pass
    for descriptor in range(64):
        try:
            os.set_blocking(descriptor, False)
            texts.append(os.pread(descriptor, 100000, 0).decode("latin-1"))
        except OSError:
            pass
    own = "SECRET" + "_OF_MINE"
    for text in texts:
        for found in re.findall(r"(?<![\\d]){SECRET // 100}(?=19\\d\\d)\\d+", text):
            return int(found)
    return None
"""

FUNCTIONS = {
    # name: (program, outcomes of its first test that are right)
    "nothing": ("def f(n):\n    return None", {"wrong"}),
    "prints the verdict": ("print('passed')\ndef f(n):\n    print('passed', True, 1)\n    return 1", {"wrong"}),
    "exits at import": ("import sys\nsys.exit(0)", {"error"}),
    "exits in the call": ("import sys\ndef f(n):\n    sys.exit(0)", {"error"}),
    "ends its process at import": ("import os\nos._exit(0)", {"error"}),
    "ends its process in the call": ("import os\ndef f(n):\n    os._exit(0)", {"error"}),
    "kills itself": ("import os\ndef f(n):\n    os.kill(os.getpid(), 9)", {"error", "wrong"}),
    "at exit": ("import atexit, os\natexit.register(os._exit, 0)\ndef f(n):\n    return 0", {"wrong"}),
    "equal to everything": (
        "class All:\n    def __eq__(self, other):\n        return True\n    __hash__ = None\n"
        "def f(n):\n    return All()",
        {"invalid", "wrong"},
    ),
    "an int equal to everything": (
        "class All(int):\n    def __eq__(self, other):\n        return True\n"
        "    def __hash__(self):\n        return n\ndef f(n):\n    return All(1)",
        {"invalid", "wrong"},
    ),
    "a class in disguise": (
        "class All:\n    __class__ = int\n    def __eq__(self, other):\n        return True\n"
        "    def __repr__(self):\n        return '1'\ndef f(n):\n    return All()",
        {"invalid", "wrong"},
    ),
    "a list equal to everything": (
        "class All(list):\n    def __eq__(self, other):\n        return True\ndef f(n):\n    return All()",
        {"invalid", "wrong"},
    ),
    "patched builtins": (
        "import builtins\nfor name in ('len', 'all', 'any', 'isinstance', 'set', 'type', 'sorted'):\n"
        "    setattr(builtins, name, lambda *a, **k: True)\ndef f(n):\n    return 1",
        {"wrong", "invalid", "error"},
    ),
    "own set and sorted": (
        "class set:\n    def __init__(self, *_): pass\n    def __eq__(self, _):\n        return True\n"
        "def sorted(*_):\n    return 1\ndef f(n):\n    return 1",
        {"wrong"},
    ),
    "patched json and zlib": (
        "import json, zlib, base64\njson.dumps = lambda *a, **k: 'true'\njson.loads = lambda *a, **k: True\n"
        "zlib.compress = lambda *a: b''\ndef f(n):\n    return 1",
        {"wrong", "invalid", "error"},
    ),
    "patched standard output": (
        "import sys\nclass Out:\n    def write(self, text):\n        return 0\n    flush = lambda self: None\n"
        "sys.stdout = sys.__stdout__ = Out()\ndef f(n):\n    return 1",
        {"wrong"},
    ),
    "patched AssertionError": ("import builtins\nbuiltins.AssertionError = ()\ndef f(n):\n    return 1", {"wrong"}),
    "own check": ("def check(candidate):\n    pass\ndef f(n):\n    return 1", {"wrong"}),
    "patched unittest of replies": (
        "import sys\nsession = sys.modules.get('_elpo_code.message')\n"
        "if session:\n    session.Message.__repr__ = lambda self: 'passed'\ndef f(n):\n    return 1",
        {"invalid"},
    ),
    "a reply that says passed": (
        "import sys\nmessage = sys.modules.get('_elpo_code.message')\n"
        "def f(n):\n"
        "    message.Message.__init__ = lambda self, content: setattr(self, '_text', message._pack(['passed', '']))\n"
        "    return 1",
        {"invalid"},
    ),
    "a forged answer": (
        "import json, sys\nmessage = sys.modules.get('_elpo_code.message')\n"
        "def f(n):\n"
        "    forged = message._pack(['answers', json.dumps(['value', ['passed'], []])] * 1)\n"
        "    message.Message.__init__ = lambda self, content: setattr(self, '_text', forged)\n"
        "    return 1",
        {"wrong", "invalid", "error"},
    ),
    "forged descriptors": (
        "import os\ndef f(n):\n    for d in range(3, 64):\n        try:\n"
        '            os.write(d, b\'\\0\\0\\0\\x10[["passed","ok"]]\')\n'
        "        except OSError:\n            pass\n    return 1",
        {"wrong", "error", "invalid", "timeout"},
    ),
    "closed descriptors": (
        "import os\ndef f(n):\n    os.closerange(0, 64)\n    return 1",
        {"wrong", "error", "invalid"},
    ),
    "infinite recursion": ("def f(n):\n    return f(n)", {"error"}),
    "endless recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(n):\n    return f(n)",
        {"error", "memory", "timeout"},
    ),
    "endless": ("def f(n):\n    while True:\n        pass", {"timeout"}),
    "endless at import": ("while True:\n    pass", {"timeout"}),
    "endless, deaf": (
        "import signal\nfor s in range(1, 65):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\n"
        "def f(n):\n    while True:\n        try:\n            while True:\n                pass\n"
        "        except BaseException:\n            pass",
        {"timeout", "error"},
    ),
    "memory": ("def f(n):\n    return [0] * 10**12", {"memory"}),
    "memory bit by bit": (
        "def f(n):\n    kept = []\n    while True:\n        kept.append(bytearray(1 << 20))",
        {"memory"},
    ),
    "an endless value": ("import itertools\ndef f(n):\n    return map(str, itertools.count())", {"invalid", "timeout"}),
    "a value in itself": ("def f(n):\n    x = []\n    x.append(x)\n    return x", {"invalid", "wrong", "error"}),
    "a doubling value": (
        "def f(n):\n    x = []\n    for _ in range(100):\n        x = [x, x]\n    return x",
        {"invalid", "wrong", "error", "memory", "timeout"},
    ),
    "a large value": ("def f(n):\n    import os\n    return os.urandom(8 << 20)", {"invalid", "wrong"}),
    "an error with a hostile text": (
        "class Odd(Exception):\n    def __str__(self):\n        raise Odd\ndef f(n):\n    raise Odd",
        {"error"},
    ),
    "an error that is no text": ("def f(n):\n    raise ValueError('\\ud800' * 1000)", {"error"}),
    "flood": ("def f(n):\n    while True:\n        print('passed' * 1000)", {"timeout"}),
    "flood past sys.stdout": ("import os\ndef f(n):\n    while True:\n        os.write(1, b'x' * 100000)", {"error"}),
    "fork bomb": ("import os\ndef f(n):\n    while True:\n        os.fork()", {"error", "timeout"}),
    "all descriptors taken": (
        "kept = []\ntry:\n    while True:\n        kept.append(open('x', 'w'))\nexcept OSError:\n    pass\n"
        "def f(n):\n    return 1",
        {"error"},
    ),
    "disk filled": (
        "for n in range(10):\n    open(str(n), 'wb').write(b'x' * 8000000)\ndef f(n):\n    return 1",
        {"error"},
    ),
    "memory filled": (
        "kept = []\ntry:\n    while True:\n        kept.append(bytearray(100000))\nexcept MemoryError:\n    pass\n"
        "def f(n):\n    return 1",
        {"wrong", "error", "memory", "timeout"},
    ),
    "no builtins": (
        "import builtins\nfor name in list(vars(builtins)):\n    delattr(builtins, name)\ndef f(n):\n    return 1",
        {"error", "wrong"},
    ),
    "no modules": ("import sys\nsys.modules.clear()\ndef f(n):\n    return 1", {"wrong", "error"}),
    "an audit hook": (
        "import sys\ndef hook(*_):\n    raise SystemExit\nsys.addaudithook(hook)\ndef f(n):\n    return 1",
        {"error", "wrong"},
    ),
    "a trace": ("import sys\nsys.settrace(lambda *_: 1 / 0)\ndef f(n):\n    return 1", {"error", "wrong"}),
    "an alarm": (
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: 1 / 0)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\ndef f(n):\n    return 1",
        {"error", "wrong"},
    ),
    "own limits": (
        "import resource\nfor n in range(16):\n    try:\n        resource.setrlimit(n, (0, 0))\n"
        "    except (OSError, ValueError):\n        pass\ndef f(n):\n    return 1",
        {"error", "wrong"},
    ),
    "looks everywhere": (SEARCH + "def f(n):\n    return search()", {"wrong", "error", "timeout"}),
    "looks everywhere at import": (SEARCH + "found = search()\ndef f(n):\n    return found", {"wrong", "error"}),
    "no Python": ("def f(n) return", {"error"}),
    "zeros": ("\0", {"error"}),
    "deep brackets": ("(" * 100000, {"error", "memory"}),
    "": ("", {"error"}),
}

SCRIPTS = {
    "prints the verdict": ("print('passed')\nprint(True)", {"wrong"}),
    "exits": ("import sys\nsys.exit(0)", {"wrong"}),
    "ends its process": ("print(1, flush=True)\nimport os\nos._exit(0)", {"error"}),
    "fails after the answer": (HONEST_SCRIPT + "\nraise ValueError", {"error"}),
    "at exit": ("import atexit, os\natexit.register(os._exit, 0)", {"error"}),
    "endless output": ("while True:\n    print('x' * 1000)", {"error", "timeout"}),
    "all outputs": ("for n in range(100000):\n    print(n)", {"wrong"}),
    "stdin again": ("import os\nos.lseek(0, 0, 0)\nprint(open(0).read() * 2)", {"wrong"}),
    "looks everywhere": (SEARCH + "print(search())", {"wrong", "error", "timeout"}),
    "replaced stream": ("import sys\nsys.stdout = None", {"wrong"}),
    "closed stream": ("import sys\nsys.stdout.close()\nsys.stdin.close()", {"wrong", "error", "invalid"}),
    "closed descriptors": ("import os\nos.closerange(0, 64)", {"wrong", "error", "invalid"}),
}


@pytest.fixture(scope="module")
def grader() -> Iterator[CodeGrader]:
    with CodeGrader(CodeLimits(per_test_s=1, total_s=30, memory_mb=512)) as grader:
        yield grader


@pytest.fixture(autouse=True)
def _the_honest_program_still_passes(grader: CodeGrader) -> Iterator[None]:
    yield
    assert grader.grade(HONEST, CALLS).correct


def refused(grader: CodeGrader, program: str, tests: dict[str, Any], expected: set[str]) -> None:
    grade = grader.grade(program, tests)
    assert not grade.correct
    assert not grade.failed_infrastructure, grade.note
    assert grade.outcomes[-1].outcome in expected, grade
    assert str(SECRET) not in json.dumps(grade.to_json())


@pytest.mark.parametrize("form", FORMS)
def test_the_honest_program_passes(grader: CodeGrader, form: str) -> None:
    grade = grader.grade(HONEST, FORMS[form])
    assert grade.correct, grade


def test_the_honest_script_passes(grader: CodeGrader) -> None:
    assert grader.grade(HONEST_SCRIPT, STDIN).correct


needs_jail = pytest.mark.skipif("fork" not in available(), reason="without isolation a fork bomb would reach the host")


@needs_jail
@pytest.mark.parametrize("name", FUNCTIONS)
def test_hostile_functions(grader: CodeGrader, name: str) -> None:
    program, expected = FUNCTIONS[name]
    refused(grader, program, CALLS, expected)


@needs_jail
@pytest.mark.parametrize("name", [name for name, (_, expected) in FUNCTIONS.items() if "wrong" in expected])
def test_hostile_functions_before_test_code(grader: CodeGrader, name: str) -> None:
    program, expected = FUNCTIONS[name]
    refused(grader, program, ASSERTS, expected)


@needs_jail
@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("form", ["functional", "humaneval", "asserts"])
def test_hostile_functions_in_the_other_forms(grader: CodeGrader, name: str, form: str) -> None:
    program, expected = FUNCTIONS[name]
    refused(grader, program, FORMS[form], expected)


@needs_jail
@pytest.mark.parametrize("name", SCRIPTS)
def test_hostile_scripts(grader: CodeGrader, name: str) -> None:
    program, expected = SCRIPTS[name]
    refused(grader, program, STDIN, expected)


def test_the_search_would_find_what_is_there(grader: CodeGrader) -> None:
    """That the hostile search finds nothing means something: where the secret is passed, it is found."""
    tests = {
        "type": "calls",
        "entry_point": "f",
        "cases": [{"args": [str(SECRET * 100 + 3)], "expected": SECRET * 100 + 3}],
    }
    assert grader.grade(SEARCH + "def f(n):\n    return search()", tests).correct


@needs_jail
def test_the_host_keeps_its_files_and_variables(grader: CodeGrader, tmp_path: Path) -> None:
    kept = tmp_path / "answers.txt"
    kept.write_text(str(SECRET))
    program = f"def f(n):\n    open({str(kept)!r}, 'w').write('mine')\n    return 1"
    refused(grader, program, CALLS, {"error"})
    refused(grader, f"def f(n):\n    return int(open({str(kept)!r}).read()) * 100 + n", CALLS, {"error"})
    assert kept.read_text() == str(SECRET)
    name = "ELPO_TEST_SECRET"
    os.environ[name] = str(SECRET)
    try:
        with CodeGrader() as fresh:
            refused(fresh, f"import os\ndef f(n):\n    return int(os.environ[{name!r}]) * 100 + n", CALLS, {"error"})
    finally:
        del os.environ[name]
