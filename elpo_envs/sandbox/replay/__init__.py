"""The `replay` backend: portable, and restored by repeating calls in a fresh subprocess."""

from __future__ import annotations

from elpo_envs.sandbox.replay.backend import ReplaySandbox

__all__ = ["ReplaySandbox"]
