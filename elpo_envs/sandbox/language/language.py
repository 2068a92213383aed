"""One session's language: how its code is compiled, and the builtins it runs with."""

from __future__ import annotations

import builtins
import contextlib
import operator
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn

from .attributes import Attributes
from .evaluation import Evaluation
from .imports import Imports
from .policy import LanguagePolicy
from .shadows import Shadows
from .system import System
from .transform import GUARD, split_restricted
from .views import Views

_LEFT_OUT = ("__loader__", "__spec__", "copyright", "credits", "license")


class Language:
    """Compiles the code of one session under `policy` and holds its builtins.

    Attributes:
        module: the `__builtins__` of user code.
        builtins: its namespace; the session's own copy.
    """

    def __init__(self, policy: LanguagePolicy) -> None:
        self._installed = False
        self.module = ModuleType("builtins")
        self.builtins: dict[str, Any] = self.module.__dict__
        self.builtins.update(vars(builtins))
        for name in _LEFT_OUT:
            self.builtins.pop(name, None)
        views = Views(policy, self.module)
        self._imports = Imports(policy, self.module, views, self._imported)
        attributes = Attributes(views)
        evaluation = Evaluation(self.module, views.confined)
        substitutes = {
            "__import__": self._imports.import_,
            "breakpoint": _no_breakpoint,
            "compile": evaluation.compile,
            "delattr": attributes.delattr,
            "eval": evaluation.eval,
            "exec": evaluation.exec,
            "getattr": attributes.getattr,
            "hasattr": attributes.hasattr,
            "help": _no_help,
            "setattr": attributes.setattr,
            "vars": attributes.vars,
        }
        for name, substitute in substitutes.items():
            if hasattr(builtins, name):  # `help` is there only where `site` was imported
                views.replace(getattr(builtins, name), substitute)
            getattr(substitute, "__func__", substitute).__qualname__ = name  # which its errors show
            self.builtins[name] = substitute
        self.builtins[GUARD] = attributes.guard
        views.replace(operator.attrgetter, attributes.attrgetter)
        views.replace(operator.methodcaller, attributes.methodcaller)
        views.stand_in("sys", System())
        self._shadows = Shadows(evaluation, attributes, self.builtins)
        views.hide(self._shadows.over_builtins())

    def compile(self, code: str, filename: str) -> tuple[CodeType, CodeType | None]:
        """Compile `code` as everything up to a final expression statement, and that expression (or None).

        Raises:
            SyntaxError: it is not Python.
            RestrictedError: the policy does not admit it; the message starts with the line.
        """
        return split_restricted(code, filename)

    def install(self) -> None:
        """Take this process over: libraries that evaluate text for their callers do it under the policy.

        The working directory leaves `sys.path`: a library must not import, unchecked, what the session wrote.
        """
        self._installed = True
        self._shadows.put()
        sys.path[:] = [folder for folder in sys.path if folder not in ("", str(Path.cwd()))]

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """`install` for a while; the recursion limit is put back as well."""
        limit, path = sys.getrecursionlimit(), list(sys.path)
        self.install()
        self._imports.list_own()
        try:
            yield
        finally:
            self._installed = False
            self._shadows.remove()
            self._imports.unlist_own()
            sys.setrecursionlimit(limit)
            sys.path[:] = path

    def _imported(self) -> None:
        if self._installed:
            self._shadows.put()


def _no_breakpoint(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("breakpoint() is not available: nobody can type at its prompt; print what you want to see")


def _no_help(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("help() is not available: print(x.__doc__) shows what x says about itself")
