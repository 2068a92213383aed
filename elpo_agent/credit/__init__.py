"""Credit: from finished rollout trees to advantages."""

from elpo_agent.credit.advantages import group_relative, hierarchical
from elpo_agent.credit.base import BatchCredit, Credit, LeafCredit, NodeCredit, leaf_credits, spread
from elpo_agent.credit.rewards import (
    FormatScores,
    LastExecutionPenalty,
    OverlongPenalty,
    RewardRule,
    SuccessReward,
    TurnBonus,
    TurnRewards,
    rewarded,
)
from elpo_agent.credit.rules import GroupRelativeCredit, HierarchicalCredit
from elpo_agent.credit.step_groups import StepGroupCredit
from elpo_agent.credit.trajectories import LeaveOneOutCredit, TrajectoryCredit, TreeGroupCredit, leave_one_out
from elpo_agent.credit.value_gap import ValueGapCredit, value_gap
from elpo_agent.credit.whitening import WhitenedCredit, whiten
from elpo_agent.credit.wrappers import EntropyScaled, PositivesWeighted, Rewarded, WithoutVoidTurns

__all__ = [
    "BatchCredit",
    "Credit",
    "EntropyScaled",
    "FormatScores",
    "GroupRelativeCredit",
    "HierarchicalCredit",
    "LastExecutionPenalty",
    "LeafCredit",
    "LeaveOneOutCredit",
    "NodeCredit",
    "OverlongPenalty",
    "PositivesWeighted",
    "RewardRule",
    "Rewarded",
    "StepGroupCredit",
    "SuccessReward",
    "TrajectoryCredit",
    "TreeGroupCredit",
    "TurnBonus",
    "TurnRewards",
    "ValueGapCredit",
    "WhitenedCredit",
    "WithoutVoidTurns",
    "group_relative",
    "hierarchical",
    "leaf_credits",
    "leave_one_out",
    "rewarded",
    "spread",
    "value_gap",
    "whiten",
]
