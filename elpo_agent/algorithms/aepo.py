"""AEPO: agentic entropy-balanced policy optimization (Dong et al., arXiv 2510.14545; in RUC-NLPIR/ARPO)."""

from __future__ import annotations

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.credit.trajectories import TrajectoryCredit
from elpo_agent.credit.wrappers import EntropyScaled
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.entropy_branching import EntropyBranching


def aepo(
    *,
    n_total: int = 16,
    beam: int = 2,
    alpha: float = 0.5,
    gamma: float = 0.2,
    tau: float = 0.5,
    penalty: float = 0.05,
    monitor_beta: float = 0.5,
    entropy_window: int | None = 20,
    vocabulary: int = 151_936,
    reference_quirks: bool = False,
    entropy_scale: float = 0.2,
    ddof: int = 1,
    std_eps: float = 1e-6,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossSetting = None,
) -> Algorithm:
    """ARPO with a probe that divides the budget, a penalty on consecutive branches, a gradient above the upper clip
    bound, and advantages scaled by entropy.

    All four parts are on, as in the paper; the released scripts leave most of them off and start with 16 full rollouts,
    which is reference_quirks=True of `arpo` with initial=16. The probe is one of the `n_total` rollouts.

    Args:
        n_total: completed rollouts per prompt, branches and probe included; >= 1.
        beam: a trajectory at a tool result becomes this many at most; >= 1.
        alpha, gamma, tau, penalty: a trajectory is branched where
            (alpha + gamma * (rise of entropy)) * max(0, 1 - penalty * (branches directly before)) > tau.
        monitor_beta: how sharply the probe's entropies divide the budget between full rollouts and branches.
        entropy_window: tokens of a turn, from its start, that count for its entropy; None for all.
        vocabulary: number of tokens the policy chooses from; entropies are divided by its logarithm.
        reference_quirks: decide as the released code does, which differs: see `EntropyBranching`.
        entropy_scale: advantages are multiplied by 1 + entropy_scale * (z-score of the token's entropy); >= 0.
        ddof: 1 for the sample standard deviation, 0 for the population's.
        std_eps: added to the standard deviation; >= 0.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped; the gradient stays.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "token-mean", dual_clip 3,
            gradient_above True.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    options = loss_options(loss, aggregation="token-mean", dual_clip=3.0, gradient_above=True)
    return Algorithm(
        name="aepo",
        strategy=EntropyBranching(
            n_total,
            beam=beam,
            alpha=alpha,
            gamma=gamma,
            tau=tau,
            penalty=penalty,
            probe=True,
            monitor_beta=monitor_beta,
            entropy_window=entropy_window,
            vocabulary=vocabulary,
            reference_quirks=reference_quirks,
        ),
        credit=EntropyScaled(TrajectoryCredit(ddof=ddof, eps=std_eps), entropy_scale),
        objective=ClippedObjective(eps_low, eps_high, options),
    )
