"""Modules as user code sees them: views without private names and without modules that are not allowed."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from .policy import LanguagePolicy

MISSING = object()
_SHOWN_DUNDERS = ("__name__", "__doc__", "__version__", "__all__", "__package__")

# Functions that run code or programs given as text.
_REFUSED = frozenset(
    {
        ("numpy.testing", "measure"),
        ("numpy.testing", "rundocs"),
        ("numpy.testing", "runstring"),
        ("pandas", "read_pickle"),
        ("sympy", "preview"),
        ("sympy.printing", "preview"),
        ("sympy.printing.preview", "preview"),
        ("types", "CodeType"),
    }
)

# Functions that import what they are told to, wherever a library shows them: the module that defines one, its name.
_IMPORTING = frozenset(
    {
        ("pandas.compat._optional", "import_optional_dependency"),
        ("sympy.external.importtools", "import_module"),
    }
)


class Views:
    """The views of one session, by the names of the modules they show.

    A view is a plain module of its own, so that reading `math.sin` costs what it always costs, and an assignment
    to an attribute of a library is seen by the session's code only. Those of big packages are filled when names are
    asked for, the others at once: a module with a `__getattr__` is read more slowly by compiled code.

    Args:
        policy: which modules may be seen.
        builtins: the session's builtins.
    """

    def __init__(self, policy: LanguagePolicy, builtins: ModuleType) -> None:
        self._policy = policy
        self._builtins = builtins
        self._replaced: dict[int, tuple[Any, Any]] = {}  # identity -> (the original, kept alive, and its substitute)
        self._hidden: dict[int, Any] = {}  # by identity
        self._views: dict[str, ModuleType] = {}
        self._ways: set[str] = set()  # views that show nothing but the way to a submodule
        self._late: set[str] = set()  # views that are filled when names are asked for
        self._known: dict[int, ModuleType] = {}  # what may be seen as it is: views, stand-ins, the session's modules
        self.stand_ins: dict[str, ModuleType] = {}

    def stand_in(self, name: str, module: ModuleType) -> None:
        """Give `module` to code that imports `name`."""
        self.stand_ins[name] = self._known[id(module)] = module

    def replace(self, original: Any, substitute: Any) -> None:
        """Show `substitute` wherever a library has `original` under a public name."""
        self._replaced[id(original)] = (original, substitute)

    def hide(self, values: Iterable[Any]) -> None:
        """Show none of `values`, which we put into libraries ourselves."""
        self._hidden.update({id(value): value for value in values})

    def add(self, module: ModuleType) -> None:
        """Let `module`, which is the session's own, be seen as it is."""
        self._known[id(module)] = module

    def remove(self, module: ModuleType) -> None:
        """The inverse of `add`."""
        del self._known[id(module)]

    def imported(self, name: str) -> ModuleType:
        """The view of the imported module `name`, which the views of its parents hold from now on."""
        parent, _, child = name.rpartition(".")
        if parent:
            namespace = self.imported(parent).__dict__
            if parent not in self._late:
                namespace.setdefault(child, self.view(name))
        return self.view(name)

    def holds(self, name: str, keys: tuple[str, ...]) -> ModuleType | None:
        """The view of module `name` if there is one and it has all of `keys` at hand."""
        view = self._views.get(name)
        return view if view is not None and all(key in view.__dict__ for key in keys) else None

    def view(self, name: str, module: ModuleType | None = None) -> ModuleType:
        """The view of `module`, which is the one imported as `name`."""
        if name in self._views:
            return self._views[name]
        real = importlib.import_module(name) if module is None else module
        view = ModuleType(name)
        self._views[name] = self._known[id(view)] = view
        if not self._policy.allows(name):
            self._ways.add(name)
        namespace = view.__dict__
        del namespace["__loader__"], namespace["__spec__"]
        namespace.update({key: real.__dict__[key] for key in _SHOWN_DUNDERS if key in real.__dict__})
        if "__all__" in namespace:
            namespace["__all__"] = [key for key in real.__all__ if self._listed(name, real, key)]
        if (name.partition(".")[0] not in sys.stdlib_module_names and hasattr(real, "__path__")) or _makes_late(real):
            self._late.add(name)
            namespace.update(self._late_names(name, real, view))
        for key, value in list(real.__dict__.items()):
            if not (key.startswith("_") or (isinstance(value, ModuleType) and name in self._late)):
                self._show(namespace, name, key, value)
        return view

    def _late_names(self, name: str, real: ModuleType, view: ModuleType) -> dict[str, Any]:
        """The functions of a view that make it give names later."""

        def read(key: str) -> Any:
            if (value := self._find(name, real, key)) is MISSING:
                raise AttributeError(_missing(name, key, hasattr(real, key)), name=key, obj=view)
            view.__dict__[key] = value
            return value

        def names() -> list[str]:
            late = {key for key in dir(real) if self._public(name, real, key)}
            return sorted(late | view.__dict__.keys() - {"__dir__", "__getattr__"})

        return {"__getattr__": read, "__dir__": names}

    def _find(self, name: str, real: ModuleType, key: str) -> Any:
        """The value of a name that the view does not hold yet; MISSING if it may not."""
        if not self._public(name, real, key) or (value := getattr(real, key, MISSING)) is MISSING:
            return MISSING
        found: dict[str, Any] = {}
        self._show(found, name, key, value)
        return found.get(key, MISSING)

    def _show(self, namespace: dict[str, Any], holder: str, key: str, value: Any) -> None:
        """Put what may be seen of `value`, an attribute of module `holder`, into `namespace`."""
        if isinstance(value, ModuleType):
            if (public := self._allowed_name(holder, key, value)) is not None:
                namespace[key] = self.view(public, value)
        elif isinstance(value, FunctionType) and (value.__module__, value.__name__) in _IMPORTING:
            return
        elif holder not in self._ways and (holder, key) not in _REFUSED and id(value) not in self._hidden:
            found = self._replaced.get(id(value))
            namespace[key] = value if found is None else found[1]

    def _public(self, name: str, real: ModuleType, key: str) -> bool:
        """Whether `key` is neither private nor a module that is not allowed."""
        if key.startswith("_") and key not in getattr(real, "__all__", ()):
            return False
        value = real.__dict__.get(key)
        return not isinstance(value, ModuleType) or self._allowed_name(name, key, value) is not None

    def _listed(self, name: str, real: ModuleType, key: str) -> bool:
        """Whether `key` of a module's `__all__` can be had: star imports ask for every one."""
        if (name, key) in _REFUSED:
            return False
        if isinstance(real.__dict__.get(key, real), ModuleType):  # a submodule, perhaps not imported yet
            return self._policy.allows(f"{name}.{key}") and self._public(name, real, key)
        return True

    def _allowed_name(self, holder: str, key: str, module: ModuleType) -> str | None:
        """The allowed name of `module`, an attribute of the module `holder`; None if there is none."""
        own_name = getattr(module, "__name__", "")
        if own_name not in self.stand_ins and self._policy.allows(own_name):
            return own_name
        listed = f"{holder}.{key}"  # such as os.path, which calls itself posixpath
        return listed if listed in self._policy.allowed_imports else None

    def admit(self, module: ModuleType, key: str) -> ModuleType:
        """What stands for `module`, found as an attribute called `key`.

        Raises:
            AttributeError: the policy does not allow that module.
        """
        if id(module) in self._known:
            return module
        public = self._allowed_name("", key, module)
        if public is None:
            raise AttributeError(f"access to module {getattr(module, '__name__', '')!r} is not allowed", name=key)
        return self.view(public, module)

    def read(self, module: ModuleType, key: str) -> Any:
        """`module.key`, with the reason where a view does not have what its library has."""
        if (value := getattr(module, key, MISSING)) is not MISSING:
            return value
        name = module.__name__
        hidden = self._views.get(name) is module and hasattr(sys.modules.get(name), key)
        raise AttributeError(_missing(name, key, hidden), name=key, obj=module)

    def confined(self, namespace: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of a library's namespace, with views for modules and the session's builtins."""
        scope = dict(namespace)
        replaced = self._replaced
        for key in [k for k, v in namespace.items() if id(v) in replaced or isinstance(v, ModuleType)]:
            value = scope.pop(key)
            if not isinstance(value, ModuleType):
                scope[key] = replaced[id(value)][1]
                continue
            with contextlib.suppress(AttributeError):  # a module that is not allowed is left out
                scope[key] = self.admit(value, key)
        scope["__builtins__"] = self._builtins
        return scope


def _makes_late(module: ModuleType) -> bool:
    return "__getattr__" in module.__dict__


def _missing(module: str, key: str, hidden: bool) -> str:
    if hidden:
        return f"access to {key!r} of module {module!r} is not allowed"
    return f"module {module!r} has no attribute {key!r}"
