"""The exact laboratory runs the same strategies, credit rules and objectives as the language-model path, and knows the
truth about them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from elpo_agent.algorithms import Algorithm, load
from elpo_agent.credit.base import leaf_credits
from elpo_agent.laboratory.learning import (
    LinearPolicy,
    Run,
    Settings,
    collect,
    learn,
    loss_of,
    mini_batches,
    positives,
)
from elpo_agent.laboratory.measures import (
    gradient_quality,
    localization_quality,
    ranking_quality,
    repair_rates,
    update_gradient,
)
from elpo_agent.laboratory.oracle import oracle
from elpo_agent.laboratory.rows import join, token_rows
from elpo_agent.laboratory.sampling import ExactExpander
from elpo_agent.laboratory.searches import search_accuracy
from elpo_agent.laboratory.stack import stack_worlds
from elpo_agent.laboratory.tree import ExactTree
from elpo_agent.learner.rows import tree_rows
from elpo_agent.objective.options import LossOptions
from elpo_agent.rollout import BinaryErrorLocalization
from elpo_agent.rollout.base import Budget, SearchResult
from elpo_agent.tree import RolloutTree
from elpo_envs.exact import (
    Family,
    World,
    build_world,
    family,
    mean_success,
    prefix_values,
    softmax,
    state_values,
    weight_gradient,
)

SMALL = {"n_contexts": 12, "n_prompts": 6, "n_actions": 4, "feature_dim": 8}
IRR = Family.of("irr", 4, 0.2, **SMALL)
MIX = Family.of("mix", 5, 0.3, noise=0.1, **SMALL)
NO_KL = {"loss": {"kl_coef": 0.0}}
ARMS: dict[str, Algorithm] = {
    "grpo": load("grpo"),
    "rloo": load("rloo"),
    "reinforce_pp": load("reinforce_pp", kl_reward=0.0),
    "gigpo": load("gigpo", **NO_KL),
    "arpo": load("arpo", vocabulary=4),
    "aepo": load("aepo", vocabulary=4),
    "tree_grpo": load("tree_grpo", **NO_KL),
    "elpo": load("elpo"),
    "elpo_no_bel": load("elpo_no_bel"),
    "elpo_plus": load("elpo_plus"),
    "oracle": oracle(),
}


def collected(algorithm: Algorithm, chosen: Family = MIX, rollouts: int = 48, seed: int = 0):  # type: ignore[no-untyped-def]
    world = build_world(chosen, seed)
    policy = LinearPolicy(world, 1, [0.1])
    return world, policy, collect(algorithm, world, policy, 1, rollouts, np.random.default_rng(seed))


def plain(tree: ExactTree) -> RolloutTree:
    """The same tree, node by node, as the language-model path keeps it."""
    out = RolloutTree(tree.task_id, tree.prompt_ids, groups=dict(tree.groups))
    for node in tree.nodes[1:]:
        assert node.step is not None
        out.add(node.parent, node.step, outcome=node.outcome)
    return out


@pytest.mark.parametrize("name", ARMS)
def test_a_tree_in_arrays_is_the_tree_it_stands_for(name: str) -> None:
    algorithm = ARMS[name]
    *_, found = collected(algorithm)
    for tree, result in found.trees:
        other = plain(tree)
        assert tree.leaves == other.leaves
        assert tree.parents().tolist() == other.parents().tolist()
        for mine, theirs in zip(tree.nodes, other.nodes, strict=True):
            assert (mine.index, mine.parent, mine.depth, mine.outcome) == (
                theirs.index,
                theirs.parent,
                theirs.depth,
                theirs.outcome,
            )
            assert sorted(mine.children) == theirs.children
            assert tree.path(mine.index) == other.path(mine.index)
            assert tree.depth(mine.index) == mine.depth
            if mine.index:
                assert tree.mean_entropy(mine.index) == pytest.approx(other.mean_entropy(mine.index), rel=1e-6)
        assert tree.leaf_rewards() == other.leaf_rewards()
        bounds, others = algorithm.objective.bounds(tree, result), algorithm.objective.bounds(other, result)
        np.testing.assert_array_equal(bounds.low, others.low)


@pytest.mark.parametrize("name", [name for name in ARMS if name != "oracle"])
def test_rows_are_those_of_the_language_model_path(name: str) -> None:
    """The same credit rule on plain trees, through the learner's own rows."""
    algorithm = ARMS[name]
    _, _, found = collected(algorithm)
    others = [plain(tree) for tree, _ in found.trees]
    credited = leaf_credits(algorithm.credit, others)
    expected = [
        row
        for other, given, (_, result) in zip(others, credited, found.trees, strict=True)
        for row in tree_rows(other, given, algorithm.objective.bounds(other, result))
    ]
    rows = found.rows
    assert len(rows.run) == len(expected)
    for i, row in enumerate(expected):
        n = int(rows.lengths[i])
        assert rows.mask[i].tolist() == [True] * n + [False] * (rows.mask.shape[1] - n)
        for mine, theirs in (
            (rows.advantages, row.advantages),
            (rows.old_logprobs, row.old_logprobs),
            (rows.low, row.eps_low),
            (rows.high, row.eps_high),
        ):
            np.testing.assert_allclose(mine[i, :n], theirs[row.mask], rtol=1e-4, atol=1e-6)
            assert not mine[i, n:].any()


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("rollouts", [1, 7, 48])
def test_nobody_spends_more_than_the_budget(name: str, rollouts: int) -> None:
    *_, found = collected(ARMS[name], rollouts=rollouts)
    assert found.rollouts.sum() == sum(len(tree.leaves) for tree, _ in found.trees)
    assert found.rollouts.sum() <= rollouts
    if ARMS[name].selection.hand_on:
        assert found.rollouts.sum() == rollouts
    assert found.steps.sum() == sum(len(tree.nodes) - 1 for tree, _ in found.trees)


