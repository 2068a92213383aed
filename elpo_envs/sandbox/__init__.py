"""Stateful Python interpreter sessions that can be snapshotted and restored, behind one small protocol."""

from __future__ import annotations

from elpo_envs.sandbox.base import Execution, Limits, Sandbox, SandboxError, SandboxSnapshot
from elpo_envs.sandbox.forked import preload
from elpo_envs.sandbox.replay import ReplaySandbox

__all__ = [
    "Execution",
    "Limits",
    "ReplaySandbox",
    "Sandbox",
    "SandboxError",
    "SandboxSnapshot",
    "available",
    "make_sandbox",
    "preload",
]


def available() -> tuple[str, ...]:
    """Names of the backends that `make_sandbox` can build here, besides "auto"."""
    return ("replay",)


def make_sandbox(name: str = "auto", limits: Limits | None = None) -> Sandbox:
    """Build a sandbox; it starts nothing before `open`.

    Args:
        name: a backend's name from `available()`, or "auto" for the best one here.
        limits: bounds on each call; None means the defaults of `Limits`.

    Raises:
        ValueError: there is no such backend.
    """
    if name not in ("auto", *available()):
        raise ValueError(f"sandbox must be one of {', '.join(('auto', *available()))}, not {name!r}")
    return ReplaySandbox(limits)
