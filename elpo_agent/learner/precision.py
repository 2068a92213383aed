"""The parameters that are trained, in float32 at least, behind a model that computes in whatever precision it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


class Weights(Protocol):
    """What a learner trains: a module to run, and the parameters that its optimiser steps.

    Attributes:
        module: what forward and backward passes go through.
        lockstep: every rank has to make as many of them as the others.
    """

    module: nn.Module
    lockstep: bool

    def named(self) -> list[tuple[str, nn.Parameter]]:
        """The trained parameters and their names in the model, in its order."""

    def collect(self) -> None:
        """After each backward pass: add the module's gradients to those of the parameters."""

    def reduced(self) -> None:
        """After the last backward pass before a step: the gradients are those of all ranks together."""

    def stepped(self) -> None:
        """After each step of the optimiser: the module computes with the new values."""

    def published(self) -> None:
        """After each update: the model that the engine samples from holds the new values."""

    def state_dict(self) -> dict[str, Tensor]:
        """What is trained, in full precision, as a checkpoint holds it."""

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """Take what `state_dict` gave, and publish it."""

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimiser's state dict, as a checkpoint holds it."""

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Take what `optimizer_state` gave."""


class MasterWeights:
    """Weights of a model in this process: a float32 copy of every trained parameter that has 16 bits.

    The model computes in its own precision, and so does the engine that samples from it. Its gradients are summed
    over backward passes in float32, the optimiser and its moments are of float32, and after each step the model gets
    the copies, rounded. So small steps add up that bfloat16 would round away, while learner and engine use the very
    same numbers. Parameters of float32 or float64 are stepped as they are.

    Args:
        model: its parameters without `requires_grad` are not trained, and stay out of `state_dict`.
    """

    lockstep = False

    def __init__(self, model: nn.Module) -> None:
        self.module = model
        self._pairs = [
            (name, own, nn.Parameter(own.detach().float()) if own.dtype in HALF else own)
            for name, own in model.named_parameters()
            if own.requires_grad
        ]

    def named(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, master) for name, _, master in self._pairs]

    def collect(self) -> None:
        for _, own, master in self._copied():
            if own.grad is not None:
                gradient = own.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                own.grad = None

    def reduced(self) -> None:
        """There are no other ranks."""

    def stepped(self) -> None:
        with torch.no_grad():
            for _, own, master in self._copied():
                own.copy_(master)

    def published(self) -> None:
        """The engine samples from the module itself."""

    def state_dict(self) -> dict[str, Tensor]:
        """Of a model with frozen parameters only the trained ones; else everything, buffers included."""
        state: dict[str, Tensor] = self.module.state_dict()
        every = dict(self.module.named_parameters(remove_duplicate=False))
        masters = {id(own): master.detach() for _, own, master in self._pairs}
        trained = {name: masters[id(own)] for name, own in every.items() if id(own) in masters}
        if len(trained) < len(every):
            return trained
        return {name: trained.get(name, value) for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """See `Weights`.

        Raises:
            ValueError: the names or shapes are not this model's.
        """
        own = self.state_dict()
        check_same_names(own, state)
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])
        self.stepped()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return optimizer.state_dict()

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        optimizer.load_state_dict(state)

    def _copied(self) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
        return [pair for pair in self._pairs if pair[1] is not pair[2]]


def check_same_names(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Whether saved weights are those of this model.

    Raises:
        ValueError: they are not.
    """
    wrong = sorted(own.keys() ^ state.keys()) or [n for n, v in own.items() if v.shape != state[n].shape]
    if wrong:
        raise ValueError(
            f"the saved weights are of another model: they and the model differ in {len(wrong)} tensors, the first is "
            f"{wrong[0]!r}; give the model and the model.lora of the run that saved them"
        )
