"""What happens inside a session: run code in a persistent namespace and give back what a terminal would show.

Standard library only, and imported by path in a session process, which must start in milliseconds and without
the rest of the package. `Interpreter` is not a security boundary: the code has the rights of its process.

Text is meant to repeat byte for byte when a session is replayed. Memory addresses in default reprs are shown
as `0x7f0000000000`, `random` is seeded, and numpy's global generator is seeded as the last step of importing
`numpy.random`, before any user code can draw from it. The clock, fresh entropy (`os.urandom`, an unseeded
`numpy.random.default_rng()`) and files outside the session are not made repeatable.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import linecache
import random
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

from .output import FILENAME, NoInput, Output, Stream  # relative: a session imports this by path

if TYPE_CHECKING:
    from .language import Language

KEEPS_RUNNING = "(the interpreter keeps running)"

_MAX_FRAMES = 16
_MAX_CHAIN = 4
_SAME_FRAME_SHOWN = 3


class Interpreter:
    """A persistent `__main__` namespace in which code is run call by call.

    Args:
        seed: seeds `random` and, if and when it is imported, numpy's global generator.
        output_chars: upper bound on the length of a call's text, at least 100; beyond it it is elided.
        own_process: True in a session process, which the code then owns. False lends the caller's process for
            each call only: `sys.stdin/stdout/stderr`, `sys.modules["__main__"]` and the states of the global
            generators are put back afterwards.
        foreign_output: gives and forgets what reached the file descriptors 1 and 2 past `sys.stdout`.
        scratch: the working directory, which differs from session to session and is shown as `/scratch`.
        language: compiles the code and gives it its builtins; None for plain Python.
    """

    def __init__(
        self,
        seed: int,
        output_chars: int = 4000,
        own_process: bool = False,
        foreign_output: Callable[[], str] | None = None,
        scratch: str | None = None,
        language: Language | None = None,
    ) -> None:
        if output_chars < 100:
            raise ValueError(f"output_chars must be at least 100, not {output_chars}")
        self.module = types.ModuleType("__main__")
        self.namespace: dict[str, Any] = self.module.__dict__
        self._language = language
        self._builtins: Any = builtins if language is None else language.module
        self._output = Output(output_chars, foreign_output, scratch)
        self._stdout = Stream(self._output, 1 if own_process else None)
        self._stderr = Stream(self._output, 2 if own_process else None)
        self._stdin = NoInput()
        self._sources: dict[str, list[str]] = {}
        self._generators = _Generators(seed)
        self._own_process = own_process
        if own_process:
            sys.modules["__main__"] = self.module
            self._generators.install()
            if language is not None:
                language.install()

    def reseed(self, seed: int) -> None:
        """Seed `random` and numpy's global generator anew."""
        self._generators.reseed(seed, live=self._own_process)

    def execute(self, code: str) -> tuple[str, str]:
        """Run `code` and return `(text, kind)`; never raises for anything the code does.

        `text` holds stdout and stderr in the order written, then the `repr` of the last statement if that is
        an expression with a value other than None, or a traceback clipped to the frames of the code; no
        trailing newline. `kind` is "ok", "empty" (nothing to show) or "error". What was defined before an
        error stays defined.
        """
        self._output.reset()
        with contextlib.nullcontext() if self._own_process else self._borrowed_process():
            sys.stdin, sys.stdout, sys.stderr = self._stdin, self._stdout, self._stderr
            failed = self._run(code)
        text = self._output.text()
        if failed:
            return text, "error"
        return text, "ok" if text else "empty"

    def rehearse(self) -> None:
        """Do what a call does, and leave no trace of it. Afterwards a forked process owns the memory that takes."""
        kept = self.namespace, self._sources, linecache.cache.get("<python:1>")
        self.namespace, self._sources = {}, {}
        self.execute("x = 1\nx")
        self.namespace, self._sources, first = kept
        if first is None:
            del linecache.cache["<python:1>"]
        else:
            linecache.cache["<python:1>"] = first

    def _run(self, code: str) -> bool:
        """Run `code`, leave everything it shows in the output, and say whether it failed."""
        filename = f"<python:{len(self._sources) + 1}>"
        lines = [line + "\n" for line in code.split("\n")]
        self._sources[filename] = lines
        linecache.cache[filename] = (len(code), None, lines, filename)  # for `inspect` and `warnings`
        try:
            body, last = (self._language.compile if self._language else _split)(code, filename)
            # Set every time: where the code removed it, `exec` and `eval` would put Python's own in its place.
            self.namespace["__builtins__"] = self._builtins
            exec(body, self.namespace)
            if last is not None:
                self.namespace["__builtins__"] = self._builtins
                value = eval(last, self.namespace)
                if value is not None:
                    shown = repr(value)
                    self._output.start_line()
                    self._output.write(shown)
        except BaseException as error:
            error.__traceback__ = _own_part(error.__traceback__, self._sources)  # the code may keep the error
            self._output.start_line()
            self._output.write(_describe(error, self._sources))
            return True
        return False

    @contextlib.contextmanager
    def _borrowed_process(self) -> Iterator[None]:
        streams, main = (sys.stdin, sys.stdout, sys.stderr), sys.modules["__main__"]
        sys.modules["__main__"] = self.module
        for filename, lines in self._sources.items():
            linecache.cache[filename] = (0, None, lines, filename)
        try:
            with self._generators.lent(), self._language.lent() if self._language else contextlib.nullcontext():
                yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = streams
            sys.modules["__main__"] = main
            for filename in self._sources:
                linecache.cache.pop(filename, None)