@pytest.mark.parametrize("chosen", [IRR, MIX], ids=lambda f: f.name)
def test_rloo_estimates_the_exact_gradient(chosen: Family) -> None:
    """Leave-one-out is unbiased: over many updates its mean is the exact gradient, coordinate by coordinate."""
    world = build_world(chosen, 3)
    policy = LinearPolicy(world, 1, [0.1])
    rng = np.random.default_rng(0)
    algorithm = load("rloo", n_total=4)
    exact = weight_gradient(world, policy.tabular().probabilities).ravel()
    # 24 rollouts are one group on each of the world's 6 prompts
    sampled = np.stack(
        [
            update_gradient(algorithm, policy, collect(algorithm, world, policy, 1, 24, rng))[0].ravel()
            for _ in range(600)
        ]
    )
    error = sampled.std(axis=0, ddof=1) / np.sqrt(len(sampled))
    z = (sampled.mean(axis=0) - exact) / np.maximum(error, 1e-12)
    assert np.abs(z).max() < 5.0
    assert 0.7 < np.std(z) < 1.3, "no coordinate is much nearer, or further off, than chance has it"


def test_the_oracle_has_the_smallest_error_and_points_the_right_way() -> None:
    world = build_world(family("irr_8_.06"), 0)
    grpo, exact = (gradient_quality(a, world, 128, 12, 0) for a in (load("grpo"), oracle()))
    assert exact.cosine > 1.5 * grpo.cosine > 0.0
    assert exact.relative_error < grpo.relative_error < 1.0
    assert grpo.steps == 1024
    assert grpo.rollouts == 128


def test_stacked_worlds_are_the_worlds_side_by_side() -> None:
    worlds = [build_world(MIX, seed) for seed in (0, 4, 9)]
    stacked = stack_worlds(worlds)
    policy = LinearPolicy(stacked, 3, [0.1] * 3)
    expected = [mean_success(world, softmax(world.start_logits)) for world in worlds]
    np.testing.assert_allclose(policy.success(), expected, rtol=1e-12)
    weights = np.random.default_rng(1).standard_normal(policy.weights.shape)
    policy.weights.data.copy_(torch.from_numpy(weights))
    expected = [mean_success(w, softmax(w.logits(own))) for w, own in zip(worlds, weights, strict=True)]
    np.testing.assert_allclose(policy.success(), expected, rtol=1e-10)
    with pytest.raises(ValueError, match="of the families"):
        stack_worlds([worlds[0], build_world(IRR, 0)])
    with pytest.raises(ValueError, match="at least one"):
        stack_worlds([])


def test_runs_beside_each_other_learn_from_their_own_rollouts_only() -> None:
    """A run whose learning rate is 0 stays where it is; the gradient of the others does not reach it."""
    curves = learn(load("grpo"), MIX, [Run(0, 0.1), Run(0, 0.0), Run(1, 0.1)], Settings(updates=6, rollouts=32))
    assert np.ptp(curves.success[1]) < 1e-12
    assert (np.ptp(curves.success[[0, 2]], axis=1) > 1e-3).all()
    assert curves.rollouts.shape == curves.steps.shape == (3, 6)


