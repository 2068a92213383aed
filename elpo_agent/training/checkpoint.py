"""Checkpoints: written to a temporary folder, then renamed, so that a half-written one never carries the name."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

_PREFIX = "update_"
_STATE = "state.json"


@dataclass(frozen=True)
class RunState:
    """Where a run stands, beside the weights.

    Attributes:
        update: RL updates finished.
        metrics_bytes, trees_bytes: length of the logs at that moment; resuming cuts them back to it.
        rollouts, generated_tokens, tool_calls, tool_errors, localized: spent and counted so far.
        train_seconds: wall-clock time of training so far.
        config: the run's configuration, for comparison when resuming.
    """

    update: int = 0
    metrics_bytes: int = 0
    trees_bytes: int = 0
    rollouts: int = 0
    generated_tokens: int = 0
    tool_calls: int = 0
    tool_errors: int = 0
    localized: int = 0
    train_seconds: float = 0.0
    config: dict[str, Any] | None = None


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: RunState, keep: int
) -> Path:
    """Write `folder/update_NNNNNN` atomically and drop all but the last `keep`.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{_PREFIX}{state.update:06d}"
    partial = folder / f".partial-{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        torch.save(model.state_dict(), partial / "model.pt")
        torch.save(optimizer.state_dict(), partial / "optimizer.pt")
        (partial / _STATE).write_text(json.dumps(asdict(state), indent=2))
        for file in partial.iterdir():
            _sync(file)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _sync(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if (p / _STATE).is_file())


def load_state(checkpoint: Path) -> RunState:
    """The run state of a checkpoint."""
    return RunState(**json.loads((checkpoint / _STATE).read_text()))


def load_weights(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None, device: torch.device
) -> None:
    """Load weights, and the optimiser's state where one is given, in place."""
    model.load_state_dict(torch.load(checkpoint / "model.pt", map_location=device, weights_only=True))
    if optimizer is not None:
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location=device, weights_only=True))


def write_atomic(path: Path, text: str) -> None:
    """Write a small file so that readers see the old text or the new one, never half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
