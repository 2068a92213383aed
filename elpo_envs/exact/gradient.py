"""Which states a policy visits, what a rollout costs, and the exact gradient of its mean success."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from elpo_envs.exact.values import Floats, flow, state_values
from elpo_envs.exact.world import FATAL, GOOD, HARMLESS, REPAIRABLE, World


def occupancy(world: World, probabilities: Floats, *, alive_only: bool = True) -> Floats:
    """The probability that a rollout of each prompt acts in each state: float64 (P, K, S + 1, 2).

    Args:
        probabilities: (2C, A); each row sums to 1.
        alive_only: count rollouts until a fatal action only; else all of them, to their end.
    """
    here = flow(world, probabilities)
    leads_on = here.on if alive_only else here.on + here.fatal
    visits = np.zeros((world.n_prompts, world.steps + 1, world.spare + 1, 2))
    visits[:, 0, world.spare, 0] = 1.0
    for position in range(world.steps):
        rows = world.contexts[:, position]
        repairs = rows + world.n_contexts
        current, following = visits[:, position], visits[:, position + 1, :, 0]
        following += current[:, :, 0] * leads_on[rows, None]
        current[:, :, 1] = current[:, :, 0] * here.error[rows, None]
        for spare in range(world.spare, 0, -1):
            current[:, spare - 1, 1] += current[:, spare, 1] * here.error[repairs]
            following[:, spare - 1] += current[:, spare, 1] * leads_on[repairs]
    visits[:, :, 0, 1] = 0.0  # over: nobody acts in a repair without spare steps
    return visits[:, :-1]


def expected_steps(world: World, probabilities: Floats) -> Floats:
    """The expected number of steps of a rollout of each prompt: float64 (P,), between 1 and K + S.

    Args:
        probabilities: (2C, A); each row sums to 1.
    """
    return np.asarray(occupancy(world, probabilities, alive_only=False).sum(axis=(1, 2, 3)))


def logit_gradient(world: World, probabilities: Floats, prompt_weights: Floats | None = None) -> Floats:
    """The gradient of the mean success with respect to the logits of a softmax policy: float64 (2C, A).

    Args:
        probabilities: (2C, A), the softmax of the logits.
        prompt_weights: (P,), what each prompt counts in the mean; 1 / P by default.

    Raises:
        ValueError: `prompt_weights` has another shape.
    """
    n = world.n_prompts
    weights = np.full(n, 1.0 / n) if prompt_weights is None else prompt_weights
    if weights.shape != (n,):
        raise ValueError(f"prompt_weights has the shape {weights.shape}; give one for each of the {n} prompts")
    values = state_values(world, probabilities)
    visits = occupancy(world, probabilities) * weights[:, None, None, None]
    following, errors = values[:, 1:, :, 0], values[:, :-1, :, 1]
    normal, repair = visits[..., 0], visits[:, :, 1:, 1]
    on = _by_row(world, (normal * following).sum(2), (repair * following[:, :, :-1]).sum(2))
    error = _by_row(world, (normal * errors).sum(2), (repair * errors[:, :, :-1]).sum(2))
    noise = world.family.noise
    by_action = np.zeros(world.kinds.shape)
    for kind, worth in (
        (GOOD, (1.0 - noise) * on + noise * error),
        (HARMLESS, on),
        (REPAIRABLE, error),
        (FATAL, np.zeros_like(on)),
    ):
        by_action += np.where(world.kinds == kind, worth[:, None], 0.0)
    centred = by_action - (probabilities * by_action).sum(axis=1, keepdims=True)
    return np.asarray(probabilities * centred)


def weight_gradient(world: World, probabilities: Floats, prompt_weights: Floats | None = None) -> Floats:
    """The gradient of the mean success with respect to the linear policy's weights: float64 (d, A).

    Args and errors: see `logit_gradient`.
    """
    return np.asarray(world.features.T @ logit_gradient(world, probabilities, prompt_weights))


def _by_row(world: World, normal: Floats, repair: Floats) -> Floats:
    """Sums over the rows (2C,) of what belongs to every prompt and position (P, K), outside and in repair."""
    places: NDArray[np.int64] = world.contexts.ravel()
    n = world.n_contexts
    return np.concatenate([np.bincount(places, one.ravel(), minlength=n) for one in (normal, repair)])
