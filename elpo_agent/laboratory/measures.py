"""How good gradients, localizations and rankings are, against what is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from elpo_agent.algorithms import Algorithm
from elpo_agent.credit.base import BatchCredit
from elpo_agent.laboratory.learning import Collected, LinearPolicy, collect
from elpo_agent.laboratory.tree import ExactTree
from elpo_agent.objective.options import LossOptions, row_weights
from elpo_agent.rollout.base import Localization
from elpo_envs.exact import World, prefix_values, state_values, weight_gradient

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GradientQuality:
    """An algorithm's first step of an update beside the exact gradient of the mean success over its prompts.

    Attributes:
        cosine: between one update's gradient and the exact one, mean over the updates that were sampled.
        bias_cosine: between the mean of the sampled gradients and the exact one.
        relative_error: |g c - G| / |G| for the one scale c that fits all samples g best; mean over them.
        steps, rollouts: generated for an update, mean.
    """

    cosine: float
    bias_cosine: float
    relative_error: float
    steps: float
    rollouts: float


def update_gradient(algorithm: Algorithm, policy: LinearPolicy, collected: Collected) -> Floats:
    """The gradient (R, d, A) in which an update's whole batch moves each of the R policies, ratios being 1."""
    rows = collected.rows
    options = getattr(algorithm.objective, "options", LossOptions())
    weights = np.zeros(len(rows.run))
    for run in np.unique(rows.run).tolist():
        mine = rows.run == run
        weights[mine] = row_weights(options, rows.lengths[mine].tolist())
    chosen = policy.table().reshape(-1)[rows.places(policy.world.n_actions)]
    loss, _ = algorithm.objective.loss(chosen, rows.batch(weights * rows.scale))
    (gradient,) = torch.autograd.grad(loss, policy.weights)
    return -np.asarray(gradient.numpy())


def gradient_quality(
    algorithm: Algorithm, world: World, rollouts: int, samples: int, seed: int, weights: Floats | None = None
) -> GradientQuality:
    """Sample `samples` updates of one policy and compare their gradients with the exact one over all prompts.

    Args:
        rollouts: of one update.
        weights: (d, A) of the linear policy; None for its start.
    """
    policy = LinearPolicy(world, 1, [1.0])
    if weights is not None:
        policy.weights.data.copy_(torch.from_numpy(weights)[None])
    exact = weight_gradient(world, policy.tabular().probabilities).ravel()
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x96]))
    gradients, steps, spent = [], [], []
    for _ in range(samples):
        collected = collect(algorithm, world, policy, 1, rollouts, rng)
        gradients.append(update_gradient(algorithm, policy, collected)[0].ravel())
        steps.append(collected.steps.sum())
        spent.append(collected.rollouts.sum())
    sampled = np.stack(gradients)
    scale = (sampled @ exact).sum() / max((sampled**2).sum(), 1e-300)
    return GradientQuality(
        cosine=float(np.mean([cosine(one, exact) for one in sampled])),
        bias_cosine=cosine(sampled.mean(axis=0), exact),
        relative_error=float(np.mean(np.linalg.norm(scale * sampled - exact, axis=1) / np.linalg.norm(exact))),
        steps=float(np.mean(steps)),
        rollouts=float(np.mean(spent)),
    )


