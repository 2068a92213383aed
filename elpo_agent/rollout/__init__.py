"""Rollout strategies: which prefixes are sampled next."""

from elpo_agent.rollout.base import (
    Anchor,
    Budget,
    Expander,
    Localization,
    RolloutStrategy,
    SearchResult,
)
from elpo_agent.rollout.bayesian import BayesianSearch, StepBelief
from elpo_agent.rollout.bel import BinaryErrorLocalization
from elpo_agent.rollout.early_stop import EarlyStop
from elpo_agent.rollout.entropy_branching import EntropyBranching
from elpo_agent.rollout.independent import IndependentSampling
from elpo_agent.rollout.random_expansion import RandomExpansion
from elpo_agent.rollout.random_prefix import RandomPrefixes
from elpo_agent.rollout.success_anchored import SuccessAnchored

__all__ = [
    "Anchor",
    "BayesianSearch",
    "BinaryErrorLocalization",
    "Budget",
    "EarlyStop",
    "EntropyBranching",
    "Expander",
    "IndependentSampling",
    "Localization",
    "RandomExpansion",
    "RandomPrefixes",
    "RolloutStrategy",
    "SearchResult",
    "StepBelief",
    "SuccessAnchored",
]
