"""Options that algorithms share, as they come from configuration files and command lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from elpo_agent.objective.options import LossOptions

LossSetting = LossOptions | Mapping[str, Any] | None
"""What an algorithm's option `loss` may be: nothing, a mapping of `LossOptions` fields, or the whole of them."""


def loss_options(given: LossSetting, **defaults: Any) -> LossOptions:
    """The loss terms of an algorithm.

    Args:
        given: None for the algorithm's own; a mapping that overrides some of them, as
            `{aggregation: token-mean, dual_clip: 3}` in YAML does; or `LossOptions`, which replaces all of them.
        defaults: the algorithm's own, where they differ from those of `LossOptions`.

    Raises:
        ValueError: an unknown field, which the message names beside the known ones, or a value out of range.
    """
    if isinstance(given, LossOptions):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"loss={given!r} is no set of options; give a mapping such as {{'dual_clip': 3.0}}")
    overrides = dict(given or {})
    known = [f.name for f in fields(LossOptions)]
    unknown = sorted(str(name) for name in overrides if name not in known)
    if unknown:
        raise ValueError(f"loss has no option {', '.join(unknown)}; it accepts: {', '.join(known)}")
    try:
        return LossOptions(**{**defaults, **overrides})
    except TypeError as error:  # a value of another type, such as text for a number
        raise ValueError(f"loss={overrides!r}: {error}") from error
