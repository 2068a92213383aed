"""Algorithms: compositions of a rollout strategy, a credit rule and an objective, looked up by name."""

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.registry import load, names, options, shared_options

__all__ = ["Algorithm", "load", "names", "options", "shared_options"]
