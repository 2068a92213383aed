"""GiGPO: group-in-group policy optimization (Feng et al., arXiv 2505.10978; langfengQ/verl-agent)."""

from __future__ import annotations

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.credit.step_groups import Norm, StepGroupCredit
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.independent import IndependentSampling


def gigpo(
    *,
    n_total: int = 16,
    gamma: float = 0.95,
    omega: float = 1.0,
    norm: Norm = "mean_norm",
    invalid_penalty: float = 0.1,
    similarity: float | None = None,
    std_eps: float = 1e-6,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossSetting = None,
) -> Algorithm:
    """Advantages among a prompt's trajectories plus those among its steps that answer the same observation.

    The authors make one row of each step, with only its action in the loss; under a mean over all tokens that is the
    same as one row of each trajectory. Observations are compared token for token.

    Args:
        n_total: rollouts per prompt; >= 1.
        gamma: discount of step returns in [0, 1].
        omega: weight of the step level; >= 0.
        norm: "mean_norm" subtracts a group's mean; "mean_std_norm", of the ALFWorld script, also divides by its sample
            standard deviation.
        invalid_penalty: what a malformed action costs its step; 0.01 in the search script.
        similarity: how much alike observations must be to count as one, as a ratio in (0, 1); the authors use 0.95
            where they do. None for equal ones.
        std_eps: added to standard deviations; >= 0.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "token-mean", dual_clip 3, kl "k3",
            kl_coef 0.01 (0.001 in the search script; 0 needs no reference policy).

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    return Algorithm(
        name="gigpo",
        strategy=IndependentSampling(n_total),
        credit=StepGroupCredit(gamma, omega, norm, invalid_penalty, std_eps, similarity),
        objective=ClippedObjective(
            eps_low,
            eps_high,
            loss_options(loss, aggregation="token-mean", dual_clip=3.0, kl="k3", kl_coef=0.01),
        ),
    )
