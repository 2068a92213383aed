"""Algorithms by name: the built-in ones, and those other distributions add.

A distribution adds one through the entry-point group `elpo.algorithms`; the entry point is a callable with
keyword options that returns an `Algorithm`:

    [project.entry-points."elpo.algorithms"]
    mine = "my_package.mine:mine"
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.shared import with_shared

GROUP = "elpo.algorithms"

# Found without installed metadata, so that a plain checkout works; nobody else can take these names.
BUILT_IN: Mapping[str, str] = {
    "elpo": "elpo_agent.algorithms.elpo:elpo",
    "grpo": "elpo_agent.algorithms.grpo:grpo",
    "reinforce_pp": "elpo_agent.algorithms.reinforce_pp:reinforce_pp",
    "reinforce_pp_baseline": "elpo_agent.algorithms.reinforce_pp:reinforce_pp_baseline",
    "rloo": "elpo_agent.algorithms.rloo:rloo",
    "dapo": "elpo_agent.algorithms.dapo:dapo",
    "torl": "elpo_agent.algorithms.torl:torl",
    "cir": "elpo_agent.algorithms.cir:cir",
    "gigpo": "elpo_agent.algorithms.gigpo:gigpo",
    "demyagent": "elpo_agent.algorithms.demyagent:demyagent",
    "elpo_no_bel": "elpo_agent.algorithms.elpo:elpo_no_bel",
    "elpo_no_branch": "elpo_agent.algorithms.elpo:elpo_no_branch",
    "elpo_no_elc": "elpo_agent.algorithms.elpo:elpo_no_elc",
    "arpo": "elpo_agent.algorithms.arpo:arpo",
    "aepo": "elpo_agent.algorithms.aepo:aepo",
    "tree_grpo": "elpo_agent.algorithms.tree_grpo:tree_grpo",
    "elpo_plus": "elpo_agent.algorithms.elpo_plus:elpo_plus",
}

Factory = Callable[..., Algorithm]


def names() -> tuple[str, ...]:
    """Every known algorithm: the built-in ones first, then others by alphabet. Imports none of them."""
    return (*BUILT_IN, *sorted(_added().keys() - BUILT_IN.keys()))


def options(name: str) -> Mapping[str, inspect.Parameter]:
    """The options of the algorithm's own, with their defaults and annotations; `load` accepts `shared_options` too.

    Raises:
        ValueError: unknown or ambiguous name. ImportError: the algorithm's module cannot be imported.
        TypeError: what the entry point names is not callable.
    """
    return _accepted(_factory(name))


def shared_options() -> Mapping[str, inspect.Parameter]:
    """The options that every algorithm accepts, unless it has one of that name itself: see `with_shared`."""
    return {n: p for n, p in inspect.signature(with_shared).parameters.items() if p.kind is p.KEYWORD_ONLY}


def load(name: str, **given: Any) -> Algorithm:
    """Build an algorithm.

    Args:
        name: one of `names()`.
        given: options of that algorithm, and shared ones; what is left out has its default.

    Raises:
        ValueError: unknown or ambiguous name; an unknown, missing or out-of-range option.
        ImportError: the entry point cannot be imported; the message names its distribution.
        TypeError: the entry point is not callable or does not return an `Algorithm`.
    """
    factory = _factory(name)
    accepted = _accepted(factory)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(factory).parameters.values())
    shared = {} if open_ended else {n: given[n] for n in shared_options() if n in given and n not in accepted}
    own = {n: value for n, value in given.items() if n not in shared}
    unknown = sorted(own.keys() - accepted.keys())
    if unknown and not open_ended:
        known = ", ".join(_described(p) for p in accepted.values()) or "none"
        every = ", ".join(_described(p) for n, p in shared_options().items() if n not in accepted)
        raise ValueError(
            f"algorithm {name!r} has no option {', '.join(unknown)}; it accepts: {known}; "
            f"and as every algorithm: {every}"
        )
    missing = [p.name for p in accepted.values() if p.default is p.empty and p.name not in own]
    if missing:
        raise ValueError(f"algorithm {name!r} needs the option {', '.join(missing)}; give it a value")
    algorithm = factory(**own)
    if not isinstance(algorithm, Algorithm):
        raise TypeError(
            f"algorithm {name!r} returned a {type(algorithm).__name__}; "
            "its factory must return an elpo_agent.algorithms.Algorithm"
        )
    return with_shared(algorithm, **shared) if shared else algorithm


def _factory(name: str) -> Factory:
    """The callable behind `name`."""
    added = _added()
    if name in BUILT_IN:
        for other in added.get(name, ()):
            if other.value != BUILT_IN[name]:
                warnings.warn(
                    f"{_origin(other)} registers an algorithm {name!r}, which is built in; the built-in one "
                    "is used, rename the other to reach it",
                    RuntimeWarning,
                    stacklevel=3,
                )
        entry = EntryPoint(name, BUILT_IN[name], GROUP)
    elif name in added:
        entry, *others = added[name]
        if others:
            origins = ", ".join(_origin(e) for e in added[name])
            raise ValueError(f"algorithm {name!r} is registered more than once, by {origins}; uninstall all but one")
    else:
        raise ValueError(f"algorithm {name!r} is unknown; known are {', '.join(names())}")
    try:
        factory = entry.load()
    except Exception as error:  # a plug-in's module can fail in any way; say whose it is
        raise ImportError(
            f"algorithm {name!r} ({entry.value}, from {_origin(entry)}) cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(factory):
        raise TypeError(f"algorithm {name!r} ({entry.value}, from {_origin(entry)}) is not callable")
    return factory  # type: ignore[no-any-return]


def _added() -> dict[str, list[EntryPoint]]:
    """Entry points by name; the same value found twice (an installation and a checkout) counts once."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, {}).setdefault(entry.value, entry)
    return {name: list(by_value.values()) for name, by_value in found.items()}


def _accepted(factory: Factory) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def _described(p: inspect.Parameter) -> str:
    return f"{p.name} (required)" if p.default is p.empty else f"{p.name}={p.default!r}"


def _origin(entry: EntryPoint) -> str:
    """Which distribution an entry point belongs to, as text."""
    if entry.dist is None:
        return "this package" if BUILT_IN.get(entry.name) == entry.value else "an unknown distribution"
    return f"distribution {entry.dist.name!r}"
