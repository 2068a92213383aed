"""The exact worlds: families, what is drawn, the start, and the dynamics against a rollout told step by step."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from elpo_envs.exact import (
    FAMILIES,
    FATAL,
    GOOD,
    HARMLESS,
    REPAIRABLE,
    ActionSampler,
    Family,
    World,
    build_world,
    current_rows,
    ended,
    family,
    mean_success,
    read_family,
    roll_out,
    softmax,
    start_state,
    step,
    succeeded,
)

SMALL = Family.of("mix", 5, 0.2, n_contexts=9, n_prompts=6, n_actions=4, feature_dim=5, noise=0.2)

# ---------------------------------------------------------------- families


def test_the_families_are_those_of_the_study() -> None:
    shapes = {name: (f.kind, f.steps, f.start_success) for name, f in FAMILIES.items()}
    assert list(FAMILIES) == [f.name for f in FAMILIES.values()]
    assert shapes == {
        "irr_4_.06": ("irr", 4, 0.06),
        "irr_8_.02": ("irr", 8, 0.02),
        "irr_8_.06": ("irr", 8, 0.06),
        "irr_8_.06_d48": ("irr", 8, 0.06),
        "irr_8_.06_unshared": ("irr", 8, 0.06),
        "irr_8_.3": ("irr", 8, 0.3),
        "irr_16_.05": ("irr", 16, 0.05),
        "irr_32_.02": ("irr", 32, 0.02),
        "rec_8_.06": ("rec", 8, 0.06),
        "rec_16_.3": ("rec", 16, 0.3),
        "mix_8_.2": ("mix", 8, 0.2),
        "mix_8_.2_noise": ("mix", 8, 0.2),
        "mix_16_.05": ("mix", 16, 0.05),
        "trap_16_.05": ("trap", 16, 0.05),
        "trap_32_.05": ("trap", 32, 0.05),
    }
    shares = {"irr": (0.6, 0.0), "rec": (0.0, 0.8), "mix": (0.35, 0.45), "trap": (1.0, 0.0)}
    for name, f in FAMILIES.items():
        assert (f.fatal, f.repairable) == shares[f.kind]
        assert f.feature_dim == (48 if name.endswith("d48") else 96)
        assert f.noise == (0.05 if name.endswith("noise") else 0.0)
        assert (f.shared, f.n_prompts) == ((False, 8) if name.endswith("unshared") else (True, 128))
        assert (f.n_contexts, f.n_actions, f.traps) == (192, 8, 3 if f.kind == "trap" else 0)
        assert f.spare_steps == max(2, f.steps // 4)


def test_a_family_is_read_from_a_name_or_its_fields() -> None:
    assert read_family("irr_8_.06") is family("irr_8_.06") is read_family(family("irr_8_.06"))
    own = read_family({"kind": "rec", "steps": 6, "start_success": 0.1, "noise": 0.1, "name": "mine"})
    assert own == Family("mine", "rec", 6, 0.1, repairable=0.8, noise=0.1)
    assert Family.of("irr", 8, 0.06).name == "irr_8_.06"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("irr_9", "family='irr_9' is unknown; choose one of irr_4_.06, irr_8_.02"),
        ({"kind": "irr", "steps": 8}, "lacks 'start_success'"),
        ({"kind": "odd", "steps": 8, "start_success": 0.1}, "kind='odd' is unknown; choose one of irr, rec, mix, trap"),
        ({"kind": "irr", "steps": 0, "start_success": 0.1}, "steps=0 must be an integer of at least 1"),
        ({"kind": "irr", "steps": 8.0, "start_success": 0.1}, "steps=8.0 must be an integer"),
        ({"kind": "irr", "steps": 8, "start_success": 0.0}, "start_success=0.0 must be greater than 0"),
        ({"kind": "irr", "steps": 8, "start_success": "x"}, "start_success='x' must be a finite number"),
        ({"kind": "irr", "steps": 8, "start_success": 0.1, "noise": 1.0}, "noise=1.0 must be at least 0"),
        ({"kind": "irr", "steps": 8, "start_success": 0.1, "repairable": 0.5}, "fatal=0.6 and repairable=0.5"),
        ({"kind": "irr", "steps": 8, "start_success": 0.1, "n_contexts": 7}, "raise it to 8"),
        ({"kind": "irr", "steps": 8, "start_success": 0.1, "depth": 7}, "family field 'depth' is unknown"),
        ({"kind": "trap", "steps": 8, "start_success": 0.1, "shared": False}, "set shared to true, or traps to 0"),
        ({"kind": "irr", "steps": 8, "start_success": 0.1, "n_actions": 1}, "n_actions=1 must be an integer of at"),
        (7, "family=7 must be a name, or fields such as"),
    ],
)
def test_wrong_families(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        read_family(given)


# ---------------------------------------------------------------- worlds


@pytest.mark.parametrize("name", FAMILIES)
def test_a_world_is_what_its_family_says(name: str) -> None:
    f = FAMILIES[name]
    world = build_world(f, 3)
    n_contexts, n_rows = f.total_contexts, 2 * f.total_contexts
    assert world.contexts.shape == (f.n_prompts, f.steps)
    assert world.kinds.shape == world.start_logits.shape == (n_rows, 8)
    assert world.features.shape == (n_rows, f.feature_dim)
    assert world.n_contexts == n_contexts
    assert all(len(set(row)) == f.steps for row in world.contexts.tolist())
    assert world.contexts.min() >= 0 and world.contexts.max() < n_contexts
    # one good action a row; the shares of the others within five standard errors
    assert ((world.kinds == GOOD).sum(axis=1) == 1).all()
    assert (world.kinds[np.arange(n_rows), world.good] == GOOD).all()
    wrong = world.kinds[:n_contexts][world.kinds[:n_contexts] != GOOD]
    for kind, share in ((FATAL, f.fatal), (REPAIRABLE, f.repairable), (HARMLESS, 1 - f.fatal - f.repairable)):
        error = np.sqrt(share * (1 - share) / len(wrong))
        assert abs((wrong == kind).mean() - share) <= 5 * error
    assert set(np.unique(world.kinds[n_contexts:])) == {GOOD, REPAIRABLE}
    assert abs(world.features.std() * np.sqrt(f.feature_dim) - 1.0) < 0.03
    # the start
    assert mean_success(world, softmax(world.start_logits)) == pytest.approx(f.start_success, rel=1e-12)
    at_good = world.start_logits[np.arange(n_rows), world.good]
    assert np.count_nonzero(world.start_logits) <= n_rows
    ordinary = np.delete(at_good, world.special)
    assert abs((ordinary - world.init).mean()) < 5 / np.sqrt(len(ordinary))
    assert 0.8 < ordinary.std() < 1.2


def test_shared_and_own_contexts() -> None:
    own = build_world(FAMILIES["irr_8_.06_unshared"], 0)
    assert sorted(own.contexts.ravel().tolist()) == list(range(64))
    shared = build_world(FAMILIES["irr_8_.06"], 0)
    assert len(np.unique(shared.contexts)) == 192
    narrow = build_world(FAMILIES["irr_8_.06_d48"], 0)
    assert (narrow.contexts == shared.contexts).all() and (narrow.start_logits == shared.start_logits).all()


@pytest.mark.parametrize("name", ["trap_16_.05", "trap_32_.05"])
def test_traps_stand_early_and_begin_nearly_uniform(name: str) -> None:
    world = build_world(FAMILIES[name], 1)
    special = np.isin(world.contexts, world.special)
    assert (special.sum(axis=1) == 1).all()
    assert special.argmax(axis=1).max() < world.steps // 4
    assert len(set(special.argmax(axis=1).tolist())) == world.steps // 4
    assert (world.start_logits[world.special, world.good[world.special]] == 0.3).all()
    assert set(world.contexts[special].tolist()) == {0, 1, 2}


def digest(world: World) -> str:
    arrays = (world.contexts, world.kinds, world.good, world.features, world.start_logits)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_another_process_builds_the_same_world() -> None:
    program = (
        "import sys; sys.path.insert(0, 'tests'); from test_exact_world import *;"
        "print(*(digest(build_world(FAMILIES[name], 5)) for name in ('trap_16_.05', 'mix_8_.2_noise')))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout.split()
        for seed in ("1", "2")
    ]
    here = [digest(build_world(FAMILIES[name], 5)) for name in ("trap_16_.05", "mix_8_.2_noise")]
    assert found == [here, here]
    assert digest(build_world(FAMILIES["mix_8_.2_noise"], 6)) != here[1]


def test_a_world_is_read_only_and_needs_a_possible_start() -> None:
    world = build_world(SMALL, 0)
    with pytest.raises(ValueError, match="read-only"):
        world.kinds[0, 0] = FATAL
    with pytest.raises(ValueError, match="cannot be reached"):
        build_world(Family.of("irr", 2, 0.01, n_prompts=4), 0)
    with pytest.raises(ValueError, match="seed=-1 must be an integer of at least 0"):
        build_world(SMALL, -1)


def test_the_policy_is_linear_in_its_weights() -> None:
    world = build_world(SMALL, 0)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((5, 4))
    row = 7
    expected = [world.start_logits[row, a] + sum(world.features[row] * weights[:, a]) for a in range(4)]
    assert world.logits(weights)[row] == pytest.approx(expected, rel=1e-12)
    assert softmax(np.array([[1e4, 0.0, 1e4]])) == pytest.approx(np.array([[0.5, 0.0, 0.5]]))


# ---------------------------------------------------------------- dynamics


def told(world: World, prompt: int, actions: list[int], noise: list[float]) -> tuple[int, int, bool, bool, bool]:
    """Position, spare steps, in repair, alive, over: one rollout in plain words, until its actions end."""
    position, spare, repairing, alive = 0, world.family.spare_steps, False, True
    for action, luck in zip(actions, noise, strict=True):
        if position == world.family.steps or (repairing and spare == 0):
            return position, spare, repairing, alive, True
        context = int(world.contexts[prompt, position])
        if repairing:
            spare -= 1
            if action == world.good[world.n_contexts + context] and luck >= world.family.noise:
                position, repairing = position + 1, False
            continue
        kind = world.kinds[context, action]
        if kind == REPAIRABLE or (kind == GOOD and luck < world.family.noise):
            repairing = True
            continue
        position += 1
        if kind == FATAL:
            alive = False
    return position, spare, repairing, alive, position == world.family.steps or (repairing and spare == 0)


@pytest.mark.parametrize("changes", [{}, {"noise": 0.0}, {"fatal": 0.0, "repairable": 1.0}, {"repairable": 0.0}])
def test_steps_do_what_was_told(changes: dict[str, float]) -> None:
    world = build_world(replace(SMALL, start_success=0.3, **changes), 2)
    rng = np.random.default_rng(4)
    n, length = 300, world.family.longest + 1
    prompts = rng.integers(world.n_prompts, size=n)
    # mostly good actions, or hardly anything would get far
    actions, noise = rng.integers(4, size=(n, length)), rng.random((n, length))
    state = start_state(world, n)
    for m in range(length):
        rows = current_rows(world, prompts, state)
        actions[:, m] = np.where(rng.random(n) < 0.5, world.good[rows], actions[:, m])
        state = step(world, prompts, state, actions[:, m], noise[:, m])
        over = ended(world, state)
        for b in range(n):
            expected = told(world, int(prompts[b]), actions[b, : m + 1].tolist(), noise[b, : m + 1].tolist())
            seen = (state.position[b], state.spare[b], state.in_repair[b], state.alive[b], over[b])
            assert seen == expected
            assert succeeded(world, state)[b] == (expected[0] == world.steps and expected[3])
    assert over.all() and 0 < succeeded(world, state).sum() < n


def test_rollouts_are_what_their_steps_say() -> None:
    world = build_world(SMALL, 1)
    rng = np.random.default_rng(0)
    prompts = rng.integers(world.n_prompts, size=400)
    rollouts = roll_out(world, softmax(world.start_logits), prompts, rng)
    assert rollouts.actions.shape == rollouts.rows.shape == (400, rollouts.lengths.max())
    assert rollouts.states.position.shape == (400, rollouts.lengths.max() + 1)
    assert (rollouts.lengths == (rollouts.actions >= 0).sum(axis=1)).all()
    assert ((rollouts.actions >= 0) == (rollouts.rows >= 0)).all()
    for m in range(rollouts.rows.shape[1]):
        before = rollouts.after(m)
        after = rollouts.after(m + 1)
        assert (rollouts.rows[:, m] == current_rows(world, prompts, before)).all()
        possible = [step(world, prompts, before, rollouts.actions[:, m], np.full(400, luck)) for luck in (0.0, 0.99)]
        fits = [
            (after.position == p.position) & (after.spare == p.spare) & (after.in_repair == p.in_repair)
            for p in possible
        ]
        assert (fits[0] | fits[1]).all()
    last = rollouts.after(-1)
    assert ended(world, last).all() and (succeeded(world, last) == rollouts.success).all()


def test_rollouts_go_on_from_given_states() -> None:
    world = build_world(FAMILIES["mix_8_.2"], 0)
    rng = np.random.default_rng(0)
    prompts = np.arange(100)
    whole = roll_out(world, softmax(world.start_logits), prompts, rng)
    there = whole.after(3)
    rest = roll_out(world, softmax(world.start_logits), prompts, rng, there)
    assert (rest.states.position[:, 0] == there.position).all()
    assert not rest.success[~there.alive].any()
    assert roll_out(world, softmax(world.start_logits), prompts, rng, rest.after(-1)).rows.shape == (
        100,
        0,
    )
    with pytest.raises(ValueError, match="start has 100 states for 3 prompts"):
        roll_out(world, softmax(world.start_logits), prompts[:3], rng, there)


def test_the_sampler_draws_what_the_probabilities_say() -> None:
    probabilities = np.array([[0.0, 0.25, 0.0, 0.75, 0.0], [0.5, 0.0, 0.5, 0.0, 0.0]])
    sampler = ActionSampler(probabilities)
    uniform = (np.arange(1000) + 0.5) / 1000
    for row in (0, 1):
        drawn = sampler.draw(np.full(1000, row), uniform)
        assert np.bincount(drawn, minlength=5).tolist() == (1000 * probabilities[row]).tolist()
    edges = np.array([0.0, np.nextafter(1.0, 0.0)])
    assert sampler.draw(np.array([0, 0]), edges).tolist() == [1, 3]
    assert sampler.draw(np.array([1, 1]), edges).tolist() == [0, 2]


def test_a_hundred_thousand_rollouts_are_quick() -> None:
    """A guard against a loop over rollouts, not a measurement."""
    world = build_world(FAMILIES["irr_8_.06"], 0)
    rng = np.random.default_rng(0)
    prompts = rng.integers(128, size=100_000)
    started = time.monotonic()
    rollouts = roll_out(world, softmax(world.start_logits), prompts, rng)
    assert time.monotonic() - started < 10.0
    assert rollouts.lengths.sum() == 800_000
