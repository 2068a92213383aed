"""Exact values, gradients and first irrecoverable steps, against enumeration, differences and rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from elpo_envs.exact import (
    FAMILIES,
    FATAL,
    GOOD,
    REPAIRABLE,
    Family,
    RolloutState,
    World,
    action_values,
    build_world,
    expected_steps,
    first_error,
    first_irrecoverable,
    first_unsolvable,
    logit_gradient,
    mean_success,
    occupancy,
    optimal_values,
    prefix_values,
    prompt_success,
    roll_out,
    softmax,
    state_values,
    step_advantages,
    weight_gradient,
)

Floats = NDArray[np.float64]
TINY = Family.of("mix", 3, 0.2, n_contexts=5, n_prompts=4, n_actions=3, feature_dim=4, noise=0.15)
TINIES = {
    "mix with noise": TINY,
    "mix": replace(TINY, noise=0.0),
    "all repairable": replace(TINY, fatal=0.0, repairable=1.0),
    "all fatal": replace(TINY, fatal=1.0, repairable=0.0, noise=0.0),
    "own contexts": replace(TINY, shared=False),
}


def policy(world: World, seed: int) -> Floats:
    """Some stochastic policy, logits and all."""
    return softmax(1.5 * np.random.default_rng(seed).standard_normal(world.kinds.shape))


# ---------------------------------------------------------------- by enumeration


class Tree:
    """Every sequence of actions and noise, one by one, in plain words; nothing is shared with the package."""

    def __init__(self, world: World, probabilities: Floats) -> None:
        self.world, self.probabilities = world, probabilities

    def outcomes(
        self, prompt: int, position: int, spare: int, repairing: bool, action: int
    ) -> list[tuple[float, int, int, bool, bool]]:
        """(probability, position, spare, repairing, alive) after one action."""
        w, noise = self.world, self.world.family.noise
        context = int(w.contexts[prompt, position])
        if repairing:
            if action != w.good[w.n_contexts + context]:
                return [(1.0, position, spare - 1, True, True)]
            return [(1 - noise, position + 1, spare - 1, False, True), (noise, position, spare - 1, True, True)]
        kind = int(w.kinds[context, action])
        if kind == GOOD:
            return [(1 - noise, position + 1, spare, False, True), (noise, position, spare, True, True)]
        if kind == REPAIRABLE:
            return [(1.0, position, spare, True, True)]
        return [(1.0, position + 1, spare, False, kind != FATAL)]

    def ends(
        self, prompt: int, position: int, spare: int, repairing: bool, alive: bool, weight: float, steps: int
    ) -> Iterator[tuple[float, bool, int]]:
        """(probability, success, steps) of every way to the end."""
        w = self.world
        if position == w.family.steps or (repairing and spare == 0):
            yield weight, alive and position == w.family.steps, steps
            return
        row = int(w.contexts[prompt, position]) + (w.n_contexts if repairing else 0)
        for action in range(w.n_actions):
            chosen = weight * float(self.probabilities[row, action])
            for p, *state, lives in self.outcomes(prompt, position, spare, repairing, action):
                if p > 0.0:
                    yield from self.ends(prompt, *state, alive and lives, chosen * p, steps + 1)  # type: ignore[arg-type]

    def value(self, prompt: int, position: int, spare: int, repairing: bool) -> float:
        ways = self.ends(prompt, position, spare, repairing, True, 1.0, 0)
        return sum(weight for weight, success, _ in ways if success)

    def best(self, prompt: int, position: int, spare: int, repairing: bool) -> float:
        w = self.world
        if position == w.family.steps or (repairing and spare == 0):
            return float(position == w.family.steps)
        return max(
            sum(
                p * self.best(prompt, *state) * lives
                for p, *state, lives in self.outcomes(prompt, position, spare, repairing, a)
            )  # type: ignore[arg-type]
            for a in range(w.n_actions)
        )


@pytest.mark.parametrize("name", TINIES)
def test_values_are_those_of_all_ways_to_the_end(name: str) -> None:
    world = build_world(TINIES[name], 1)
    probabilities = policy(world, 2)
    tree = Tree(world, probabilities)
    values, best = state_values(world, probabilities), optimal_values(world)
    q, q_best = action_values(world, values), action_values(world, best)
    assert values.shape == best.shape == (4, 4, 3, 2) and q.shape == (4, 3, 3, 2, 3)
    for prompt, position, spare, repairing in np.ndindex(4, 3, 3, 2):
        at = (prompt, position, spare, repairing)
        flag = bool(repairing)
        assert values[at] == pytest.approx(tree.value(prompt, position, spare, flag), rel=1e-12, abs=1e-15)
        assert best[at] == pytest.approx(tree.best(prompt, position, spare, flag), rel=1e-12, abs=1e-15)
        if flag and spare == 0:
            assert values[at] == 0.0 and (q[at] == 0.0).all()
            continue
        for action in range(3):
            after = tree.outcomes(prompt, position, spare, flag, action)
            expected = sum(p * tree.value(prompt, *s) * lives for p, *s, lives in after)  # type: ignore[arg-type]
            assert q[(*at, action)] == pytest.approx(expected, rel=1e-12, abs=1e-15)
        row = world.contexts[prompt, position] + flag * world.n_contexts
        assert (probabilities[row] * q[at]).sum() == pytest.approx(values[at], rel=1e-12)
        assert q_best[at].max() == pytest.approx(best[at], rel=1e-12)
    steps = [sum(weight * n for weight, _, n in tree.ends(prompt, 0, 2, False, True, 1.0, 0)) for prompt in range(4)]
    assert expected_steps(world, probabilities) == pytest.approx(steps, rel=1e-12)
    assert mean_success(world, probabilities) == pytest.approx(prompt_success(world, values).mean(), rel=1e-14)
    assert (best >= values - 1e-15).all()


def test_probabilities_of_another_shape_are_refused() -> None:
    world = build_world(TINY, 0)
    with pytest.raises(ValueError, match=r"shape \(5, 3\); this world needs \(10, 3\)"):
        state_values(world, np.full((5, 3), 1 / 3))
    with pytest.raises(ValueError, match="give one for each of the 4 prompts"):
        logit_gradient(world, policy(world, 0), np.ones(3))


# ---------------------------------------------------------------- by rollouts


@pytest.mark.parametrize("name", ["irr_8_.3", "rec_8_.06", "mix_8_.2_noise", "mix_16_.05", "trap_16_.05"])
def test_values_and_visits_are_what_rollouts_show(name: str) -> None:
    world = build_world(FAMILIES[name], 0)
    probabilities = softmax(world.start_logits + 0.5 * policy(world, 3))
    rng = np.random.default_rng(1)
    n = 100_000
    prompts = np.arange(n) % world.n_prompts
    rollouts = roll_out(world, probabilities, prompts, rng)
    weights = np.bincount(prompts, minlength=world.n_prompts) / n

    def near(seen: Floats | NDArray[np.bool_], expected: float) -> bool:
        return bool(abs(seen.mean() - expected) <= 5 * seen.std() / np.sqrt(n))

    values = state_values(world, probabilities)
    assert near(rollouts.success, float(weights @ prompt_success(world, values)))
    assert near(rollouts.lengths, float(weights @ expected_steps(world, probabilities)))
    alive = (rollouts.states.alive[:, :-1] & (rollouts.rows >= 0)).sum(axis=1)
    visits = occupancy(world, probabilities)
    assert near(alive, float(weights @ visits.sum(axis=(1, 2, 3))))
    # from the middle of rollouts on, too
    middle = rollouts.after(4)
    rest = roll_out(world, probabilities, prompts, rng, middle)
    expected = prefix_values(values, prompts, middle)
    assert near(rest.success - expected, 0.0)
    for chosen in (middle.in_repair, middle.alive & ~middle.in_repair):
        if chosen.sum() > 1000:
            difference = rest.success[chosen] - expected[chosen]
            assert abs(difference.mean()) <= 5 * difference.std() / np.sqrt(chosen.sum())


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", TINIES)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_the_limit_of_differences(name: str, weighted: bool) -> None:
    world = build_world(TINIES[name], 1)
    rng = np.random.default_rng(5)
    weights = 1.2 * rng.standard_normal((4, 3))
    share = rng.random(4) if weighted else None

    def success(logits: Floats) -> float:
        reached = prompt_success(world, state_values(world, softmax(logits)))
        return float(reached.mean() if share is None else share @ reached)

    def slope(at: Floats, direction: Floats, through_features: bool) -> float:
        def along(t: float) -> float:
            moved = at + t * direction
            return success(world.logits(moved) if through_features else moved)

        h = 1e-3  # Richardson's extrapolation of central differences: an error of h^6
        d = [(along(k * h) - along(-k * h)) / (2 * k * h) for k in (1, 2, 3)]
        return 1.5 * d[0] - 0.6 * d[1] + 0.1 * d[2]

    logits = world.logits(weights)
    by_logits = logit_gradient(world, softmax(logits), share)
    by_weights = weight_gradient(world, softmax(logits), share)
    assert by_logits.shape == (10 if world.family.shared else 24, 3) and by_weights.shape == (4, 3)
    for gradient, at, through in ((by_logits, logits, False), (by_weights, weights, True)):
        largest = np.abs(gradient).max()
        for index in np.ndindex(gradient.shape):
            direction = np.zeros(gradient.shape)
            direction[index] = 1.0
            assert abs(gradient[index] - slope(at, direction, through)) <= 1e-8 * max(largest, 1e-3)
        direction = rng.standard_normal(gradient.shape)
        assert (gradient * direction).sum() == pytest.approx(slope(at, direction, through), rel=1e-8)


@pytest.mark.parametrize("name", ["irr_8_.06", "mix_8_.2_noise", "trap_16_.05"])
def test_the_gradient_of_a_family_along_a_direction(name: str) -> None:
    world = build_world(FAMILIES[name], 0)
    rng = np.random.default_rng(0)
    weights, direction = rng.standard_normal((2, world.features.shape[1], 8)) * 0.3

    def along(t: float) -> float:
        return mean_success(world, softmax(world.logits(weights + t * direction)))

    h = 3e-3
    d = [(along(k * h) - along(-k * h)) / (2 * k * h) for k in (1, 2, 3)]
    slope = 1.5 * d[0] - 0.6 * d[1] + 0.1 * d[2]
    gradient = weight_gradient(world, softmax(world.logits(weights)))
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-8)


def test_advantages_along_rollouts_estimate_the_gradient() -> None:
    world = build_world(FAMILIES["mix_8_.2_noise"], 0)
    probabilities = softmax(world.start_logits)
    values = state_values(world, probabilities)
    rng = np.random.default_rng(2)
    n = 60_000
    rollouts = roll_out(world, probabilities, np.arange(n) % 128, rng)
    advantages = step_advantages(world, values, rollouts)
    # each is Q - V as the whole table of action values has it
    q = action_values(world, values)
    b, m = np.nonzero((rollouts.rows >= 0) & rollouts.states.alive[:, :-1])
    s = rollouts.states
    at = (rollouts.prompts[b], s.position[b, m], s.spare[b, m], s.in_repair[b, m].astype(int))
    assert advantages[b, m] == pytest.approx(q[(*at, rollouts.actions[b, m])] - values[at], abs=1e-14)
    assert np.count_nonzero(advantages) <= len(b)
    # and sum of grad log pi * advantage is the gradient in the mean
    direction = rng.standard_normal(probabilities.shape)
    score = direction - (probabilities * direction).sum(axis=1, keepdims=True)
    per_rollout = (advantages * np.where(rollouts.rows >= 0, score[rollouts.rows, rollouts.actions], 0.0)).sum(axis=1)
    weights = np.bincount(rollouts.prompts, minlength=128) / n
    expected = (logit_gradient(world, probabilities, weights) * direction).sum()
    assert abs(per_rollout.mean() - expected) <= 5 * per_rollout.std() / np.sqrt(n)


# ---------------------------------------------------------------- first irrecoverable step


@pytest.mark.parametrize("name", ["irr_8_.3", "rec_8_.06", "mix_8_.2_noise", "trap_16_.05"])
def test_the_first_irrecoverable_step(name: str) -> None:
    world = build_world(FAMILIES[name], 0)
    probabilities = softmax(world.start_logits)
    values = state_values(world, probabilities)
    rollouts = roll_out(world, probabilities, np.arange(600) % 128, np.random.default_rng(0))
    exact, structural = first_irrecoverable(values, rollouts), first_unsolvable(world, rollouts)
    assert (exact == structural).all()  # a softmax policy leaves no action out
    assert ((exact == -1) == rollouts.success).all()
    for b in range(600):
        lost = None
        for m in range(int(rollouts.lengths[b])):
            row, action = rollouts.rows[b, m], rollouts.actions[b, m]
            spent = rollouts.states.in_repair[b, m + 1] and rollouts.states.spare[b, m + 1] == 0
            if world.kinds[row, action] == FATAL or spent:
                lost = m + 1
                break
        assert exact[b] == (-1 if lost is None else lost)
    along = prefix_values(values, rollouts.prompts, rollouts.states)
    for tau in (0.01, 0.2):
        found = first_irrecoverable(values, rollouts, tau)
        for b in range(600):
            low = [m for m in range(along.shape[1]) if along[b, m] <= tau]
            assert found[b] == (low[0] if low else -1)
    with pytest.raises(ValueError, match=r"threshold=1\.0 must be at least 0 and less than 1"):
        first_irrecoverable(values, rollouts, 1.0)


def test_what_a_policy_cannot_recover_others_can() -> None:
    """A policy that never takes a repair's good action is lost with the first error; another one is not."""
    world = build_world(FAMILIES["rec_8_.06"], 0)
    stubborn = softmax(world.start_logits)
    repairs = np.arange(world.n_contexts, world.n_rows)
    stubborn[repairs, world.good[repairs]] = 0.0
    stubborn[repairs] /= stubborn[repairs].sum(axis=1, keepdims=True)
    rollouts = roll_out(world, stubborn, np.arange(128), np.random.default_rng(0))
    failed = ~rollouts.success
    exact = first_irrecoverable(state_values(world, stubborn), rollouts)
    structural = first_unsolvable(world, rollouts)
    assert failed.sum() > 50
    entered = rollouts.states.in_repair.argmax(axis=1)
    assert (exact[failed] == entered[failed]).all()
    assert (structural[failed] == entered[failed] + world.spare).all()
    assert (first_error(world, rollouts)[failed] <= exact[failed]).all()


def test_the_first_error() -> None:
    world = build_world(FAMILIES["irr_8_.3"], 0)
    rollouts = roll_out(world, softmax(world.start_logits), np.arange(128), np.random.default_rng(0))
    for b, found in enumerate(first_error(world, rollouts).tolist()):
        wrong = [m + 1 for m in range(8) if rollouts.actions[b, m] != world.good[rollouts.rows[b, m]]]
        assert found == (wrong[0] if wrong else 0)


def test_no_rollout_is_a_state_too() -> None:
    world = build_world(TINY, 0)
    over = RolloutState(np.array([3]), np.array([2]), np.array([False]), np.array([True]))
    rollouts = roll_out(world, policy(world, 0), np.array([0]), np.random.default_rng(0), over)
    assert rollouts.lengths.tolist() == [0] and rollouts.success.tolist() == [True]
    assert first_unsolvable(world, rollouts).tolist() == [-1] and first_error(world, rollouts).tolist() == [0]
