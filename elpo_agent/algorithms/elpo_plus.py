"""ELPO+: success-anchored value-gap bisection with adaptive groups, early stop and emphasis on successes."""

from __future__ import annotations

from dataclasses import replace

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.early_stopping import stop_early
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.algorithms.selection import Selection
from elpo_agent.credit.value_gap import ValueGapCredit
from elpo_agent.credit.wrappers import PositivesWeighted
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.success_anchored import SuccessAnchored


def elpo_plus(
    *,
    n_total: int = 16,
    fresh: int = 6,
    most_fresh: int = 24,
    enough_successes: int | None = 1,
    enough_failures: int | None = 3,
    probes: int | None = 4,
    per_anchor: int = 2,
    largest_group: int | None = None,
    early_stop: int | None = 3,
    lambda_tree: float = 0.5,
    std_eps: float = 1e-6,
    positive_weight: float = 1.0,
    replay_weight: float = 0.6,
    eps_low: float = 0.2,
    eps_high: float = 0.315,
    loss: LossSetting = None,
) -> Algorithm:
    """What did better than ELPO and GRPO per generated step where exact values were known; every part has its switch.

    A prompt gets a few full rollouts, more while their outcomes are all equal, and then probes where the value of a
    prefix rises most on the way to a success (`SuccessAnchored`). What it needs less than `n_total` goes to further
    prompts of the update, and one may need more. Credit is the difference of values among siblings and trajectories
    (`ValueGapCredit`), and successes count more: the last update's trajectories with positive advantages are trained
    on once more (replay_weight), or positive advantages are larger (positive_weight, with replay_weight=0).
    Emphasis on successes changes the objective: watch entropy and Pass@K. Source: none but this project's own study.

    The first form, without adaptive groups and emphasis, is n_total=16, fresh=8, most_fresh=16, enough_successes=None,
    enough_failures=None, probes=None, largest_group=16, replay_weight=0.

    Args:
        n_total: rollouts that each of an update's prompts adds to the update's budget; >= 1.
        fresh: full rollouts at the start; >= 1.
        most_fresh: full rollouts at most, where all outcomes are equal; >= fresh.
        enough_successes, enough_failures: full rollouts end early at so many of both; >= 1, both None for never.
        probes: in all; >= 0, None for what the group's limit leaves.
        per_anchor: probes from one node at a time; >= 1.
        largest_group: completed rollouts of one prompt at most; None for most_fresh + probes.
        early_stop: a prompt whose first so many rollouts all succeed is left alone; None for without.
        lambda_tree: weight of the branch-level advantage in [0, 1].
        std_eps: added to the group's standard deviation; >= 0.
        positive_weight: what positive advantages are multiplied with; > 0, 1 for without.
        replay_weight: of the update before's trajectories with positive advantages; >= 0, 0 for without.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    if (enough_successes is None) != (enough_failures is None):
        raise ValueError(
            f"enough_successes={enough_successes} and enough_failures={enough_failures}: give both, or None for both"
        )
    enough = None if enough_successes is None or enough_failures is None else (enough_successes, enough_failures)
    limit = most_fresh + (probes or 0) if largest_group is None else largest_group
    credit = ValueGapCredit(lambda_tree, std_eps)
    algorithm = Algorithm(
        name="elpo_plus",
        strategy=SuccessAnchored(limit, fresh, most_fresh, enough, probes, per_anchor),
        credit=credit if positive_weight == 1.0 else PositivesWeighted(credit, positive_weight),
        objective=ClippedObjective(eps_low, eps_high, loss_options(loss)),
        replay_weight=replay_weight,
    )
    if early_stop is not None:
        algorithm = stop_early(algorithm, early_stop)
    return replace(algorithm, selection=Selection(hand_on=True, n_total=n_total))
