"""Low-rank adapters by peft: a few new weights beside frozen ones, which engine and learner both run in place."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from typing import Any

import torch

from elpo_agent.config import LoraConfig


def add_adapters(model: Any, config: LoraConfig) -> Any:
    """Put adapters into `model`, which from then on computes with them, and freeze everything else.

    They are of float32, whatever the model is, and at first add nothing. Where they start is the same each time. They
    have no dropout: the learner compares two states of one function.

    Args:
        model: one of transformers'; it is changed in place.
        config: of rank 1 or more.
    Returns:
        peft's model around it, for `merged` and for saving the adapters.
    Raises:
        ImportError: peft is not installed.
        ValueError: the model has no such modules.
    """
    if importlib.util.find_spec("peft") is None:
        raise ImportError("model.lora needs peft; install the extra: pip install 'elpo[lora]'")
    import peft

    targets = config.target_modules if isinstance(config.target_modules, str) else list(config.target_modules)
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM"
    )
    device = next(model.parameters()).device
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # by peft, of its own
        try:
            adapted = peft.get_peft_model(model, settings)
        except ValueError as error:
            raise ValueError(
                f"model.lora.target_modules={config.target_modules!r} does not fit {type(model).__name__}: {error}"
            ) from error
    return adapted.eval()


def merged(adapted: Any) -> Any:
    """A copy of the model with the adapters added to its weights, and no trace of them left."""
    return copy.deepcopy(adapted).merge_and_unload()
