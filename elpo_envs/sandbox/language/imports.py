"""The `import` statement of user code: libraries that the policy allows, and the session's own files."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from .attributes import plain_name
from .policy import LanguagePolicy
from .transform import compile_restricted
from .views import MISSING, Views


class Imports:
    """Imports for one session.

    Args:
        policy: what may be imported.
        builtins: the session's builtins.
        views: what the code is given for a library.
        imported: called after every import of a library.
    """

    def __init__(
        self, policy: LanguagePolicy, builtins: ModuleType, views: Views, imported: Callable[[], None]
    ) -> None:
        self._policy = policy
        self._builtins = builtins
        self._views = views
        self._imported = imported
        self._own: dict[str, ModuleType] = {}  # files of the working directory, by name

    def import_(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """The builtin `__import__`: what an `import` statement calls.

        Raises:
            ImportError: the policy does not allow it, or there is no such module.
        """
        if type(fromlist) is list and not fromlist and globals is locals is not None:
            return _imported_by_c(name)
        if level:
            raise ImportError("relative imports are not possible: this code is not part of a package")
        name, wanted = plain_name(name, "module name"), tuple(fromlist or ())
        if (view := self._views.holds(name, wanted)) is not None:
            return view if wanted else self._views.view(name.partition(".")[0])
        if name in self._views.stand_ins and self._policy.allows(name):
            return self._views.stand_ins[name]
        if not self._may_import(name, wanted):
            return self._own_module(name, ImportError(self._policy.refusal(name), name=name))
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            return self._own_module(name, error)
        view = self._views.imported(name)
        for item in wanted:
            self._import_item(name, view, item)
        self._imported()
        return view if wanted else self._views.view(name.partition(".")[0])

    def _may_import(self, name: str, wanted: tuple[str, ...]) -> bool:
        if self._policy.allows(name):
            return True
        below = [f"{name}.{item}" for item in wanted]  # `from urllib import parse`
        return bool(below) and self._policy.leads_to_allowed(name) and all(map(self._policy.allows, below))

    def _import_item(self, name: str, view: ModuleType, item: str) -> None:
        """Make `item` readable on the view of module `name`, or say why it cannot be."""
        if item == "*" or getattr(view, item, MISSING) is not MISSING:
            return
        child = f"{name}.{item}"
        is_module = isinstance(getattr(sys.modules[name], item, None), ModuleType)
        if is_module or item.startswith("_") or not self._policy.allows(child):
            raise ImportError(f"import of {item!r} from {name!r} is not allowed", name=name)
        with contextlib.suppress(ModuleNotFoundError):  # then the statement says that there is no such name
            importlib.import_module(child)
            self._views.imported(child)

    def _own_module(self, name: str, otherwise: ImportError) -> ModuleType:
        """The module in the file `name`.py of the working directory, run as user code; raises without such a file."""
        if name in self._own:
            return self._own[name]
        path = Path.cwd() / f"{name}.py"
        if not name.isidentifier() or not path.is_file():
            raise otherwise
        code = compile_restricted(path.read_bytes(), str(path), "exec")
        module = ModuleType(name)
        module.__dict__.update(__builtins__=self._builtins, __file__=str(path))
        self._own[name] = module
        self._views.add(module)
        self.list_own()
        try:
            exec(code, module.__dict__)
        except BaseException:
            self.unlist_own()
            del self._own[name]
            self._views.remove(module)
            self.list_own()
            raise
        return module

    def list_own(self) -> None:
        """Put the session's own modules into `sys.modules`, where `dataclasses` and `typing` look names up."""
        for name, module in self._own.items():
            sys.modules.setdefault(name, module)

    def unlist_own(self) -> None:
        """The inverse of `list_own`."""
        for name, module in self._own.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _imported_by_c(name: str) -> ModuleType:
    """Import what a function written in C needs, such as `_strptime` for `datetime.strptime`.

    It calls the `__import__` of the code that called it, in a way of its own, and takes the module from
    `sys.modules`: what it is given here does not matter, and so holds nothing.
    """
    importlib.import_module(name)
    return ModuleType(name)
