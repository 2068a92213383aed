"""The rollout tree of one prompt: nodes are steps, leaves are completed trajectories."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def checked_parents(parent: ArrayLike) -> NDArray[np.int64]:
    """A parent array (n,), n >= 1, whose rules make neither a cycle nor a second root possible.

    `parent[0] == -1` is the root and `0 <= parent[i] < i` for the others.

    Raises:
        ValueError: the array breaks one of these rules; the message names the first index that does.
    """
    array = np.asarray(parent)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"parent has shape {array.shape} and dtype {array.dtype}; "
            "give a one-dimensional array of integers with at least the root in it"
        )
    if array[0] != -1:
        raise ValueError(f"parent[0]={array[0]}, but node 0 is the root; set it to -1")
    wrong = np.flatnonzero((array[1:] < 0) | (array[1:] >= np.arange(1, array.size)))
    if wrong.size:
        i = int(wrong[0]) + 1
        raise ValueError(
            f"parent[{i}]={array[i]} does not come before node {i}; number the nodes so that 0 <= parent[i] < i"
        )
    return array.astype(np.int64, copy=False)


def children_of(parent: ArrayLike) -> list[list[int]]:
    """Children of every node, in index order, from a parent array.

    Raises:
        ValueError: see `checked_parents`.
    """
    array = checked_parents(parent)
    children: list[list[int]] = [[] for _ in range(array.size)]
    for i, p in enumerate(array.tolist()[1:], start=1):
        children[p].append(i)
    return children


@dataclass(frozen=True)
class Step:
    """One assistant turn and the tool feedback that follows it.

    Attributes:
        ids: the turn's sampled token ids, length T; the only tokens ever trained on.
        logprobs: float32 (T,), log-probabilities at sampling time.
        entropies: float32 (T,), full-vocabulary entropies in nats at sampling time.
        feedback_ids: tokens that follow before the next turn (tool results, template); never trained on.
        text: the turn as the environment received it.
        tool_calls: calls made in this step; tool_errors: how many of them failed.
        kinds: what the environment made of the turn: a kind for each tool call ("ok", "error", "timeout", ...), or
            ("no_action",) where it held neither a call nor an answer.
        reward: what the environment gave for this step; of a trajectory's last step, `Outcome.reward` is that.
    """

    ids: tuple[int, ...]
    logprobs: NDArray[np.float32]
    entropies: NDArray[np.float32]
    feedback_ids: tuple[int, ...] = ()
    text: str = ""
    tool_calls: int = 0
    tool_errors: int = 0
    kinds: tuple[str, ...] = ()
    reward: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a trajectory ended. `success` is a property of the outcome, never `reward == 1`.

    Attributes:
        reward: the last step's reward; with most environments the only one.
        success: the final answer was right.
        truncated: a budget ran out before an answer.
        answer: the submitted answer, if any.
        valid: False when infrastructure failed or `limit` is set; such a leaf must not be trained on.
        limit: the prompt's budget that cut the trajectory, which is no fault of the policy's: "tokens", "tool_calls" or
            "seconds"; else None.
    """

    reward: float
    success: bool
    truncated: bool = False
    answer: str | None = None
    valid: bool = True
    limit: str | None = None


@dataclass
class Node:
    """A step in its tree. The root (index 0) holds the prompt and no step.

    Attributes:
        parent: index of the parent; -1 for the root. Always smaller than `index`.
        snapshot: environment state right after this step, held while branching here may happen.
        outcome: set on leaves, None elsewhere.
    """

    index: int
    parent: int
    depth: int
    step: Step | None
    snapshot: Any | None = None
    outcome: Outcome | None = None
    children: list[int] = field(default_factory=list)


@dataclass
class RolloutTree:
    """All trajectories sampled for one prompt.

    Attributes:
        task_id: which task.
        prompt_ids: tokens before the first assistant turn.
        nodes: topologically ordered; `nodes[0]` is the root.
        leaves: indices of completed trajectories, in the order they were completed (rollout 0, 1, ...).
        groups: which of several trees a leaf belongs to, where a strategy grows several for one prompt (Tree-GRPO);
            they share node 0. A leaf that a non-empty mapping lacks was dropped by the strategy and is not trained on;
            empty where there is one tree and every leaf counts.
    """

    task_id: str
    prompt_ids: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)
    groups: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.nodes:
            self.nodes.append(Node(index=0, parent=-1, depth=0, step=None))

    def add(self, parent: int, step: Step, snapshot: Any | None = None, outcome: Outcome | None = None) -> int:
        """Append a step under `parent` and return its index; with an outcome it is a leaf.

        Raises ValueError when `parent` is not a node of this tree or already a finished trajectory.
        """
        if not 0 <= parent < len(self.nodes):
            raise ValueError(f"parent={parent} is not a node of this tree; give 0 to {len(self.nodes) - 1}")
        if self.nodes[parent].outcome is not None:
            raise ValueError(f"node {parent} is a finished trajectory; branch from one of its ancestors")
        index = len(self.nodes)
        self.nodes.append(Node(index, parent, self.nodes[parent].depth + 1, step, snapshot, outcome))
        self.nodes[parent].children.append(index)
        if outcome is not None:
            self.leaves.append(index)
        return index

    def path(self, index: int) -> list[int]:
        """Node indices from the first step (the root excluded) down to `index`."""
        out: list[int] = []
        while index > 0:
            out.append(index)
            index = self.nodes[index].parent
        return out[::-1]

    def prefix_ids(self, index: int) -> tuple[int, ...]:
        """Every token up to and including the feedback of node `index`: what the next turn follows."""
        ids = list(self.prompt_ids)
        for i in self.path(index):
            step = self.nodes[i].step
            assert step is not None
            ids.extend(step.ids)
            ids.extend(step.feedback_ids)
        return tuple(ids)

    def parents(self) -> NDArray[np.int64]:
        """Parent index of every node; -1 for the root."""
        return np.array([n.parent for n in self.nodes], dtype=np.int64)

    def outcome(self, leaf: int) -> Outcome:
        """The outcome of a leaf. Raises ValueError for an inner node."""
        outcome = self.nodes[leaf].outcome
        if outcome is None:
            raise ValueError(f"node {leaf} is not a leaf")
        return outcome

    def token_counts(self, nodes: Sequence[int]) -> NDArray[np.int64]:
        """Agent tokens of the step of each of `nodes`; 0 for the root."""
        steps = [self.nodes[i].step for i in nodes]
        return np.array([0 if step is None else len(step.ids) for step in steps], dtype=np.int64)

    def feedback_kinds(self, index: int) -> tuple[str, ...]:
        """`Step.kinds` of the step of node `index`; () for the root."""
        step = self.nodes[index].step
        return () if step is None else step.kinds

    def mean_entropy(self, index: int, window: int | None = None) -> float:
        """Mean entropy in nats of the turn of node `index`, over its first `window` tokens or all; 0 without tokens."""
        step = self.nodes[index].step
        assert step is not None  # only the root has none
        values = np.asarray(step.entropies, dtype=np.float64)[:window]
        return float(values.mean()) if values.size else 0.0

    def summed_entropy(self, index: int, window: int | None = None) -> float:
        """The same, summed."""
        step = self.nodes[index].step
        assert step is not None  # only the root has none
        return math.fsum(step.entropies[:window].tolist())

    def leaf_return(self, leaf: int) -> float:
        """Sum of the rewards of the steps down to `leaf`. Raises ValueError for an inner node."""
        total = self.outcome(leaf).reward
        for i in self.path(leaf)[:-1]:
            step = self.nodes[i].step
            assert step is not None
            total += step.reward
        return total

    def leaf_rewards(self) -> dict[int, float]:
        """The return of every leaf, in completion order."""
        return {leaf: self.leaf_return(leaf) for leaf in self.leaves}

    def subtree(self, index: int) -> Iterator[int]:
        """`index` and all nodes below it."""
        stack = [index]
        while stack:
            i = stack.pop()
            yield i
            stack.extend(self.nodes[i].children)

    def release(self) -> None:
        """Drop every snapshot; called when no more branching can happen."""
        for node in self.nodes:
            node.snapshot = None
