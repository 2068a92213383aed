"""Token entropies along a trajectory, and the number of probes they ask for.

Source: ELPO (arXiv 2602.09598), section on binary error localization. All entropies are in nats, measured at
sampling time on the agent's own tokens; tokens of tool feedback never enter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from elpo_agent.tree import RolloutTree

Rounding = Literal["nearest", "floor", "ceil"]


@dataclass(frozen=True)
class PathEntropy:
    """Entropies of one trajectory.

    Attributes:
        root: H_root, mean over the tokens of the first turn.
        after_tool: H_tool_m for m = 1..K, mean over the tokens of the turn after the m-th tool result.
    """

    root: float
    after_tool: tuple[float, ...]

    @property
    def rise(self) -> float | None:
        """H_tool - H_root, where H_tool is the mean of `after_tool`; None without a tool step."""
        if not self.after_tool:
            return None
        return math.fsum(self.after_tool) / len(self.after_tool) - self.root


def tool_steps(tree: RolloutTree, leaf: int) -> list[int]:
    """Nodes of the K tool steps on the path to `leaf`, first to last: every step but the last.

    A step that something follows had feedback after it, and branching from there is possible. The last step
    is
    never one: it gave the final answer, or a budget cut the trajectory there.
    """
    return tree.path(leaf)[:-1]


def path_entropy(tree: RolloutTree, leaf: int, window: int | None = None) -> PathEntropy:
    """H_root and every H_tool_m of the trajectory that ends in `leaf`.

    Args:
        window: use the first `window` >= 1 tokens of each turn; None for whole turns.

    Raises:
        ValueError: `leaf` is the root, `window` is out of range, or an entropy is not finite.
    """
    path = tree.path(leaf)
    if not path:
        raise ValueError("leaf=0 is the prompt; give the last node of a trajectory")
    root, *after_tool = (_turn_entropy(tree, node, window) for node in path)
    return PathEntropy(root, tuple(after_tool))


def summed_entropy(tree: RolloutTree, node: int, window: int | None = None) -> float:
    """Sum of the entropies of a step's tokens (of its first `window`, where given); 0 for a turn without tokens.

    Raises:
        ValueError: an entropy is not finite.
    """
    value = tree.summed_entropy(node, window)
    if not math.isfinite(value):
        raise ValueError(
            f"entropies of node {node} of task {tree.task_id!r} sum to {value}; the engine must return finite entropies"
        )
    return value


def suffix_count(
    h_tool_m: float,
    h_root: float,
    x_min: int = 1,
    x_max: int = 3,
    beta: float = 5.0,
    rounding: Rounding = "nearest",
) -> int:
    """How many suffixes to sample at an anchor: X_min + (X_max - X_min) * sigmoid(beta * (H_tool_m -
    H_root)).

    The formula is real-valued and the paper does not say how it becomes a number of rollouts. "nearest"
    rounds halves up; "floor" and "ceil" are the other two. The result is in [x_min, x_max].

    Raises:
        ValueError: not 1 <= x_min <= x_max, or an entropy or beta is not finite.
    """
    check_counts(x_min, x_max, beta)
    x = x_min + (x_max - x_min) * sigmoid(beta * (h_tool_m - h_root))
    if not math.isfinite(x):
        raise ValueError(f"h_tool_m={h_tool_m} and h_root={h_root} give no count; both must be finite")
    match rounding:
        case "nearest":
            return math.floor(x + 0.5)
        case "floor":
            return math.floor(x)
        case "ceil":
            return math.ceil(x)
    raise ValueError(f"rounding={rounding!r} is unknown; give 'nearest', 'floor' or 'ceil'")


def check_counts(x_min: int, x_max: int, beta: float) -> None:
    """Raise ValueError unless 1 <= x_min <= x_max and `beta` is finite."""
    if not 1 <= x_min <= x_max:
        raise ValueError(f"x_min={x_min} and x_max={x_max} are no range of probe counts; need 1 <= x_min <= x_max")
    if not math.isfinite(beta):
        raise ValueError(f"beta={beta} must be finite; the paper uses 5")


def _turn_entropy(tree: RolloutTree, node: int, window: int | None) -> float:
    if window is not None and window < 1:
        raise ValueError(f"entropy_window={window} selects no token; give at least 1, or None for whole turns")
    value = tree.mean_entropy(node, window)
    if not math.isfinite(value):
        raise ValueError(
            f"entropies of node {node} of task {tree.task_id!r} average to {value}; "
            "the engine must return finite entropies"
        )
    return value


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)
