"""The loss and its gradient against verl's and TRL's own code, where they are installed (verl 0.9.1, TRL 1.16)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from elpo_agent.config import LearnerConfig
from elpo_agent.learner.learner import Learner
from elpo_agent.learner.logprobs import row_logprobs
from elpo_agent.learner.rows import TrainingRow
from elpo_agent.objective import ClippedObjective, TokenBatch
from elpo_agent.objective.options import LossOptions, row_weights
from elpo_agent.training.session import TINY_MODEL

LOW, HIGH = 0.2, 0.28
pytestmark = pytest.mark.slow


def random_batch(seed: int, rows: int = 6, width: int = 15) -> tuple[Tensor, Tensor, TokenBatch]:
    """Log-probabilities, entropies and a batch, float64, every row with an agent token."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, width, generator=generator, dtype=torch.float64)

    mask = (uniform(0, 1) < 0.6).double()
    mask[:, 3] = 1.0
    logprobs = uniform(-4, 0)
    return (
        logprobs.requires_grad_(),
        uniform(0, 3).requires_grad_(),
        TokenBatch(
            old_logprobs=logprobs.detach() + uniform(-1.5, 1.5),
            advantages=uniform(-2, 2),
            eps_low=torch.full_like(mask, LOW),
            eps_high=torch.full_like(mask, HIGH),
            mask=mask,
            engine_logprobs=logprobs.detach() + uniform(-1.5, 1.5),
            reference_logprobs=logprobs.detach() + uniform(-1.5, 1.5),
        ),
    )


@pytest.mark.parametrize(
    ("aggregation", "kl"),
    list(
        product(
            ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"],
            ["k1", "k2", "k3"],
        )
    ),
)
def test_verl(aggregation: str, kl: str) -> None:
    algorithms = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl is not installed")
    from verl.workers.config import ActorConfig

    constant = 9
    options = LossOptions(
        aggregation=aggregation,  # type: ignore[arg-type]
        length=constant if aggregation == "constant" else None,
        dual_clip=2.5,
        kl_coef=0.3,
        kl=kl,  # type: ignore[arg-type]
        importance_cap=2.0,
        entropy_coef=0.05,
    )
    mode = "seq-mean-token-sum-norm" if aggregation == "constant" else aggregation
    for seed in range(5):
        logprobs, entropies, batch = random_batch(seed)
        lengths = [int(n) for n in batch.mask.sum(1)]
        weights = torch.tensor(row_weights(options, lengths), dtype=torch.float64)
        ours, figures = ClippedObjective(LOW, HIGH, options).loss(logprobs, replace(batch, weights=weights), entropies)
        expected_gradients = torch.autograd.grad(ours, [logprobs, entropies])
        config = ActorConfig(
            strategy="fsdp",
            rollout_n=1,
            ppo_micro_batch_size_per_gpu=1,
            clip_ratio_low=LOW,
            clip_ratio_high=HIGH,
            clip_ratio_c=2.5,
        )
        if aggregation == "constant":
            config.global_batch_info["loss_scale_factor"] = constant
        assert batch.engine_logprobs is not None
        ratio = (batch.old_logprobs - batch.engine_logprobs).exp().clamp(max=2.0)
        theirs, metrics = algorithms.compute_policy_loss_vanilla(
            batch.old_logprobs, logprobs, batch.advantages, batch.mask, mode, config, ratio
        )
        penalty = algorithms.kl_penalty(logprobs, batch.reference_logprobs, kl)
        for coefficient, values in ((0.3, penalty), (-0.05, entropies)):
            theirs = theirs + coefficient * algorithms.agg_loss(values, batch.mask, mode, **config.global_batch_info)
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-7)  # they add 1e-8 to lengths
        for one, other in zip(torch.autograd.grad(theirs, [logprobs, entropies]), expected_gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-7, rtol=0)
        assert figures["dual_clipped"] == pytest.approx(metrics["actor/pg_clipfrac_lower"], abs=1e-6)
        assert figures["dual_clipped"] > 0.0


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_trl(loss_type: str, beta: float, tmp_path: Path) -> None:
    """Their trainer's loss on the shipped model, down to the gradient of its parameters."""
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    datasets = pytest.importorskip("datasets", reason="TRL needs datasets, which is not installed")
    trainer = trl.GRPOTrainer(
        model=str(TINY_MODEL),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            fp16=False,
            model_init_kwargs={"dtype": "float32"},
            gradient_checkpointing=False,
            report_to=[],
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=20,
            loss_type=loss_type,
            epsilon=LOW,
            epsilon_high=HIGH,
            beta=beta,
            use_bias_correction_kl=False,  # by default they multiply the KL term by the ratio
            temperature=0.9,
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": "a"}] * 8),
    )
    rows, inputs = rollouts(trainer.model)
    options = LossOptions(
        aggregation={"grpo": "seq-mean-token-mean", "bnpo": "token-mean", "dr_grpo": "constant"}[loss_type],  # type: ignore[arg-type]
        length=20 if loss_type == "dr_grpo" else None,
        kl_coef=beta,
    )
    config = LearnerConfig(lr=0.0, mini_batches=1, max_grad_norm=1e9, micro_batch_tokens=60)
    learner = Learner(trainer.model, ClippedObjective(LOW, HIGH, options), config, pad_id=0, temperature=0.9)
    statistics = learner.update([rows], lr=0.0, seed=0)
    ours = [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]
    assert min(statistics["clip_low"], statistics["clip_high"]) > 0.0
    trainer.model.zero_grad()
    trainer.model.eval()
    theirs = trainer._compute_loss(trainer.model, inputs)
    theirs.backward()
    assert statistics["loss"] == pytest.approx(theirs.item(), abs=1e-5)
    gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    norm = float(torch.cat([g.flatten().double() for g in gradients]).norm())
    for one, other in zip(ours, gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * norm, rtol=0)
    assert statistics["grad_norm"] == pytest.approx(norm, rel=1e-4)


