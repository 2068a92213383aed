"""Snapshot-able Gymnasium environments for tool-integrated reasoning.

Importing the package registers its environments, so both of these work::

    import elpo_envs
    env = gym.make("elpo/Math-v0")

    env = gym.make("elpo_envs:elpo/Math-v0")  # imports the package itself
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from elpo_envs.registration import env_ids, register_all
from elpo_envs.snapshots import Snapshot, fork, restore, snapshot

if TYPE_CHECKING:
    from elpo_envs import conformance, exact, grading, protocols, sandbox, tasks, tools, vector, wrappers

__all__ = [
    "Snapshot",
    "conformance",
    "env_ids",
    "exact",
    "fork",
    "grading",
    "protocols",
    "restore",
    "sandbox",
    "snapshot",
    "tasks",
    "tools",
    "vector",
    "wrappers",
]

_SUBPACKAGES = frozenset(
    {"conformance", "exact", "grading", "protocols", "sandbox", "tasks", "tools", "vector", "wrappers"}
)


def __getattr__(name: str) -> ModuleType:
    # Sub-packages load on first use: grading imports sympy, which takes most of a second.
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_all()
