"""The laboratory's figures: differences of every family, and learning curves (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_COLOURS = {"win": "#1b7837", "tie": "#9a9a9a", "loss": "#b2182b"}
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def draw_differences(result: Mapping[str, Any], baseline: str, path: Path) -> None:
    """A row per arm: a dot per family, green or red where its 95% interval is above or below 0; a bar for the mean."""
    arms = list(result)[::-1]
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.45 * len(arms) + 1.6), sharey=True)
    for axis, what in zip(axes, ("rollouts", "steps"), strict=True):
        for y, arm in enumerate(arms):
            row = result[arm][what]
            for i, (mean, half) in enumerate(row["families"].values()):
                verdict = "win" if mean - half > 0 else "loss" if mean + half < 0 else "tie"
                shift = 0.5 * (i / max(1, len(row["families"]) - 1) - 0.5)
                axis.plot(1000 * mean, y + shift, "o", ms=3.5, color=_COLOURS[verdict])
            axis.plot([1000 * row["mean"]] * 2, [y - 0.35, y + 0.35], color="black", lw=2)
        axis.axvline(0, color="black", lw=0.8)
        axis.set_title(f"at equal {'completed rollouts' if what == 'rollouts' else 'generated steps'}")
        axis.set_xlabel(f"mean success while learning,\nless that of {baseline}, x 1000")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(arms)), arms)
    figure.tight_layout()
    figure.savefig(path, dpi=140)
    plt.close(figure)


def draw_curves(curves: Mapping[str, Mapping[str, Curve]], arms: Sequence[str], path: Path) -> None:
    """A panel per family: exact mean success of some arms against generated steps, means over the seeds.

    Args:
        curves: family -> arm -> generated steps and success, (U + 1,) each.
        arms: which of them, in the legend's order.
    """
    columns = 5
    rows = -(-len(curves) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.1 * columns, 2.4 * rows), squeeze=False, sharey=True)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    for axis, (family, by_arm) in zip(axes.flat, curves.items(), strict=False):
        for i, arm in enumerate(arms):
            if arm in by_arm:
                steps, success = by_arm[arm]
                axis.plot(steps / 1000, success, label=arm, lw=1.3, color=f"C{i}")
        axis.set_title(family, fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("generated steps / 1000", fontsize=8)
    axes[0, 0].set_ylabel("exact success", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=len(arms), frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)
