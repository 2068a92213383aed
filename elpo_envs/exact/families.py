"""Families of exactly solvable tasks: how long, how forgiving and how hard at the start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

Kind = Literal["irr", "rec", "mix", "trap"]

_WRONG: dict[str, tuple[float, float]] = {  # kind -> shares of the wrong actions: fatal, repairable
    "irr": (0.6, 0.0),
    "rec": (0.0, 0.8),
    "mix": (0.35, 0.45),
    "trap": (1.0, 0.0),
}
_TRAPS = {"trap": 3}
_WHOLE = {
    "steps": 1,
    "n_contexts": 1,
    "n_prompts": 1,
    "n_actions": 2,
    "feature_dim": 1,
    "traps": 0,
}


@dataclass(frozen=True)
class Family:
    """What the worlds of one family have in common.

    A prompt is a sequence of `steps` different contexts. In each of them one of the actions is good; every other one
    is, independently, fatal or repairable with the shares given here, or else harmless. `Family.of` fills in the
    shares of a kind; any field can have another value.

    Attributes:
        name: what it is called in tables and task ids.
        kind: "irr" (fatal errors), "rec" (errors that can be repaired), "mix" (both), or "trap" (every error is
            fatal, and one of few special contexts, on which the policy starts nearly uniform, comes early).
        steps: K, the contexts of a prompt; >= 1.
        start_success: mean success probability of the start policy over the prompts; in (0, 1).
        n_contexts: contexts that the prompts share; >= `steps`. Without meaning where `shared` is False.
        n_prompts: how many prompts a world has; >= 1.
        n_actions: actions of a context; >= 2.
        feature_dim: d, the width of the policy's random features; >= 1.
        shared: whether prompts draw from one set of contexts; else every prompt has `steps` contexts of its own.
        noise: probability that a good action, also one of a repair, turns into an error that needs repair; in [0, 1).
        fatal, repairable: shares of the wrong actions; each in [0, 1], together at most 1.
        traps: special contexts, one of which stands in the first quarter of every prompt; 0 for none.
        trap_logit: the good action's start logit on special contexts; finite.

    Raises:
        ValueError: a field is out of its range.
    """

    name: str
    kind: Kind
    steps: int
    start_success: float
    n_contexts: int = 192
    n_prompts: int = 128
    n_actions: int = 8
    feature_dim: int = 96
    shared: bool = True
    noise: float = 0.0
    fatal: float = 0.0
    repairable: float = 0.0
    traps: int = 0
    trap_logit: float = 0.3

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name={self.name!r} must be a text that is not empty")
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r} is unknown; choose one of {', '.join(get_args(Kind))}")
        if not isinstance(self.shared, bool):
            raise ValueError(f"shared={self.shared!r} must be true or false")
        for field, least in _WHOLE.items():
            _check_whole(field, getattr(self, field), least)
        for field in ("start_success", "noise", "fatal", "repairable", "trap_logit"):
            _check_number(field, getattr(self, field))
        if not 0.0 < self.start_success < 1.0:
            raise ValueError(f"start_success={self.start_success!r} must be greater than 0 and less than 1")
        if not 0.0 <= self.noise < 1.0:
            raise ValueError(f"noise={self.noise!r} must be at least 0 and less than 1")
        if min(self.fatal, self.repairable) < 0.0 or self.fatal + self.repairable > 1.0:
            raise ValueError(
                f"fatal={self.fatal!r} and repairable={self.repairable!r} are shares of the wrong actions; neither may "
                "be negative, nor their sum greater than 1"
            )
        ordinary = self.steps - (self.traps > 0)
        if self.shared and self.n_contexts - self.traps < ordinary:
            raise ValueError(
                f"n_contexts={self.n_contexts!r} is too few for {ordinary} different ones in a prompt beside "
                f"{self.traps} special ones; raise it to {ordinary + self.traps}"
            )
        if self.traps and not self.shared:
            raise ValueError(f"traps={self.traps!r} are shared contexts; set shared to true, or traps to 0")

    @classmethod
    def of(cls, kind: Kind, steps: int, start_success: float, **changes: Any) -> Self:
        """The family of a kind, with the kind's shares of errors and a name such as "irr_8_.06".

        Args:
            kind, steps, start_success: see the class.
            **changes: other fields, by name.

        Raises:
            ValueError: a field is unknown or out of range.
        """
        if kind not in _WRONG:
            raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(_WRONG)}")
        known = {field.name for field in fields(cls)}
        unknown = sorted(changes.keys() - known)
        if unknown:
            raise ValueError(f"family field {unknown[0]!r} is unknown; choose from {', '.join(sorted(known))}")
        fatal, repairable = _WRONG[kind]
        name = f"{kind}_{steps}_{str(start_success).removeprefix('0')}"
        shares = {"name": name, "fatal": fatal, "repairable": repairable, "traps": _TRAPS.get(kind, 0)}
        return cls(**{"kind": kind, "steps": steps, "start_success": start_success, **shares, **changes})

    @property
    def spare_steps(self) -> int:
        """S = max(2, K // 4): steps that a rollout can spend on repairs."""
        return max(2, self.steps // 4)

    @property
    def longest(self) -> int:
        """K + S: steps of the longest rollout."""
        return self.steps + self.spare_steps

    @property
    def total_contexts(self) -> int:
        """C: contexts of a world, those of repairs not counted."""
        return self.n_contexts if self.shared else self.n_prompts * self.steps


def family(name: str) -> Family:
    """The family of that name in `FAMILIES`. Raises ValueError, naming the choices, for an unknown one."""
    found = FAMILIES.get(name)
    if found is None:
        raise ValueError(f"family={name!r} is unknown; choose one of {', '.join(FAMILIES)}, or make a Family")
    return found


def read_family(given: Family | str | Mapping[str, Any]) -> Family:
    """A family from itself, its name, or the arguments of `Family.of` as JSON values.

    Raises:
        ValueError: the name or a field is unknown, a field is out of range, or a needed one is missing.
    """
    if isinstance(given, Family):
        return given
    if isinstance(given, str):
        return family(given)
    if not isinstance(given, Mapping):
        raise ValueError(f"family={given!r} must be a name, or fields such as {_EXAMPLE}")
    missing = [name for name in ("kind", "steps", "start_success") if name not in given]
    if missing:
        raise ValueError(f"family={dict(given)!r} lacks {missing[0]!r}; give fields such as {_EXAMPLE}")
    return Family.of(**given)


_EXAMPLE = '{"kind": "irr", "steps": 8, "start_success": 0.06}'


def _check_whole(field: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{field}={value!r} must be an integer of at least {least}")


def _check_number(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{field}={value!r} must be a finite number")


def _study() -> dict[str, Family]:
    irr_8 = Family.of("irr", 8, 0.06)
    mix_8 = Family.of("mix", 8, 0.2)
    families = [
        Family.of("irr", 4, 0.06),
        Family.of("irr", 8, 0.02),
        irr_8,
        replace(irr_8, name="irr_8_.06_d48", feature_dim=48),
        replace(irr_8, name="irr_8_.06_unshared", shared=False, n_prompts=8),
        Family.of("irr", 8, 0.3),
        Family.of("irr", 16, 0.05),
        Family.of("irr", 32, 0.02),
        Family.of("rec", 8, 0.06),
        Family.of("rec", 16, 0.3),
        mix_8,
        replace(mix_8, name="mix_8_.2_noise", noise=0.05),
        Family.of("mix", 16, 0.05),
        Family.of("trap", 16, 0.05),
        Family.of("trap", 32, 0.05),
    ]
    return {one.name: one for one in families}


FAMILIES: Mapping[str, Family] = MappingProxyType(_study())
"""The 15 families with which credit rules are compared, by name: kind, steps and start success."""
