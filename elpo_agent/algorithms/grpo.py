"""GRPO: group relative policy optimization (Shao et al., arXiv 2402.03300)."""

from __future__ import annotations

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.credit.rules import GroupRelativeCredit
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.independent import IndependentSampling


def grpo(
    *,
    n_total: int = 16,
    ddof: int = 1,
    std_eps: float = 1e-6,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossSetting = None,
) -> Algorithm:
    """Independent rollouts, z-scored outcome rewards and a symmetric clip; no KL term, as ELPO's authors ran
    it.

    The loss is the mean over trajectories of the mean over their tokens, the form of the GRPO paper.

    Args:
        n_total: rollouts per prompt; >= 1.
        ddof: 1 for the sample standard deviation, 0 for the population's.
        std_eps: added to the standard deviation; >= 0.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    return Algorithm(
        name="grpo",
        strategy=IndependentSampling(n_total),
        credit=GroupRelativeCredit(ddof=ddof, eps=std_eps),
        objective=ClippedObjective(eps_low, eps_high, loss_options(loss)),
    )
