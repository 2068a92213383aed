"""A run's configuration as it is saved with the run, and what tells two of them apart."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from elpo_agent.runs.checkpoint import write_atomic
from elpo_agent.config import LoraConfig, TrainConfig

# What may differ between a run and its resumption without changing its results.
_FREE_TO_CHANGE = ("output", "checkpoint_every", "keep_checkpoints", "save_trees_every", "wandb_project")

# What changes them by rounding only; a run that ran out of memory must be able to go on.
_ROUNDING = ("learner.micro_batch_tokens", "learner.activation_checkpointing", "learner.shard", "rollout.patience_s")

# What runs did that were saved before the setting was there.
_BEFORE = {
    "engine": {"name": "transformers", "options": {}},
    "learner.packing": "never",
    "rollout.ahead": False,
    "rollout.batching": "rounds",
    "rollout.max_active": None,
    "model.lora": asdict(LoraConfig()),
}


def write_config(path: Path, config: TrainConfig) -> None:
    """Save every setting as YAML that `elpo train --config` reads."""
    write_atomic(path, yaml.safe_dump(_plain(asdict(config)), sort_keys=False))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a file of `write_config` that the results depend on."""
    return _results_depend_on(yaml.safe_load(path.read_text()))


def settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that the results depend on, as JSON values."""
    return _results_depend_on(_plain(asdict(config)))


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """What changed from `old` to `new`, one phrase per setting."""
    out: list[str] = []
    for key in {**old, **new}:
        if f"{prefix}{key}" in _ROUNDING:
            continue
        a, b = old.get(key, _BEFORE.get(f"{prefix}{key}")), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            out.extend(differences(a, b, f"{prefix}{key}."))
        elif a != b:
            out.append(f"{prefix}{key} was {a!r}, now {b!r}")
    return out


def _results_depend_on(plain: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in plain.items() if k not in _FREE_TO_CHANGE}


def _plain(value: Any) -> Any:
    """JSON- and YAML-safe copy: tuples become lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
