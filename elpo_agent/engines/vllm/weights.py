"""A module's weights under the names of its checkpoints, as vLLM wants them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def checkpoint_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Every weight of a transformers model and its name, without gradient.

    Tied embeddings come twice, and vLLM needs both: it keeps the output layer in a layout of its own, which stays as
    it was where that name is missing. Adapters of peft inside the model are added to the weights that they adapt.

    Raises:
        ValueError: adapters of a kind that cannot be added to a weight.
    """
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "base_layer")}
    with torch.no_grad():
        for key, value in model.state_dict().items():
            owner, base, rest = key.rpartition(".base_layer.")
            if base and rest == "weight":
                yield f"{owner}.weight", value + _change(owner, adapted[owner]).to(value)
            elif base:
                yield f"{owner}.{rest}", value
            elif not any(key.startswith(f"{name}.") for name in adapted):
                yield key, value


def _change(name: str, module: Any) -> Tensor:
    """What the adapters of a layer add to its weight."""
    if not hasattr(module, "get_delta_weight"):
        raise ValueError(
            f"the vllm engine cannot sample from the adapter {type(module).__name__} of {name}; use the transformers "
            "engine"
        )
    changes = [module.get_delta_weight(adapter) for adapter in module.active_adapters]
    return torch.stack(changes).sum(0)
