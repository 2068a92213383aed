"""Checkpoints: written to a temporary folder, then renamed, so that a half-written one never carries the name."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import nn

from elpo_agent.engines.loading import without_progress_bars

_PREFIX = "update_"
_PARTIAL = ".partial-"
_STATE = "state.json"
_REPLAYED = "replayed.pt"
_ENGINE = "engine.pt"


class DiskFullError(OSError):
    """Nothing more can be written to the disk; what was saved before is intact."""


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Say whose disk it was, where a write to `path` fails for lack of space.

    Raises:
        DiskFullError: in place of the error that tells of no space or no quota.
    """
    try:
        yield
    except Exception as error:
        if _tells_of_full_disk(error):
            raise DiskFullError(
                f"the disk that holds {path} is full; what was saved before is intact, free some space to go on"
            ) from error
        raise


def _tells_of_full_disk(error: BaseException | None) -> bool:
    """Whether it, or what it was raised on top of, says so; torch and safetensors have errors of their own."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if isinstance(error, SafetensorError) and f"os error {errno.ENOSPC}" in str(error):
        return True
    return _tells_of_full_disk(error.__context__)


class Stateful(Protocol):
    """A model, an optimiser, or what stands for one: it gives its state as tensors and plain values, and takes it."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@dataclass(frozen=True)
class RunState:
    """Where a run stands, beside the weights.

    Attributes:
        update: RL updates finished.
        updates_with_signal: those in which some trajectory had a non-zero advantage.
        metrics_bytes, trees_bytes: length of the logs at that moment; resuming cuts them back to it.
        prompts, rollouts, generated_tokens, tool_calls, tool_errors, localized: spent and counted so far.
        discarded: rollouts that were spent and not trained on.
        handed_on: rollouts spent on further prompts, of what others had left.
        rollout_seconds: wall-clock time of rollouts so far.
        train_seconds: wall-clock time of training so far, rollouts included.
        results: scores of the evaluations that were finished, by when they were made.
        config: the run's configuration, for comparison when resuming.
    """

    update: int = 0
    updates_with_signal: int = 0
    metrics_bytes: int = 0
    trees_bytes: int = 0
    prompts: int = 0
    rollouts: int = 0
    generated_tokens: int = 0
    tool_calls: int = 0
    tool_errors: int = 0
    localized: int = 0
    discarded: int = 0
    handed_on: int = 0
    rollout_seconds: float = 0.0
    train_seconds: float = 0.0
    results: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] | None = None


def save_checkpoint(
    folder: Path,
    model: Stateful,
    optimizer: Stateful,
    state: RunState,
    keep: int,
    replayed: Any | None = None,
    engine: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write `folder/update_NNNNNN` atomically and drop all but the last `keep`.

    Args:
        replayed: what the next update trains on once more, as tensors and plain values; None where nothing is.
        engine: the engine's weights, where they are not the model's.

    Raises:
        DiskFullError: earlier checkpoints are untouched.
        OSError: the disk is not writable; earlier checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{_PREFIX}{state.update:06d}"
    partial = folder / f"{_PARTIAL}{final.name}"
    _discard(partial)
    try:
        with naming_full_disk(folder):
            partial.mkdir()
            _write(partial / "model.pt", model.state_dict())
            _write(partial / "optimizer.pt", optimizer.state_dict())
            if replayed is not None:
                _write(partial / _REPLAYED, replayed)
            if engine is not None:
                _write(partial / _ENGINE, dict(engine))
            (partial / _STATE).write_text(json.dumps(asdict(state), indent=2))
            _sync(partial / _STATE)
            _sync(partial)
    except BaseException:
        _discard(partial)
        raise
    _discard(final)
    partial.rename(final)
    _sync(folder)
    for old in list_checkpoints(folder)[:-keep]:
        _discard(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if (p / _STATE).is_file())


def discard_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while saving left behind."""
    complete = list_checkpoints(folder)
    for path in [*folder.glob(f"{_PARTIAL}*"), *folder.glob(f"{_PREFIX}*")]:
        if path not in complete:
            _discard(path)


def load_state(checkpoint: Path) -> RunState:
    """The run state of a checkpoint."""
    return RunState(**json.loads((checkpoint / _STATE).read_text()))


def load_weights(checkpoint: Path, model: Stateful, optimizer: Stateful | None, device: torch.device) -> None:
    """Load weights, and the optimiser's state where one is given, in place."""
    model.load_state_dict(torch.load(checkpoint / "model.pt", map_location=device, weights_only=True))
    if optimizer is not None:
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location=device, weights_only=True))


def load_replayed(checkpoint: Path) -> Any | None:
    """What `save_checkpoint` was given as `replayed`."""
    path = checkpoint / _REPLAYED
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def load_engine(checkpoint: Path) -> dict[str, torch.Tensor] | None:
    """What `save_checkpoint` was given as `engine`."""
    path = checkpoint / _ENGINE
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def save_model(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write a model folder that `load_model` reads. It gets its name once all of it is there.

    Raises:
        DiskFullError: see there. OSError: the disk is not writable.
    """
    partial = folder.with_name(f"{_PARTIAL}{folder.name}")
    _discard(partial)
    try:
        with naming_full_disk(folder), without_progress_bars():
            model.save_pretrained(partial)  # type: ignore[operator]
            tokenizer.save_pretrained(partial)
    except BaseException:
        _discard(partial)
        raise
    _discard(folder)
    partial.rename(folder)


def write_atomic(path: Path, text: str) -> None:
    """Write a small file so that readers see the old text or the new one, never half of it."""
    partial = path.with_name(f".{path.name}.partial")
    with naming_full_disk(path):
        partial.write_text(text)
        _sync(partial)
    partial.replace(path)


def _write(path: Path, value: Any) -> None:
    # Through a Python file: given a path, torch tells nothing of the disk in its RuntimeError.
    with path.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _discard(folder: Path) -> None:
    """Remove a folder if it is there; from the first moment on it is no complete checkpoint any more."""
    if folder.exists():
        (folder / _STATE).unlink(missing_ok=True)
        shutil.rmtree(folder)
