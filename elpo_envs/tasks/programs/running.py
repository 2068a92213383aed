"""Run generated programs in this process: they come from this package, end, and touch nothing outside themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

Function = Callable[..., Any]


@functools.lru_cache(maxsize=1024)
def one_step(prelude: str, body: str) -> Function:
    """The function of (`before`, `k`) that runs `body`, which defines `after`."""
    lines = "\n    ".join(body.split("\n"))
    return load(f"{prelude}\n\ndef apply(before, k):\n    {lines}\n    return after", "apply")


def load(program: str, name: str) -> Function:
    """The function `name` that the program defines."""
    scope: dict[str, Any] = {}
    exec(program, scope)
    function: Function = scope[name]
    return function


def outcome(function: Function, args: Sequence[Any]) -> tuple[str, Any]:
    """("value", what it returns) or ("error", the exception's name), for fresh copies of the arguments."""
    try:
        return "value", function(*(copied(a) for a in args))
    except Exception as error:  # a program with a bug may raise anything; that is a wrong outcome like others
        return "error", type(error).__name__


def printed(program: str) -> str:
    """The text that the program prints, without the last line break. Raises what the program raises."""
    out: list[str] = []

    def collect(*values: object) -> None:
        out.append(" ".join(str(v) for v in values))

    exec(program, {"print": collect, "__name__": "__main__"})
    return "\n".join(out)


def copied(value: Any) -> Any:
    """A deep copy of JSON values."""
    if isinstance(value, list):
        return [copied(v) for v in value]
    if isinstance(value, dict):
        return {k: copied(v) for k, v in value.items()}
    return value
