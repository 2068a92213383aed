"""From credited trees to padded token rows, all runs in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elpo_agent.algorithms import Algorithm
from elpo_agent.credit.base import BatchCredit
from elpo_agent.laboratory.tree import ExactTree
from elpo_agent.objective.base import NodeBounds, TokenBatch
from elpo_agent.rollout.base import SearchResult

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class TokenRows:
    """B trajectories of at most T steps, each step one token.

    Attributes:
        run: int64 (B,); the run each belongs to.
        group: int64 (B,); the prompt each belongs to, numbered through all runs.
        rows: int64 (B, T); the policy's row of each step, 0 after the end.
        actions: int64 (B, T); 0 after the end.
        mask: bool (B, T).
        old_logprobs, advantages, low, high: float64 (B, T); 0 after the end.
        scale: float64 (B,); what a trajectory counts beside others.
    """

    run: Ints
    group: Ints
    rows: Ints
    actions: Ints
    mask: NDArray[np.bool_]
    old_logprobs: Floats
    advantages: Floats
    low: Floats
    high: Floats
    scale: Floats

    def take(self, index: Ints | NDArray[np.bool_]) -> TokenRows:
        """The trajectories chosen by an index array or a mask (B,)."""
        return TokenRows(
            self.run[index],
            self.group[index],
            self.rows[index],
            self.actions[index],
            self.mask[index],
            self.old_logprobs[index],
            self.advantages[index],
            self.low[index],
            self.high[index],
            self.scale[index],
        )

    @property
    def lengths(self) -> Ints:
        """int64 (B,)."""
        return np.asarray(self.mask.sum(axis=1))

    def batch(self, weights: Floats) -> TokenBatch:
        """What an objective reads, in float64; `weights` (B,) as in `TokenBatch`."""
        return TokenBatch(
            old_logprobs=torch.from_numpy(self.old_logprobs),
            advantages=torch.from_numpy(self.advantages),
            eps_low=torch.from_numpy(self.low),
            eps_high=torch.from_numpy(self.high),
            mask=torch.from_numpy(self.mask.astype(np.float64)),
            weights=torch.from_numpy(weights),
        )

    def places(self, n_actions: int) -> Tensor:
        """int64 (B, T): where each step's log-probability is in a flattened table (rows, A)."""
        return torch.from_numpy(self.rows * n_actions + self.actions)


def token_rows(
    algorithm: Algorithm, run: int, groups: Sequence[int], grown: Sequence[tuple[ExactTree, SearchResult]]
) -> TokenRows:
    """Credit the trees of one run with `algorithm`; a shared step appears in every trajectory through it.

    Args:
        run: its number.
        groups: the number of each tree's prompt.
        grown: its trees.
    """
    parts = []
    credited = _credited(algorithm, [tree for tree, _ in grown])
    for (tree, result), group, (leaves, advantages) in zip(grown, groups, credited, strict=True):
        if leaves:
            bounds = algorithm.objective.bounds(tree, result)
            parts.append(_rows_of(tree, (run, group), leaves, advantages, bounds))
    return join(parts) if parts else _empty()


def _credited(algorithm: Algorithm, trees: Sequence[ExactTree]) -> Iterator[tuple[list[int], Floats]]:
    """Of each tree the leaves that are trained on, and the advantages of their steps, one leaf's after the other's."""
    if isinstance(algorithm.credit, BatchCredit):
        for given in algorithm.credit.assign_batch(trees):
            steps = [values for leaf in given for values in leaf.advantages]
            yield [leaf.leaf for leaf in given], np.concatenate(steps) if steps else np.zeros(0)
    else:
        for tree in trees:
            yield tree.leaves, algorithm.credit.assign(tree).advantage[_nodes(tree, tree.leaves)]


def _nodes(tree: ExactTree, leaves: Sequence[int]) -> Ints:
    """The nodes on the path to each leaf, one path after the other."""
    return np.fromiter(chain.from_iterable(map(tree.path, leaves)), np.int64)


def _rows_of(
    tree: ExactTree, owner: tuple[int, int], leaves: Sequence[int], advantages: Floats, bounds: NodeBounds
) -> TokenRows:
    nodes = _nodes(tree, leaves)
    lengths = np.array([tree.depth(leaf) for leaf in leaves])
    mask = np.arange(int(lengths.max())) < lengths[:, None]
    rows, actions, logprobs = tree.steps()

    def padded(values: NDArray[_Number]) -> NDArray[_Number]:
        out = np.zeros(mask.shape, dtype=values.dtype)
        out[mask] = values
        return out

    return TokenRows(
        run=np.full(len(leaves), owner[0]),
        group=np.full(len(leaves), owner[1]),
        rows=padded(rows[nodes - 1]),
        actions=padded(actions[nodes - 1]),
        mask=mask,
        old_logprobs=padded(logprobs[nodes - 1]),
        advantages=padded(advantages),
        low=padded(bounds.low[nodes]),
        high=padded(bounds.high[nodes]),
        scale=np.ones(len(leaves)),
    )


def join(parts: Sequence[TokenRows]) -> TokenRows:
    """All trajectories of `parts`, padded to the longest."""
    width = max(part.mask.shape[1] for part in parts)

    def joined(read: Callable[[TokenRows], NDArray[_Number]]) -> NDArray[_Number]:
        arrays = [read(part) for part in parts]
        out = np.zeros((sum(map(len, arrays)), width), dtype=arrays[0].dtype)
        start = 0
        for array in arrays:
            out[start : start + len(array), : array.shape[1]] = array
            start += len(array)
        return out

    return TokenRows(
        run=np.concatenate([part.run for part in parts]),
        group=np.concatenate([part.group for part in parts]),
        rows=joined(lambda part: part.rows),
        actions=joined(lambda part: part.actions),
        mask=joined(lambda part: part.mask),
        old_logprobs=joined(lambda part: part.old_logprobs),
        advantages=joined(lambda part: part.advantages),
        low=joined(lambda part: part.low),
        high=joined(lambda part: part.high),
        scale=np.concatenate([part.scale for part in parts]),
    )


def _empty() -> TokenRows:
    whole, number = np.zeros((0, 0), dtype=np.int64), np.zeros((0, 0))
    mask = np.zeros((0, 0), dtype=np.bool_)
    none = np.zeros(0, dtype=np.int64)
    return TokenRows(none, none, whole, whole, mask, number, number, number, number, np.zeros(0))
