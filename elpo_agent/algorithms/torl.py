"""ToRL: scaling tool-integrated reinforcement learning (Li et al., arXiv 2503.23383; GAIR-NLP/ToRL)."""

from __future__ import annotations

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.algorithms.tool_budget import StagedToolCalls
from elpo_agent.credit.rewards import LastExecutionPenalty, SuccessReward
from elpo_agent.credit.rules import GroupRelativeCredit
from elpo_agent.credit.wrappers import Rewarded
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.independent import IndependentSampling


def torl(
    *,
    n_total: int = 16,
    ddof: int = 1,
    std_eps: float = 1e-6,
    right_reward: float = 1.0,
    wrong_reward: float = -1.0,
    execution_penalty: float = 0.0,
    tool_calls: int | None = None,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    loss: LossSetting = None,
) -> Algorithm:
    """GRPO from the base model with rewards 1 and -1, and no KL term.

    Args:
        n_total: rollouts per prompt; >= 1.
        ddof: 1 for the sample standard deviation, 0 for the population's.
        std_eps: added to the standard deviation; >= 0.
        right_reward: of a success.
        wrong_reward: of anything else; -0.5 in the authors' second version.
        execution_penalty: taken off where the last tool call failed; the authors tried 0.5 and left it out.
        tool_calls: cap per episode, their C; None leaves the environment's. They run 1 (3 in the configuration's
            defaults) and let the model finish without tools, where our environments end an episode at its cap.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "token-mean".

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    rules = (SuccessReward(right_reward, wrong_reward), LastExecutionPenalty(execution_penalty))
    return Algorithm(
        name="torl",
        strategy=IndependentSampling(n_total),
        credit=Rewarded(rules, GroupRelativeCredit(ddof=ddof, eps=std_eps)),
        objective=ClippedObjective(eps_low, eps_high, loss_options(loss, aggregation="token-mean")),
        tool_budget=None if tool_calls is None else StagedToolCalls((tool_calls,)),
    )