def cosine(a: Floats, b: Floats) -> float:
    """Of the angle between two vectors; 0 where one of them is 0."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0


@dataclass(frozen=True)
class LocalizationQuality:
    """Searches for the first irrecoverable step beside the exact one.

    Attributes:
        searched: searches that named a step, whether they ended or their budget did.
        exact: share of them that found it.
        distance: mean |found - true|, in steps.
        dead_probes: share of the anchors' probes that started from a prefix from which success is impossible.
    """

    searched: int
    exact: float
    distance: float
    dead_probes: float


def localization_quality(
    world: World, probabilities: Floats, grown: Sequence[tuple[ExactTree, Sequence[Localization]]]
) -> LocalizationQuality:
    """Compare localizations with the first step after which the policy's success probability is 0.

    A reference whose prefixes before the last step can all still succeed has its last step as the true one.
    """
    values = state_values(world, probabilities)
    hits: list[float] = []
    dead: list[bool] = []
    for tree, found in grown:
        if not found:
            continue
        alive = prefix_values(values, np.full(tree.size - 1, tree.prompt), tree.states()) > 0.0
        for one in found:
            path = tree.path(one.reference)
            if one.critical_step is not None:
                lost = [m for m, node in enumerate(path[:-1], start=1) if not alive[node - 1]]
                truth = lost[0] if lost else len(path)
                hits.append(abs(one.critical_step - truth))
            for anchor in one.anchors:
                dead += [not alive[anchor.node - 1]] * len(anchor.probes)
    off = np.array(hits)
    return LocalizationQuality(
        searched=len(hits),
        exact=float((off == 0).mean()) if len(off) else float("nan"),
        distance=float(off.mean()) if len(off) else float("nan"),
        dead_probes=float(np.mean(dead)) if dead else float("nan"),
    )


@dataclass(frozen=True)
class RankingQuality:
    """Siblings ordered by advantage beside their exact success probabilities.

    Attributes:
        pairs: sibling pairs whose exact values differ.
        accuracy: share of them that the advantages order rightly; ties count half.
        tau: Kendall's tau-a over the siblings of a branching, mean over branchings with such a pair.
    """

    pairs: int
    accuracy: float
    tau: float


def ranking_quality(algorithm: Algorithm, world: World, probabilities: Floats, collected: Collected) -> RankingQuality:
    """Compare how an algorithm's credit orders the children of every branching with their exact values.

    A rule that values single trajectories orders children by the mean over the trajectories through them.
    """
    values = state_values(world, probabilities)
    right = total = 0.0
    taus: list[float] = []
    trees = [tree for tree, _ in collected.trees]
    for tree, advantage in zip(trees, _node_advantages(algorithm, trees), strict=True):
        worth = np.concatenate([[np.nan], prefix_values(values, np.full(tree.size - 1, tree.prompt), tree.states())])
        for children in _branchings(tree):
            v, a = worth[children], advantage[children]
            dv = np.sign(v[:, None] - v[None, :])
            da = np.sign(a[:, None] - a[None, :])
            upper = np.triu(dv != 0.0, 1) & ~np.isnan(a[:, None] + a[None, :])
            n = int(upper.sum())
            if n:
                agree = (dv * da)[upper]
                right += float((agree > 0).sum() + 0.5 * (agree == 0).sum())
                total += n
                taus.append(float(agree.sum()) / (len(children) * (len(children) - 1) / 2))
    return RankingQuality(int(total), right / total if total else float("nan"), float(np.mean(taus or [np.nan])))


def _branchings(tree: ExactTree) -> list[list[int]]:
    children: dict[int, list[int]] = {}
    for i, parent in enumerate(tree.parents().tolist()[1:], start=1):
        children.setdefault(parent, []).append(i)
    return [own for own in children.values() if len(own) > 1]


def _node_advantages(algorithm: Algorithm, trees: Sequence[ExactTree]) -> list[Floats]:
    """Of every node, float64 (n,); NaN for one that nothing is known of."""
    if not isinstance(algorithm.credit, BatchCredit):
        return [algorithm.credit.assign(tree).advantage for tree in trees]
    out = []
    for tree, leaves in zip(trees, algorithm.credit.assign_batch(trees), strict=True):
        total, count = np.zeros(tree.size), np.zeros(tree.size)
        for given in leaves:
            path = tree.path(given.leaf)
            total[path] += given.advantages
            count[path] += 1
        out.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return out


def repair_rates(
    world: World, probabilities: Floats, collected: Collected, attempts: int, rng: np.random.Generator
) -> dict[str, float]:
    """The repair experiment, exactly: one step of each failed rollout is redone, and the rest sampled again.

    Which step: the first after which the policy cannot succeed ("first irrecoverable"), the first that was not good
    ("first error"), or one of the steps that were not good at random ("random error").

    Returns:
        For each choice the mean probability that at least one of `attempts` new continuations from before that step
        succeeds, over the failed rollouts; exact given the rollouts, but for the random choice.
    """
    values = state_values(world, probabilities)
    rates: dict[str, list[float]] = {"first irrecoverable": [], "first error": [], "random error": []}
    for tree, _ in collected.trees:
        rows, actions, _ = tree.steps()
        states = tree.states()
        worth = prefix_values(values, np.full(tree.size - 1, tree.prompt), states)
        bad = actions != world.good[rows]
        start = float(values[tree.prompt, 0, world.spare, 0])
        for leaf in tree.leaves:
            if tree.outcome(leaf).success:
                continue
            path = np.array(tree.path(leaf)) - 1
            errors = np.flatnonzero(bad[path])
            if not len(errors):
                continue  # noise alone made it fail
            before = np.concatenate([[start], worth[path[:-1]]])
            lost = np.flatnonzero(worth[path] == 0.0)
            choice = {
                "first irrecoverable": int(lost[0]) if len(lost) else len(path) - 1,
                "first error": int(errors[0]),
                "random error": int(rng.choice(errors)),
            }
            for name, step in choice.items():
                rates[name].append(1.0 - (1.0 - before[step]) ** attempts)
    return {name: float(np.mean(found)) if found else float("nan") for name, found in rates.items()}
