"""A run that is killed twenty times, at random moments, and resumed each time is the run that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from _faulty_runs import tiny
from _runs import assert_same_run, environment, metrics

from elpo_agent.config import EvalConfig
from elpo_agent.runs.saved_config import write_config

KILLS, UPDATES, SEED = 20, 60, 0
_HANGS_S = 300.0


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
        logged: as soon as so many updates were logged,
        seconds: and then after so long.
        early: after so long from the start, where as many were logged before: it starts, loads or resumes then.
    """

    logged: int
    seconds: float
    early: float


def moments() -> list[Moment]:
    rng = random.Random(SEED)
    updates = sorted(rng.randrange(UPDATES - 10) for _ in range(KILLS))
    return [Moment(update, rng.uniform(0.0, 1.0), rng.uniform(0.0, 8.0)) for update in updates]


class Killed:
    """`elpo train` in processes of its own, whose output goes to a file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.output, self._said = folder / "run", folder / "said.txt"
        config = tiny(
            self.output, updates=UPDATES, checkpoint_every=2, eval=EvalConfig(tasks=2, greedy=False, every=20)
        )
        write_config(folder / "config.yaml", config)
        self._start = ["--config", str(folder / "config.yaml")]

    def begun(self) -> subprocess.Popen[bytes]:
        resume = ["--resume", "--output", str(self.output)]
        options = resume if (self.output / "config.yaml").exists() else self._start
        command = [sys.executable, "-m", "elpo_agent.cli.main", "train", *options]
        with self._said.open("ab") as said:
            return subprocess.Popen(command, stdout=said, stderr=said, env=environment())

    def run(self) -> None:
        """To the end."""
        process = self.begun()
        assert process.wait(timeout=10 * _HANGS_S) == 0, self._said.read_text()

    def kill(self, moment: Moment) -> int:
        """Resume it, and kill -9 it at that moment; how many updates were logged by then."""
        process = self.begun()
        try:
            waits = self.logged < moment.logged
            deadline = time.monotonic() + _HANGS_S
            while self.logged < moment.logged:
                assert process.poll() is None, self._said.read_text()
                assert time.monotonic() < deadline, f"update {moment.logged} did not come"
                time.sleep(0.005)
            time.sleep(moment.seconds if waits else moment.early)
        finally:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, "it had ended before"
        return self.logged

    @property
    def logged(self) -> int:
        path = self.output / "metrics.jsonl"
        return path.read_bytes().count(b'"kind": "train"') if path.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills(tmp_path: Path) -> None:
    reference = Killed(tmp_path / "reference")
    reference.run()
    run = Killed(tmp_path / "killed")
    reached = [run.kill(moment) for moment in moments()]
    print(f"updates logged at each kill: {reached}")
    run.run()
    assert sum(r["grad_norm"] > 0 for r in metrics(run.output) if r["kind"] == "train") > UPDATES // 3
    assert_same_run(run.output, reference.output)
