"""Credit: from a finished rollout tree to one advantage per node."""

from elpo_agent.credit.advantages import group_relative, hierarchical
from elpo_agent.credit.base import Credit, NodeCredit
from elpo_agent.credit.rules import GroupRelativeCredit, HierarchicalCredit

__all__ = [
    "Credit",
    "GroupRelativeCredit",
    "HierarchicalCredit",
    "NodeCredit",
    "group_relative",
    "hierarchical",
]
