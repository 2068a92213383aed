"""Objectives: per-token clip bounds from a tree, and the loss over a batch of token rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

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


Aggregation = Literal["seq-mean-token-mean", "token-mean", "seq-mean-token-sum", "constant"]
"""How a mini-batch's token losses become one number, over G trajectories of n_i agent tokens each.

- "seq-mean-token-mean": mean over trajectories of the mean over their tokens (GRPO; ELPO's equation 1).
- "token-mean": sum over all tokens, by their number (DAPO).
- "seq-mean-token-sum": mean over trajectories of the sum over their tokens.
- "constant": the same, by a constant length (Dr. GRPO).
"""


@dataclass(frozen=True)
class TokenBatch:
    """Rows of trajectories, right-padded. All tensors are (B, T) but `weights`.

    Attributes:
        old_logprobs: of the policy that ratios are taken against; 0 where `mask` is 0.
        advantages, eps_low, eps_high: 0 where `mask` is 0.
        mask: 1 on agent tokens, 0 on prompt, tool and padding tokens.
        weights: (B,), what each token loss of a row counts in the sum; None for one over the row's agent tokens.
        engine_logprobs: at sampling time, where `old_logprobs` are the learner's own; 0 where `mask` is 0.
        reference_logprobs: of the reference policy; 0 where `mask` is 0.
    """

    old_logprobs: Tensor
    advantages: Tensor
    eps_low: Tensor
    eps_high: Tensor
    mask: Tensor
    weights: Tensor | None = None
    engine_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None


class Objective(Protocol):
    """What is optimised. An objective may also have the attribute `options`, a `LossOptions`, which tells the learner
    what to supply; without it a trajectory counts by the mean over its tokens, and nothing but ratios is needed."""

    def bounds(self, tree: RolloutTree, result: SearchResult) -> NodeBounds:
        """Clip bounds of every node."""

    def loss(
        self, logprobs: Tensor, batch: TokenBatch, entropies: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Sum of the token losses, weighted by `batch.weights`, and statistics.

        Args:
            logprobs: (B, T) under the current parameters.
            batch: the rows.
            entropies: (B, T), of the current policy in nats, with gradient; only where `options.entropy_coef` is
                not 0.
        """
