"""Where a run's figures go beside metrics.jsonl: TensorBoard, and Weights & Biases for those who want it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter


class Tracker(Protocol):
    """Takes the figures of one record."""

    def log(self, kind: str, update: int, figures: Mapping[str, float]) -> None:
        """`figures` at `update`, grouped under `kind` ("train", "eval_sampled", ...)."""

    def flush(self) -> None:
        """Force what was logged to disk."""

    def close(self) -> None:
        """Finish."""


class TensorBoardTracker:
    """Event files in `folder`; those past `update` (from before a resume) are hidden."""

    def __init__(self, folder: Path, update: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=update)

    def log(self, kind: str, update: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"{kind}/{name}", value, update)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """A Weights & Biases run in `project`, continued when the training run is resumed. WANDB_MODE=offline keeps it
    on this machine.

    Raises:
        ImportError: wandb is not installed; the message names the extra.
    """

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError(
                f"wandb_project={project!r} needs the package wandb, which is not installed: pip install 'elpo[wandb]'"
            ) from error
        name = folder.resolve().name
        self._run = wandb.init(
            project=project, name=name, id=name, resume="allow", dir=str(folder), config=dict(config)
        )

    def log(self, kind: str, update: int, figures: Mapping[str, float]) -> None:
        self._run.log({f"{kind}/{name}": value for name, value in figures.items()} | {"update": update})

    def flush(self) -> None:
        """wandb writes by itself."""

    def close(self) -> None:
        self._run.finish()
