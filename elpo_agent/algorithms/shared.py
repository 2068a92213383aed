"""Parts that any algorithm can take beside its own options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.early_stopping import stop_early
from elpo_agent.credit.rewards import TurnRewards
from elpo_agent.credit.wrappers import PositivesWeighted, TurnAdvantages, WithoutVoidTurns, with_rule


def with_shared(
    algorithm: Algorithm,
    *,
    early_stop: int | None = None,
    turn_rewards: Mapping[str, float] | None = None,
    turn_advantages: Mapping[str, float] | None = None,
    drop_void_turns: bool = False,
    positive_weight: float = 1.0,
    replay_weight: float | None = None,
) -> Algorithm:
    """`algorithm` with what is switched on.

    Args:
        early_stop: a prompt whose first so many full rollouts all succeed is left alone, and what it saves goes to
            other prompts of the update; >= 1.
        turn_rewards: what a turn with a kind of tool feedback gets, as {error: -0.1, timeout: -0.1}; see `TurnRewards`.
            It comes on top of what the algorithm's own rules make of a reward.
        turn_advantages: what it adds to the advantage of that turn alone, as {error: -1}, less the mean over the
            prompt's turns; see `TurnAdvantages`. It comes on top of the other advantages, weighted or not.
        drop_void_turns: SimpleTIR's filter: trajectories with a turn that holds neither a call nor an answer are not
            trained on.
        positive_weight: what positive advantages are multiplied with; > 0, 1 changes nothing.
        replay_weight: see `Algorithm.replay_weight`; None leaves the algorithm's own.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    credit = algorithm.credit
    for name, amounts in (("turn_rewards", turn_rewards), ("turn_advantages", turn_advantages)):
        if amounts and not isinstance(amounts, Mapping):
            raise ValueError(f"{name}={amounts!r} is no mapping; give amounts by kind, as {{'error': -0.1}}")
    if turn_rewards:
        credit = with_rule(credit, TurnRewards(dict(turn_rewards)))
    if positive_weight != 1.0:
        credit = PositivesWeighted(credit, positive_weight)
    if turn_advantages:
        credit = TurnAdvantages(credit, dict(turn_advantages))
    if drop_void_turns:
        credit = WithoutVoidTurns(credit)
    algorithm = replace(algorithm, credit=credit)
    if replay_weight is not None:
        if not 0.0 <= replay_weight < float("inf"):
            raise ValueError(f"replay_weight={replay_weight} must be a finite number of at least 0")
        algorithm = replace(algorithm, replay_weight=replay_weight)
    return algorithm if early_stop is None else stop_early(algorithm, early_stop)
