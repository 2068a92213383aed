"""What the last turn met with, read from its `info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from elpo_envs.episode import CallKind

# CallKind is a union of literals; each of them lists its kinds.
CALL_KINDS = frozenset(kind for literal in get_args(CallKind) for kind in get_args(literal))
FEEDBACK_KINDS = CALL_KINDS | {"no_action"}
"""Every kind that a turn can have: those of tool calls, and "no_action"."""

FORMAT_ERRORS = frozenset({"malformed_call", "unknown_tool", "invalid_arguments", "no_action"})
"""The kinds that say that a turn was not written as agreed."""


def turn_kinds(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of the last turn: one for each of its tool calls, in order, or ("no_action",), or ().

    `info["error_kind"]` names one kind only, and the budget in its place where the turn was the last one.
    """
    if info["tool_calls"]:
        return tuple(call["kind"] for call in info["tool_calls"])
    # A hint of the environment after a turn without calls is what "no_action" means.
    hinted = info["turn"] > 0 and info["messages"][-1]["role"] == "user"
    return ("no_action",) if hinted else ()


def assistant_chars(info: Mapping[str, Any]) -> int:
    """Characters of all assistant turns of the episode."""
    return sum(len(m["content"]) for m in info["messages"] if m["role"] == "assistant")
