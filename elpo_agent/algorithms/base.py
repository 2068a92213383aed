"""An algorithm is a rollout strategy, a credit rule and an objective."""

from __future__ import annotations

from dataclasses import dataclass

from elpo_agent.credit.base import Credit
from elpo_agent.objective.base import Objective
from elpo_agent.rollout.base import RolloutStrategy


@dataclass(frozen=True)
class Algorithm:
    """The composition that the trainer runs.

    Attributes:
        name: for logs.
        strategy: decides which prefixes are sampled.
        credit: tree -> per-node advantages.
        objective: per-token bounds and the loss.
    """

    name: str
    strategy: RolloutStrategy
    credit: Credit
    objective: Objective
