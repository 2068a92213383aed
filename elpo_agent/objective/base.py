"""Objectives: per-token clip bounds from a tree, and the loss over a batch of token rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from elpo_agent.rollout.base import SearchResult
from elpo_agent.tree import RolloutTree

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NodeBounds:
    """Clip range of every node's tokens, float64 (n_nodes,): ratios are clipped to [1 - low, 1 + high]."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class TokenBatch:
    """Rows of trajectories, right-padded. All tensors are (B, T).

    Attributes:
        old_logprobs: at sampling time; 0 where `mask` is 0.
        advantages, eps_low, eps_high: constant over a step; 0 where `mask` is 0.
        mask: 1 on agent tokens, 0 on prompt, tool and padding tokens.
    """

    old_logprobs: Tensor
    advantages: Tensor
    eps_low: Tensor
    eps_high: Tensor
    mask: Tensor


class Objective(Protocol):
    def bounds(self, tree: RolloutTree, result: SearchResult) -> NodeBounds:
        """Clip bounds of every node."""

    def loss(self, logprobs: Tensor, batch: TokenBatch) -> tuple[Tensor, dict[str, float]]:
        """Sum over the rows of each row's mean token loss (to be divided by the number of trajectories of
        the mini-batch), and statistics. `logprobs` is (B, T) under the current parameters."""
