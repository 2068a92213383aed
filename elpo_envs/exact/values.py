"""Exact success probabilities by dynamic programming over position, spare steps and the in-repair flag.

Tables of values have the shape (P, K + 1, S + 1, 2): prompt, contexts passed, spare steps left, in repair. They are for
rollouts without a fatal action; after one the value is 0. Entries of states that no rollout reaches are well defined
and of no account.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elpo_envs.exact.dynamics import Rollouts, RolloutState
from elpo_envs.exact.world import FATAL, GOOD, HARMLESS, REPAIRABLE, World

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Flow:
    """What happens at every row under a policy: float64 (2C,) each, which sum to 1.

    Attributes:
        on: the rollout goes on to the next context, unharmed.
        error: a repair is needed, or still needed.
        fatal: it goes on, but can succeed no more.
    """

    on: Floats
    error: Floats
    fatal: Floats


def flow(world: World, probabilities: Floats) -> Flow:
    """What happens at every row when actions have these probabilities (2C, A).

    Raises:
        ValueError: they have another shape.
    """
    if probabilities.shape != world.kinds.shape:
        raise ValueError(f"probabilities have the shape {probabilities.shape}; this world needs {world.kinds.shape}")
    good, harmless, repairable, fatal = (
        np.where(world.kinds == kind, probabilities, 0.0).sum(axis=1) for kind in (GOOD, HARMLESS, REPAIRABLE, FATAL)
    )
    noise = world.family.noise
    return Flow(on=good * (1.0 - noise) + harmless, error=good * noise + repairable, fatal=fatal)


def state_values(world: World, probabilities: Floats) -> Floats:
    """The success probability of every state under a policy: float64 (P, K + 1, S + 1, 2).

    Args:
        probabilities: (2C, A); each row sums to 1.
    """
    here = flow(world, probabilities)
    values = np.zeros((world.n_prompts, world.steps + 1, world.spare + 1, 2))
    values[:, world.steps, :, 0] = 1.0
    for position in reversed(range(world.steps)):
        rows = world.contexts[:, position]
        repairs = rows + world.n_contexts
        on, error = here.on[repairs], here.error[repairs]
        following = values[:, position + 1, :, 0]
        current = values[:, position]
        for spare in range(1, world.spare + 1):
            current[:, spare, 1] = on * following[:, spare - 1] + error * current[:, spare - 1, 1]
        current[:, :, 0] = here.on[rows, None] * following + here.error[rows, None] * current[:, :, 1]
    return values


def optimal_values(world: World) -> Floats:
    """The success probability of every state when every action is the best one: float64 (P, K + 1, S + 1, 2).

    It is 0 exactly where no policy at all can succeed.
    """
    values = np.zeros((world.n_prompts, world.steps + 1, world.spare + 1, 2))
    values[:, world.steps, :, 0] = 1.0
    for position in reversed(range(world.steps)):
        kinds = world.kinds[world.contexts[:, position]].astype(np.int64)
        following, current = values[:, position + 1, :, 0], values[:, position]
        for spare in range(1, world.spare + 1):
            outcomes = _outcomes(world, following[:, spare - 1], current[:, spare - 1, 1])
            current[:, spare, 1] = np.maximum(outcomes[GOOD], outcomes[REPAIRABLE])
        outcomes = _outcomes(world, following, current[:, :, 1])
        for spare in range(world.spare + 1):
            current[:, spare, 0] = np.take_along_axis(outcomes[:, :, spare].T, kinds, axis=1).max(axis=1)
    return values


def _outcomes(world: World, on: Floats, error: Floats) -> Floats:
    """The value of an action by its kind (4, ...), from those of going on and of needing a repair."""
    noise = world.family.noise
    return np.stack([(1.0 - noise) * on + noise * error, on, error, np.zeros_like(on)])


def action_values(world: World, values: Floats) -> Floats:
    """The value of every action in every state: float64 (P, K, S + 1, 2, A).

    In a repair without spare steps, where nobody acts, it is 0.

    Args:
        values: (P, K + 1, S + 1, 2), of a policy or the optimal ones.
    """
    n, steps, actions = world.n_prompts, world.steps, world.n_actions
    found = np.zeros((n, steps, world.spare + 1, 2, actions))
    kinds = world.kinds.astype(np.int64)
    following, errors = values[:, 1:, :, 0], values[:, :-1, :, 1]
    normal = _outcomes(world, following, errors)  # (4, P, K, S + 1)
    repair = _outcomes(world, following[:, :, :-1], errors[:, :, :-1])
    for flag, by_kind, first in ((0, normal, 0), (1, repair, 1)):
        rows = world.contexts + flag * world.n_contexts
        moved = np.moveaxis(by_kind, 0, -1)  # (P, K, spare, 4)
        found[:, :, first:, flag] = np.take_along_axis(moved, kinds[rows][:, :, None, :], axis=-1)
    return found


def prompt_success(world: World, values: Floats) -> Floats:
    """The success probability of every prompt from its beginning: float64 (P,)."""
    return values[:, 0, world.spare, 0]


def mean_success(world: World, probabilities: Floats) -> float:
    """The success probability of a policy (2C, A), in the mean over the prompts."""
    return float(prompt_success(world, state_values(world, probabilities)).mean())


def prefix_values(values: Floats, prompts: NDArray[np.int64], states: RolloutState) -> Floats:
    """The values of given states, 0.0 after a fatal action.

    Args:
        values: (P, K + 1, S + 1, 2).
        prompts: int64 (B,).
        states: arrays of the shape (B,), or (B, T + 1) as in `Rollouts.states`; the result has the same.
    """
    where = prompts if states.position.ndim == 1 else prompts[:, None]
    found = values[where, states.position, states.spare, states.in_repair.astype(np.int64)]
    return np.where(states.alive, found, 0.0)


def step_advantages(world: World, values: Floats, rollouts: Rollouts) -> Floats:
    """Q - V of every action taken: float64 (B, T), 0.0 after a fatal action and after the end.

    Q is the mean over the noise, so that luck with a noisy tool counts neither for nor against an action.

    Args:
        values: (P, K + 1, S + 1, 2) of the policy.
    """
    taken = rollouts.rows >= 0
    kinds = world.kinds[rollouts.rows, rollouts.actions]
    states, prompts = rollouts.states, rollouts.prompts[:, None]
    position, in_repair = states.position[:, :-1], states.in_repair[:, :-1]
    spare = states.spare[:, :-1] - (in_repair & taken)
    by_kind = _outcomes(
        world, values[prompts, np.minimum(position + 1, world.steps), spare, 0], values[prompts, position, spare, 1]
    )
    worth = np.take_along_axis(by_kind, kinds[None].astype(np.int64), axis=0)[0]
    before = prefix_values(values, rollouts.prompts, states)[:, :-1]
    return np.where(taken & states.alive[:, :-1], worth - before, 0.0)
