"""Early stop as a part that any algorithm can take."""

from __future__ import annotations

from dataclasses import replace

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.rollout.early_stop import EarlyStop


def stop_early(algorithm: Algorithm, after: int = 3) -> Algorithm:
    """`algorithm`, but a prompt whose first `after` full rollouts all succeed is left alone, and what it saves goes to
    other prompts of the update.

    Its leaves are still there: with equal rewards they have no advantage, where the credit rule compares rollouts of
    one prompt only.

    Raises:
        ValueError: `after` is below 1.
    """
    return replace(
        algorithm,
        strategy=EarlyStop(algorithm.strategy, after),
        selection=replace(algorithm.selection, hand_on=True),
    )
