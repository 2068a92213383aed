"""REINFORCE++ and its baseline variant (Hu et al., arXiv 2501.03262; OpenRLHF)."""

from __future__ import annotations

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.credit.whitening import WhitenedCredit
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.independent import IndependentSampling


def reinforce_pp(
    *,
    n_total: int = 16,
    kl_reward: float = 0.01,
    unbiased: bool = False,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossSetting = None,
) -> Algorithm:
    """Undiscounted returns of single tokens with a KL penalty in the reward, whitened over the update; no critic, no
    group statistics.

    Defaults are those of OpenRLHF's estimator `reinforce`: k1 penalty, population variance, mean over all tokens, no
    dual clip.

    Args:
        n_total: rollouts per prompt; >= 1.
        kl_reward: beta of the KL penalty in the reward; >= 0, 0 needs no reference policy.
        unbiased: whiten as verl does: sample variance, and sqrt(var + 1e-8).
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "token-mean".

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    return Algorithm(
        name="reinforce_pp",
        strategy=IndependentSampling(n_total),
        credit=WhitenedCredit(kl_reward, unbiased=unbiased),
        objective=ClippedObjective(eps_low, eps_high, loss_options(loss, aggregation="token-mean")),
    )


def reinforce_pp_baseline(
    *,
    n_total: int = 16,
    kl_reward: float = 0.0,
    unbiased: bool = False,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossSetting = None,
) -> Algorithm:
    """The variant that subtracts the prompt's mean reward before it whitens over the update.

    Defaults are those of OpenRLHF's estimator `reinforce_baseline` and its script: no KL in the reward, a k2 term of
    1e-5 in the loss. The script's correction for engine mismatch leaves tokens out; the one that can be had here, the
    loss option importance_cap, weights them.

    Args:
        n_total: rollouts per prompt; >= 1.
        kl_reward: beta of the KL penalty in the reward; >= 0.
        unbiased: whiten as verl does: sample variance, and sqrt(var + 1e-8).
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "token-mean", kl "k2", kl_coef 1e-5
            (0 needs no reference policy).

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    return Algorithm(
        name="reinforce_pp_baseline",
        strategy=IndependentSampling(n_total),
        credit=WhitenedCredit(kl_reward, group_baseline=True, unbiased=unbiased),
        objective=ClippedObjective(
            eps_low, eps_high, loss_options(loss, aggregation="token-mean", kl="k2", kl_coef=1e-5)
        ),
    )
