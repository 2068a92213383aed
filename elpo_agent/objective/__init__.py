"""Objectives: clip bounds per token, and the loss.

The tensor mathematics is in `elpo_agent.objective.surrogate`; nothing else imports torch.
"""

from elpo_agent.objective.base import NodeBounds, Objective, TokenBatch
from elpo_agent.objective.clipping import ClippedObjective, ErrorLocalizedClipping
from elpo_agent.objective.options import LossOptions
from elpo_agent.objective.scope import first_all_failed

__all__ = [
    "ClippedObjective",
    "ErrorLocalizedClipping",
    "LossOptions",
    "NodeBounds",
    "Objective",
    "TokenBatch",
    "first_all_failed",
]
