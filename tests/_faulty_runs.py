"""Runs of the shipped model that something happens to: at a moment of choice, in this process or in one that dies."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _command_line import NO_EVAL, command_line
from _runs import micro

from elpo_agent.config import AlgorithmConfig, RolloutConfig, TrainConfig
from elpo_agent.learner.learner import Learner
from elpo_agent.runs.checkpoint import list_checkpoints, load_state
from elpo_agent.runs.saved_config import write_config
from elpo_agent.training.collection import Collector

_LONGEST_S = 200.0


def tiny(output: Path, **changes: Any) -> TrainConfig:
    """Two updates of 2 prompts with 2 rollouts each; checkpoints before the first and after the last."""
    settings: dict[str, Any] = {
        "updates": 2,
        "checkpoint_every": 5,
        "eval": NO_EVAL,
        "seed": 10,  # both updates have something to learn
        "algorithm": AlgorithmConfig(name="elpo", options={"n_total": 2}),
        "rollout": RolloutConfig(
            prompts=2, max_new_tokens=24, max_context=300, temperature=1.3, tool_threads=2, patience_s=60.0
        ),
    }
    return micro(output, **{**settings, **changes})


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        status: as a shell sees it; minus the signal's number where one ended the process.
        said: standard error.
        shown: standard output.
        saved: updates of its checkpoints.
    """

    status: int
    said: str
    shown: str
    saved: list[int]


class FaultyRun:
    """`elpo train` on a folder of its own; `patch` holds what is wrong until `mend`.

    Args:
        folder: for the run.
        patch: undone by `mend`.
        capsys: for what the command says.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.patch, self._capsys = folder, patch, capsys
        self.config = tiny(folder / "run")

    @property
    def output(self) -> Path:
        return Path(self.config.output)

    def train(self, *options: str) -> Ended:
        """Run the command in this process."""
        self._capsys.readouterr()
        status = self._command(options)
        shown, said = self._capsys.readouterr()
        return Ended(status, said, shown, self.saved)

    def train_in_child(self) -> Ended:
        """Run it in a process of its own."""
        said, shown = self.folder / "said.txt", self.folder / "shown.txt"
        child = os.fork()
        if child == 0:
            status = 70
            with suppress(BaseException):
                sys.stderr, sys.stdout = said.open("w", buffering=1), shown.open("w", buffering=1)
                status = self._command(())
            os._exit(status)
        return Ended(_status_of(child), said.read_text(), shown.read_text(), self.saved)

    def mend(self) -> None:
        """Nothing is wrong any more."""
        self.patch.undo()

    @property
    def saved(self) -> list[int]:
        return [load_state(path).update for path in list_checkpoints(self.output / "checkpoints")]

    def _command(self, options: tuple[str, ...]) -> int:
        file = self.folder / "config.yaml"
        write_config(file, self.config)
        try:
            return command_line("train", "--config", str(file), *options)
        except Exception:
            traceback.print_exc()  # as the interpreter does
            return 1

    def before(self, owner: Any, name: str, act: Callable[..., object]) -> None:
        """Call `act` with the arguments of every call of `owner.name`, before it."""
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            act(*args, **kwargs)
            return real(*args, **kwargs)

        self.patch.setattr(owner, name, call)

    def in_rollouts(self, owner: Any, name: str, act: Callable[..., object], update: int = 1) -> None:
        """`before`, for the first call of `owner.name` in the rollouts of `update`, counted from 0."""
        coming = False

        def collecting(collector: object, number: int, used: int) -> None:
            nonlocal coming
            coming = number == update

        def acting(*args: Any, **kwargs: Any) -> None:
            nonlocal coming
            if coming:
                coming = False
                act(*args, **kwargs)

        self.before(Collector, "collect", collecting)
        self.before(owner, name, acting)

    def in_learner(self, act: Callable[[], object], update: int = 0) -> None:
        """`act` in the learner's part of `update`, counted from 0, when one of its two steps is taken."""
        updates, steps = -1, 0

        def beginning(*args: Any, **kwargs: Any) -> None:
            nonlocal updates, steps
            updates, steps = updates + 1, 0

        def stepping(*args: Any, **kwargs: Any) -> None:
            nonlocal steps
            steps += 1
            if (updates, steps) == (update, 2):
                act()

        self.before(Learner, "update", beginning)
        self.before(Learner, "_step", stepping)


def _status_of(child: int) -> int:
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the run had not ended after {_LONGEST_S:.0f} s")
