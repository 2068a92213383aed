"""Agentic reinforcement learning with exact ground truth: learning curves at equal rollouts and at equal steps.

    python -m benchmarks.laboratory [--arms "grpo;elpo;..."] [--families irr_8_.06,...] [--seeds 20] [--updates 120]
        [--processes 2] [--cache FOLDER] [--finished] [--json PATH] [--pictures FOLDER]

For every family and arm the learning rate is chosen on four seeds (the best mean of both areas below; the grid, from
.04 to .16, grows to .01 or .36 while the best is at its edge) and confirmed on twelve more: it must still be the best
then, or the next best is tried likewise, since a rate that now and then ruins a run looks good where it does not. Then
fresh seeds are run, the same worlds for all arms.
Two areas under the curve of exact mean success: over completed rollouts, and over a budget of generated steps, which is
60% of what GRPO generates. Tables show differences to GRPO x 1000 in paired seeds with 95% intervals, and in how many
families the interval lies above or below zero. `--cache` keeps every finished pair of family and arm, and apart from
it what tuning found, which does not depend on the number of fresh seeds, so that an interrupted run goes on where it
was; it knows the plan but not the code, so empty it when an algorithm has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.laboratory_arms import ARMS
from benchmarks.laboratory_statistics import Difference, mean_while_spending
from elpo_envs.exact import FAMILIES

if TYPE_CHECKING:
    from elpo_agent.laboratory.learning import Curves

BASELINE = "grpo"
BASELINES = {BASELINE: "", "grpo, fair": "_fair", "elpo, printed search": "_elpo"}
"""What the others are compared with, and how the pictures' names end."""
GRID = (0.04, 0.08, 0.16)
_LOWER, _HIGHER = (0.02, 0.01), (0.24, 0.36)
TUNING_SEEDS = tuple(range(1000, 1004))
CONFIRMING_SEEDS = tuple(range(1004, 1016))
STEP_SHARE = 0.6
_WHATS = ("rollouts", "steps")
_STEP_BUDGET_TUNING = 0.6  # of the most that independent sampling could take, while GRPO's own is not known


@dataclass(frozen=True)
class Plan:
    """What is run for each pair of family and arm."""

    seeds: int
    updates: int
    rollouts: int = 128
    tuning_seeds: int = len(TUNING_SEEDS + CONFIRMING_SEEDS)

    @property
    def budget(self) -> int:
        """Completed rollouts of a run."""
        return self.updates * self.rollouts


@dataclass(frozen=True, eq=False)
class Pair:
    """One arm in one family: the chosen learning rate, and its fresh runs.

    Attributes:
        tuning: mean area of every learning rate that was tried; the best of them over all tuning seeds.
        success: (seeds, updates + 1).
        steps, rollouts: (seeds, updates).
    """

    arm: str
    family: str
    lr: float
    tuning: Mapping[str, float]
    success: NDArray[np.float64]
    steps: NDArray[np.int64]
    rollouts: NDArray[np.int64]


def run_pair(arm: str, family: str, plan: Plan, cache: Path | None = None) -> Pair:
    """Tune, unless the cache knows the outcome, and run one pair; the same arguments give the same figures."""
    import torch

    torch.set_num_threads(1)
    kept = Cache(cache, plan)
    tuning = kept.get_tuning(arm, family)
    if tuning is None:
        tuning = tune(arm, family, plan)
        kept.put_tuning(arm, family, tuning)
    tuning = confirm(arm, family, plan, tuning)
    lr = max(tuning, key=tuning.__getitem__)
    curves = _learn(arm, family, plan, [(seed, lr) for seed in range(plan.seeds)])
    areas = {str(tried): area for tried, area in sorted(tuning.items())}
    return Pair(arm, family, lr, areas, curves.success, curves.steps, curves.rollouts)


def tune(arm: str, family: str, plan: Plan) -> dict[float, float]:
    """The mean area of every learning rate that is tried, on the first tuning seeds."""
    areas: dict[float, float] = {}

    def try_all(lrs: Sequence[float]) -> None:
        areas.update(_mean_areas(arm, family, plan, lrs, TUNING_SEEDS))

    try_all(GRID)
    for more in _LOWER:
        if max(areas, key=areas.__getitem__) == min(areas):
            try_all([more])
    for more in _HIGHER:
        if max(areas, key=areas.__getitem__) == max(areas):
            try_all([more])
    return areas


def confirm(arm: str, family: str, plan: Plan, tuning: Mapping[float, float]) -> dict[float, float]:
    """The same, the best on all tuning seeds: whichever is best is run on the others, until it has been."""
    areas, confirmed = dict(tuning), set[float]()
    while (best := max(areas, key=areas.__getitem__)) not in confirmed:
        (more,) = _mean_areas(arm, family, plan, [best], CONFIRMING_SEEDS).values()
        few, many = len(TUNING_SEEDS), len(CONFIRMING_SEEDS)
        areas[best] = (few * areas[best] + many * more) / (few + many)
        confirmed.add(best)
    return areas


