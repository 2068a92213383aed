"""Engines that sample from a module while it is trained, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from elpo_agent.policy import Policy


class TrainablePolicy(Policy, Protocol):
    """An engine over a module whose weights change."""

    def weights_updated(self) -> None:
        """The module's weights changed in place: sample from them, and use nothing that the old ones computed."""

    def load_weights(self, state: dict[str, Tensor]) -> None:
        """Load a state dict into the module (strictly) and sample from it."""

    def reset_cache(self) -> None:
        """Forget all keys and values."""


def open_engine(
    name: str, model: Any, stop_ids: Sequence[int], pad_id: int, options: Mapping[str, Any]
) -> TrainablePolicy:
    """An engine over `model`.

    Args:
        name: "transformers" or "vllm".
        model: a transformers causal LM; the engine samples from its weights.
        stop_ids: token ids that end a turn.
        pad_id: any valid id, for engines that pad.
        options: the engine's further keyword arguments.
    Raises:
        ImportError: the engine's packages are missing.
        ValueError: unknown engine or option, or the engine cannot run this model.
    """
    if name == "transformers":
        from elpo_agent.engines.transformers_engine import TransformersPolicy

        _check_options(name, TransformersPolicy, options)
        return TransformersPolicy(model, stop_ids=stop_ids, pad_id=pad_id, **options)
    if name == "vllm":
        from elpo_agent.engines.vllm.engine import VllmPolicy

        _check_options(name, VllmPolicy, options)
        return VllmPolicy(model, stop_ids=stop_ids, **options)
    raise ValueError(f"engine.name={name!r} is unknown; choose transformers or vllm")


def _check_options(name: str, engine: type, options: Mapping[str, Any]) -> None:
    """Raises ValueError for options that the engine has not, or that are not for users to give."""
    keywords = [p.name for p in inspect.signature(engine).parameters.values() if p.kind is p.KEYWORD_ONLY]
    allowed = [keyword for keyword in keywords if keyword not in ("stop_ids", "pad_id", "device")]
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"engine.options has {option!r}, which the {name} engine does not take; choose of {', '.join(allowed)}"
            )
