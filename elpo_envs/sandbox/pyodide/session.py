"""What runs in Pyodide: one session of the same interpreter as in the other backends.

The files of this package that it needs are copied there, and nothing else of the project. Standard library only.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.abc import MetaPathFinder
from typing import Any

from .. import output
from ..capture import capture_descriptors
from ..interpreter import Interpreter

SCRATCH = "/scratch"

_SLICE_S = 0.001
_ENVIRONMENT = {"HOME": SCRATCH, "TMPDIR": SCRATCH, "LANG": "C.UTF-8", "PWD": SCRATCH}
_JAVASCRIPT = ("js", "pyodide", "pyodide_js", "_pyodide", "_pyodide_core")
_CHANGED = ("asyncio", "_asyncio")  # by Pyodide, to use the event loop of JavaScript, which does not run here
_ADDRESS = re.compile(r"(?<= at )0x[0-9a-fA-F]{6,8}(?=[>,])")  # of 32 bits, where a host has 64

_interpreter: Interpreter | None = None
_foreign: Callable[[], str] | None = None
_sleep = getattr(time.sleep, "__wrapped__", time.sleep)


class _Hidden(MetaPathFinder):
    """Finds nothing, and lets nothing be found, where Python would be led to JavaScript."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname.partition(".")[0] in _JAVASCRIPT:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def prepare(modules: Iterable[str]) -> None:
    """Import what sessions are to find imported already. What is in memory afterwards is kept in a file."""
    for name in modules:
        importlib.import_module(name)


def adopt() -> None:
    """Make this Python what sessions start from: take away what leads to JavaScript, and the standard streams."""
    global _foreign
    finders = [finder for finder in sys.meta_path if not str(getattr(finder, "__module__", "")).startswith("_pyodide")]
    sys.meta_path[:] = [_Hidden(), *finders]
    for name in list(sys.modules):
        if name.partition(".")[0] in (*_JAVASCRIPT, *_CHANGED):
            del sys.modules[name]
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)
    os.chdir(SCRATCH)
    tempfile.tempdir = None
    time.sleep = _sleep_in_slices  # type: ignore[assignment]
    sys.argv = [""]
    sys.path[:] = ["", *(folder for folder in sys.path if folder not in ("", "/elpo"))]
    sys.dont_write_bytecode = True
    output._ADDRESS = _ADDRESS
    _foreign = capture_descriptors()


def answer(request: str) -> str:
    """Carry out one request, as JSON: `{"start": settings}`, `{"reseed": seed}` or `{"run": code}`.

    The reply, as JSON, is `[text, kind]` of the code, or null.
    """
    global _interpreter
    ((what, value),) = json.loads(request).items()
    if what == "start":
        _interpreter = _start(value)
        return "null"
    assert _interpreter is not None
    if what == "reseed":
        _interpreter.reseed(value)
        return "null"
    return json.dumps(_interpreter.execute(value))


def _start(settings: dict[str, Any]) -> Interpreter:
    # The depth at which the code meets RecursionError must not depend on how the session was started.
    sys.setrecursionlimit(1000 + _depth())
    language = None
    if settings["allowed_imports"] is not None:
        from ..language import Language, LanguagePolicy

        language = Language(LanguagePolicy(tuple(settings["allowed_imports"])))
    return Interpreter(settings["seed"], settings["output_chars"], True, _foreign, SCRATCH, language)


def _sleep_in_slices(seconds: float, /) -> None:
    """`time.sleep`, which is a busy wait here, in slices between which a call can be stopped."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        _sleep(min(left, _SLICE_S))


def _depth() -> int:
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth
