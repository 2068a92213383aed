"""A rollout tree that keeps its steps in arrays and makes nodes only when somebody looks at them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from elpo_agent.tree import Node, Outcome, RolloutTree, Step
from elpo_envs.exact import Rollouts, RolloutState

SUCCESS = Outcome(reward=1.0, success=True)
FAILURE = Outcome(reward=0.0, success=False)
_KINDS = {False: ("ok",), True: ("error",)}


@dataclass(frozen=True, eq=False)
class Sampled:
    """Rollouts made together, and the policy's view of each step.

    Attributes:
        rollouts: from the nodes that were asked for to the end.
        logprobs: float64 (B, T); of each action when it was drawn, 0 after the end.
        entropies: float64 (B, T); of the policy at each step, 0 after the end.
    """

    rollouts: Rollouts
    logprobs: NDArray[np.float64]
    entropies: NDArray[np.float64]


@dataclass(frozen=True)
class _Chain:
    """Nodes `first` to `first + length - 1`, each the child of the one before, below `parent` of depth `depth`."""

    first: int
    length: int
    parent: int
    depth: int
    source: Sampled
    row: int


class ExactTree(RolloutTree):
    """The rollouts of one prompt. A step is one action: its only token is the action's number.

    Args:
        task_id: which prompt.
        prompt: its number in the (stacked) world.
        repairs_from: rows of the policy from this one on are repairs; a step after which one follows met an error.
    """

    def __init__(self, task_id: str, prompt: int, repairs_from: int) -> None:
        self.task_id = task_id
        self.prompt_ids = ()
        self.leaves = []
        self.groups = {}
        self.prompt = prompt
        self._repairs_from = repairs_from
        self._chains: list[_Chain] = []
        self._firsts: list[int] = []
        self._size = 1
        self._outcomes: dict[int, Outcome] = {}
        self._nodes: dict[int, Node] = {}
        self._branches: dict[int, list[int]] = {}  # children but for the next node of the own chain
        self._parents: NDArray[np.int64] | None = None

    @property
    def nodes(self) -> Sequence[Node]:  # type: ignore[override]
        """Made one by one as they are asked for."""
        return _Nodes(self)

    @property
    def size(self) -> int:
        """Number of nodes, the root included."""
        return self._size

    def add_rollout(self, parent: int, source: Sampled, row: int) -> int:
        """Append rollout `row` of `source`, which started at node `parent`; returns its leaf."""
        length = int(source.rollouts.lengths[row])
        first, depth = self._size, self.depth(parent)
        self._chains.append(_Chain(first, length, parent, depth, source, row))
        self._firsts.append(first)
        self._branches.setdefault(parent, []).append(first)
        if (made := self._nodes.get(parent)) is not None:
            made.children.append(first)
        self._size += length
        leaf = self._size - 1
        self._outcomes[leaf] = SUCCESS if source.rollouts.success[row] else FAILURE
        self.leaves.append(leaf)
        self._parents = None
        return leaf

    def path(self, index: int) -> list[int]:
        """Node indices from the first step (the root excluded) down to `index`."""
        parts: list[range] = []
        while index > 0:
            chain = self._chain(index)
            parts.append(range(chain.first, index + 1))
            index = chain.parent
        return [i for part in reversed(parts) for i in part]

    def paths(self, leaves: Sequence[int]) -> NDArray[np.int64]:
        """The nodes of `path` of each leaf, one path after the other."""
        if not leaves:
            return np.zeros(0, dtype=np.int64)
        first = np.array(self._firsts)
        length = np.array([chain.length for chain in self._chains])
        depth = np.array([chain.depth for chain in self._chains])
        place = np.arange(int((depth + length).max()))
        every = first[:, None] + place - depth[:, None]
        for i, chain in enumerate(self._chains):
            if chain.depth:  # the steps before its own are those of the chain that it leaves
                every[i, : chain.depth] = every[self._number(chain.parent), : chain.depth]
        chosen = [self._number(leaf) for leaf in leaves]
        return np.asarray(every[chosen][place < (depth + length)[chosen, None]])

    def parents(self) -> NDArray[np.int64]:
        """Parent index of every node; -1 for the root."""
        if self._parents is None:
            parents = np.arange(-1, self._size - 1, dtype=np.int64)
            for chain in self._chains:
                parents[chain.first] = chain.parent
            self._parents = parents
        return self._parents

    def outcome(self, leaf: int) -> Outcome:
        """The outcome of a leaf. Raises ValueError for an inner node."""
        if leaf not in self._outcomes:
            raise ValueError(f"node {leaf} is not a leaf")
        return self._outcomes[leaf]

    def token_counts(self, nodes: Sequence[int]) -> NDArray[np.int64]:
        """1 each, but 0 for the root."""
        return np.array(nodes, dtype=np.int64).clip(max=1)

    def finished(self, node: int) -> bool:
        """Whether a node is a leaf."""
        return node in self._outcomes

    def feedback_kinds(self, index: int) -> tuple[str, ...]:
        """("error",) where a repair follows, ("ok",) of other steps."""
        if index == 0:
            return ()
        chain = self._chain(index)
        return _KINDS[bool(chain.source.rollouts.states.in_repair[chain.row, index - chain.first + 1])]

    def mean_entropy(self, index: int, window: int | None = None) -> float:
        """The policy's entropy in nats at the step of node `index`, in float64."""
        chain = self._chain(index)
        return float(chain.source.entropies[chain.row, index - chain.first])

    def summed_entropy(self, index: int, window: int | None = None) -> float:
        """The same: a step is one token."""
        return self.mean_entropy(index)

    def leaf_return(self, leaf: int) -> float:
        """The reward of a leaf. Raises ValueError for an inner node."""
        return self.outcome(leaf).reward

    def state_after(self, node: int) -> tuple[Sampled | None, int, int]:
        """Where the state after a node's step is: the rollouts, the row and the column in `Rollouts.states`; None for
        the root."""
        if node == 0:
            return None, 0, 0
        chain = self._chain(node)
        return chain.source, chain.row, node - chain.first + 1

    def steps(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Of every node but the root, in index order: the policy's row, the action, its log-probability; (n - 1,)."""
        pieces = [(c.source, c.row, c.length) for c in self._chains]
        rows = np.concatenate([s.rollouts.rows[r, :n] for s, r, n in pieces])
        actions = np.concatenate([s.rollouts.actions[r, :n] for s, r, n in pieces])
        return rows, actions, np.concatenate([s.logprobs[r, :n] for s, r, n in pieces])

    def states(self) -> RolloutState:
        """The state after every node's step, the root (before any) excluded; (n - 1,)."""
        pieces = [(c.source.rollouts.states, c.row, c.length) for c in self._chains]
        return RolloutState(
            np.concatenate([s.position[r, 1 : n + 1] for s, r, n in pieces]),
            np.concatenate([s.spare[r, 1 : n + 1] for s, r, n in pieces]),
            np.concatenate([s.in_repair[r, 1 : n + 1] for s, r, n in pieces]),
            np.concatenate([s.alive[r, 1 : n + 1] for s, r, n in pieces]),
        )

    def release(self) -> None:
        """Nothing is held: a state is a few numbers."""

    def _chain(self, node: int) -> _Chain:
        return self._chains[self._number(node)]

    def _number(self, node: int) -> int:
        """Which chain a node is in."""
        return bisect_right(self._firsts, node) - 1

    def _node(self, index: int) -> Node:
        if index < 0:
            index += self._size
        if not 0 <= index < self._size:
            raise IndexError(f"node {index} of a tree of {self._size}")
        made = self._nodes.get(index)
        if made is None:
            made = self._nodes[index] = self._make(index)
        return made

    def _make(self, index: int) -> Node:
        branches = self._branches.get(index, [])
        if index == 0:
            return Node(0, -1, 0, None, children=[*branches])
        chain = self._chain(index)
        place = index - chain.first
        children = [index + 1, *branches] if place + 1 < chain.length else [*branches]
        source, row = chain.source, chain.row
        failed = bool(source.rollouts.states.in_repair[row, place + 1])
        step = Step(
            ids=(int(source.rollouts.actions[row, place]),),
            logprobs=source.logprobs[row, place : place + 1].astype(np.float32),
            entropies=source.entropies[row, place : place + 1].astype(np.float32),
            # What the environment shows before the next action: the row at which it is taken.
            feedback_ids=(int(source.rollouts.rows[row, place + 1]),) if place + 1 < chain.length else (),
            tool_calls=1,
            tool_errors=int(failed),
            kinds=_KINDS[failed],
        )
        parent = chain.parent if place == 0 else index - 1
        return Node(index, parent, chain.depth + place + 1, step, outcome=self._outcomes.get(index), children=children)

    def depth(self, node: int) -> int:
        """Steps from the prompt down to `node`; 0 for the root."""
        if node == 0:
            return 0
        chain = self._chain(node)
        return chain.depth + 1 + node - chain.first


class _Nodes(Sequence[Node]):
    """The nodes of a tree as a sequence."""

    def __init__(self, tree: ExactTree) -> None:
        self._tree = tree

    def __len__(self) -> int:
        return self._tree.size

    @overload
    def __getitem__(self, index: int) -> Node: ...

    @overload
    def __getitem__(self, index: slice) -> list[Node]: ...

    def __getitem__(self, index: int | slice) -> Node | list[Node]:
        if isinstance(index, slice):
            return [self._tree._node(i) for i in range(*index.indices(len(self)))]
        return self._tree._node(index)

    def __iter__(self) -> Iterator[Node]:
        return (self._tree._node(i) for i in range(len(self)))
