"""Learning curves: many runs of one algorithm in worlds of one family, side by side, measured exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elpo_agent.algorithms import Algorithm
from elpo_agent.algorithms.selection import is_mixed, shares
from elpo_agent.laboratory.oracle import OracleCredit
from elpo_agent.laboratory.rows import TokenRows, join, token_rows
from elpo_agent.laboratory.sampling import ExactExpander, Tabular, grow_all
from elpo_agent.laboratory.stack import stack_worlds
from elpo_agent.laboratory.tree import ExactTree
from elpo_agent.objective.options import LossOptions, row_weights
from elpo_agent.rollout.base import Budget, SearchResult
from elpo_envs.exact import Family, World, build_world, prompt_success, state_values

Floats = NDArray[np.float64]

_BETAS = (0.9, 0.999)
_ADAM_EPS = 1e-8


@dataclass(frozen=True)
class Settings:
    """How a run learns.

    Attributes:
        updates: policy updates.
        rollouts: completed rollouts of an update, at most; what prompts leave unspent goes to further prompts.
        epochs: passes over an update's rollouts.
        mini_batches: optimiser steps of an epoch, over whole prompts.

    Raises:
        ValueError: one of them is less than 1.
    """

    updates: int = 120
    rollouts: int = 128
    epochs: int = 2
    mini_batches: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")


@dataclass(frozen=True)
class Run:
    """One of the runs that go on side by side.

    Attributes:
        seed: of the world and of everything drawn in it.
        lr: Adam's learning rate; > 0.
    """

    seed: int
    lr: float


@dataclass(frozen=True, eq=False)
class Curves:
    """What R runs were like over U updates.

    Attributes:
        success: float64 (R, U + 1); exact mean success of the policy before the first update and after each.
        steps: int64 (R, U); steps generated for each update, those of shared prefixes once.
        rollouts: int64 (R, U); completed.
    """

    success: Floats
    steps: NDArray[np.int64]
    rollouts: NDArray[np.int64]


def learn(
    algorithm: Algorithm,
    family: Family,
    runs: Sequence[Run],
    settings: Settings | None = None,
    on_update: Callable[[int], None] | None = None,
) -> Curves:
    """Train the linear-softmax policy of each run's world from its start.

    Equal arguments give equal curves. Runs draw from one stream, so a run's luck, but not its world, depends on which
    others stand beside it.

    Raises:
        ValueError: there are no runs, or a setting is out of its range.
    """
    settings = Settings() if settings is None else settings
    world = stack_worlds([build_world(family, run.seed) for run in runs])
    policy = LinearPolicy(world, len(runs), [run.lr for run in runs])
    rng = np.random.default_rng(np.random.SeedSequence([*(run.seed for run in runs), 0xE1]))
    options = getattr(algorithm.objective, "options", LossOptions())
    success, steps, rollouts = [policy.success()], [], []
    replayed: TokenRows | None = None
    for update in range(settings.updates):
        collected = collect(algorithm, world, policy, len(runs), settings.rollouts, rng)
        rows = collected.rows
        if algorithm.replay_weight:
            fresh = rows
            if replayed is not None:
                rows = join([rows, replace(replayed, group=replayed.group + 1 + fresh.group.max(initial=0))])
            replayed = positives(fresh, algorithm.replay_weight)
        for part, weights in mini_batches(rows, options, settings, rng):
            policy.step(loss_of(algorithm, policy, part, weights, options))
        success.append(policy.success())
        steps.append(collected.steps)
        rollouts.append(collected.rollouts)
        if on_update is not None:
            on_update(update + 1)
    return Curves(np.stack(success, 1), np.stack(steps, 1), np.stack(rollouts, 1))


def loss_of(
    algorithm: Algorithm, policy: LinearPolicy, rows: TokenRows, weights: Floats, options: LossOptions
) -> Tensor:
    """The objective's loss on some trajectories; the reference is the start policy, and the engine is the learner."""
    table, places = policy.table(), rows.places(policy.world.n_actions)
    batch, entropies = rows.batch(weights), None
    if options.kl_coef:
        batch = replace(batch, reference_logprobs=policy.start_table().reshape(-1)[places])
    if options.importance_cap is not None:
        batch = replace(batch, engine_logprobs=batch.old_logprobs)
    if options.entropy_coef:
        entropies = -(table.exp() * table).sum(dim=-1)[torch.from_numpy(rows.rows)]
    loss, _ = algorithm.objective.loss(table.reshape(-1)[places], batch, entropies)
    return loss


def positives(rows: TokenRows, weight: float) -> TokenRows:
    """The steps with positive advantages, for another update; each trajectory counts `weight`."""
    kept = rows.mask & (rows.advantages > 0.0)
    some = replace(rows, mask=kept, scale=np.full(len(kept), weight))
    return some.take(np.flatnonzero(kept.any(axis=1)))


