"""CIR: code-integrated reasoning with a tool budget that grows (Bai et al., "Towards Effective Code-Integrated
Reasoning"; RUCAIBox/CIR)."""

from __future__ import annotations

from collections.abc import Sequence

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.algorithms.tool_budget import StagedToolCalls
from elpo_agent.credit.rewards import SuccessReward
from elpo_agent.credit.whitening import WhitenedCredit
from elpo_agent.credit.wrappers import Rewarded
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.independent import IndependentSampling


def cir(
    *,
    n_total: int = 16,
    right_reward: float = 1.0,
    wrong_reward: float = -1.0,
    tool_calls: Sequence[int] | None = (2, 4, 5, 8, 10),
    unbiased: bool = True,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    loss: LossSetting = None,
) -> Algorithm:
    """REINFORCE++ with a group baseline, a higher upper bound, rewards 1 and -1, and more tool calls as training goes
    on; no KL and no entropy term.

    The authors' script names the caps 2, 4, 5, 8 and 10 but not when each begins: here each has an equal share of the
    run. Their -1 for an answer outside the box is a failure's here.

    Args:
        n_total: rollouts per prompt; >= 1.
        right_reward: of a success.
        wrong_reward: of anything else.
        tool_calls: caps per episode, one after the other; None leaves the environment's.
        unbiased: whiten as verl does, on which theirs is built: sample variance, and sqrt(var + 1e-8).
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "token-mean", dual_clip 3.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    credit = WhitenedCredit(kl_coef=0.0, group_baseline=True, unbiased=unbiased)
    return Algorithm(
        name="cir",
        strategy=IndependentSampling(n_total),
        credit=Rewarded((SuccessReward(right_reward, wrong_reward),), credit),
        objective=ClippedObjective(eps_low, eps_high, loss_options(loss, aggregation="token-mean", dual_clip=3.0)),
        tool_budget=None if tool_calls is None else StagedToolCalls(tuple(tool_calls)),
    )
