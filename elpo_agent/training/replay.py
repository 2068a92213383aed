"""Training once more on what went well in the update before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from elpo_agent.learner.rows import TrainingRow

Groups = Sequence[Sequence[TrainingRow]]


def positives(groups: Groups, weight: float) -> list[list[TrainingRow]]:
    """The tokens with positive advantages, as rows that count `weight`; their ratios stay those to the policy that
    sampled them. Rows and prompts without any are left out."""
    kept = ([_positive(row, weight) for row in group if np.any(row.advantages > 0.0)] for group in groups)
    return [group for group in kept if group]


def _positive(row: TrainingRow, weight: float) -> TrainingRow:
    mask = row.mask & (row.advantages > 0.0)
    masked = {
        f.name: np.where(mask, values, np.float32(0.0))
        for f in fields(row)
        if isinstance(values := getattr(row, f.name), np.ndarray) and values.dtype == np.float32
    }
    return replace(row, mask=mask, weight=weight, replayed=True, **masked)


def to_state(groups: Groups) -> list[list[dict[str, Any]]]:
    """The rows as tensors and plain values, for `torch.save`."""
    return [[{f.name: _stored(getattr(row, f.name)) for f in fields(row)} for row in group] for group in groups]


def from_state(state: Sequence[Sequence[dict[str, Any]]]) -> list[list[TrainingRow]]:
    """The rows that `to_state` was given, bit for bit."""
    return [[TrainingRow(**{n: _read(v) for n, v in row.items()}) for row in group] for group in state]


def _stored(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _read(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
