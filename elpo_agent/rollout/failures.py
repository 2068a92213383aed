"""Which failed trajectory a search starts from, as in Algorithm 1 of ELPO (arXiv 2602.09598)."""

from __future__ import annotations

from collections.abc import Sequence

from elpo_agent.rollout.draw import Draw
from elpo_agent.rollout.entropy import PathEntropy, path_entropy
from elpo_agent.tree import RolloutTree


async def collect_failures(draw: Draw, tree: RolloutTree, b_max: int) -> list[int]:
    """Full rollouts until `b_max` of them failed or the budget is spent; the failed leaves, oldest first."""
    failures: list[int] = []
    while len(failures) < b_max and draw.left:
        # At least this many are still needed, so asking for them at once samples no more than one by one.
        leaves = await draw.sample(0, b_max - len(failures))
        outcomes = ((leaf, tree.outcome(leaf)) for leaf in leaves)
        failures += [leaf for leaf, outcome in outcomes if outcome.valid and not outcome.success]
    return failures


def choose_reference(
    tree: RolloutTree, failures: Sequence[int], window: int | None = None
) -> tuple[int, PathEntropy] | None:
    """The failure whose entropy rises most after tool results (H_tool - H_root), and its entropies.

    The earliest one on a tie; None when no failure has a tool step.

    Args:
        window: tokens of a turn, from its start, that count for its entropy; None for all of them.
    """
    entropies = {leaf: path_entropy(tree, leaf, window) for leaf in failures}
    rises = {leaf: h.rise for leaf, h in entropies.items() if h.rise is not None}
    if not rises:
        return None
    reference = max(rises, key=lambda leaf: rises[leaf])
    return reference, entropies[reference]


def any_success(tree: RolloutTree, leaves: Sequence[int]) -> bool | None:
    """Whether any valid one of `leaves` succeeded; None when none is valid."""
    valid = [outcome for outcome in map(tree.outcome, leaves) if outcome.valid]
    return any(outcome.success for outcome in valid) if valid else None


def check_reference_options(b_max: int, entropy_window: int | None) -> None:
    """Raise ValueError unless `b_max` >= 1 and `entropy_window` is None or >= 1."""
    if b_max < 1:
        raise ValueError(f"b_max={b_max} collects no failure to search; give at least 1")
    if entropy_window is not None and entropy_window < 1:
        raise ValueError(f"entropy_window={entropy_window} selects no token; give at least 1, or None for whole turns")