class LinearPolicy:
    """R linear-softmax policies over the rows of a stack of R worlds, with an Adam each.

    Args:
        world: R stacked worlds.
        n_runs: R.
        lrs: learning rates, (R,).
    """

    def __init__(self, world: World, n_runs: int, lrs: Sequence[float]) -> None:
        self.world = world
        shape = (2, n_runs, world.n_contexts // n_runs)
        self._features = torch.from_numpy(world.features.copy()).reshape(*shape, -1).transpose(0, 1)
        self._features = self._features.reshape(n_runs, 2 * shape[2], -1).contiguous()
        self._start = torch.from_numpy(world.start_logits.copy())
        self._shape = shape
        self._lrs = torch.tensor(lrs, dtype=torch.float64)[:, None, None]
        self.weights = torch.zeros(n_runs, self._features.shape[2], world.n_actions, dtype=torch.float64)
        self.weights.requires_grad_()
        self._mean, self._square = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self._steps = 0

    def logits(self) -> Tensor:
        """float64 (rows, A), in the order of the stacked world's rows."""
        runs, rows = self._shape[1], self._shape[2]
        own = torch.bmm(self._features, self.weights).reshape(runs, 2, rows, -1).transpose(0, 1)
        return self._start + own.reshape(self._start.shape)

    def table(self) -> Tensor:
        """Log-probabilities float64 (rows, A), with gradient."""
        return torch.log_softmax(self.logits(), dim=-1)

    def start_table(self) -> Tensor:
        """Log-probabilities float64 (rows, A) of the policies before the first step."""
        return torch.log_softmax(self._start, dim=-1)

    def tabular(self) -> Tabular:
        """The policies as arrays."""
        with torch.no_grad():
            return Tabular.of(self.logits().numpy())

    def success(self) -> Floats:
        """The exact mean success of every run, (R,)."""
        values = state_values(self.world, self.tabular().probabilities)
        return np.asarray(prompt_success(self.world, values).reshape(self._shape[1], -1).mean(axis=1))

    def step(self, loss: Tensor) -> None:
        """One step of Adam for every run, down `loss`, which is a sum over runs."""
        (gradient,) = torch.autograd.grad(loss, self.weights)
        self._steps += 1
        first, second = _BETAS
        with torch.no_grad():
            self._mean.mul_(first).add_(gradient, alpha=1.0 - first)
            self._square.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
            mean = self._mean / (1.0 - first**self._steps)
            square = self._square / (1.0 - second**self._steps)
            self.weights -= self._lrs * mean / (square.sqrt() + _ADAM_EPS)


@dataclass(frozen=True, eq=False)
class Collected:
    """The rollouts of one update, of all runs.

    Attributes:
        rows: what is trained on.
        steps, rollouts: int64 (R,); generated, whether trained on or not.
        trees: of all prompts, in order.
    """

    rows: TokenRows
    steps: NDArray[np.int64]
    rollouts: NDArray[np.int64]
    trees: list[tuple[ExactTree, SearchResult]]


def collect(
    algorithm: Algorithm,
    world: World,
    policy: LinearPolicy,
    n_runs: int,
    rollouts: int,
    rng: np.random.Generator,
) -> Collected:
    """Grow trees on fresh prompts until every run has spent its rollouts; `rollouts` is what each of them may."""
    tabular = policy.tabular()
    if isinstance(algorithm.credit, OracleCredit):
        algorithm.credit.observe(world, tabular.probabilities)
    each, own = world.n_prompts // n_runs, world.n_contexts
    queues = [rng.permutation(each).tolist() for _ in range(n_runs)]
    left = np.full(n_runs, rollouts)
    trees: list[tuple[ExactTree, SearchResult]] = []
    run_of: list[int] = []
    while left.any():
        round_: list[ExactExpander] = []
        owners: list[int] = []
        for run in np.flatnonzero(left).tolist():
            budgets = shares(int(left[run]), algorithm.strategy.n_total)
            for share in budgets:
                if not queues[run]:
                    queues[run] = rng.permutation(each).tolist()
                prompt = run * each + queues[run].pop()
                tree = ExactTree(f"{world.family.name}/{prompt}", prompt, own)
                round_.append(ExactExpander(tree, Budget(share), int(rng.integers(2**63))))
                owners.append(run)
        results = grow_all(algorithm.strategy, round_, world, tabular, rng)
        for expander, result, run in zip(round_, results, owners, strict=True):
            trees.append((expander.tree, result))
            run_of.append(run)
            left[run] -= len(expander.tree.leaves)
        if not algorithm.selection.hand_on:
            break
    runs = np.array(run_of)
    rows = [
        token_rows(algorithm, run, chosen, [trees[i] for i in chosen])
        for run in range(n_runs)
        for chosen in [_trained(algorithm, trees, np.flatnonzero(runs == run))]
    ]
    sizes = np.array([tree.size - 1 for tree, _ in trees])
    leaves = np.array([len(tree.leaves) for tree, _ in trees])
    return Collected(
        join(rows),
        np.bincount(runs, sizes, n_runs).astype(np.int64),
        np.bincount(runs, leaves, n_runs).astype(np.int64),
        trees,
    )


def _trained(
    algorithm: Algorithm, trees: Sequence[tuple[ExactTree, SearchResult]], chosen: NDArray[np.int64]
) -> list[int]:
    if not algorithm.selection.mixed_only:
        return list(map(int, chosen))
    return [i for i in chosen.tolist() if is_mixed(trees[i][0])]


def mini_batches(
    rows: TokenRows,
    options: LossOptions,
    settings: Settings,
    rng: np.random.Generator,
) -> list[tuple[TokenRows, Floats]]:
    """The optimiser steps of an update: trajectories of all runs, with the weights (B,) of their token losses.

    Each run's prompts are shuffled and divided into `mini_batches` parts in every epoch; part i of all runs is one
    step.
    """
    out = []
    for _ in range(settings.epochs):
        part_of = np.zeros(int(rows.group.max(initial=0)) + 1, dtype=np.int64)
        for run in np.unique(rows.run).tolist():
            own = rng.permutation(np.unique(rows.group[rows.run == run]))
            for i, part in enumerate(np.array_split(own, settings.mini_batches)):
                part_of[part] = i
        for i in range(settings.mini_batches):
            index = np.flatnonzero(part_of[rows.group] == i)
            taken = rows.take(index)
            weights = np.zeros(len(index))
            lengths = taken.lengths
            for run in np.unique(taken.run).tolist():
                mine = taken.run == run
                weights[mine] = row_weights(options, lengths[mine].tolist())
            out.append((taken, weights * taken.scale))
    return out
