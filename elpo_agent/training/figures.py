"""What one update's rollouts were like, as numbers for the logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from elpo_agent.evaluation.evaluate import tree_attempts
from elpo_agent.rollout.base import SearchResult
from elpo_agent.tree import RolloutTree


def rollout_figures(pairs: Sequence[tuple[RolloutTree, SearchResult]]) -> dict[str, float]:
    """Counts and means over one update's trees; tokens and calls of shared steps are counted once.

    "skipped" counts prompts too long for the context; "invalid" rollouts were lost to infrastructure and enter no
    mean; "success_fresh" is over rollouts sampled from the prompt itself, and so estimates pass@1.
    """
    attempts = [a for tree, _ in pairs for a in tree_attempts(tree)]
    valid = [a for a in attempts if a.valid]
    steps = [node.step for tree, _ in pairs for node in tree.nodes if node.step is not None]
    fresh = [outcome for tree, _ in pairs for leaf in _fresh_leaves(tree) if (outcome := tree.outcome(leaf)).valid]
    tokens = sum(len(s.ids) for s in steps)
    return {
        "skipped": sum(not tree.leaves for tree, _ in pairs),
        "rollouts": len(attempts),
        "invalid": len(attempts) - len(valid),
        "success": _mean([a.success for a in valid]),
        "success_fresh": _mean([o.success for o in fresh]),
        "truncated": _mean([a.truncated for a in valid]),
        "turns": _mean([a.turns for a in valid]),
        "generated_tokens": tokens,
        "tool_calls": sum(s.tool_calls for s in steps),
        "tool_errors": sum(s.tool_errors for s in steps),
        "entropy": float(sum(s.entropies.sum() for s in steps)) / max(1, tokens),
        "localized": sum(
            loc.closed and loc.critical_node is not None for _, result in pairs for loc in result.localizations
        ),
        "mixed_groups": _mean([len({a.success for a in tree_attempts(tree) if a.valid}) > 1 for tree, _ in pairs]),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _fresh_leaves(tree: RolloutTree) -> Iterator[int]:
    """Leaves sampled from the prompt itself: the first through each child of the root (suffixes join a child that
    a full rollout made)."""
    seen: set[int] = set()
    for leaf in tree.leaves:
        top = tree.path(leaf)[0]
        if top not in seen:
            seen.add(top)
            yield leaf
