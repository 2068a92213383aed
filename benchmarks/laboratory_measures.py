"""Gradients, localizations, rankings and repairs beside the exact truth (start policies of the laboratory's worlds).

    python -m benchmarks.laboratory_measures [--families irr_8_.06,...] [--worlds 20] [--json PATH]

Means over worlds with 95% intervals. Gradients: cosine and relative error of one update's (128 rollouts) against the
exact gradient over all prompts; "bias" is the cosine of the mean of 30 updates. Rankings: siblings by advantage against
exact values. Localizations in worlds: against the first step from which the policy cannot succeed; dead probes start
from a prefix from which success is impossible. Searches: on failures that are lost at a known step, by recovery
probability and number of probes. Repair: one step of a failed rollout is redone and the rest sampled again 16 times.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.laboratory_arms import ARMS
from benchmarks.laboratory_statistics import Difference
from elpo_agent.laboratory.learning import LinearPolicy, collect
from elpo_agent.laboratory.measures import gradient_quality, localization_quality, ranking_quality, repair_rates
from elpo_agent.laboratory.searches import search_accuracy
from elpo_agent.rollout import BinaryErrorLocalization
from elpo_envs.exact import FAMILIES, build_world

FOUR = "irr_8_.06,mix_8_.2,rec_8_.06,trap_16_.05"
COMPARED = (
    "grpo", "rloo", "reinforce_pp_baseline", "gigpo", "aepo", "tree_grpo", "elpo", "elpo, printed search",
    "elpo, bayesian search", "elpo_no_bel", "elpo_no_branch", "elpo_plus", "oracle",
)  # fmt: skip
ROLLOUTS = 128
SAMPLES = 30
WIDE = 1024
STEPS = 16
RECOVERIES = (0.1, 0.3, 0.6)
PROBES = (5, 10, 20, 40)
FAILURES = 200
Figures = dict[str, list[float]]


def in_world(arm: str, family: str, seed: int) -> dict[str, float]:
    """All that is measured of one arm in one world."""
    world = build_world(FAMILIES[family], seed)
    algorithm = ARMS[arm]()
    quality = gradient_quality(algorithm, world, ROLLOUTS, SAMPLES, seed)
    policy = LinearPolicy(world, 1, [1.0])
    found = collect(algorithm, world, policy, 1, WIDE, np.random.default_rng(np.random.SeedSequence([seed, 0x1A])))
    probabilities = policy.tabular().probabilities
    ranked = ranking_quality(algorithm, world, probabilities, found)
    located = localization_quality(world, probabilities, [(tree, r.localizations) for tree, r in found.trees])
    out = {
        "cosine": quality.cosine,
        "bias": quality.bias_cosine,
        "relative error": quality.relative_error,
        "steps": quality.steps,
        "pairs in order": ranked.accuracy,
        "tau": ranked.tau,
        "exact": located.exact,
        "distance": located.distance,
        "dead probes": located.dead_probes,
    }
    if arm == "grpo":
        rng = np.random.default_rng(np.random.SeedSequence([seed, 0x2B]))
        out |= {f"repair: {which}": rate for which, rate in repair_rates(world, probabilities, found, 16, rng).items()}
    return out


def shown(values: Sequence[float]) -> str:
    """Mean and half the width of the 95% interval; "" where there is nothing to measure."""
    kept = np.array([value for value in values if not np.isnan(value)])
    if not len(kept):
        return ""
    found = Difference.of(kept)
    return f"{found.mean:.3f} ± {found.half_width:.3f}"


def worlds_table(family: str, figures: Mapping[str, Figures]) -> Table:
    names = [name for name in next(iter(figures.values())) if not name.startswith("repair")]
    table = Table(title=f"{family}: means over worlds, with 95% intervals")
    for name in ("arm", *names):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for arm, own in figures.items():
        table.add_row(arm, *(f"{np.mean(own[n]):.0f}" if n == "steps" else shown(own[n]) for n in names))
    return table


def searches() -> dict[str, dict[str, dict[str, float]]]:
    """Exact hits by recovery probability and probes; the fixed searches at their best number of suffixes an anchor."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    kinds: dict[str, Callable[[int, int], BinaryErrorLocalization]] = {
        "printed": lambda n, x: BinaryErrorLocalization(n + 1, 1, x, x, search="printed"),
        "inclusive": lambda n, x: BinaryErrorLocalization(n + 1, 1, x, x, search="inclusive"),
        "bayesian": lambda n, x: BinaryErrorLocalization(n + 1, 1, x, x, search="bayesian"),
    }
    for recovery in RECOVERIES:
        for probes in PROBES:
            row = out[f"p = {recovery}, {probes} probes"] = {}
            for kind, make in kinds.items():
                widths = (1,) if kind == "bayesian" else (1, 2, 3, 4, 5, 8)
                tried = [search_accuracy(make(probes, x), STEPS, recovery, FAILURES, 7) for x in widths]
                best = max(tried, key=lambda one: one.exact)
                row[kind] = {"exact": best.exact, "distance": best.distance, "probes": best.probes}
    return out


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=FOUR)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    own = parser.parse_args(argv)
    torch.set_num_threads(1)
    console = Console(width=200)
    progress = Console(stderr=True)
    told: dict[str, object] = {}
    for family in own.families.split(","):
        if family not in FAMILIES:
            parser.error(f"--families has the unknown {family!r}; choose of {', '.join(FAMILIES)}")
        figures: dict[str, Figures] = {}
        for arm in track(COMPARED, family, console=progress):
            for seed in range(own.worlds):
                for name, value in in_world(arm, family, seed).items():
                    figures.setdefault(arm, {}).setdefault(name, []).append(value)
        told[family] = figures
        console.print(worlds_table(family, figures))
        repairs = {name.removeprefix("repair: "): v for name, v in figures["grpo"].items() if name.startswith("repair")}
        console.print("repaired at " + "; ".join(f"{name}: {shown(values)}" for name, values in repairs.items()))
    found = searches()
    table = Table(title=f"exact hits (off by, probes taken), K = {STEPS}, {FAILURES} failures each")
    for column in ("", "printed", "inclusive", "bayesian"):
        table.add_column(column)
    for name, row in found.items():
        table.add_row(name, *(f"{o['exact']:.2f} ({o['distance']:.1f}, {o['probes']:.0f})" for o in row.values()))
    console.print(table)
    if own.json:
        unfinished = own.json.with_suffix(".tmp")
        unfinished.write_text(json.dumps({"worlds": told, "searches": found, "n_worlds": own.worlds}, indent=1) + "\n")
        unfinished.replace(own.json)


if __name__ == "__main__":
    main()
