"""RLOO (Ahmadian et al., arXiv 2402.14740): a rollout's reward less the mean reward of the prompt's other rollouts."""

from dataclasses import dataclass

import numpy as np

from elpo_agent.algorithms import Algorithm
from elpo_agent.credit import NodeCredit
from elpo_agent.objective import ClippedObjective
from elpo_agent.rollout.independent import IndependentSampling
from elpo_agent.tree import RolloutTree


@dataclass(frozen=True)
class LeaveOneOutCredit:
    """The same advantage on every step of a rollout; rollouts lost to infrastructure count for nothing."""

    def assign(self, tree: RolloutTree) -> NodeCredit:
        rewards = {leaf: tree.outcome(leaf).reward for leaf in tree.leaves if tree.outcome(leaf).valid}
        advantage = np.zeros(len(tree.nodes))
        for leaf, reward in rewards.items():
            others = [r for other, r in rewards.items() if other != leaf]
            advantage[tree.path(leaf)] = reward - np.mean(others) if others else 0.0
        zeros = np.zeros_like(advantage)
        return NodeCredit(reward=zeros, branch=zeros, trajectory=advantage, advantage=advantage)


def others_mean(*, n_total: int = 4, eps: float = 0.2) -> Algorithm:
    """Independent rollouts, leave-one-out advantages, clipped ratios."""
    return Algorithm("others_mean", IndependentSampling(n_total), LeaveOneOutCredit(), ClippedObjective(eps, eps))
