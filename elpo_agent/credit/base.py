"""Credit rules turn finished trees into advantages: one per node, or one per token of each trajectory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from elpo_agent.tree import RolloutTree

FloatArray = NDArray[np.float64]

ReferenceLogprobs = Callable[[RolloutTree, int], Sequence[FloatArray]]
"""Log-probabilities under the reference policy of a leaf's agent tokens: one array (T,) for each step on its path."""


@dataclass(frozen=True)
class NodeCredit:
    """Per-node values, float64 (n_nodes,), the root included at index 0.

    Attributes:
        advantage: what every agent token of the node's step is weighted with.
        reward, branch, trajectory: its parts, where the rule has them (else zeros).
    """

    reward: FloatArray
    branch: FloatArray
    trajectory: FloatArray
    advantage: FloatArray


@dataclass(frozen=True)
class LeafCredit:
    """Advantages of one trajectory, token by token; a step shared by several trajectories may differ between them.

    Attributes:
        leaf: the trajectory's last node.
        advantages: float64 (T,), over the agent tokens of all steps on the path to it, in order.
    """

    leaf: int
    advantages: FloatArray


class Credit(Protocol):
    """A rule that looks at one tree at a time and values whole steps."""

    def assign(self, tree: RolloutTree) -> NodeCredit:
        """Advantages for every node of `tree`."""


@runtime_checkable
class BatchCredit(Protocol):
    """A rule that needs all trees of an update, values single tokens, or tells trajectories apart in a shared step."""

    def assign_batch(
        self, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        """For each tree the advantages of its valid leaves, in completion order.

        A leaf may be left out: it is then not trained on, and enters no mean over trajectories.

        Args:
            trees: all trees of one update.
            reference: only where the rule's `needs_reference` is True.
        """


def leaf_credits(
    credit: Credit | BatchCredit, trees: Sequence[RolloutTree], reference: ReferenceLogprobs | None = None
) -> list[list[LeafCredit]]:
    """What `credit` gives the valid leaves of each tree, in completion order; [] for a tree without any."""
    if isinstance(credit, BatchCredit):
        return credit.assign_batch(trees, reference)
    return [spread(tree, credit.assign(tree)) if valid_leaves(tree) else [] for tree in trees]


def spread(tree: RolloutTree, credit: NodeCredit) -> list[LeafCredit]:
    """Each node's advantage on all agent tokens of its step, for every valid leaf in completion order."""
    return [LeafCredit(leaf, on_tokens(tree, leaf, credit.advantage)) for leaf in valid_leaves(tree)]


def broadcast(tree: RolloutTree, advantage: dict[int, float]) -> list[LeafCredit]:
    """Each leaf's advantage on all of its agent tokens, in the order of `advantage`."""
    return [
        LeafCredit(leaf, np.full(int(tree.token_counts(tree.path(leaf)).sum()), value))
        for leaf, value in advantage.items()
    ]


def on_tokens(tree: RolloutTree, leaf: int, by_node: FloatArray) -> FloatArray:
    """Values of nodes (n_nodes,) on the agent tokens of a trajectory, (T,)."""
    path = tree.path(leaf)
    return np.repeat(by_node[path], tree.token_counts(path))


def valid_leaves(tree: RolloutTree) -> list[int]:
    """Leaves that infrastructure did not fail and the strategy did not drop, in completion order."""
    kept = tree.groups
    return [leaf for leaf in tree.leaves if tree.outcome(leaf).valid and (not kept or leaf in kept)]


def valid_returns(tree: RolloutTree) -> dict[int, float]:
    """The return of every valid leaf, in completion order.

    Raises:
        ValueError: one is not finite.
    """
    returns = {leaf: tree.leaf_return(leaf) for leaf in valid_leaves(tree)}
    for leaf, value in returns.items():
        if not math.isfinite(value):
            raise ValueError(
                f"reward={value} of node {leaf} of task {tree.task_id!r} is not finite; "
                "mend the environment's reward, or mark the outcome valid=False"
            )
    return returns
