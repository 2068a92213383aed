"""RLOO: REINFORCE with a leave-one-out baseline (Ahmadian et al., arXiv 2402.14740)."""

from __future__ import annotations

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.credit.trajectories import LeaveOneOutCredit
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.independent import IndependentSampling


def rloo(
    *,
    n_total: int = 16,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossSetting = None,
) -> Algorithm:
    """A trajectory's return minus the mean of the others', and the sum over its tokens: an unbiased policy gradient as
    long as the policy is the one that sampled.

    The paper takes one step on each batch; for further ones ratios are clipped token by token, as in verl (TRL clips
    the whole trajectory's). The paper's KL penalty is in the reward; here it can be had in the loss.

    Args:
        n_total: rollouts per prompt; >= 1.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "seq-mean-token-sum".

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    return Algorithm(
        name="rloo",
        strategy=IndependentSampling(n_total),
        credit=LeaveOneOutCredit(),
        objective=ClippedObjective(eps_low, eps_high, loss_options(loss, aggregation="seq-mean-token-sum")),
    )