def _mean_areas(arm: str, family: str, plan: Plan, lrs: Sequence[float], seeds: Sequence[int]) -> dict[float, float]:
    """For each learning rate, the mean of both areas over some tuning seeds."""
    curves = _learn(arm, family, plan, [(seed, lr) for lr in lrs for seed in seeds])
    by_rollouts = mean_while_spending(curves.success, curves.rollouts, plan.budget)
    steps = _STEP_BUDGET_TUNING * plan.budget * FAMILIES[family].steps
    by_steps = mean_while_spending(curves.success, curves.steps, steps)
    means = ((by_rollouts + by_steps) / 2).reshape(len(lrs), -1).mean(axis=1)
    return dict(zip(lrs, map(float, means), strict=True))


def _learn(arm: str, family: str, plan: Plan, runs: Sequence[tuple[int, float]]) -> Curves:
    from elpo_agent.laboratory.learning import Run, Settings, learn

    settings = Settings(updates=plan.updates, rollouts=plan.rollouts)
    return learn(ARMS[arm](), FAMILIES[family], [Run(seed, lr) for seed, lr in runs], settings)


class Cache:
    """Finished pairs in a folder, and what tuning found; a changed plan has other files."""

    def __init__(self, folder: Path | None, plan: Plan) -> None:
        self.folder, self._plan = folder, plan
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def _path(self, arm: str, family: str) -> Path:
        assert self.folder is not None
        key = json.dumps([arm, family, asdict(self._plan)])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"

    def get(self, arm: str, family: str) -> Pair | None:
        """The pair, where it is finished."""
        if self.folder is None or not self._path(arm, family).exists():
            return None
        with np.load(self._path(arm, family), allow_pickle=False) as saved:
            told = json.loads(str(saved["told"]))
            return Pair(**told, success=saved["success"], steps=saved["steps"], rollouts=saved["rollouts"])

    def put(self, pair: Pair) -> None:
        """Keep a finished pair."""
        if self.folder is None:
            return
        told = json.dumps({"arm": pair.arm, "family": pair.family, "lr": pair.lr, "tuning": dict(pair.tuning)})
        with _replacing(self._path(pair.arm, pair.family)) as file:
            np.savez_compressed(file, told=told, success=pair.success, steps=pair.steps, rollouts=pair.rollouts)

    def _tuning_path(self, arm: str, family: str) -> Path:
        assert self.folder is not None
        key = json.dumps(["tuning", arm, family, self._plan.updates, self._plan.rollouts])
        return self.folder / f"tuning-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def get_tuning(self, arm: str, family: str) -> dict[float, float] | None:
        """The area of each learning rate that was tried, where that is finished."""
        if self.folder is None or not self._tuning_path(arm, family).exists():
            return None
        areas = json.loads(self._tuning_path(arm, family).read_text())["areas"]
        return {float(lr): area for lr, area in areas.items()}

    def put_tuning(self, arm: str, family: str, areas: Mapping[float, float]) -> None:
        """Keep what tuning found."""
        if self.folder is None:
            return
        told = {"arm": arm, "family": family, "areas": {str(lr): area for lr, area in sorted(areas.items())}}
        with _replacing(self._tuning_path(arm, family)) as file:
            file.write(json.dumps(told).encode())


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is whole."""
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        yield file
    unfinished.replace(path)


def finished(arms: Sequence[str], families: Sequence[str], cache: Cache) -> list[Pair]:
    """The pairs that the cache holds, family by family."""
    pairs = (cache.get(arm, family) for family in families for arm in arms)
    return [pair for pair in pairs if pair is not None]


def run_all(arms: Sequence[str], families: Sequence[str], plan: Plan, processes: int, cache: Cache) -> list[Pair]:
    """Every pair, from the cache or computed."""
    found = finished(arms, families, cache)
    known = {(pair.arm, pair.family) for pair in found}
    missing = [(arm, family) for family in families for arm in arms if (arm, family) not in known]
    with ProcessPoolExecutor(processes) as pool, Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("laboratory", total=len(missing))
        futures = [pool.submit(run_pair, arm, family, plan, cache.folder) for arm, family in missing]
        for future in as_completed(futures):
            pair = future.result()
            cache.put(pair)
            found.append(pair)
            progress.update(bar, advance=1, description=f"{pair.family}, {pair.arm}")
    return found


def areas(pairs: Sequence[Pair], plan: Plan) -> dict[tuple[str, str], dict[str, NDArray[np.float64]]]:
    """Per arm and family, and per seed: both areas, and generated steps relative to GRPO's."""
    baseline = {pair.family: pair for pair in pairs if pair.arm == BASELINE}
    out = {}
    for pair in pairs:
        if pair.family not in baseline:
            continue
        total = baseline[pair.family].steps.sum(axis=1).mean()
        out[pair.arm, pair.family] = {
            "rollouts": mean_while_spending(pair.success, pair.rollouts, plan.budget),
            "steps": mean_while_spending(pair.success, pair.steps, STEP_SHARE * total),
            "cost": pair.steps.sum(axis=1) / total,
        }
    return out


