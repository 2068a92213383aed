"""DemyAgent's GRPO-TCR (Yu et al., "Demystifying Reinforcement Learning in Agentic Reasoning"; Open-AgentRL)."""

from __future__ import annotations

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.credit.rewards import OverlongPenalty, TurnBonus
from elpo_agent.credit.rules import GroupRelativeCredit
from elpo_agent.credit.wrappers import Rewarded
from elpo_agent.objective.clipping import ClippedObjective
from elpo_agent.rollout.independent import IndependentSampling


def demyagent(
    *,
    n_total: int = 16,
    ddof: int = 1,
    std_eps: float = 1e-6,
    count_turns: bool = False,
    overlong_length: int = 20480,
    overlong_buffer: int = 4096,
    overlong_penalty: float = 1.0,
    eps_low: float = 0.2,
    eps_high: float = 0.28,
    loss: LossSetting = None,
) -> Algorithm:
    """GRPO with a mean over all tokens, a higher upper bound, a soft punishment of overlong responses, and a reward
    that was meant to honour tool turns of failures.

    Success gives 1, failure min(-0.6, -1 + (turns - 2) / 2 * 0.1). In the authors' code the number of turns is never
    set, so that failures have -1.1; nor is their dynamic sampling switched on.

    Args:
        n_total: rollouts per prompt; >= 1.
        ddof: 1 for the sample standard deviation, 0 for the population's.
        std_eps: added to the standard deviation; >= 0.
        count_turns: the reward that was meant, in place of the one that was run.
        overlong_length: longest response in tokens, tool tokens included; > overlong_buffer.
        overlong_buffer: tokens before that over which the punishment grows; >= 1.
        overlong_penalty: its size at overlong_length; 0 is without.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        loss: further terms of the loss, see `LossOptions`; by default aggregation "token-mean", dual_clip 10.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    rules = (TurnBonus(count_turns), OverlongPenalty(overlong_length, overlong_buffer, overlong_penalty))
    return Algorithm(
        name="demyagent",
        strategy=IndependentSampling(n_total),
        credit=Rewarded(rules, GroupRelativeCredit(ddof=ddof, eps=std_eps)),
        objective=ClippedObjective(eps_low, eps_high, loss_options(loss, aggregation="token-mean", dual_clip=10.0)),
    )
