"""Small multi-step tasks with exact ground truth: values, policy gradient and first irrecoverable step.

`elpo_envs.exact.env.ExactChainEnv` (`elpo/ExactChain-v0`) is the same world as a conversation.
"""

from __future__ import annotations

from elpo_envs.exact.build import build_world
from elpo_envs.exact.dynamics import (
    ActionSampler,
    Rollouts,
    RolloutState,
    current_rows,
    ended,
    roll_out,
    start_state,
    step,
    succeeded,
)
from elpo_envs.exact.families import FAMILIES, Family, Kind, family, read_family
from elpo_envs.exact.gradient import expected_steps, logit_gradient, occupancy, weight_gradient
from elpo_envs.exact.localization import first_error, first_irrecoverable, first_unsolvable
from elpo_envs.exact.values import (
    action_values,
    mean_success,
    optimal_values,
    prefix_values,
    prompt_success,
    state_values,
    step_advantages,
)
from elpo_envs.exact.world import FATAL, GOOD, HARMLESS, KIND_NAMES, REPAIRABLE, World, softmax

__all__ = [
    "FAMILIES",
    "FATAL",
    "GOOD",
    "HARMLESS",
    "KIND_NAMES",
    "REPAIRABLE",
    "ActionSampler",
    "Family",
    "Kind",
    "RolloutState",
    "Rollouts",
    "World",
    "action_values",
    "build_world",
    "current_rows",
    "ended",
    "expected_steps",
    "family",
    "first_error",
    "first_irrecoverable",
    "first_unsolvable",
    "logit_gradient",
    "mean_success",
    "occupancy",
    "optimal_values",
    "prefix_values",
    "prompt_success",
    "read_family",
    "roll_out",
    "softmax",
    "start_state",
    "state_values",
    "step",
    "step_advantages",
    "succeeded",
    "weight_gradient",
]
