"""Rollout strategies: which prefixes are sampled next."""

from elpo_agent.rollout.base import (
    Anchor,
    Budget,
    Expander,
    Localization,
    RolloutStrategy,
    SearchResult,
)
from elpo_agent.rollout.bel import BinaryErrorLocalization
from elpo_agent.rollout.independent import IndependentSampling

__all__ = [
    "Anchor",
    "BinaryErrorLocalization",
    "Budget",
    "Expander",
    "IndependentSampling",
    "Localization",
    "RolloutStrategy",
    "SearchResult",
]
