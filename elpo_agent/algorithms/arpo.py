"""ARPO: agentic reinforced policy optimization (Dong et al., arXiv 2507.19849; RUC-NLPIR/ARPO)."""

from __future__ import annotations

from typing import Literal

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.credit.rules import GroupRelativeCredit
from elpo_agent.credit.trajectories import TrajectoryCredit
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.entropy_branching import EntropyBranching


def arpo(
    *,
    n_total: int = 16,
    initial: int = 8,
    beam: int = 2,
    alpha: float = 0.5,
    gamma: float = 0.2,
    tau: float = 0.5,
    entropy_window: int | None = 20,
    vocabulary: int = 151_936,
    reference_quirks: bool = False,
    estimate: Literal["soft", "hard"] = "soft",
    ddof: int = 1,
    std_eps: float = 1e-6,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossSetting = None,
) -> Algorithm:
    """Branches after tool results that raise entropy, and GRPO's advantages over all trajectories.

    The paper's reward (-1 for bad format, 0 for wrong, F1 for right, 0.1 more where search and Python were both used)
    is the environment's to give. Defaults are those of the authors' 7B script.

    Args:
        n_total: completed rollouts per prompt, branches included; >= 1.
        initial: full rollouts at the start; >= 1.
        beam: a trajectory at a tool result becomes this many at most; >= 1.
        alpha, gamma, tau: a trajectory is branched where alpha + gamma * (rise of entropy) > tau; gamma is the paper's
            beta.
        entropy_window: tokens of a turn, from its start, that count for its entropy; None for all.
        vocabulary: number of tokens the policy chooses from; entropies are divided by its logarithm.
        reference_quirks: decide as the released code does, which differs: see `EntropyBranching`.
        estimate: "soft": every row keeps its own advantage; "hard": shared steps get the mean of the trajectories
            through them (in the paper only).
        ddof: 1 for the sample standard deviation, 0 for the population's.
        std_eps: added to the standard deviation; >= 0.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "token-mean", dual_clip 3.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    if estimate not in ("soft", "hard"):
        raise ValueError(f"estimate={estimate!r} is unknown; give 'soft' or 'hard'")
    credit = TrajectoryCredit if estimate == "soft" else GroupRelativeCredit
    return Algorithm(
        name="arpo",
        strategy=EntropyBranching(
            n_total,
            initial,
            beam,
            alpha,
            gamma,
            tau,
            entropy_window=entropy_window,
            vocabulary=vocabulary,
            reference_quirks=reference_quirks,
        ),
        credit=credit(ddof=ddof, eps=std_eps),
        objective=ClippedObjective(eps_low, eps_high, loss_options(loss, aggregation="token-mean", dual_clip=3.0)),
    )