def _split(code: str, filename: str) -> tuple[types.CodeType, types.CodeType | None]:
    """Compile `code` as everything up to a final expression statement, and that expression (or None)."""
    tree = ast.parse(code, filename)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        expression = tree.body.pop()
        assert isinstance(expression, ast.Expr)
        last = compile(ast.Expression(expression.value), filename, "eval", dont_inherit=True)
    return compile(tree, filename, "exec", dont_inherit=True), last


# --- errors -------------------------------------------------------------------------------------------------


def _describe(error: BaseException, sources: dict[str, list[str]]) -> str:
    """The text of an error that ended a call. Formatted here because `traceback` differs between versions."""
    if isinstance(error, SystemExit):
        return f"SystemExit: {_safe_str(0 if error.code is None else error.code)} {KEEPS_RUNNING}"
    if isinstance(error, KeyboardInterrupt):
        return f"KeyboardInterrupt {KEEPS_RUNNING}"
    try:
        return "\n".join(_chain(error, sources))
    except (MemoryError, RecursionError):
        return type(error).__name__


def _chain(error: BaseException, sources: dict[str, list[str]]) -> list[str]:
    """Lines for `error` preceded by the errors it came from, at most `_MAX_CHAIN` of them."""
    blocks = [_one_error(error, sources)]
    seen = {id(error)}
    while len(blocks) < _MAX_CHAIN:
        if error.__cause__ is not None:
            link, error_before = (
                "The above exception was the direct cause of the following exception:",
                error.__cause__,
            )
        elif error.__context__ is not None and not error.__suppress_context__:
            link, error_before = (
                "During handling of the above exception, another exception occurred:",
                error.__context__,
            )
        else:
            break
        if id(error_before) in seen:
            break
        seen.add(id(error_before))
        blocks[0:0] = [_one_error(error_before, sources), ["", link, ""]]
        error = error_before
    return [line for block in blocks for line in block]


def _one_error(error: BaseException, sources: dict[str, list[str]]) -> list[str]:
    frames = _frame_lines(error.__traceback__, sources)
    lines = ["Traceback (most recent call last):", *frames] if frames else []
    message = _safe_str(error)
    if isinstance(error, SyntaxError) and error.lineno is not None:
        lines += _syntax_lines(error)
        message = _safe_str(error.msg)
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    lines.append(f"{name}: {message}" if message else name)
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, Sequence) and not isinstance(notes, str):
        lines += [_safe_str(note) for note in notes]
    if isinstance(error, BaseExceptionGroup):
        lines += [f"  | {type(part).__qualname__}: {_safe_str(part)}" for part in error.exceptions[:_MAX_FRAMES]]
    return lines


def _own_part(trace: types.TracebackType | None, sources: dict[str, list[str]]) -> types.TracebackType | None:
    """The traceback from the first frame of user code on."""
    while trace is not None and trace.tb_frame.f_code.co_filename not in sources:
        trace = trace.tb_next
    return trace


