"""Layers computed again in the backward pass: the same step, and less memory held meanwhile."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen3Config, Qwen3ForCausalLM

from elpo_agent.algorithms import load
from elpo_agent.config import LearnerConfig
from elpo_agent.learner.learner import Learner
from elpo_agent.learner.packing import Packing
from elpo_agent.learner.rows import TrainingRow
from elpo_agent.objective import ClippedObjective
from elpo_agent.objective.options import LossOptions

VOCAB = 23
EVERY_TERM = LossOptions(kl_coef=0.3, entropy_coef=0.1, importance_cap=1.2)


def deep_model(layers: int = 8, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> nn.Module:
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.3,
        attention_dropout=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen3ForCausalLM(config).to(dtype).eval()


def tree_of_rows(prompt: int = 30, turns: int = 20) -> list[list[TrainingRow]]:
    """Two prompts of 4 rows that share the prompt and, in pairs, a first turn."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(2):
        rows: list[TrainingRow] = []
        first = rng.integers(0, VOCAB, prompt)
        for pair in range(2):
            shared = np.random.default_rng(pair).integers(0, VOCAB, turns)
            for _ in range(2):
                ids = np.concatenate([first, shared, rng.integers(0, VOCAB, turns)])
                mask = np.arange(len(ids)) >= prompt
                old, advantages, reference = (
                    np.where(mask, rng.uniform(low, high, len(ids)), 0.0).astype(np.float32)
                    for low, high in ((-4.0, -2.0), (-1.0, 1.0), (-4.0, -2.0))
                )
                eps = np.where(mask, 0.2, 0.0).astype(np.float32)
                rows.append(TrainingRow(ids, mask, old, advantages, eps, eps, reference_logprobs=reference))
        out.append(rows)
    return out


def learner(model: nn.Module, recompute: bool, packing: Packing = "never") -> Learner:
    config = LearnerConfig(mini_batches=1, packing=packing, activation_checkpointing=recompute, max_grad_norm=1e9)
    return Learner(model, ClippedObjective(0.2, 0.3, EVERY_TERM), config, pad_id=0, temperature=0.9)


@pytest.mark.parametrize("packing", ["never", "always"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_step_is_the_same(packing: Packing, dtype: torch.dtype) -> None:
    grads, stats = [], []
    for recompute in (False, True):
        given = learner(deep_model(dtype=dtype), recompute, packing)
        stats.append(given.update(tree_of_rows(), lr=0.0, seed=0))
        grads.append([p.grad for _, p in given.weights.named()])
    assert stats[0] == stats[1]
    assert stats[0]["grad_norm"] > 0.1
    for ours, theirs in zip(*grads, strict=True):
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours, theirs)


def test_no_dropout_comes_with_it() -> None:
    norms = [learner(deep_model(dropout=p), True).update(tree_of_rows(), lr=0.0, seed=0)["grad_norm"] for p in (0, 0.5)]
    assert norms[0] == norms[1]


class Peak(TorchDispatchMode):
    """The most bytes that tensors made within it held at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def _gone(self, size: int) -> None:
        self.held -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._known:
                storage = tensor.untyped_storage()
                self._known.add(storage)
                weakref.finalize(storage, self._gone, storage.nbytes())
                self.held += storage.nbytes()
        self.peak = max(self.peak, self.held)
        return out


@pytest.mark.parametrize("packing", ["never", "always"])
def test_it_holds_less_at_a_time(packing: Packing) -> None:
    peaks = {}
    for recompute in (False, True):
        for layers in (4, 16):
            given = learner(deep_model(layers), recompute, packing)
            rows = tree_of_rows(prompt=60, turns=40)
            given.update(rows, lr=0.0, seed=0)  # gradients and moments are there afterwards
            weights = sum(p.nbytes for p in given.model.parameters())
            with Peak() as measured:
                given.update(rows, lr=0.0, seed=0)
            peaks[recompute, layers] = measured.peak - 2 * weights  # new gradients, and the optimiser's own copies
    grows = {recompute: (peaks[recompute, 16] - peaks[recompute, 4]) / 12 for recompute in (False, True)}
    assert peaks[True, 16] < 0.4 * peaks[False, 16], peaks
    assert grows[True] < 0.2 * grows[False], "a layer costs what goes into it, and no more"


def test_the_model_is_left_as_it_was() -> None:
    model = deep_model()
    before = [set(vars(module)) for module in model.modules()]
    learner(model, True).update(tree_of_rows(), lr=0.0, seed=0)
    assert [set(vars(module)) for module in model.modules()] == before


def test_a_model_without_such_layers_is_refused() -> None:
    class Bigram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(VOCAB, VOCAB)

        def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
            return type("Output", (), {"logits": self.table(input_ids)})

    given = Learner(
        Bigram(),
        load("grpo").objective,
        LearnerConfig(mini_batches=1, activation_checkpointing=True),
        pad_id=0,
        temperature=1.0,
    )
    with pytest.raises(ValueError, match=r"activation_checkpointing=True, but Bigram has no layers .*set it to False"):
        given.update(tree_of_rows(), lr=0.0, seed=0)