@pytest.mark.parametrize("name", ARMS)
def test_every_algorithm_learns_and_repeats(name: str) -> None:
    settings = Settings(updates=12, rollouts=64)
    runs = [Run(seed, 0.1) for seed in range(4)]
    curves = learn(ARMS[name], IRR, runs, settings)
    assert curves.success[:, -1].mean() > curves.success[:, 0].mean() + 0.1
    again = learn(ARMS[name], IRR, runs, settings)
    np.testing.assert_array_equal(curves.success, again.success)
    np.testing.assert_array_equal(curves.steps, again.steps)


def test_mini_batches_hold_whole_prompts_once_an_epoch_and_weigh_as_the_objective_says() -> None:
    world = stack_worlds([build_world(MIX, seed) for seed in (0, 1)])
    policy = LinearPolicy(world, 2, [0.1, 0.1])
    found = collect(load("grpo", n_total=4), world, policy, 2, 24, np.random.default_rng(0))
    parts = mini_batches(found.rows, LossOptions(), Settings(epochs=2, mini_batches=3), np.random.default_rng(1))
    assert len(parts) == 6
    for epoch in (parts[:3], parts[3:]):
        groups = [set(part.group.tolist()) for part, _ in epoch]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 12
        for part, weights in epoch:
            for run in (0, 1):
                mine = part.run == run
                assert (weights[mine] * part.lengths[mine]).sum() == pytest.approx(1.0)


def test_replayed_are_the_steps_with_positive_advantages() -> None:
    *_, found = collected(load("elpo"))
    kept = positives(found.rows, 0.6)
    assert (kept.mask == (kept.advantages > 0)).all()
    assert kept.mask.sum() == (found.rows.advantages > 0).sum() > 0
    assert (kept.scale == 0.6).all()
    both = join([found.rows, kept])
    assert len(both.run) == len(found.rows.run) + len(kept.run)
    assert (both.advantages[len(found.rows.run) :][both.mask[len(found.rows.run) :]] > 0).all()


def test_terms_of_the_loss_are_those_of_the_language_model_path() -> None:
    """Entropy keeps the policy wide, KL keeps it where it began, and importance weights are 1 without mismatch."""
    world = build_world(IRR, 3)

    def learned(loss: dict[str, float]) -> tuple[float, float]:
        algorithm, policy = load("grpo", loss=loss), LinearPolicy(world, 1, [0.1])
        rng = np.random.default_rng(0)
        for _ in range(4):
            rows = collect(algorithm, world, policy, 1, 64, rng).rows
            options = algorithm.objective.options
            for part, weights in mini_batches(rows, options, Settings(), rng):
                policy.step(loss_of(algorithm, policy, part, weights, options))
        table = policy.table().detach()
        entropy = -(table.exp() * table).sum(dim=1).mean()
        divergence = (table.exp() * (table - policy.start_table())).sum(dim=1).mean()
        return float(entropy), float(divergence)

    entropy, divergence = learned({})
    assert learned({"entropy_coef": 1.0})[0] > 1.1 * entropy
    assert 0.0 < learned({"kl_coef": 1.0})[1] < 0.5 * divergence
    assert learned({"importance_cap": 1.0}) == (entropy, divergence)


def test_an_expander_refuses_what_cannot_be_continued() -> None:
    *_, found = collected(load("grpo"))
    tree, _ = found.trees[0]
    expander = ExactExpander(tree, Budget(3), 0)
    for node in (tree.leaves[0], len(tree.nodes), -1):
        with pytest.raises(ValueError, match=f"node={node}"):
            expander.expand(node, 1).send(None)


def literal_localization(world: World, probabilities: np.ndarray, tree: ExactTree, result: SearchResult) -> list[int]:
    """How far each search was off, from the values of the prefixes one by one."""
    values = state_values(world, probabilities)
    off = []
    for one in result.localizations:
        if one.critical_step is None:
            continue
        path = tree.path(one.reference)
        truth = len(path)
        for m, node in enumerate(path[:-1], start=1):
            source, row, column = tree.state_after(node)
            assert source is not None
            states = source.rollouts.states
            position, spare = states.position[row, column], states.spare[row, column]
            value = values[tree.prompt, position, spare, int(states.in_repair[row, column])]
            if not states.alive[row, column] or value == 0.0:
                truth = m
                break
        off.append(abs(one.critical_step - truth))
    return off


