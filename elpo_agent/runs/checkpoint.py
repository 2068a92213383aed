"""Checkpoints: written to a temporary folder, then renamed, so that a half-written one never carries the name.

A checkpoint is a folder update_NNNNNN with model.pt and optimizer.pt, random.pt (the states of the global random
generators), what the next update needs of the last one (replayed.pt, engine.pt; where there is any), state.json (see
`RunState`), and SHA256SUMS of all of these, which `sha256sum -c` reads. Learning rate, tasks and seeds of an update are
functions of its number and of the prompts used before it, so they need no state of their own.
"""

from __future__ import annotations

import errno
import hashlib
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
_RANDOM = "random.pt"
_SUMS = "SHA256SUMS"
_SET_ASIDE = "damaged-"


class DiskFullError(OSError):
    """Nothing more can be written to the disk; what was saved before is intact."""


class DamagedCheckpointError(RuntimeError):
    """A checkpoint's files are not those that were saved."""


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
        prompts: used so far, which is the place in the order of tasks.
        rollouts, generated_tokens, tool_calls, tool_errors, localized: spent and counted so far.
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
    random: Mapping[str, Any] | None = None,
) -> Path:
    """Write `folder/update_NNNNNN` atomically and drop all but the last `keep`.

    Args:
        replayed: what the next update trains on once more, as tensors and plain values; None where nothing is.
        engine: the engine's weights, where they are not the model's.
        random: `random_states` at the state's moment.

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
            if random is not None:
                _write(partial / _RANDOM, dict(random))
            _write_text(partial / _STATE, json.dumps(asdict(state), indent=2))
            sums = [f"{sha256(file)}  {file.name}\n" for file in sorted(partial.iterdir())]
            _write_text(partial / _SUMS, "".join(sums))
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


def check_intact(checkpoint: Path) -> None:
    """Compare every file with the checksum that was saved with it. What was saved before there were any passes.

    Raises:
        DamagedCheckpointError: one is missing, cannot be read, or differs.
    """
    if not (checkpoint / _SUMS).exists() and not (checkpoint / _RANDOM).exists():
        return  # both came at the same time
    try:
        sums: dict[str, str] = {}
        for line in (checkpoint / _SUMS).read_text().splitlines():
            digest, name = line.split("  ")
            sums[name] = digest
        for name in (_STATE, *sums):
            if sums.get(name) != sha256(checkpoint / name):
                raise DamagedCheckpointError(f"{checkpoint.name} is damaged: {name} does not match its checksum")
    except FileNotFoundError as error:
        raise DamagedCheckpointError(f"{checkpoint.name} is damaged: {Path(error.filename).name} is missing") from error
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"{checkpoint.name} is damaged: {error}") from error


def newest_intact(folder: Path) -> tuple[Path | None, list[str]]:
    """The last checkpoint whose files are those that were saved, and what is wrong with each later one.

    Returns:
        (None, []) where there is no checkpoint at all.
    Raises:
        DamagedCheckpointError: there are some, and all are damaged.
    """
    wrong: list[str] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            check_intact(checkpoint)
        except DamagedCheckpointError as error:
            wrong.append(str(error))
        else:
            return checkpoint, wrong
    if wrong:
        raise DamagedCheckpointError(
            f"no checkpoint in {folder} is intact ({'; '.join(wrong)}); put back a copy of one, or start a new run in "
            "another --output"
        )
    return None, []


def set_damaged_aside(folder: Path, intact: Path) -> None:
    """Rename the checkpoints after `intact`, so that they count neither as the newest nor among those to keep."""
    for checkpoint in list_checkpoints(folder):
        if checkpoint.name > intact.name:
            aside = folder / f"{_SET_ASIDE}{checkpoint.name}"
            _discard(aside)
            checkpoint.rename(aside)


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


def load_random(checkpoint: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` was given as `random`."""
    path = checkpoint / _RANDOM
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def save_model(model: nn.Module, tokenizer: Any, folder: Path, adapted: Any = None) -> None:
    """Write a model folder that `load_model` reads. It gets its name once all of it is there.

    Args:
        adapted: peft's model, whose adapters are written to `adapter/` below.

    Raises:
        DiskFullError: see there. OSError: the disk is not writable.
    """
    partial = folder.with_name(f"{_PARTIAL}{folder.name}")
    _discard(partial)
    try:
        with naming_full_disk(folder), without_progress_bars():
            model.save_pretrained(partial)  # type: ignore[operator]
            tokenizer.save_pretrained(partial)
            if adapted is not None:
                adapted.save_pretrained(partial / "adapter", save_embedding_layers=False)
    except BaseException:
        _discard(partial)
        raise
    _discard(folder)
    partial.rename(folder)


def write_atomic(path: Path, text: str) -> None:
    """Write a small file so that readers see the old text or the new one, never half of it."""
    partial = path.with_name(f".{path.name}.partial")
    with naming_full_disk(path):
        _write_text(partial, text)
    partial.replace(path)
    _sync(path.parent)


def sha256(path: Path) -> str:
    """The file's SHA-256 checksum, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, value: Any) -> None:
    # Through a Python file: given a path, torch tells nothing of the disk in its RuntimeError.
    with path.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)
    _sync(path)


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
