"""Tree-GRPO: tree search for agent reinforcement learning (Ji et al., arXiv 2509.21240; AMAP-ML/Tree-GRPO)."""

from __future__ import annotations

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.credit.rewards import FormatScores
from elpo_agent.credit.trajectories import TreeGroupCredit
from elpo_agent.credit.wrappers import Rewarded
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.random_expansion import RandomExpansion


def tree_grpo(
    *,
    n_total: int = 16,
    chains: int = 4,
    expansions: int = 3,
    rounds: int = 1,
    keep: int | None = None,
    format_scores: bool = False,
    ddof: int = 1,
    std_eps: float = 1e-6,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossSetting = None,
) -> Algorithm:
    """Chains expanded at random nodes; advantages among all leaves of the prompt plus those among the own tree's.

    The shape is ours for 16 rollouts, chains * (1 + expansions * rounds); the authors' script ships chains=2,
    expansions=2, rounds=1, keep=3. Its KL term is on: loss={kl_coef: 0} is without, and needs no reference model.

    Args:
        n_total: completed rollouts per prompt at most; >= 1. A smaller one than the shape's cuts it short.
        chains: M, the number of trees; >= 1.
        expansions: N, of each tree in each round; >= 0.
        rounds: L; >= 0.
        keep: leaves of a tree that are trained on, drawn at random; None for all.
        format_scores: the authors' reward, with its scores for good form, in place of the environment's.
        ddof: 1 for sample standard deviations, 0 for the population's.
        std_eps: added to the standard deviations; >= 0.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "token-mean", dual_clip 3, kl "k3"
            with kl_coef 0.001.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    credit = TreeGroupCredit(ddof=ddof, eps=std_eps)
    options = loss_options(loss, aggregation="token-mean", dual_clip=3.0, kl_coef=0.001, kl="k3")
    return Algorithm(
        name="tree_grpo",
        strategy=RandomExpansion(n_total, chains, expansions, rounds, keep),
        credit=Rewarded((FormatScores(),), credit) if format_scores else credit,
        objective=ClippedObjective(eps_low, eps_high, options),
    )
