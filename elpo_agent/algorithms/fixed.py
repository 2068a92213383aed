"""Algorithms that are others with an option fixed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from elpo_agent.algorithms.base import Algorithm


def with_fixed(factory: Callable[..., Algorithm], name: str, **fixed: Any) -> Callable[..., Algorithm]:
    """A factory for `factory`'s algorithm under another name, which no longer takes the options in `fixed`.

    Raises:
        ValueError: `factory` has no such option.
    """
    signature = inspect.signature(factory)
    missing = sorted(fixed.keys() - signature.parameters.keys())
    if missing:
        raise ValueError(f"{name}: {factory.__name__} has no option {', '.join(missing)} to fix")

    def build(**given: Any) -> Algorithm:
        twice = sorted(given.keys() & fixed.keys())
        if twice:
            raise ValueError(f"algorithm {name!r} has no option {', '.join(twice)}; it is what the name stands for")
        return replace(factory(**given, **fixed), name=name)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"`{factory.__name__}` with {', '.join(f'{k}={v!r}' for k, v in fixed.items())}."
    kept = [p for p in signature.parameters.values() if p.name not in fixed]
    build.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return build
