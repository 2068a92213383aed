"""Peak memory of one large update: 128 prompts with 16 rollouts of `elpo` each, tiny model on the CPU (Linux only).

    python -m benchmarks.memory [--quick] [--repeats 1] [--threads 1] [--json PATH]

Each round is a process of its own that runs `Trainer` for one update, the saving of checkpoint and model included, with
the quickstart's environment and settings but for the number of prompts.

* host: that process's largest resident set so far (VmHWM), as it is after loading, when all rollouts are done, and at
  the end. The kernel keeps it, so nothing is missed.
* sandbox: proportional set sizes and page tables of all processes below it, read about every two seconds, so a short
  peak between two readings can be missed. Memory that forks share counts once among them.
* left: sandbox processes that live while the learner works on the finished trees. Three serve all sessions and stay.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import sandbox_memory
from benchmarks.measure import Figures, Ratio, Report, Row, Sample, interleave, parse_options
from elpo_agent.config import (
    AlgorithmConfig,
    EnvConfig,
    EvalConfig,
    LearnerConfig,
    ModelConfig,
    RolloutConfig,
    TrainConfig,
)
from elpo_agent.learner.rows import TrainingRow
from elpo_agent.training.collection import Pair
from elpo_agent.training.trainer import Trainer

TARGET_MB = 4096
EVERY_S = 2.0
UNITS = {
    "host, model loaded": "MiB",
    "host, rollouts done": "MiB",
    "host, whole update": "MiB",
    "sandbox": "MiB",
    "sandbox processes": "",
    "host and sandbox": "MiB",
    "left: sandbox processes while learning": "",
    "rollouts": "",
    "rolling out": "s",
    "learning": "s",
}


@dataclass(frozen=True)
class Batch:
    """What is run: `prompts` prompts with `n_total` rollouts each, torch with `threads`."""

    prompts: int
    n_total: int
    threads: int


class Watcher:
    """Reads in a thread what the processes below this one take; keeps the largest."""

    def __init__(self) -> None:
        self.sandbox_mb = self.processes = self.total_mb = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still reads; it ends early only where it cannot."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Read no more."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            usage = sandbox_memory.usage()
            below = usage.pss_mb + usage.tables_mb - own_mb("smaps_rollup", "Pss") - own_mb("status", "VmPTE")
            self.sandbox_mb = max(self.sandbox_mb, below)
            self.processes = max(self.processes, usage.processes)
            self.total_mb = max(self.total_mb, below + own_mb("status", "VmRSS"))


def own_mb(file: str, field: str) -> float:
    """A field of this process's own files in /proc, in MiB."""
    text = Path(f"/proc/self/{file}").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{field}:")) / 1024


def largest_mb() -> float:
    """This process's largest resident set so far, in MiB."""
    return own_mb("status", "VmHWM")


class _Marking(Trainer):
    """Says when rollouts are done."""

    def __init__(self, config: TrainConfig, display: Marks, rolled: Callable[[Sequence[Pair]], None]) -> None:
        super().__init__(config, display)
        self._rolled = rolled

    def _rows(self, pairs: Sequence[Pair]) -> list[list[TrainingRow]]:
        self._rolled(pairs)
        return super()._rows(pairs)


class Marks:
    """A `Display` that notes what the host holds as a run goes on."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self._at = 0.0

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.figures["host, model loaded"] = largest_mb()
        self._at = time.monotonic()

    def rolled(self, pairs: Sequence[Pair]) -> None:
        """All rollouts are there, and no search goes on."""
        now = time.monotonic()
        left = sandbox_memory.settled().processes
        self.figures |= {
            "host, rollouts done": largest_mb(),
            "rolling out": now - self._at,
            "rollouts": sum(len(tree.leaves) for tree, _ in pairs),
            "left: sandbox processes while learning": left,
        }
        self._at = time.monotonic()

    def advance(self, done: int, figures: dict[str, float]) -> None:
        self.figures["learning"] = time.monotonic() - self._at

    def note(self, text: str) -> None:
        pass


def update(batch: Batch) -> Figures:
    """One update; to be run in a process of its own, since the largest resident set is the process's."""
    marks = Marks()
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            output=str(Path(folder) / "run"),
            updates=1,
            threads=batch.threads,
            model=ModelConfig(device="cpu"),
            env=EnvConfig(kwargs={"dataset_options": {"min_steps": 4, "max_steps": 4}, "max_turns": 8}),
            algorithm=AlgorithmConfig("elpo", {"n_total": batch.n_total}),
            rollout=RolloutConfig(prompts=batch.prompts, max_new_tokens=48, max_context=512),
            learner=LearnerConfig(lr=6e-4, mini_batches=2),
            eval=EvalConfig(tasks=0),
        )
        watcher = Watcher()
        _Marking(config, marks, marks.rolled).run()
        watcher.stop()
    return {
        **marks.figures,
        "host, whole update": largest_mb(),
        "sandbox": watcher.sandbox_mb,
        "sandbox processes": watcher.processes,
        "host and sandbox": watcher.total_mb,
    }


def alone(batch: Batch) -> Figures:
    """`update` in a new process."""
    os.environ["OMP_NUM_THREADS"] = str(batch.threads)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(update, batch).result()


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options("Peak memory of one large update.", argv)
    if (reason := sandbox_memory.cannot_measure("auto")) is not None:
        raise SystemExit(reason)
    batch = Batch(2, 4, options.threads) if options.quick else Batch(128, 16, options.threads)
    settings = {"prompts": batch.prompts, "n_total": batch.n_total, "threads": batch.threads, "task_steps": 4}
    report = Report("memory", {**settings, "target_MiB": TARGET_MB, "sampled_every_s": EVERY_S})
    result = interleave({"elpo": lambda _: alone(batch)}, options.repeats, warm_up=False)["elpo"]
    for name, unit in UNITS.items():
        report.add(Row(name, "ours", unit, result[name]))
    target = Sample((float(TARGET_MB),) * options.repeats)
    for name in ("host, whole update", "host and sandbox"):
        report.ratios.append(Ratio(f"{name} / {TARGET_MB} MiB", result[name].over(target)))
    report.finish(options)


if __name__ == "__main__":
    main()
