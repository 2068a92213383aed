"""A full disk stops a run with one clear sentence and loses nothing that was saved."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from _command_line import NO_EVAL, command_line, said
from _runs import metrics, micro, train

from elpo_agent.runs import checkpoint
from elpo_agent.runs.checkpoint import DiskFullError, list_checkpoints
from elpo_agent.runs.run_folder import RunFolder
from elpo_agent.runs.saved_config import write_config
from elpo_agent.training.session import TINY_MODEL


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of that many bytes, or gives it another size."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: int) -> Path:
        option = f"size={size},remount" if place.is_mount() else f"size={size}"
        try:
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", option, "tmpfs", place], capture_output=True, text=True
            )
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", place], check=True)


def test_a_real_full_disk(
    small_disk: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second checkpoint does not fit; with more room the run goes on from the first as if nothing had been."""
    weights = (TINY_MODEL / "model.safetensors").stat().st_size
    disk = small_disk(int(3.3 * weights))  # a checkpoint takes one part for weights, two for the optimiser
    folder, file = disk / "run", tmp_path / "micro.yaml"
    config = micro(folder, updates=2, eval=NO_EVAL)
    write_config(file, config)
    assert command_line("train", "--config", str(file)) == 1
    message = said(capsys)
    assert message.startswith(f"elpo train: the disk that holds {folder}/checkpoints is full; what was saved before")
    assert message.endswith(f"continue with: elpo train --output {folder} --resume\n")
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["update_000000"]
    small_disk(20 * weights)
    train(config, resume=True)
    reference = replace(config, output=str(tmp_path / "reference"))
    train(reference)
    assert metrics(folder) == metrics(tmp_path / "reference")


def test_logs_on_a_full_disk(small_disk: Callable[[int], Path]) -> None:
    folder = RunFolder(small_disk(1 << 16) / "run")
    with pytest.raises(DiskFullError, match=r"the disk that holds .*run is full"), folder:
        folder.open_logs(metrics_bytes=0, trees_bytes=0)
        for update in range(10_000):
            folder.log_tree({"update": update, "text": "x" * 500})
    assert len(folder.trees_path.read_text().splitlines()) > 50
    with RunFolder(folder.path):
        pass  # the lock was given up


@pytest.mark.parametrize("what", ["optimizer.pt", "state.json"])
def test_a_checkpoint_is_all_or_nothing(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.save_checkpoint(tmp_path, model, optimizer, checkpoint.RunState(update=1), keep=2)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def full(path: Path, *args: Any) -> None:
        if path.name == what:
            path.touch()
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "_write", full)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFullError, match="is full; what was saved before is intact"):
        checkpoint.save_checkpoint(tmp_path, model, optimizer, checkpoint.RunState(update=2), keep=1)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_leftovers_are_neither_taken_for_checkpoints_nor_kept(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    whole = checkpoint.save_checkpoint(tmp_path, model, optimizer, checkpoint.RunState(update=1), keep=2)
    for name in (".partial-update_000002", "update_000000"):  # killed while writing, killed while removing
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").write_bytes(b"half")
    assert list_checkpoints(tmp_path) == [whole]
    checkpoint.discard_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [whole]
