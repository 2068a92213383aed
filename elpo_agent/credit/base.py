"""Credit rules turn a finished tree into one advantage per node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from elpo_agent.tree import RolloutTree

FloatArray = NDArray[np.float64]


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


class Credit(Protocol):
    def assign(self, tree: RolloutTree) -> NodeCredit:
        """Advantages for every node of `tree`."""
