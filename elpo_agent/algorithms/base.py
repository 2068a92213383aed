"""An algorithm is a rollout strategy, a credit rule and an objective, and what it asks of the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from elpo_agent.algorithms.selection import Selection
from elpo_agent.credit.base import BatchCredit, Credit
from elpo_agent.objective.base import Objective
from elpo_agent.rollout.base import RolloutStrategy

ToolBudget = Callable[[float], int]
"""Tool calls that an episode may make, from the share of the run that is done, in [0, 1]."""


@dataclass(frozen=True)
class Algorithm:
    """The composition that the trainer runs.

    Attributes:
        name: for logs.
        strategy: decides which prefixes are sampled.
        credit: trees -> advantages.
        objective: per-token bounds and the loss.
        selection: which prompts' trees are trained on, and what becomes of rollouts that were not needed.
        tool_budget: the environment's `max_tool_calls` as training goes on; None leaves it as configured.
        replay_weight: what the update before's trajectories with positive advantages count when they are trained on
            once more; ratios stay those to the policy that sampled them. 0 does not replay.
    """

    name: str
    strategy: RolloutStrategy
    credit: Credit | BatchCredit
    objective: Objective
    selection: Selection = field(default_factory=Selection)
    tool_budget: ToolBudget | None = None
    replay_weight: float = 0.0
