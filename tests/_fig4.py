"""The numbers printed in Figure 4 of the ELPO paper (arXiv 2602.09598v1): a complete tree of 16 rollouts.

Node names are ours; values have three decimals, as printed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FigureNode:
    """One node: its place in the tree, the rollouts that pass through it, and the four printed values."""

    name: str
    parent: str
    step: int
    leaves: tuple[int, ...]
    reward: float
    branch: float
    trajectory: float
    advantage: float


N_TOTAL = 16
LAMBDA_TREE = 0.5

# Reward of rollout i.
LEAF_REWARDS = (-1.1, -1.1, -1.1, -1.1, -1.1, -1.1, -1.1, -1.1, 1.0, 1.0, -1.1, -1.1, -1.1, -1.1, -1.1, -1.1)

# Rollouts grouped by the earliest node on their path below which every sampled rollout failed.
FIRST_ALL_FAILED = ((0, 3, 4), (1,), (2,), (5, 10, 11, 12), (6,), (7,), (13,), (14,), (15,))

# (anchor step or 0 for full rollouts, the anchor's reference rollout, the rollouts made), in order.
ROLLOUT_ORDER: tuple[tuple[int, int | None, tuple[int, ...]], ...] = (
    (0, None, (0, 1, 2)),
    (1, 0, (3, 4)),
    (0, None, (5, 6, 7)),
    (1, 5, (8, 9)),
    (2, 5, (10, 11, 12)),
    (0, None, (13, 14, 15)),
)

NODES = (
    FigureNode("a", "root", 1, (0, 3, 4), -1.1, -0.354, -0.378, -0.366),
    FigureNode("a0", "a", 2, (0,), -1.1, 0.0, -0.378, -0.189),
    FigureNode("a0x", "a0", 3, (0,), -1.1, 0.0, -0.378, -0.189),
    FigureNode("a3", "a", 2, (3,), -1.1, 0.0, -0.378, -0.189),
    FigureNode("a3x", "a3", 3, (3,), -1.1, 0.0, -0.378, -0.189),
    FigureNode("a4", "a", 2, (4,), -1.1, 0.0, -0.378, -0.189),
    FigureNode("a4x", "a4", 3, (4,), -1.1, 0.0, -0.378, -0.189),
    FigureNode("b", "root", 1, (1,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("bx", "b", 2, (1,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("c", "root", 1, (2,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("d", "root", 1, (5, 8, 9, 10, 11, 12), 0.3, 2.828, 0.63, 1.729),
    FigureNode("d8", "d", 2, (8,), 1.0, 0.707, 2.646, 1.676),
    FigureNode("d9", "d", 2, (9,), 1.0, 0.707, 2.646, 1.676),
    FigureNode("d9x", "d9", 3, (9,), 1.0, 0.707, 2.646, 1.676),
    FigureNode("d5", "d", 2, (5, 10, 11, 12), -1.1, -1.414, -0.378, -0.896),
    FigureNode("d5_5", "d5", 3, (5,), -1.1, 0.0, -0.378, -0.189),
    FigureNode("d5_10", "d5", 3, (10,), -1.1, 0.0, -0.378, -0.189),
    FigureNode("d5_11", "d5", 3, (11,), -1.1, 0.0, -0.378, -0.189),
    FigureNode("d5_12", "d5", 3, (12,), -1.1, 0.0, -0.378, -0.189),
    FigureNode("e6_1", "root", 1, (6,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e6_2", "e6_1", 2, (6,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e6_3", "e6_2", 3, (6,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e7_1", "root", 1, (7,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e7_2", "e7_1", 2, (7,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e7_3", "e7_2", 3, (7,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e15_1", "root", 1, (15,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e15_2", "e15_1", 2, (15,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e15_3", "e15_2", 3, (15,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e15_4", "e15_3", 4, (15,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e13", "root", 1, (13,), -1.1, -0.354, -0.378, -0.366),
    FigureNode("e14", "root", 1, (14,), -1.1, -0.354, -0.378, -0.366),
)
