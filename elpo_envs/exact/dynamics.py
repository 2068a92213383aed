"""Rollouts side by side: what one action of each does, and whole rollouts of a policy.

In a context, a good or harmless action leads on to the next one. A repairable one leads to the context's repair, where
every action costs a spare step and the good one leads on. A fatal one leads on, too, and nothing shows that the rollout
cannot succeed any more. A rollout ends after the last context, or in a repair without spare steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elpo_envs.exact.world import FATAL, GOOD, REPAIRABLE, World


@dataclass(frozen=True, eq=False)
class RolloutState:
    """Where B rollouts are.

    Attributes:
        position: int64 (B,); contexts passed, 0 to K.
        spare: int64 (B,); spare steps left, 0 to S.
        in_repair: bool (B,); whether the next action is one of a repair.
        alive: bool (B,); whether no action so far was fatal. The agent is not shown this.
    """

    position: NDArray[np.int64]
    spare: NDArray[np.int64]
    in_repair: NDArray[np.bool_]
    alive: NDArray[np.bool_]

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> RolloutState:
        """The rollouts chosen by indices, or by a mask (B,)."""
        return RolloutState(self.position[index], self.spare[index], self.in_repair[index], self.alive[index])


def start_state(world: World, n_rollouts: int) -> RolloutState:
    """`n_rollouts` rollouts that begin. Raises ValueError where that is negative."""
    if n_rollouts < 0:
        raise ValueError(f"n_rollouts={n_rollouts!r} must not be negative")
    return RolloutState(
        position=np.zeros(n_rollouts, dtype=np.int64),
        spare=np.full(n_rollouts, world.spare, dtype=np.int64),
        in_repair=np.zeros(n_rollouts, dtype=np.bool_),
        alive=np.ones(n_rollouts, dtype=np.bool_),
    )


def ended(world: World, state: RolloutState) -> NDArray[np.bool_]:
    """Which rollouts are over: bool (B,)."""
    return np.asarray((state.position == world.steps) | (state.in_repair & (state.spare == 0)))


def succeeded(world: World, state: RolloutState) -> NDArray[np.bool_]:
    """Which rollouts are over and passed every context without a fatal action: bool (B,)."""
    return np.asarray((state.position == world.steps) & state.alive)


def current_rows(world: World, prompts: NDArray[np.int64], state: RolloutState) -> NDArray[np.int64]:
    """The policy's row at which each rollout acts next: int64 (B,), -1 where it is over.

    Args:
        prompts: int64 (B,); the prompt of each rollout, in [0, P).
    """
    place = np.minimum(state.position, world.steps - 1)
    rows = world.contexts[prompts, place] + np.where(state.in_repair, world.n_contexts, 0)
    rows[ended(world, state)] = -1
    return np.asarray(rows)


def step(
    world: World,
    prompts: NDArray[np.int64],
    state: RolloutState,
    actions: NDArray[np.int64],
    noise: NDArray[np.float64],
) -> RolloutState:
    """The state after one action of each rollout; what is over stays as it is.

    Args:
        prompts: int64 (B,), in [0, P).
        actions: int64 (B,), in [0, A); of no account where a rollout is over.
        noise: float64 (B,), uniform in [0, 1): a good action fails where this is less than the family's `noise`.
    """
    rows = current_rows(world, prompts, state)
    return _advance(world, state, rows, actions, noise)


def _advance(
    world: World,
    state: RolloutState,
    rows: NDArray[np.int64],
    actions: NDArray[np.int64],
    noise: NDArray[np.float64] | None,
) -> RolloutState:
    """`step` for rows that are known already; `noise` None where the family has none."""
    going = rows >= 0
    kinds = world.kinds.reshape(-1)[rows * world.n_actions + actions]  # a wrong place where it is over; not used
    failed = kinds == REPAIRABLE
    if noise is not None and world.family.noise > 0.0:
        failed |= (kinds == GOOD) & (noise < world.family.noise)
    return RolloutState(
        position=state.position + (going & ~failed),
        spare=state.spare - (going & state.in_repair),
        in_repair=np.where(going, failed, state.in_repair),
        alive=state.alive & ~(going & (kinds == FATAL)),
    )


class ActionSampler:
    """Draws actions of a policy; its cumulative probabilities are computed once.

    Args:
        probabilities: float64 (2C, A); each row sums to 1.
    """

    def __init__(self, probabilities: NDArray[np.float64]) -> None:
        cumulative = np.cumsum(probabilities, axis=1)
        self._bounds = np.ascontiguousarray((cumulative / cumulative[:, -1:])[:, :-1].T)

    def draw(self, rows: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """The actions int64 (B,) at these rows (B,) for uniform numbers (B,) in [0, 1)."""
        actions = np.zeros(len(rows), dtype=np.int64)
        for bound in self._bounds:
            actions += uniform >= bound[rows]
        return actions


@dataclass(frozen=True, eq=False)
class Rollouts:
    """B finished rollouts; T is the number of steps of the longest.

    Attributes:
        prompts: int64 (B,).
        rows: int64 (B, T); where each action was taken, -1 after the end.
        actions: int64 (B, T); -1 after the end.
        states: position, spare, in_repair and alive, each (B, T + 1): the state after m steps in column m, and the
            last one again after the end.
        lengths: int64 (B,); steps of each rollout.
        success: bool (B,).
    """

    prompts: NDArray[np.int64]
    rows: NDArray[np.int64]
    actions: NDArray[np.int64]
    states: RolloutState
    lengths: NDArray[np.int64]
    success: NDArray[np.bool_]

    def after(self, steps: int | NDArray[np.int64]) -> RolloutState:
        """The states after so many steps, of each rollout (B,) or the same for all; from 0 to T."""
        b, s = np.arange(len(self.prompts)), self.states
        return RolloutState(s.position[b, steps], s.spare[b, steps], s.in_repair[b, steps], s.alive[b, steps])


def roll_out(
    world: World,
    policy: ActionSampler | NDArray[np.float64],
    prompts: NDArray[np.int64],
    rng: np.random.Generator,
    start: RolloutState | None = None,
) -> Rollouts:
    """Rollouts of a policy, from the beginning or from given states, each to its end.

    Args:
        policy: a sampler, or probabilities float64 (2C, A).
        prompts: int64 (B,); the prompt of each rollout.
        rng: draws actions and noise.
        start: B states to go on from.

    Raises:
        ValueError: `prompts` and `start` differ in length.
    """
    sampler = policy if isinstance(policy, ActionSampler) else ActionSampler(policy)
    n = len(prompts)
    state = start_state(world, n) if start is None else start
    if len(state.position) != n:
        raise ValueError(f"start has {len(state.position)} states for {n} prompts; give one for each")
    noisy = world.family.noise > 0.0
    states, all_rows, all_actions = [state], [], []
    while True:
        rows = current_rows(world, prompts, state)
        going = rows >= 0
        if not going.any():
            break
        actions = sampler.draw(rows, rng.random(n))
        state = _advance(world, state, rows, actions, rng.random(n) if noisy else None)
        states.append(state)
        all_rows.append(rows)
        all_actions.append(np.where(going, actions, -1))
    rows = _columns(all_rows, n, -1)
    return Rollouts(
        prompts=np.asarray(prompts),
        rows=rows,
        actions=_columns(all_actions, n, -1),
        states=RolloutState(
            np.stack([s.position for s in states], axis=1),
            np.stack([s.spare for s in states], axis=1),
            np.stack([s.in_repair for s in states], axis=1),
            np.stack([s.alive for s in states], axis=1),
        ),
        lengths=(rows >= 0).sum(axis=1),
        success=succeeded(world, state),
    )


def _columns(columns: list[NDArray[np.int64]], n: int, fill: int) -> NDArray[np.int64]:
    return np.stack(columns, axis=1) if columns else np.full((n, 0), fill, dtype=np.int64)
