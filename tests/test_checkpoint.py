"""What a checkpoint holds, that damage to it is seen, and what is done then."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _faulty_runs import tiny
from _runs import Silent, metrics, train

from elpo_agent.learner.learner import Learner
from elpo_agent.runs.checkpoint import (
    DamagedCheckpointError,
    RunState,
    check_intact,
    list_checkpoints,
    load_random,
    newest_intact,
    save_checkpoint,
    set_damaged_aside,
)
from elpo_agent.runs.random_state import random_states, restore_random_states, seeded
from elpo_agent.runs.run_folder import RunFolder
from elpo_agent.training.trainer import Trainer

FILES = ("SHA256SUMS", "engine.pt", "model.pt", "optimizer.pt", "random.pt", "replayed.pt", "state.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of updates 1, 2 and 3, with all there can be in them."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    for update in (1, 2, 3):
        model(torch.ones(2)).sum().backward()
        optimizer.step()
        save_checkpoint(
            tmp_path, model, optimizer, RunState(update=update), 3, [torch.ones(1)], model.state_dict(), random_states()
        )
    return tmp_path


def flip_a_bit(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 4
    path.write_bytes(whole)


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def test_every_file_is_there_and_has_a_checksum_that_others_can_check(folder: Path) -> None:
    newest = list_checkpoints(folder)[-1]
    assert tuple(sorted(path.name for path in newest.iterdir())) == FILES
    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum command")
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=newest, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{name}: OK" for name in FILES[1:]]


@pytest.mark.parametrize("how", [flip_a_bit, cut, Path.unlink])
@pytest.mark.parametrize("file", FILES)
def test_any_damage_to_any_file_is_seen(folder: Path, file: str, how: Callable[[Path], None]) -> None:
    one, two, three = list_checkpoints(folder)
    assert newest_intact(folder) == (three, [])
    how(three / file)
    if file == "state.json" and how is Path.unlink:
        assert newest_intact(folder) == (two, []), "it looks like one that was being removed"
        return
    found, (wrong,) = newest_intact(folder)
    assert found == two
    assert wrong.startswith("update_000003 is damaged: ")
    assert file in wrong or file == "SHA256SUMS"
    how(two / file)
    assert newest_intact(folder)[0] == one
    how(one / file)
    with pytest.raises(DamagedCheckpointError, match=r"no checkpoint in .*update_000003 .*update_000001 is damaged"):
        newest_intact(folder)


def test_no_checkpoint_is_not_a_damaged_one(tmp_path: Path) -> None:
    assert newest_intact(tmp_path) == (None, [])


def test_one_of_before_there_were_checksums_is_taken_as_it_is(folder: Path) -> None:
    newest = list_checkpoints(folder)[-1]
    for name in ("SHA256SUMS", "random.pt"):
        (newest / name).unlink()
    check_intact(newest)
    assert load_random(newest) is None


def test_damaged_ones_do_not_count_among_those_to_keep(folder: Path) -> None:
    flip_a_bit(folder / "update_000003" / "model.pt")
    intact, _ = newest_intact(folder)
    assert intact is not None
    set_damaged_aside(folder, intact)
    model = torch.nn.Linear(2, 2)
    save_checkpoint(folder, model, torch.optim.AdamW(model.parameters()), RunState(update=3), 1)
    assert sorted(path.name for path in folder.iterdir()) == ["damaged-update_000003", "update_000003"]
    check_intact(folder / "update_000003")


# --- Random generators ----------------------------------------------------------------------------------------------


def draws() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))


def test_random_states_survive_a_file(tmp_path: Path) -> None:
    with seeded(3):
        draws()
        torch.save(random_states(), tmp_path / "random.pt")
        expected = [draws() for _ in range(3)]
        restore_random_states(torch.load(tmp_path / "random.pt", weights_only=True))
        assert [draws() for _ in range(3)] == expected


def test_generators_are_given_back_as_they_were() -> None:
    before = random.getstate(), torch.get_rng_state()
    with seeded(3):
        first = draws()
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    with seeded(3):
        assert draws() == first
    with seeded(4):
        assert draws() != first


def test_what_others_draw_from_global_generators_is_the_same_in_a_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an algorithm of somebody else might; whatever was drawn in the update that was dropped."""
    drawn: list[tuple[float, ...]] = []
    real, stopping = Learner.update, False

    def update(learner: Learner, *args: Any, **kwargs: Any) -> Any:
        drawn.append(draws())
        return real(learner, *args, **kwargs)

    monkeypatch.setattr(Learner, "update", update)
    monkeypatch.setattr(Trainer, "_rows", _drawing(Trainer._rows, lambda: stopping and len(drawn) == 1))
    train(tiny(tmp_path / "reference"))
    reference, drawn = drawn, []
    stopping = True
    with pytest.raises(KeyboardInterrupt):
        train(tiny(tmp_path / "run", checkpoint_every=1))
    stopping = False
    train(tiny(tmp_path / "run", checkpoint_every=1), resume=True)
    assert drawn == reference and len(set(reference)) == 2


def _drawing(real: Callable[..., Any], stop: Callable[[], bool]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if stop():
            draws()
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    return call


# --- Logs -----------------------------------------------------------------------------------------------------------


def test_logs_that_are_shorter_than_the_checkpoint_knew_them(tmp_path: Path) -> None:
    """Somebody moved trees.jsonl away to save space, and cut a line of metrics.jsonl: the run can go on."""
    config = tiny(tmp_path / "run", updates=1)
    train(config)
    whole = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with RunFolder(tmp_path / "run") as folder:
        first = {"kind": "train", "update": 0}
        (tmp_path / "run" / "metrics.jsonl").write_text('{"kind": "train", "update": 0}\n{"kind": "tr')
        folder.trees_path.unlink()
        missing = folder.open_logs(metrics_bytes=len(whole), trees_bytes=10)
        folder.log({"kind": "train", "update": 2})
    assert [sentence.split()[0] for sentence in missing] == ["metrics.jsonl", "trees.jsonl"]
    assert "lacks its last 10 bytes" in missing[1]
    assert metrics(tmp_path / "run") == [first, {"kind": "train", "update": 2}]


def test_the_run_says_what_its_logs_lack(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", updates=1)
    train(config)
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "trees.jsonl").unlink()
    display = Silent()
    Trainer(config, display, resume=True).run()
    assert any(note.startswith("trees.jsonl lacks its last ") for note in display.notes)


def test_less_memory_for_the_learner_can_be_asked_for_when_resuming(tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", updates=1)
    train(config)
    (tmp_path / "run" / "summary.json").unlink()
    train(replace(config, learner=replace(config.learner, micro_batch_tokens=64)), resume=True)
    with pytest.raises(ValueError, match=r"learner\.lr was"):
        train(replace(config, learner=replace(config.learner, lr=0.5)), resume=True)