@dataclass(frozen=True)
class Plain:
    """A conversation of agent tokens alone."""

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]


def rollouts(model: Any) -> tuple[list[TrainingRow], dict[str, Any]]:
    """Four completions of 5 to 20 tokens with tool tokens in them, as our rows and as TRL's inputs."""
    rng = np.random.default_rng(0)
    vocabulary, width = model.config.vocab_size, 20
    prompt = rng.integers(1, vocabulary, 4)
    rows = []
    inputs: dict[str, Any] = {
        "prompt_ids": torch.tensor(np.tile(prompt, (4, 1))),
        "prompt_mask": torch.ones(4, len(prompt), dtype=torch.long),
        "completion_ids": torch.zeros(4, width, dtype=torch.long),
        "completion_mask": torch.zeros(4, width, dtype=torch.long),
        "tool_mask": torch.ones(4, width, dtype=torch.long),
        "advantages": torch.tensor([1.0, -0.5, 0.3, -1.2]),
        "old_per_token_logps": torch.zeros(4, width),
        "ref_per_token_logps": torch.zeros(4, width),
    }
    for i, length in enumerate((5, 20, 11, 14)):
        completion = rng.integers(1, vocabulary, length)
        agent = rng.random(length) < 0.7
        agent[0] = True
        whole_ids = np.concatenate([prompt, completion])
        row = Plain(whole_ids, np.arange(len(whole_ids)) >= len(prompt))
        (own,) = row_logprobs(model, [row], pad_id=0, temperature=0.9, micro_batch_tokens=100)
        old, reference = (own[len(prompt) :] + rng.uniform(-1, 1, length).astype(np.float32) for _ in range(2))
        inputs["completion_ids"][i, :length] = torch.from_numpy(completion)
        inputs["completion_mask"][i, :length] = 1
        inputs["tool_mask"][i, :length] = torch.from_numpy(agent.astype(np.int64))
        inputs["old_per_token_logps"][i, :length] = torch.from_numpy(old)
        inputs["ref_per_token_logps"][i, :length] = torch.from_numpy(reference)

        def whole(values: Any, agent: Any = agent) -> Any:
            on_tokens = np.where(agent, values, 0.0).astype(np.float32)
            return np.concatenate([np.zeros(len(prompt), dtype=np.float32), on_tokens])

        rows.append(
            TrainingRow(
                ids=whole_ids,
                mask=whole(1.0) > 0,
                old_logprobs=whole(old),
                advantages=whole(float(inputs["advantages"][i])),
                eps_low=whole(LOW),
                eps_high=whole(HIGH),
                reference_logprobs=whole(reference),
            )
        )
    return rows, inputs
