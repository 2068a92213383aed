"""Stateful Python interpreter sessions that can be snapshotted and restored, behind one small protocol."""

from __future__ import annotations

from elpo_envs.sandbox.base import Capabilities, Execution, Limits, Sandbox, SandboxError, SandboxSnapshot
from elpo_envs.sandbox.choice import BACKENDS, Isolation, IsolationWarning, available, make_sandbox
from elpo_envs.sandbox.pyodide import PyodideSandbox
from elpo_envs.sandbox.replay import ReplaySandbox

__all__ = [
    "BACKENDS",
    "Capabilities",
    "Execution",
    "Isolation",
    "IsolationWarning",
    "Limits",
    "PyodideSandbox",
    "ReplaySandbox",
    "Sandbox",
    "SandboxError",
    "SandboxSnapshot",
    "available",
    "make_sandbox",
]