def compare(
    pairs: Sequence[Pair], arms: Sequence[str], families: Sequence[str], plan: Plan, baseline: str = BASELINE
) -> dict[str, Any]:
    """Differences to `baseline` of every arm, by family and over all in which both were run, as JSON values."""
    found = areas(pairs, plan)
    out: dict[str, Any] = {}
    for arm in arms:
        both = [family for family in families if (arm, family) in found and (baseline, family) in found]
        if arm == baseline or not both:
            continue
        row: dict[str, Any] = {}
        for what in _WHATS:
            by_family = {
                family: Difference.of(found[arm, family][what] - found[baseline, family][what]) for family in both
            }
            verdicts = [one.verdict for one in by_family.values()]
            row[what] = {
                "mean": float(np.mean([one.mean for one in by_family.values()])),
                "win": verdicts.count("win"),
                "tie": verdicts.count("tie"),
                "loss": verdicts.count("loss"),
                "families": {family: [one.mean, one.half_width] for family, one in by_family.items()},
            }
        row["cost"] = float(np.mean([found[arm, family]["cost"].mean() for family in both]))
        row["lr"] = {pair.family: pair.lr for pair in pairs if pair.arm == arm and pair.family in both}
        out[arm] = row
    return out


def table(result: Mapping[str, Any], baseline: str) -> Table:
    """Differences in the mean over the families, and how many of them are wins, ties and losses."""
    shown = Table(title=f"differences to {baseline} x 1000 (wins/ties/losses over families)")
    for column in ("arm", "equal rollouts", "equal steps", "steps generated", "families"):
        shown.add_column(column, justify="left" if column == "arm" else "right")
    for arm, row in result.items():
        cells = [f"{1000 * row[w]['mean']:+.0f} ({row[w]['win']}/{row[w]['tie']}/{row[w]['loss']})" for w in _WHATS]
        shown.add_row(arm, *cells, f"{row['cost']:.2f}", str(len(row["lr"])))
    return shown


_SHOWN = ("grpo", "elpo", "grpo, fair", "elpo_plus", "oracle")


def draw(result: Mapping[str, Any], pairs: Sequence[Pair], families: Sequence[str], folder: Path) -> None:
    """Write laboratory_differences.png, one for each baseline, and laboratory_curves.png."""
    from benchmarks.laboratory_pictures import draw_curves, draw_differences

    folder.mkdir(parents=True, exist_ok=True)
    for baseline, rows in result.items():
        draw_differences(rows, baseline, folder / f"laboratory_differences{BASELINES[baseline]}.png")
    arms = [arm for arm in _SHOWN if any(pair.arm == arm for pair in pairs)]
    curves: dict[str, dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]] = {name: {} for name in families}
    for pair in pairs:
        if pair.family not in curves:
            continue
        steps = np.concatenate([[0.0], pair.steps.mean(axis=0).cumsum()])
        curves[pair.family][pair.arm] = steps, pair.success.mean(axis=0)
    draw_curves(curves, arms, folder / "laboratory_curves.png")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARMS), help="separated by semicolons or, without any, by commas")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--updates", type=int, default=120)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder for laboratory_*.png; needs matplotlib")
    parser.add_argument("--finished", action="store_true", help="compute nothing: what the cache holds")
    own = parser.parse_args(argv)
    arms = list(ARMS) if own.arms == ",".join(ARMS) else own.arms.split(";" if ";" in own.arms else ",")
    families = own.families.split(",")
    for name, given, known in (("--arms", arms, ARMS), ("--families", families, FAMILIES)):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"{name} has the unknown {unknown[0]!r}; choose of {'; '.join(known)}")
    arms = [BASELINE, *(arm for arm in arms if arm != BASELINE)]
    plan = Plan(own.seeds, own.updates)
    cache = Cache(own.cache, plan)
    if own.finished:
        pairs = finished(arms, families, cache)
        families = [family for family in families if any((BASELINE, family) == (p.arm, p.family) for p in pairs)]
        if not families:
            parser.error(f"--finished: the cache holds no family with {BASELINE}")
    else:
        pairs = run_all(arms, families, plan, own.processes, cache)
    result = {
        baseline: compare(pairs, [arm for arm in arms if arm != BASELINE], families, plan, baseline)
        for baseline in BASELINES
        if baseline in arms
    }
    console = Console(width=120)
    for baseline, rows in result.items():
        console.print(table(rows, baseline))
    if own.pictures:
        draw(result, pairs, families, own.pictures)
    if own.json:
        text = json.dumps({"plan": asdict(plan), "families": families, "differences": result}, indent=1)
        unfinished = own.json.with_suffix(".tmp")
        unfinished.write_text(text + "\n")
        unfinished.replace(own.json)


if __name__ == "__main__":
    main()
