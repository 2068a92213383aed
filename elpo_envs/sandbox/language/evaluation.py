"""`eval`, `exec` and `compile` for user code: the same policy for code that code writes."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from types import CodeType, ModuleType
from typing import Any, get_args
from weakref import WeakKeyDictionary

from .transform import GUARD, Mode, compile_restricted

_ONLY_TREE = ast.PyCF_ONLY_AST


class Program:
    """What `compile` gives: code to be run by `eval` and `exec`, and nothing else."""

    def __repr__(self) -> str:
        return "<code object>"


class Evaluation:
    """Runs source text and programs in namespaces whose builtins are the session's.

    Args:
        builtins: the session's builtins.
        confined: makes a safe copy of a library's namespace.
    """

    def __init__(self, builtins: ModuleType, confined: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self._builtins = builtins
        self._confined = confined
        self._codes: WeakKeyDictionary[Program, CodeType] = WeakKeyDictionary()

    def compile(
        self,
        source: Any,
        filename: Any,
        mode: str,
        flags: int = 0,
        dont_inherit: bool = False,
        optimize: int = -1,
        **options: Any,
    ) -> Any:
        """The builtin of this name; gives a `Program`, or a tree where `flags` ask for one."""
        if flags & _ONLY_TREE:
            return compile(source, filename, mode, flags, True, optimize, **options)
        if isinstance(source, ast.AST):
            source = ast.unparse(source)  # a tree may change between being judged and being compiled
        if not isinstance(source, str | bytes):
            raise TypeError("compile() arg 1 must be a string, bytes or AST object")
        if mode not in get_args(Mode):
            raise ValueError("compile() mode must be 'exec', 'eval' or 'single'")
        program = Program()
        self._codes[program] = compile_restricted(source, str(filename), mode)  # type: ignore[arg-type]
        return program

    def eval(self, source: Any, globals: Any = None, locals: Any = None) -> Any:
        """The builtin of this name."""
        if isinstance(source, str):
            source = source.lstrip(" \t")
        scope, local = self._scopes(globals, locals, sys._getframe(1))
        return eval(self._code(source, "eval"), scope, local)

    def exec(self, source: Any, globals: Any = None, locals: Any = None) -> None:
        """The builtin of this name."""
        scope, local = self._scopes(globals, locals, sys._getframe(1))
        exec(self._code(source, "exec"), scope, local)

    def library_eval(self, source: Any, globals: Any = None, locals: Any = None) -> Any:
        """`eval` for a library that evaluates its caller's text."""
        frame = sys._getframe(1)
        scope = self._confined(frame.f_globals if globals is None else globals)
        local = locals if locals is not None else frame.f_locals if globals is None else scope
        if type(local) is dict and local is not scope:  # `typing` passes a module's namespace here
            local = self._confined(local)
        return eval(self._code(source, "eval"), scope, local)

    def library_exec(self, source: Any, globals: Any = None, locals: Any = None) -> None:
        """`exec` for a library that runs its caller's text."""
        frame = sys._getframe(1)
        scope = self._confined(frame.f_globals if globals is None else globals)
        exec(self._code(source, "exec"), scope, scope if locals is None else locals)

    def _code(self, source: Any, mode: Mode) -> CodeType:
        if isinstance(source, Program):
            return self._codes[source]
        if isinstance(source, str | bytes):
            return compile_restricted(source, "<string>", mode)
        raise TypeError(f"{mode}() arg 1 must be a string, bytes or code object")

    def _scopes(self, globals: Any, locals: Any, frame: Any) -> tuple[Any, Any]:
        """The namespaces to run in, as the builtins choose them, with restricted builtins."""
        if globals is None:
            scope = frame.f_globals
            if locals is None:
                locals = frame.f_locals
                if not isinstance(locals, dict):  # from Python 3.13 on a view that writes through
                    locals = dict(locals)
        else:
            scope = globals
            if not isinstance(scope, dict):
                raise TypeError(f"globals must be a dict, not {type(scope).__name__}")
        scope["__builtins__"] = self._builtins_for(scope.get("__builtins__"))
        return scope, scope if locals is None else locals

    def _builtins_for(self, given: Any) -> ModuleType | dict[str, Any]:
        """The session's builtins; where the code brings a table of its own, that one with our guards in it."""
        ours = self._builtins.__dict__
        if not isinstance(given, dict) or given is ours:
            return self._builtins
        return {**given, **{name: ours[name] for name in given.keys() & {"__import__"}}, GUARD: ours[GUARD]}
