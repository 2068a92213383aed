"""The solution's session: load a program, run it on an input, call its functions. It knows no test's answer.

Payloads are JSON lists; replies are `Message`s whose content is listed with each function. The program can do to
this module what it likes: a reply is a claim about values, which the host compares.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from typing import Any

from . import threads
from .message import Message
from .values import NotAValueError, decode, encode, is_container

_NOTE_CHARS = 200
_READ_BYTES = 1 << 20
_RECURSION = 50_000
# What LiveCodeBench's harness has imported before a program begins; later ones win.
_STARRED = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
_STREAMS = frozenset(("stdin", "stdout", "stderr"))  # of `sys`: those of one moment are of no use later
_INT_DIGITS = 50_000  # of an integer that is printed or read


class _Sink(io.TextIOBase):
    """A text stream that forgets what is written."""

    encoding = "utf-8"

    def __init__(self) -> None:
        super().__init__()
        self.buffer = _ByteSink()

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


class _ByteSink(io.RawIOBase):
    def write(self, data: Any, /) -> int:
        return len(data)

    def writable(self) -> bool:
        return True


class Program:
    """The program of this session.

    Attributes:
        module: its namespace.
        code: what runs for each input; None where the program was run once, when it was loaded.
        objects: what calls gave that is not plain data, by number of the call.
    """

    def __init__(self) -> None:
        self.module = types.ModuleType("solution")
        self.code: types.CodeType | None = None
        self.objects: dict[int, Any] = {}


_program = Program()
_convenient: dict[str, Any] = {}
atexit._clear()  # what is registered from now on is the program's
threads.install()


def load(payload: str) -> Message:
    """Load a program: `[source, source instead if that is no Python or null, before, hidden name, kind, kept names]`.

    `before` runs first in the same namespace, and then the hidden name is removed. `kind` is "script" for a program
    that reads and prints, "leetcode" for one with the customary imports, or "module". Replies `["loaded", [[name,
    "class" | "function"], ...]]` for those of the kept names that are callable, or `["failed", type, text]`.
    """
    source, instead, before, hidden, kind, kept = json.loads(payload)
    _program.module = module = types.ModuleType("__main__" if kind == "script" else "solution")
    sys.modules[module.__name__] = module
    sys.argv = ["solution.py"]
    with _silence():
        try:
            if kind != "module":
                module.__dict__.update(_customary())
                sys.setrecursionlimit(_RECURSION)
                sys.set_int_max_str_digits(_INT_DIGITS)
            if before:
                exec(compile(before, "<prompt>", "exec", dont_inherit=True), module.__dict__)
                module.__dict__.pop(hidden, None)
            code = _compile(source, instead)
            if kind == "script":
                _program.code = code
            else:
                exec(code, module.__dict__)
        except BaseException as error:
            return Message(["failed", *_name(error)])
    found = [(name, getattr(module, name, None)) for name in kept]
    kinds = [[name, "class" if isinstance(it, type) else "function"] for name, it in found if callable(it)]
    return Message(["loaded", kinds])


def run(payload: str) -> Message:
    """Run a "script" with `[text]` as its input; replies `["printed", text, null or [type, text] of the error]`.

    `SystemExit` is no error, whatever its status, as in LiveCodeBench.
    """
    (text,) = json.loads(payload)
    _give(text.encode("utf-8", "surrogatepass"))
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8", errors="replace")
    output = _temporary()
    os.dup2(output, 1)
    stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8", errors="backslashreplace"
    )
    sys.stdout, sys.stderr = stdout, _Sink()
    error = None
    assert _program.code is not None
    try:
        exec(_program.code, _program.module.__dict__)
    except SystemExit:
        pass
    except BaseException as raised:
        error = _name(raised)
    for finish in (atexit._run_exitfuncs, lambda: _flush(sys.stdout), lambda: _flush(stdout)):
        try:
            finish()
        except SystemExit:
            pass
        except BaseException as raised:
            error = error or _name(raised)
    return Message(["printed", _content(output), error])


def _flush(stream: Any) -> None:
    """What the end of a process does for its output, which the program may have replaced, removed or closed."""
    if stream is not None and not getattr(stream, "closed", False):
        stream.flush()


def call(payload: str) -> Message:
    """Make calls: `[number of the first, [entry, ...]]`; replies `["answers", answer, ...]`.

    Entries and answers are JSON as text. An entry is `["call" | "new", name, arguments, keyword arguments]`,
    `["method", object, name, arguments, keyword arguments]`, `["get", object, name]` or `["set", object, name, value]`.
    An answer is `["value", value, changed arguments]`, `["object"]` for what is no plain data and is kept under the
    number of the call, `["callable"]`, `["raised", names of its types, text]` or `["invalid", why]`.
    """
    first, entries = json.loads(payload)
    with _silence():
        return Message(["answers", *(_answer(first + at, json.loads(entry)) for at, entry in enumerate(entries))])


def _answer(number: int, entry: list[Any]) -> str:
    try:
        return json.dumps(_perform(number, entry))
    except NotAValueError as error:
        return json.dumps(["invalid", str(error)])
    except BaseException as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        return json.dumps(["raised", names, _name(error)[1]])


def _perform(number: int, entry: list[Any]) -> list[Any]:
    kind = entry[0]
    if kind == "get":
        value = getattr(_program.objects[entry[1]], entry[2])
        if callable(value):
            return ["callable"]
        return _result(number, value, [])
    if kind == "set":
        setattr(_program.objects[entry[1]], entry[2], decode(entry[3], _refer))
        return ["value", None, []]
    *target, name, positional, named = entry[1:]
    function = getattr(_program.objects[target[0]], name) if kind == "method" else _find(name)
    arguments = {at: decode(tree, _refer) for at, tree in enumerate(positional)}
    keywords = {key: decode(tree, _refer) for key, tree in named}
    value = function(*arguments.values(), **keywords)
    if kind == "new":
        _program.objects[number] = value
        return ["object"]
    before = [*enumerate(positional), *named]
    changed = []
    for (key, tree), argument in zip(before, [*arguments.values(), *keywords.values()], strict=True):
        if type(argument) in (list, dict, set):
            with contextlib.suppress(NotAValueError):
                if (now := encode(argument, _known)) != tree:
                    changed.append([key, now])
    return _result(number, value, changed)


def _result(number: int, value: Any, changed: list[Any]) -> list[Any]:
    try:
        return ["value", encode(value), changed]
    except NotAValueError:
        if is_container(value):
            raise
    _program.objects[number] = value
    return ["object"]


def _find(name: str) -> Any:
    """The method of `class Solution` or the function of that name."""
    namespace = _program.module.__dict__
    solution = namespace.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return getattr(solution(), name)
    if name not in namespace:
        raise NameError(f"name {name!r} is not defined")
    return namespace[name]


def _refer(tree: list[Any]) -> Any:
    if tree[0] != "o":
        raise ValueError(f"there is no value with the tag {tree[0]!r}")
    return _program.objects[tree[1]]


def _known(value: Any) -> Any:
    for number, known in _program.objects.items():
        if known is value:
            return ["o", number]
    raise NotAValueError(f"an object of type {type(value).__name__} is not plain data")


def _compile(source: str, instead: str | None) -> types.CodeType:
    try:
        return compile(source, "<program>", "exec", dont_inherit=True)
    except SyntaxError:
        if instead is None:
            raise
        with contextlib.suppress(SyntaxError):
            return compile(instead, "<program>", "exec", dont_inherit=True)
        raise


def _customary() -> dict[str, Any]:
    if not _convenient:
        for name in _STARRED:
            module = importlib.import_module(name)
            public = getattr(module, "__all__", None) or [each for each in vars(module) if not each.startswith("_")]
            _convenient.update({each: getattr(module, each) for each in public if each not in _STREAMS})
        _convenient.update({name: importlib.import_module(name) for name in _STARRED})
    return _convenient


def _name(error: BaseException) -> tuple[str, str]:
    """The type and the text of an error, as far as it lets itself be shown."""
    try:
        text = str(error)[:_NOTE_CHARS]
    except BaseException:
        text = ""
    return type(error).__name__, text


# --- files --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No input, and output that nobody sees."""
    _give(b"")
    sink = _temporary()
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), _Sink(), _Sink()
    yield


def _give(data: bytes) -> None:
    """Make `data` what descriptor 0 reads, as a file would be."""
    file = _temporary()
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
    os.lseek(file, 0, os.SEEK_SET)
    os.dup2(file, 0)
    os.close(file)


def _temporary() -> int:
    """A nameless file, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("stream")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _content(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    parts = []
    while part := os.read(descriptor, _READ_BYTES):
        parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")