def test_localization_is_judged_by_exact_values() -> None:
    world, policy, found = collected(load("elpo"), family("irr_8_.06"), 256)
    probabilities = policy.tabular().probabilities
    off = [d for tree, result in found.trees for d in literal_localization(world, probabilities, tree, result)]
    quality = localization_quality(world, probabilities, [(t, r.localizations) for t, r in found.trees])
    assert quality.searched == len(off) > 10
    assert quality.exact == pytest.approx(np.mean(np.array(off) == 0))
    assert quality.distance == pytest.approx(np.mean(off))
    assert 0.0 < quality.dead_probes < 1.0


def test_rankings_by_exact_advantages_are_right() -> None:
    world, policy, found = collected(oracle(), IRR, 96)
    algorithm = oracle()
    probabilities = policy.tabular().probabilities
    algorithm.credit.observe(world, probabilities)  # type: ignore[union-attr]
    best = ranking_quality(algorithm, world, probabilities, found)
    assert best.accuracy == 1.0
    assert best.pairs > 50
    assert 0.0 < best.tau <= 1.0
    usual = ranking_quality(load("grpo"), world, probabilities, found)
    assert 0.5 < usual.accuracy < 1.0
    assert usual.pairs == best.pairs


def test_repairing_the_first_irrecoverable_step_helps_most_where_errors_are_fatal() -> None:
    world, policy, found = collected(load("grpo"), family("irr_8_.06"), 512)
    probabilities = policy.tabular().probabilities
    rates = repair_rates(world, probabilities, found, 16, np.random.default_rng(0))
    assert rates["first irrecoverable"] > rates["first error"] > rates["random error"] > 0.0
    sure = repair_rates(world, probabilities, found, 10**6, np.random.default_rng(0))
    assert sure["first irrecoverable"] == pytest.approx(1.0), "before the first fatal step nothing is lost"


def test_advantages_of_the_oracle_are_differences_of_values() -> None:
    world, policy, found = collected(oracle(), MIX, 32)
    values = state_values(world, policy.tabular().probabilities)
    rows = found.rows
    tree, _ = found.trees[0]
    worth = np.concatenate(
        [
            [values[tree.prompt, 0, world.spare, 0]],
            prefix_values(values, np.full(tree.size - 1, tree.prompt), tree.states()),
        ]
    )
    path = tree.path(tree.leaves[0])
    gains = np.diff(worth[[0, *path]])
    shown = rows.advantages[0, : len(path)]
    scale = shown[np.argmax(np.abs(gains))] / gains[np.argmax(np.abs(gains))]
    np.testing.assert_allclose(shown, gains * scale, atol=1e-12)
    with pytest.raises(ValueError, match="exact laboratory"):
        oracle().credit.assign_batch([tree])  # type: ignore[union-attr]


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="mini_batches=0"):
        Settings(mini_batches=0)


def test_no_prompt_that_can_be_trained_on_gives_no_rows() -> None:
    algorithm = replace(load("dapo", refill_rounds=0), credit=load("grpo").credit)
    hopeless = Family.of("irr", 10, 0.0001, **SMALL)
    _, _, found = collected(algorithm, hopeless, 16)
    assert len(found.rows.run) == 0
    rows = token_rows(algorithm, 0, [], [])
    assert rows.mask.shape == (0, 0)
    learn(algorithm, hopeless, [Run(0, 0.1)], Settings(updates=2, rollouts=16))


@pytest.mark.parametrize("search", ["printed", "inclusive", "bayesian"])
def test_searches_find_a_known_step_the_better_the_likelier_recovery_is(search: str) -> None:
    strategy = BinaryErrorLocalization(41, 1, 2, 2, search=search)  # type: ignore[arg-type]
    rarely, surely = (search_accuracy(strategy, 16, p, 60, 0) for p in (0.2, 1.0))
    if search == "printed":  # never probes its last candidate, and so takes K for K + 1
        assert surely.exact > 0.85
    else:
        assert surely.exact == 1.0
    assert rarely.exact < surely.exact
    assert rarely.distance > surely.distance
    assert 0 < surely.probes <= 40
    assert search_accuracy(strategy, 16, 0.2, 60, 0) == rarely
    with pytest.raises(ValueError, match="searched for nothing"):
        search_accuracy(load("grpo").strategy, 4, 0.5, 1, 0)
