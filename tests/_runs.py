"""Small training runs on the shipped model, and what two of them are compared by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from elpo_agent.config import (
    AlgorithmConfig,
    EnvConfig,
    EvalConfig,
    LearnerConfig,
    RolloutConfig,
    TrainConfig,
)
from elpo_agent.training.trainer import Trainer

REPOSITORY = Path(__file__).parent.parent
EASY = {"dataset": "generated", "dataset_options": {"min_steps": 3, "max_steps": 3}, "max_turns": 6}


class Silent:
    """A display that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.phases.append(name)

    def advance(self, done: int, figures: dict[str, float]) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def micro(output: Path, **changes: Any) -> TrainConfig:
    """Four updates of 2 prompts with 4 rollouts each, hot enough that some fail and some do not; a few seconds."""
    config = TrainConfig(
        output=str(output),
        updates=4,
        checkpoint_every=2,
        threads=1,
        env=EnvConfig(kwargs=EASY),
        algorithm=AlgorithmConfig(name="elpo", options={"n_total": 4}),
        rollout=RolloutConfig(
            prompts=2, max_new_tokens=40, max_context=400, temperature=1.3, tool_threads=2, patience_s=60.0
        ),
        learner=LearnerConfig(lr=1e-3, schedule="linear", mini_batches=2),
        eval=EvalConfig(tasks=3, greedy=False, every=3),
    )
    return replace(config, **changes)


def train(config: TrainConfig, *, resume: bool = False) -> dict[str, Any]:
    return Trainer(config, Silent(), resume=resume).run()


def elpo(
    *args: str, timeout: float = 120, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    command = [sys.executable, "-m", "elpo_agent.cli.main", *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(env), cwd=cwd, check=False
    )


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    path = os.pathsep.join(p for p in ((extra or {}).get("PYTHONPATH"), str(REPOSITORY)) if p)
    return {**os.environ, "OMP_NUM_THREADS": "1", **(extra or {}), "PYTHONPATH": path}


def records(path: Path) -> list[dict[str, Any]]:
    """Every line as JSON: a torn one would not be."""
    text = path.read_text()
    assert text.endswith("\n") or not text, f"{path} ends in a torn line"
    return [json.loads(line) for line in text.splitlines()]


def metrics(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    return [
        {k: v for k, v in record.items() if not k.startswith("seconds_")}
        for record in records(folder / "metrics.jsonl")
    ]


def assert_same_run(folder: Path, reference: Path) -> None:
    """Equal metrics, trees, results and weights, to the last bit."""
    assert metrics(folder) == metrics(reference)
    assert (folder / "trees.jsonl").read_bytes() == (reference / "trees.jsonl").read_bytes()
    weights = "model/model.safetensors"
    assert (folder / weights).read_bytes() == (reference / weights).read_bytes()
    assert summary(folder) == summary(reference)


def summary(folder: Path) -> dict[str, Any]:
    out = json.loads((folder / "summary.json").read_text())
    del out["folder"], out["spent"]["train_seconds"], out["spent"]["rollout_seconds"]
    assert isinstance(out, dict)
    return out


# Worked solutions in the GSM8K format, written for these tests.
WORKED = [
    {
        "question": "Ada bakes 4 trays of 12 rolls and sells 30 of them. How many rolls are left?",
        "answer": "She bakes 4*12 = <<4*12=48>>48 rolls.\nShe has 48-30 = <<48-30=18>>18 left.\n#### 18",
    },
    {
        "question": "A pen costs $2.50. Ben buys 6 pens and pays with $20. How much change does he get?",
        "answer": "The pens cost 6*2.5 = $<<6*2.5=15>>15.\nHe gets 20-15 = $<<20-15=5>>5 back.\n#### 5",
    },
    {
        "question": "Cy reads 15 pages a day for 2 weeks. The book has 300 pages. How many are unread?",
        "answer": "Two weeks are 2*7 = <<2*7=14>>14 days.\nHe reads 15*14 = <<15*14=210>>210 pages.\n"
        "300-210 = <<300-210=90>>90 pages are unread.\n#### 90",
    },
    {
        "question": "Of 80 seats, 25% are empty. Half of the others are taken by children. How many children sit?",
        "answer": "Empty are 80*25% = <<80*25/100=20>>20 seats.\nTaken are 80-20 = <<80-20=60>>60.\n"
        "Children are 60/2 = <<60/2=30>>30.\n#### 30",
    },
    {
        "question": "Di saves $35 a month. After 8 months she spends $110. How much is left?",
        "answer": "She saves 35*8 = $<<35*8=280>>280.\n280-110 = $<<280-110=170>>170 is left.\n#### 170",
    },
]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def python(code: str, env: dict[str, str] | None = None) -> str:
    """What a fresh interpreter prints when it runs `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(env), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
