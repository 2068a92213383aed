"""Activation checkpointing: decoder layers whose inside is computed again in the backward pass, not kept for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed_layers(model: nn.Module) -> Iterator[None]:
    """Within this, a forward pass keeps only what goes into each decoder layer.

    Its backward pass, which may come later, computes every layer once more. transformers' own switch for this has
    an effect in train mode only, in which dropout would make the learner another function than the engine.

    Args:
        model: one of transformers', which marks the layers that can be computed anew.

    Raises:
        ValueError: it marks none.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"learner.activation_checkpointing=True, but {type(model).__name__} has no layers that can be computed "
            "anew; set it to False"
        )
    for layer in layers:
        # An attribute of the instance, which goes before the method of its class.
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
