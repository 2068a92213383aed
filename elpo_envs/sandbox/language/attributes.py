"""Reading attributes by name when the program runs: the guard in compiled code, and `getattr` and its kin."""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable
from typing import Any

from .names import DENIED, FORMATS, GUARDED, denial
from .text_fields import check_fields
from .views import Views

_CHECKED = DENIED | GUARDED
_HIDDEN = DENIED | FORMATS | {"__getattribute__", "__self__"}
_PACKAGE = __name__.rpartition(".")[0]
_DESCRIPTORS = (
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
)


class Attributes:
    """The rules for attribute names, applied to values.

    Args:
        views: what stands for a module in user code.
    """

    def __init__(self, views: Views) -> None:
        self._views = views

    def guard(self, value: Any, name: str) -> Any:
        """`value.name`, for the names that compiled code does not read directly."""
        if name in FORMATS:
            return _format_method(value, name)
        if name in DENIED:
            raise AttributeError(denial(name), name=name)
        found = self._views.read(value, name) if type(value) is types.ModuleType else getattr(value, name)
        return self._checked(value, name, found)

    def _checked(self, value: Any, name: str, found: Any) -> Any:
        """`found`, which is the attribute `name` of `value`, or what stands for it."""
        if isinstance(found, types.ModuleType):
            return self._views.admit(found, name)
        if name == "__dict__" and isinstance(value, type):
            return _class_namespace(found)
        if name == "__getattribute__":
            return self._checked_reader(found)
        if name == "__self__" and type(found).__module__.startswith(_PACKAGE):
            raise AttributeError(denial(name), name=name)
        return found

    def _checked_reader(self, reader: Callable[..., Any]) -> Callable[..., Any]:
        """`__getattribute__`, bound or not, under the same rules; its last argument is the name."""

        def read(*args: Any) -> Any:
            name = plain_name(args[-1]) if args else ""
            value = args[0] if len(args) > 1 else getattr(reader, "__self__", None)
            if name in DENIED:
                raise AttributeError(denial(name), name=name)
            if name in FORMATS and issubclass(value if isinstance(value, type) else type(value), str):
                return _format_method(value, name)
            return self._checked(value, name, reader(*args))

        return read

    def getattr(self, value: Any, name: str, /, *default: Any) -> Any:
        """The builtin of this name; a denied attribute counts as missing."""
        if type(name) is not str:
            name = plain_name(name)
        if name not in _CHECKED:
            return getattr(value, name, *default)
        if len(default) > 1:
            raise TypeError(f"getattr expected at most 3 arguments, got {2 + len(default)}")
        try:
            return self.guard(value, name)
        except AttributeError:
            if not default:
                raise
            return default[0]

    def hasattr(self, value: Any, name: str, /) -> bool:
        """The builtin of this name."""
        try:
            self.getattr(value, name)
        except AttributeError:
            return False
        return True

    def setattr(self, target: Any, name: str, value: Any, /) -> None:
        """The builtin of this name."""
        setattr(target, _writable(name), value)

    def delattr(self, target: Any, name: str, /) -> None:
        """The builtin of this name."""
        delattr(target, _writable(name))

    def vars(self, *values: Any) -> Any:
        """The builtin of this name."""
        if values:
            if len(values) > 1:
                raise TypeError(f"vars expected at most 1 argument, got {len(values)}")
            if not hasattr(values[0], "__dict__"):
                raise TypeError("vars() argument must have __dict__ attribute")
            return self.guard(values[0], "__dict__")
        found = sys._getframe(1).f_locals
        return found if type(found) is dict else dict(found)

    def attrgetter(self, *names: str) -> Callable[[Any], Any]:
        """`operator.attrgetter` under the rules."""
        paths = [plain_name(name).split(".") for name in names]
        if not any(part in _CHECKED for path in paths for part in path):
            return operator.attrgetter(*map(".".join, paths))

        def read(value: Any, path: list[str]) -> Any:
            for part in path:
                value = self.getattr(value, part)
            return value

        if len(paths) == 1:
            return lambda value: read(value, paths[0])
        return lambda value: tuple(read(value, path) for path in paths)

    def methodcaller(self, name: str, /, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """`operator.methodcaller` under the rules."""
        name = plain_name(name)
        if name not in _CHECKED:
            return operator.methodcaller(name, *args, **kwargs)
        return lambda value: self.getattr(value, name)(*args, **kwargs)


def plain_name(name: object, what: str = "attribute name") -> str:
    """`name` as a plain string: a subclass could compare equal to what it likes."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be string, not '{type(name).__name__}'")
    return name if type(name) is str else "".join(str.__iter__(name))


def _writable(name: object) -> str:
    name = plain_name(name)
    if name in DENIED:
        raise AttributeError(denial(name), name=name)
    return name


def _format_method(value: Any, name: str) -> Any:
    """`value.format`: of a text, once its fields are checked; of anything else as it is."""
    if type(value) is str and not check_fields(value):
        return getattr(value, name)
    if isinstance(value, str):
        _require_readable(value)
    method = getattr(value, name)
    if not (isinstance(value, type) and issubclass(value, str)):
        return method

    def checked(text: str, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(text, str):
            _require_readable(text)
        return method(text, *args, **kwargs)

    return checked


def _require_readable(text: str) -> None:
    if refused := check_fields(plain_name(text)):
        raise AttributeError(denial(refused), name=refused)


def _class_namespace(namespace: Any) -> Any:
    """A class's `__dict__` without the interpreter's own descriptors of denied names."""
    hidden = {name for name in _HIDDEN & namespace.keys() if isinstance(namespace[name], _DESCRIPTORS)}
    if not hidden:
        return namespace
    return types.MappingProxyType({name: value for name, value in namespace.items() if name not in hidden})
