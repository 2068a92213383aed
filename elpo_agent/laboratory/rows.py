"""From credited trees to padded token rows, all runs in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elpo_agent.algorithms import Algorithm
from elpo_agent.credit.base import BatchCredit
from elpo_agent.laboratory.tree import ExactTree
from elpo_agent.objective.base import TokenBatch
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
    parts = [
        _Steps.of(algorithm, tree, result, group, *given)
        for (tree, result), group, given in zip(grown, groups, _credited(algorithm, grown), strict=True)
        if len(given[0])
    ]
    if not parts:
        return _empty()
    lengths = np.concatenate([part.lengths for part in parts])
    mask = np.arange(int(lengths.max())) < lengths[:, None]

    def padded(read: Callable[[_Steps], NDArray[_Number]]) -> NDArray[_Number]:
        values = np.concatenate([read(part) for part in parts])
        out = np.zeros(mask.shape, dtype=values.dtype)
        out[mask] = values
        return out

    return TokenRows(
        run=np.full(len(lengths), run),
        group=np.repeat([part.group for part in parts], [len(part.lengths) for part in parts]),
        rows=padded(lambda part: part.rows),
        actions=padded(lambda part: part.actions),
        mask=mask,
        old_logprobs=padded(lambda part: part.logprobs),
        advantages=padded(lambda part: part.advantages),
        low=padded(lambda part: part.low),
        high=padded(lambda part: part.high),
        scale=np.ones(len(lengths)),
    )


@dataclass(frozen=True, eq=False)
class _Steps:
    """The trajectories of one tree, one after the other: lengths (B,), and of every step (sum of lengths,)."""

    group: int
    lengths: Ints
    rows: Ints
    actions: Ints
    logprobs: Floats
    advantages: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(
        cls,
        algorithm: Algorithm,
        tree: ExactTree,
        result: SearchResult,
        group: int,
        leaves: Sequence[int],
        advantages: Floats,
        nodes: Ints,
    ) -> _Steps:
        bounds = algorithm.objective.bounds(tree, result)
        rows, actions, logprobs = tree.steps()
        lengths = np.array([tree.depth(leaf) for leaf in leaves])
        before = nodes - 1  # the root has no step
        low, high = bounds.low[nodes], bounds.high[nodes]
        return cls(group, lengths, rows[before], actions[before], logprobs[before], advantages, low, high)


def _credited(
    algorithm: Algorithm, grown: Sequence[tuple[ExactTree, SearchResult]]
) -> Iterator[tuple[Sequence[int], Floats, Ints]]:
    """Of each tree the leaves that are trained on, and of their steps, one leaf's after the other's, the advantages and
    the nodes."""
    trees = [tree for tree, _ in grown]
    if isinstance(algorithm.credit, BatchCredit):
        for tree, given in zip(trees, algorithm.credit.assign_batch(trees), strict=True):
            leaves = [leaf.leaf for leaf in given]
            steps = [leaf.advantages for leaf in given]
            yield leaves, np.concatenate(steps) if steps else np.zeros(0), tree.paths(leaves)
    else:
        for tree in trees:
            nodes = tree.paths(tree.leaves)
            yield tree.leaves, algorithm.credit.assign(tree).advantage[nodes], nodes


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
