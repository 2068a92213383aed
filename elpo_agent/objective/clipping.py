"""Clipped objectives: constant bounds (PPO, GRPO), and ELPO's error-localized adaptive clipping."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from elpo_agent.objective.base import NodeBounds, TokenBatch
from elpo_agent.objective.options import LossOptions
from elpo_agent.objective.scope import at_or_below, first_all_failed
from elpo_agent.rollout.base import SearchResult
from elpo_agent.tree import RolloutTree

if TYPE_CHECKING:
    from torch import Tensor

Scope = Literal["critical", "first_all_failed"]


@dataclass(frozen=True)
class ClippedObjective:
    """Clipped surrogate with one range for all tokens.

    Attributes:
        eps_low: ratios below 1 - eps_low are clipped; in [0, 1).
        eps_high: ratios above 1 + eps_high are clipped; >= 0.
        options: further terms and the aggregation; by default none, and a mean over tokens, then over trajectories.
    """

    eps_low: float = 0.2
    eps_high: float = 0.2
    options: LossOptions = field(default_factory=LossOptions)

    def __post_init__(self) -> None:
        _check_range(self.eps_low, self.eps_high)

    def bounds(self, tree: RolloutTree, result: SearchResult) -> NodeBounds:
        """The constant range on every node."""
        return _constant(tree, self.eps_low, self.eps_high)

    def loss(
        self, logprobs: Tensor, batch: TokenBatch, entropies: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """See `elpo_agent.objective.token_loss.weighted_loss`."""
        return _weighted_loss(logprobs, batch, entropies, self.options, self.eps_low)


@dataclass(frozen=True)
class ErrorLocalizedClipping:
    """ELPO's ELC (equation 11): lower bound 1 - (eps_low + eps_elc) from the first irrecoverable step on.

    The upper bound stays. A relaxed token differs from others only where its advantage is negative and its
    ratio has fallen below 1 - eps_low, so never in the first update after sampling.

    Attributes:
        eps_low: lower range of the other tokens; in [0, 1).
        eps_high: upper range of all tokens; >= 0.
        eps_elc: what is added to eps_low; >= 0, with eps_low + eps_elc < 1. 0 is the paper's ablation.
        scope: which tokens. "critical": the subtrees under the critical nodes that the search found, these
            included (the paper's text). "first_all_failed": for each failed leaf, from the earliest node on
            its path below which every sampled leaf failed (what the paper's Figure 4 counts).
        options: further terms and the aggregation; by default none, and a mean over tokens, then over trajectories.
    """

    eps_low: float = 0.2
    eps_high: float = 0.315
    eps_elc: float = 0.115
    scope: Scope = "critical"
    options: LossOptions = field(default_factory=LossOptions)

    def __post_init__(self) -> None:
        _check_range(self.eps_low, self.eps_high)
        if not (self.eps_elc >= 0.0 and self.eps_low + self.eps_elc < 1.0):
            raise ValueError(
                f"eps_elc={self.eps_elc} with eps_low={self.eps_low} leaves no lower bound above 0; "
                "give 0 <= eps_elc < 1 - eps_low"
            )
        if self.scope not in ("critical", "first_all_failed"):
            raise ValueError(f"scope={self.scope!r} is unknown; give 'critical' or 'first_all_failed'")

    def bounds(self, tree: RolloutTree, result: SearchResult) -> NodeBounds:
        """The range of every node of `tree`, relaxed within the scope."""
        bounds = _constant(tree, self.eps_low, self.eps_high)
        bounds.low[at_or_below(tree.parents(), self._starts(tree, result))] += self.eps_elc
        return bounds

    def loss(
        self, logprobs: Tensor, batch: TokenBatch, entropies: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """See `elpo_agent.objective.token_loss.weighted_loss`."""
        return _weighted_loss(logprobs, batch, entropies, self.options, self.eps_low)

    def _starts(self, tree: RolloutTree, result: SearchResult) -> set[int]:
        """Nodes from which the bound is relaxed."""
        if self.scope == "critical":
            return {found.critical_node for found in result.localizations if found.critical_node is not None}
        judged = {leaf: tree.outcome(leaf) for leaf in tree.leaves if tree.outcome(leaf).valid}
        failed = [leaf for leaf, outcome in judged.items() if not outcome.success]
        ends = [node.index for node in tree.nodes[1:] if not node.children]
        unjudged = [leaf for leaf in ends if leaf not in judged]
        return set(first_all_failed(tree.parents(), failed, unjudged).values())


def _constant(tree: RolloutTree, low: float, high: float) -> NodeBounds:
    n = len(tree.nodes)
    return NodeBounds(low=np.full(n, low, dtype=np.float64), high=np.full(n, high, dtype=np.float64))


def _weighted_loss(
    logprobs: Tensor, batch: TokenBatch, entropies: Tensor | None, options: LossOptions, usual_low: float
) -> tuple[Tensor, dict[str, float]]:
    # Here, so that algorithms can be listed and built without torch.
    from elpo_agent.objective.token_loss import weighted_loss

    return weighted_loss(logprobs, batch, options, usual_low=usual_low, entropies=entropies)


def _check_range(eps_low: float, eps_high: float) -> None:
    if not 0.0 <= eps_low < 1.0:
        raise ValueError(f"eps_low={eps_low} leaves no lower bound above 0; give 0 <= eps_low < 1")
    if not 0.0 <= eps_high < float("inf"):
        raise ValueError(f"eps_high={eps_high} is not a clip range; give a finite number >= 0")
