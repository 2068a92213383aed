"""Credit: from finished rollout trees to advantages."""

from elpo_agent.credit.advantages import group_relative, hierarchical
from elpo_agent.credit.base import BatchCredit, Credit, LeafCredit, NodeCredit, leaf_credits, spread
from elpo_agent.credit.rules import GroupRelativeCredit, HierarchicalCredit

__all__ = [
    "BatchCredit",
    "Credit",
    "GroupRelativeCredit",
    "HierarchicalCredit",
    "LeafCredit",
    "NodeCredit",
    "group_relative",
    "hierarchical",
    "leaf_credits",
    "spread",
]
