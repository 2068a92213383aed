"""Conversations as text for people: plain, or in colours on a terminal."""

from __future__ import annotations

from elpo_envs.rendering.display import Display

__all__ = ["Display"]
