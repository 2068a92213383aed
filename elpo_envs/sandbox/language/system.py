"""The stand-in for the module `sys`: what programs ask of it, and nothing that reaches the interpreter."""

from __future__ import annotations

import sys
import types
from typing import Any

MAX_RECURSION = 10_000
"""The deepest recursion that `setrecursionlimit` grants: a C stack of 8 MiB holds it, but for recursive sort keys."""

_PASSED_ON = """
    byteorder copyright exc_info exception exit float_info float_repr_style get_int_max_str_digits
    getdefaultencoding getrefcount getsizeof hash_info hexversion implementation int_info intern maxsize maxunicode
    platform set_int_max_str_digits version version_info
"""
_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


class System(types.ModuleType):
    """`sys` as user code sees it. The streams are the real ones, so that redirecting them works."""

    def __init__(self) -> None:
        super().__init__("sys", "What a program may ask of its interpreter.")
        del self.__dict__["__loader__"], self.__dict__["__spec__"]
        self.__dict__.update({name: getattr(sys, name) for name in _PASSED_ON.split() if hasattr(sys, name)})
        self.__dict__.update(argv=[""], path=[""], orig_argv=[""], executable="", flags=sys.flags)
        below: list[int] = []  # levels of the process below the code, once it asks

        def frames_below() -> int:
            if not below:
                below.append(max(sys.getrecursionlimit() - 1000, 0))
            return below[0]

        def getrecursionlimit() -> int:
            """The deepest recursion allowed."""
            return sys.getrecursionlimit() - frames_below()

        def setrecursionlimit(limit: int, /) -> None:
            """Set the deepest recursion allowed, to at most MAX_RECURSION."""
            sys.setrecursionlimit(min(limit, MAX_RECURSION) + (frames_below() if limit > 0 else 0))

        self.__dict__.update(getrecursionlimit=getrecursionlimit, setrecursionlimit=setrecursionlimit)

    def __getattr__(self, name: str) -> Any:
        reason = (
            f"access to 'sys.{name}' is not allowed"
            if hasattr(sys, name)
            else f"module 'sys' has no attribute {name!r}"
        )
        raise AttributeError(reason, name=name, obj=self)


def _stream(name: str) -> property:
    return property(lambda _: getattr(sys, name), lambda _, stream: setattr(sys, name, stream))


for _name in _STREAMS:
    setattr(System, _name, _stream(_name))
