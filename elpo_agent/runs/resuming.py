"""Where a run begins: anew, or at a checkpoint of the folder that it is to go on in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from elpo_agent.runs.checkpoint import (
    RunState,
    discard_leftovers,
    list_checkpoints,
    load_state,
    newest_intact,
    set_damaged_aside,
)
from elpo_agent.config import TrainConfig
from elpo_agent.runs.run_folder import RunFolder, RunFolderError
from elpo_agent.runs.saved_config import differences, read_settings, settings, write_config


def begin(folder: RunFolder, config: TrainConfig) -> RunState:
    """Take an empty folder for a new run; its first state.

    Raises:
        RunFolderError: there is a run in it.
    """
    saved = folder.path / "config.yaml"
    if saved.exists() or list_checkpoints(folder.checkpoints):
        raise RunFolderError(
            f"output={folder.path} already holds a run; continue it with --resume, or choose another --output"
        )
    write_config(saved, config)
    return RunState(config=settings(config))


def go_on(folder: RunFolder, config: TrainConfig, note: Callable[[str], None]) -> tuple[RunState, Path | None]:
    """The state to go on from, and the checkpoint that holds the rest; None where the run was stopped before its first.

    Args:
        note: told of damaged checkpoints, which are set aside, and which one is used instead.

    Raises:
        RunFolderError: there is no run in it.
        DamagedCheckpointError: all its checkpoints are damaged.
        ValueError: settings that the results depend on differ from the saved ones.
    """
    saved = folder.path / "config.yaml"
    if not saved.exists():
        raise RunFolderError(f"output={folder.path} holds no run to resume; leave out --resume to start one")
    checkpoint, wrong = newest_intact(folder.checkpoints)
    # Killed before the first checkpoint, nothing is lost by starting over.
    state = load_state(checkpoint) if checkpoint else RunState(config=read_settings(saved))
    differing = differences(state.config or {}, settings(config))
    if differing:
        raise ValueError(
            f"the run in {folder.path} was started with other settings ({'; '.join(differing)}); "
            "resume with the same ones, or start a new run"
        )
    if checkpoint and wrong:
        set_damaged_aside(folder.checkpoints, checkpoint)
        note(f"{'; '.join(wrong)}; going on from {checkpoint.name}, the last one that is intact")
    discard_leftovers(folder.checkpoints)
    return state, checkpoint
