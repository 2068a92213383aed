"""Wrappers around the conversation environments: rewards, observations, a token budget, recorded traces.

Gymnasium's own wrappers work, too. Order: what can end an episode (`TimeLimit`, `TokenBudget`) goes inside,
then the rewards in any order, then `RecordTraces`, which sees the rewards that the wrappers inside it give.
"""

from __future__ import annotations

from elpo_envs.wrappers.chat import ChatObservation, ChatSpace, TranscriptObservation
from elpo_envs.wrappers.feedback import FEEDBACK_KINDS, turn_kinds
from elpo_envs.wrappers.rewards import (
    DemyAgentReward,
    FormatPenalty,
    OverlongPenalty,
    PerTurnReward,
    PlusMinusReward,
    ToolBonus,
)
from elpo_envs.wrappers.shaping import ShapedReward
from elpo_envs.wrappers.token_budget import TokenBudget, estimate_tokens
from elpo_envs.wrappers.traces import RecordTraces, TraceWriteError, read_traces

__all__ = [
    "FEEDBACK_KINDS",
    "ChatObservation",
    "ChatSpace",
    "DemyAgentReward",
    "FormatPenalty",
    "OverlongPenalty",
    "PerTurnReward",
    "PlusMinusReward",
    "RecordTraces",
    "ShapedReward",
    "TokenBudget",
    "ToolBonus",
    "TraceWriteError",
    "TranscriptObservation",
    "estimate_tokens",
    "read_traces",
    "turn_kinds",
]
