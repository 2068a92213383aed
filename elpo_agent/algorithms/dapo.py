"""DAPO: decoupled clip and dynamic sampling (Yu et al., arXiv 2503.14476; verl's recipe `dapo`)."""

from __future__ import annotations

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.algorithms.selection import Selection
from elpo_agent.credit.rewards import OverlongPenalty, SuccessReward
from elpo_agent.credit.rules import GroupRelativeCredit
from elpo_agent.credit.wrappers import Rewarded
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.independent import IndependentSampling


def dapo(
    *,
    n_total: int = 16,
    ddof: int = 1,
    std_eps: float = 1e-6,
    right_reward: float = 1.0,
    wrong_reward: float = -1.0,
    overlong_length: int = 20480,
    overlong_buffer: int = 4096,
    overlong_penalty: float = 1.0,
    refill_rounds: int = 9,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    loss: LossSetting = None,
) -> Algorithm:
    """GRPO's advantages with a higher upper bound, a mean over all tokens, prompts of mixed outcomes only, and a soft
    punishment of overlong responses.

    Dynamic sampling draws further prompts until enough have both outcomes, in up to 10 rounds as in verl's recipe,
    which then gives up; here the update makes do with what it has. All rollouts of all rounds are charged. At an equal
    budget set refill_rounds=0, or compare by rollouts.

    Args:
        n_total: rollouts per prompt; >= 1.
        ddof: 1 for the sample standard deviation, 0 for the population's.
        std_eps: added to the standard deviation; >= 0.
        right_reward: of a success.
        wrong_reward: of anything else.
        overlong_length: longest response in tokens, tool tokens included (20480 in the script); > overlong_buffer.
        overlong_buffer: tokens before that over which the punishment grows; >= 1.
        overlong_penalty: its size at overlong_length; 0 is without.
        refill_rounds: further rounds of fresh prompts; >= 0.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "token-mean", dual_clip 10.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    rules = (
        SuccessReward(right_reward, wrong_reward),
        OverlongPenalty(overlong_length, overlong_buffer, overlong_penalty),
    )
    return Algorithm(
        name="dapo",
        strategy=IndependentSampling(n_total),
        credit=Rewarded(rules, GroupRelativeCredit(ddof=ddof, eps=std_eps)),
        objective=ClippedObjective(eps_low, eps_high, loss_options(loss, aggregation="token-mean", dual_clip=10.0)),
        selection=Selection(mixed_only=True, refill_rounds=refill_rounds),
    )
