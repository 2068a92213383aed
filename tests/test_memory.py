"""What a large update takes, on the host and in the sandbox's processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from _runs import REPOSITORY

sys.path.append(str(REPOSITORY))  # the benchmarks are not part of the installed packages

from benchmarks import memory, sandbox_memory

TOUCHED_MB = 64
HOLDS = f"import time; held = bytes(range(256)) * {TOUCHED_MB << 12}; print(len(held), flush=True); time.sleep(60)"


@pytest.fixture(scope="module")
def measurable() -> None:
    if (reason := sandbox_memory.cannot_measure("auto")) is not None:
        pytest.skip(f"memory of the sandbox's processes: {reason}")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_processes_below_are_seen_and_the_host_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY_S", 0.05)
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and int(child.stdout.readline()) == TOUCHED_MB << 20
        watcher = memory.Watcher()
        try:
            while watcher.total_mb == 0.0:
                assert watcher.alive
        finally:
            watcher.stop()
            child.kill()
    assert watcher.processes >= 1
    host = memory.own_mb("status", "VmRSS")
    assert TOUCHED_MB < watcher.sandbox_mb < TOUCHED_MB + host / 2
    assert watcher.total_mb <= watcher.sandbox_mb + memory.largest_mb()


@pytest.mark.usefixtures("measurable")
def test_a_small_update_is_measured_whole() -> None:
    figures = memory.alone(memory.Batch(prompts=2, n_total=4, threads=1))
    assert figures["rollouts"] == 8
    assert 0 < figures["host, model loaded"] <= figures["host, rollouts done"] <= figures["host, whole update"]
    # The zygote, what started it, and its template serve all sessions and stay.
    assert figures["left: sandbox processes while learning"] <= 3
    assert figures["host and sandbox"] < memory.TARGET_MB


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("measurable")
def test_the_peak_of_a_large_update() -> None:
    figures = memory.alone(memory.Batch(prompts=128, n_total=16, threads=1))
    assert figures["rollouts"] == 128 * 16
    assert figures["host, whole update"] < memory.TARGET_MB
    assert figures["host and sandbox"] < memory.TARGET_MB
    assert figures["left: sandbox processes while learning"] <= 3


@pytest.mark.slow
def test_the_comparison_with_trl_without_trl(tmp_path: Path) -> None:
    """It says that the peer is left out, and why; ours is measured all the same."""
    environment = {name: value for name, value in os.environ.items() if name != "ELPO_TRL_PYTHON"}
    for given, reason in (([], "no interpreter given"), (["--trl-python", sys.executable], "ended with exit code 1")):
        command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--repeats", "1", *given]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stderr
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("left out: "))
        assert line.startswith("left out: TRL's GRPOTrainer: ") and reason in line
        assert "our elpo / our grpo" in done.stdout