def _frame_lines(trace: types.TracebackType | None, sources: dict[str, list[str]]) -> list[str]:
    """Two lines for each frame of user code; runs of one frame and long stacks are shortened."""
    frames: list[list[Any]] = []  # [(filename, line number, name), how often in a row]
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename in sources:
            key = (code.co_filename, trace.tb_lineno, code.co_name)
            if frames and frames[-1][0] == key:
                frames[-1][1] += 1
            else:
                frames.append([key, 1])
        trace = trace.tb_next
    left_out = len(frames) - _MAX_FRAMES
    lines: list[str] = []
    for index, ((filename, number, name), repeats) in enumerate(frames):
        if left_out > 0 and _MAX_FRAMES // 2 <= index < _MAX_FRAMES // 2 + left_out:
            if index == _MAX_FRAMES // 2:
                lines.append(f"  [{left_out} frames omitted]")
            continue
        shown = [f'  File "{FILENAME}", line {number}, in {name}']
        source = sources[filename]
        if number is not None and 0 < number <= len(source) and source[number - 1].strip():
            shown.append(f"    {source[number - 1].strip()}")
        lines += shown * min(repeats, _SAME_FRAME_SHOWN)
        if repeats > _SAME_FRAME_SHOWN:
            lines.append(f"  [Previous line repeated {repeats - _SAME_FRAME_SHOWN} more times]")
    return lines


def _syntax_lines(error: SyntaxError) -> list[str]:
    """The place of a syntax error as Python shows it: file and line, the source, and a marker below it."""
    lines = [f'  File "{error.filename or FILENAME}", line {error.lineno}']
    if isinstance(error.text, str) and error.text.strip():
        source = error.text.rstrip("\n")
        stripped = source.lstrip()
        lines.append(f"    {stripped.rstrip()}")
        if error.offset is not None and error.offset > 0:
            start = error.offset - 1 - (len(source) - len(stripped))
            end = error.end_offset if error.end_lineno == error.lineno and error.end_offset else 0
            width = max(1, min(end - error.offset, len(stripped) - start))
            if 0 <= start <= len(stripped):
                lines.append(f"    {' ' * start}{'^' * width}")
    return lines


def _safe_str(value: object) -> str:
    """`str(value)`, also where the code under test gave it a `__str__` that fails."""
    try:
        return str(value)
    except BaseException as error:
        return f"<{type(value).__name__} whose str() raised {type(error).__name__}>"


# --- random generators --------------------------------------------------------------------------------------


class _Generators(MetaPathFinder):
    """The global generators of `random` and of numpy, seeded from one number.

    As a meta path finder it sees the import of `numpy.random` and seeds the module when it has been executed.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._python: Any = random.Random(seed).getstate()
        self._numpy: Any = None  # None: not drawn from yet, so it starts from the seed

    def install(self) -> None:
        """Take this process over for good."""
        sys.meta_path.insert(0, self)
        self.reseed(self._seed, live=True)

    def reseed(self, seed: int, live: bool) -> None:
        self._seed = seed
        if live:
            random.seed(seed)
            if "numpy.random" in sys.modules:
                self._seed_numpy(sys.modules["numpy.random"])
        else:
            self._python, self._numpy = random.Random(seed).getstate(), None

    def _seed_numpy(self, module: types.ModuleType) -> None:
        module.seed(self._seed % 2**32)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Put this session's generator states in place and the caller's back afterwards."""
        python, numpy_before = random.getstate(), sys.modules.get("numpy.random")
        numpy_state = numpy_before.get_state() if numpy_before else None
        random.setstate(self._python)
        if numpy_before and self._numpy is None:
            self._seed_numpy(numpy_before)
        elif numpy_before:
            numpy_before.set_state(self._numpy)
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            self._python = random.getstate()
            random.setstate(python)
            if numpy_now := sys.modules.get("numpy.random"):
                self._numpy = numpy_now.get_state()
                numpy_now.set_state(numpy_state) if numpy_before else numpy_now.seed(None)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Leave every import alone except that of `numpy.random`."""
        if fullname != "numpy.random":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_seed(module: types.ModuleType) -> None:
            load(module)
            self._seed_numpy(module)

        spec.loader.exec_module = load_and_seed  # type: ignore[method-assign]
        return spec
