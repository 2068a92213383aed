"""Weights that several ranks train together: replicated, or sharded by FSDP2."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from elpo_agent.config import LearnerConfig
from elpo_agent.learner.precision import HALF, MasterWeights, Weights, check_same_names
from elpo_agent.learner.tree_attention import takes_trees
from elpo_agent.ranks import Ranks


def weights_of(model: nn.Module, config: LearnerConfig, ranks: Ranks) -> Weights:
    """How `model` is trained by `ranks`.

    Alone, in place. By several, sharded, unless `learner.shard` is off or most of the model is frozen (adapters), of
    which each rank needs but one copy then: its engine's.
    """
    if ranks.alone:
        return MasterWeights(model)
    if not config.shard or any(not p.requires_grad for p in model.parameters()):
        return ReplicatedWeights(model, ranks)
    if config.packing != "never":
        takes_trees(model)  # before it is copied, since it may switch the attention
    return ShardedWeights(model, ranks)


class ReplicatedWeights(MasterWeights):
    """`MasterWeights` that every rank holds whole; gradients are summed over the ranks before each step."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        super().__init__(model)
        self._ranks = ranks

    def reduced(self) -> None:
        for _, parameter in self.named():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            self._ranks.add(parameter.grad)


class ShardedWeights:
    """A float32 copy of a model of which each rank holds a part, as of its gradients and of the optimiser's state.

    Forward and backward passes gather one decoder layer at a time, in the model's own precision, and sum gradients
    over the ranks in float32. The model itself stays whole on each rank, for its engine, and gets the new values after
    each update. Checkpoints are those of one rank, name by name.

    Args:
        model: one of transformers', whose decoder layers are sharded one by one; other models are sharded as a whole.
        ranks: more than one.
    """

    lockstep = True

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
        from transformers.modeling_layers import GradientCheckpointingLayer

        weight = next(model.parameters())
        self._model, self._ranks = model, ranks
        self._mesh = init_device_mesh(weight.device.type, (ranks.size,))
        half = weight.dtype in HALF
        policy = MixedPrecisionPolicy(weight.dtype, torch.float32) if half else MixedPrecisionPolicy()
        self.module: nn.Module = copy.deepcopy(model)
        layers = [layer for layer in self.module.modules() if isinstance(layer, GradientCheckpointingLayer)]
        for part in (*layers, self.module):
            fully_shard(part.float() if half else part, mesh=self._mesh, mp_policy=policy)

    def named(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.module.named_parameters())

    def collect(self) -> None:
        """FSDP has summed the gradients already, and divided by the number of ranks (see `reduced`)."""

    def reduced(self) -> None:
        for _, parameter in self.named():
            if parameter.grad is not None:
                parameter.grad.mul_(self._ranks.size)

    def stepped(self) -> None:
        """Passes gather what the optimiser has left."""

    def published(self) -> None:
        with torch.no_grad(), self._ranks.noticing_loss():
            for own, (_, parameter) in zip(self._model.parameters(), self.named(), strict=True):
                own.copy_(_whole(parameter))

    def state_dict(self) -> dict[str, Tensor]:
        """See `Weights`; whole on rank 0, and nothing on the others, which have to call it too."""
        whole = {id(parameter): self._given(parameter) for _, parameter in self.named()}
        every = dict(self.module.named_parameters(remove_duplicate=False))
        if not self._ranks.leads:
            return {}
        return {
            name: whole[id(every[name])] if name in every else value for name, value in self.module.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """See `MasterWeights`; every rank is given the same.

        Raises:
            ValueError: the names or shapes are not this model's.
        """
        check_same_names(self._model.state_dict(), state)
        buffers = dict(self.module.named_buffers())
        with torch.no_grad():
            for name, parameter in self.named():
                parameter.copy_(self._part(state[name], parameter))
            for name, value in self._model.state_dict().items():
                if name in buffers:
                    buffers[name].copy_(state[name])
                    value.copy_(state[name])
        self.published()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """See `Weights`; whole on rank 0, and without tensors on the others, which have to call it too."""
        state = optimizer.state_dict()
        moments = {
            i: {name: self._given(value) if isinstance(value, Tensor) else value for name, value in own.items()}
            for i, own in state["state"].items()
        }
        return {**state, "state": moments}

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        parameters = [parameter for _, parameter in self.named()]
        moments = {
            i: {
                name: self._part(value, parameters[i])
                if isinstance(value, Tensor) and value.shape == parameters[i].shape
                else value
                for name, value in own.items()
            }
            for i, own in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": moments})

    def _given(self, value: Tensor) -> Tensor:
        """The whole tensor on rank 0, off the device."""
        with self._ranks.noticing_loss():
            whole = _whole(value.detach())
        return whole.cpu() if self._ranks.leads else whole.new_empty(0)

    def _part(self, whole: Tensor, like: Tensor) -> Tensor:
        """This rank's part of what every rank has whole."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        whole = whole.to(device=like.device, dtype=like.dtype)
        return distribute_tensor(whole, self._mesh, like.placements, src_data_rank=None)


def _whole(value: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def gradient_norm(parameters: list[nn.Parameter], max_norm: float) -> float:
    """The norm of all gradients together, which are clipped to `max_norm`; sharded ones over all ranks."""
    return float(_whole(nn.utils.clip_grad_norm_(parameters, max_norm)))
