"""The `pyodide` backend: what calls give, their limits, and the process that they run in."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from _pyodide import INSTALLED, LIMITS, NOT_INSTALLED, fresh_box, own_cache, process_id, shared_box, texts  # noqa: F401

from elpo_envs.sandbox.base import Limits, SandboxError
from elpo_envs.sandbox.language import LanguagePolicy
from elpo_envs.sandbox.pyodide import PyodideSandbox, heap_file, installation
from elpo_envs.sandbox.replay import ReplaySandbox

if not INSTALLED:
    pytest.skip(NOT_INSTALLED, allow_module_level=True)

KEPT = "variables are as they were before it"


# --- what a call gives --------------------------------------------------------------------------------------


SAME_EVERYWHERE = [
    "x = 1",
    "x + 1",
    "print('a'); x",
    "print('no end of line', end=''); 'value'",
    "1 / 0",
    "def f():\n    raise KeyError('k')\ntry:\n    f()\nexcept KeyError as e:\n    raise ValueError('v') from e",
    "import os; os.write(1, b'past sys.stdout\\n'); print('after')",
    "input()",
    "raise SystemExit(3)",
    "print('y' * 9000)",
    "object()",
    "import random; random.random(), random.randint(1, 9)",
    "open('note.txt', 'w').write('text'); import os; os.getcwd(), os.listdir()",
    "x = (",
    "import sympy; y = sympy.Symbol('y'); sympy.integrate(y * sympy.sin(y), y)",
    "sorted({'b', 'a'})",
    "def deep(n): return n and 1 + deep(n - 1)\ndeep(900)",
    "import tempfile; tempfile.gettempdir()",
]


def test_calls_give_what_other_backends_give(box: PyodideSandbox) -> None:
    other = ReplaySandbox(LIMITS)
    other.open(7)
    for code in SAME_EVERYWHERE:
        mine, theirs = box.run(code), other.run(code)
        assert (mine.kind, mine.text) == (theirs.kind, theirs.text), code
    other.close()


def test_kinds(box: PyodideSandbox) -> None:
    assert [box.run(code).kind for code in ("x = 1", "x", "nothing")] == ["empty", "ok", "error"]


def test_before_open_there_is_no_session() -> None:
    with pytest.raises(SandboxError, match="open"):
        PyodideSandbox().run("1")


def test_language_layer() -> None:
    sandbox = PyodideSandbox(LIMITS, language=LanguagePolicy())
    sandbox.open(1)
    assert sandbox.run("class P:\n    n: int = 0\np = P(); p.n += 2; p.n").text == "2"
    assert "import of 'os' is not allowed" in sandbox.run("import os").text
    assert "__subclasses__" in sandbox.run("().__class__.__base__.__subclasses__()").text
    kept = sandbox.snapshot()
    sandbox.run("p.n = 5")
    sandbox.restore(kept)
    assert sandbox.run("p.n").text == "2"
    sandbox.close()


def test_numpy_is_missing_and_says_so(box: PyodideSandbox) -> None:
    assert "No module named 'numpy'" in box.run("import numpy").text
    assert not box.capabilities.numpy


# --- limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "limits", "what"),
    [
        ("while True: pass", Limits(wall_s=0.3, cpu_s=9.0), "0.3 s"),
        ("while True: pass", Limits(wall_s=9.0, cpu_s=0.3), "0.3 s of CPU time"),
        ("import time; time.sleep(60)", Limits(wall_s=0.3, cpu_s=9.0), "0.3 s"),
        ("import re; re.match('(a*)*b', 'a' * 40)", Limits(wall_s=0.3, cpu_s=9.0), "0.3 s"),
        ("try:\n    while True: pass\nexcept KeyboardInterrupt: 5", Limits(wall_s=0.3, cpu_s=9.0), "0.3 s"),
    ],
)
def test_a_call_is_stopped_and_leaves_nothing(box: PyodideSandbox, code: str, limits: Limits, what: str) -> None:
    box.run("x = [1]")
    kept = box.snapshot()
    box.run("x.append(2)")
    process = process_id(box)
    box.limits = limits
    execution = box.run(f"x.append(3); open('left.txt', 'w').write('left')\n{code}")
    assert (execution.kind, execution.text) == ("timeout", f"TimeoutError: the call was stopped after {what}; {KEPT}")
    box.limits = LIMITS
    assert texts(box, "x", "import os; os.listdir()") == ["[1, 2]", "[]"]
    assert process_id(box) == process
    box.restore(kept)
    assert box.run("x").text == "[1]"


def test_a_reply_that_takes_too_long_is_stopped(box: PyodideSandbox) -> None:
    box.run("x = 1")
    kept = box.snapshot()
    process = process_id(box)
    box.run("import json\ndef dumps(_):\n    while True: pass\njson.dumps = dumps")  # used from the next reply on
    box.limits = Limits(wall_s=0.3, cpu_s=9.0)
    assert box.run("1").kind == "timeout"
    box.restore(kept)
    assert box.run("x").text == "1"
    assert process_id(box) == process


@pytest.mark.parametrize("once", ["time.time_ns()", "os.urandom(9)", "uuid.uuid4()", "random.Random().random()"])
def test_what_happens_once_is_not_repeated(box: PyodideSandbox, once: str) -> None:
    box.run("import os, random, time, uuid")
    box.snapshot()
    text = box.run(f"value = {once}; value").text  # so short a call that there would be no copy after it
    process = process_id(box)
    box.limits = Limits(wall_s=0.1, cpu_s=9.0)
    assert box.run("while True: pass").kind == "timeout"
    box.limits = LIMITS
    assert box.run("value").text == text
    assert process_id(box) == process


def test_code_that_cannot_be_interrupted_is_killed(box: PyodideSandbox) -> None:
    box.run("x = 1")
    process = process_id(box)
    box.limits = Limits(wall_s=0.3, cpu_s=9.0)
    assert box.run("x = 2; sum(range(10**11))").kind == "timeout"
    box.limits = LIMITS
    assert box.run("x").text == "1"
    assert process_id(box) != process


def test_a_lost_process_loses_only_the_call(box: PyodideSandbox) -> None:
    box.run("x = 1")
    execution = box.run("x = 2; import os; os._exit(3)")
    assert execution.kind == "error"
    assert execution.text == f"ProcessDied: the interpreter was lost in this call (it ended with exit code 3); {KEPT}"
    assert box.run("x").text == "1"


def test_memory_is_bounded(box: PyodideSandbox) -> None:
    text = box.run("data = bytearray(1 << 30)").text  # with what Python itself takes, more than the limit
    assert text.endswith("MemoryError")
    assert box.run("len(bytearray(100 << 20))").text == str(100 << 20)


def test_files_are_bounded(box: PyodideSandbox) -> None:
    assert "File too large" in box.run("f = open('big', 'wb', 0); f.write(bytes(9 << 20))").text
    assert "File too large" in box.run("f.truncate(9 << 20)").text


def test_deep_recursion_is_an_error_of_python(box: PyodideSandbox) -> None:
    code = "import sys; sys.setrecursionlimit(10**6)\nd = []\nfor _ in range(40_000): d = [d]\nlen(repr(d))"
    execution = box.run(code)
    assert execution.text == "80002" or "\nRecursionError: " in execution.text, execution.text[-200:]


def test_the_library_cannot_be_changed(box: PyodideSandbox) -> None:
    for path in ("/packages/sympy/__init__.py", "/lib/python314.zip", "/elpo/_elpo_sandbox/interpreter.py"):
        assert "Error" in box.run(f"open({path!r}, 'a')").text
    assert "Error" in box.run("import os; os.chmod('/packages', 0o777)").text
    assert "Error" in box.run("open('new', 'w').close(); os.rename('new', '/packages/sympy/new.py')").text
    assert "Error" in box.run("import shutil; shutil.rmtree('/packages/mpmath')").text


# --- the process --------------------------------------------------------------------------------------------


def test_async_calls_leave_the_loop_free(box: PyodideSandbox) -> None:
    async def both() -> tuple[str, int]:
        ticks = 0
        call = asyncio.ensure_future(box.run_async("import time; time.sleep(0.2); 'done'"))
        while not call.done():
            ticks += 1
            await asyncio.sleep(0.01)
        return call.result().text, ticks

    text, ticks = asyncio.run(both())
    assert text == "'done'" and ticks > 2


def test_a_cancelled_call_leaves_nothing(box: PyodideSandbox) -> None:
    async def cancel() -> None:
        call = asyncio.ensure_future(box.run_async("x = 2\nwhile True: pass"))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    box.run("x = 1")
    asyncio.run(cancel())
    assert box.run("x").text == "1"


def test_the_process_outlives_the_thread_that_started_it() -> None:
    sandbox = PyodideSandbox(LIMITS)
    sandbox.open(1)
    thread = threading.Thread(target=sandbox.run, args=("x = 1",))
    thread.start()
    thread.join()
    process = process_id(sandbox)
    assert sandbox.run("x").text == "1"
    assert process_id(sandbox) == process
    sandbox.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_host_leaves_the_process_alone(box: PyodideSandbox) -> None:
    box.run("x = 1")
    process = process_id(box)
    child = os.fork()
    if not child:
        text = box.run("x").text  # repeated in a process of its own
        os._exit(0 if text == "1" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert box.run("x").text == "1"
    assert process_id(box) == process


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    found = installation.find()
    for file in found.pyodide.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "pyodide.asm.wasm").unlink()
    (tmp_path / "pyodide.asm.wasm").write_bytes(b"broken")
    sandbox = PyodideSandbox(LIMITS, package=tmp_path)
    sandbox.open(1)
    execution = sandbox.run("1")
    assert execution.kind == "sandbox_failure"
    assert execution.text.startswith("SandboxError: Pyodide did not start in Node.js: ")


def test_a_version_that_is_too_different_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"version": "9.8"}')
    (tmp_path / "pyodide.asm.wasm").touch()
    (tmp_path / "pyodide.mjs").write_text("export const loadPyodide = async () => ({ version: '9.8' });")
    sandbox = PyodideSandbox(LIMITS, package=tmp_path)
    sandbox.open(1)
    assert "version 9.8 of Pyodide is not one that this can run" in sandbox.run("1").text


@pytest.mark.slow
def test_without_a_cache_there_is_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr(heap_file, "_cache", lambda: blocked / "cache")
    monkeypatch.setattr(heap_file, "_substitute", None)
    sandbox = PyodideSandbox(LIMITS, packages=(), preload=("json", "no_such_module"))
    sandbox.open(1)
    assert sandbox.run("1 + 1").text == "2"
    folder = heap_file._substitute
    assert folder is not None and [path.suffix for path in folder.iterdir()] == [".heap"]
    sandbox.close()
    heap_file._remove(folder, os.getpid())
    assert not folder.exists()


def test_a_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    for number in range(7):
        path = heap_file._write_into(tmp_path, f"{number}.heap", b"contents")
        os.utime(path, (number, number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.heap", "4.heap", "5.heap", "6.heap"]
    assert (tmp_path / "6.heap").read_bytes() == b"contents"
