"""LoRA: only adapters are trained and saved, engine and reference use them in place, and a run's end merges them."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _runs import assert_same_run, metrics, micro, train
from safetensors.torch import load_file

from elpo_agent.algorithms import load
from elpo_agent.config import (
    AlgorithmConfig,
    EvalConfig,
    LearnerConfig,
    LoraConfig,
    ModelConfig,
    TrainConfig,
)
from elpo_agent.credit.base import valid_leaves
from elpo_agent.engines.loading import load_model
from elpo_agent.learner.learner import Learner
from elpo_agent.learner.logprobs import row_logprobs
from elpo_agent.learner.rows import TrainingRow, tree_rows
from elpo_agent.learner.sft import SftConfig, SftRow, train_sft
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.training.reference import FILE, Reference
from elpo_agent.training.session import TINY_MODEL, Session, env_factory
from elpo_agent.tree import RolloutTree

pytest.importorskip("peft", reason="needs elpo[lora]")

ADAPTED = ModelConfig(lora=LoraConfig(rank=4, alpha=8))
KL = {"n_total": 4, "kl_reward": 0.05, "loss": {"kl_coef": 0.2}}


def sampled(session: Session, seed: int = 1) -> tuple[list[RolloutTree], list[list[TrainingRow]]]:
    algorithm, config = load("grpo", n_total=4), micro(Path("unused"))
    with session.runner(config.rollout, env_factory(config.env, evaluating=False), 1.3) as runner:
        pairs = runner.run(algorithm.strategy, [TaskRef(i) for i in range(3)], seed=seed)
    rows = [
        tree_rows(tree, algorithm.credit.assign(tree), algorithm.objective.bounds(tree, result))
        for tree, result in pairs
    ]
    return [tree for tree, _ in pairs], rows


def learner_of(session: Session, **changes: Any) -> Learner:
    config = LearnerConfig(lr=1e-2, mini_batches=1, **changes)
    return Learner(session.model, load("grpo").objective, config, pad_id=session.pad_id, temperature=1.3)


def logprobs(session: Session, rows: list[list[TrainingRow]], model: Any = None) -> np.ndarray[Any, Any]:
    flat = [row for group in rows for row in group]
    values = row_logprobs(model or session.model, flat, pad_id=session.pad_id, temperature=1.3, micro_batch_tokens=4000)
    return np.concatenate([line[row.mask] for line, row in zip(values, flat, strict=True)])


@pytest.fixture(scope="module")
def plain() -> Session:
    return Session.open(ModelConfig())


@pytest.fixture(scope="module")
def data(plain: Session) -> tuple[list[RolloutTree], list[list[TrainingRow]]]:
    return sampled(plain)


def test_at_first_the_adapters_add_nothing_and_start_the_same() -> None:
    before = torch.random.get_rng_state()
    session, again = Session.open(ADAPTED), Session.open(ADAPTED)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    base, _ = load_model(TINY_MODEL)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(session.model(input_ids=ids).logits, base(input_ids=ids).logits)
    mine, other = session.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in mine.items())
    trained = [name for name, p in session.model.named_parameters() if p.requires_grad]
    assert len(trained) == 4 * 7 * 2
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("packing", ["never", "always"])
def test_only_adapters_are_trained(
    data: tuple[list[RolloutTree], list[list[TrainingRow]]], dtype: str, packing: Any
) -> None:
    session = Session.open(replace(ADAPTED, dtype=dtype))
    before = {name: p.detach().clone() for name, p in session.model.named_parameters()}
    learner = learner_of(session, packing=packing)
    for seed in range(2):  # A has a gradient only once B is not zero
        learner.update(data[1], lr=1e-2, seed=seed)
    for name, p in session.model.named_parameters():
        assert torch.equal(p, before[name]) != ("lora_" in name), name
        assert p.dtype == (torch.float32 if "lora_" in name else getattr(torch, dtype))
    saved = learner.weights.state_dict()
    assert saved.keys() == {name for name in before if "lora_" in name}
    assert sum(v.numel() for v in saved.values()) < 0.1 * sum(v.numel() for v in before.values())


def test_the_gradient_is_that_of_the_merged_weights(
    data: tuple[list[RolloutTree], list[list[TrainingRow]]], plain: Session
) -> None:
    """With W = W0 + s B A: dB = s dW A^T, and while B = 0, dA = 0."""
    session = Session.open(ADAPTED)
    ours, whole = learner_of(session, max_grad_norm=1e9), learner_of(plain.copy(), max_grad_norm=1e9)
    for learner in (ours, whole):
        learner.update(data[1], lr=0.0, seed=0)
    grads = {name: p.grad for name, p in whole.model.named_parameters()}
    compared = 0
    for name, p in ours.weights.named():
        assert p.grad is not None
        if "lora_A" in name:
            assert not p.grad.any()
            continue
        base = grads[name.replace(".lora_B.default", "")]
        down = dict(ours.weights.named())[name.replace("lora_B", "lora_A")]
        assert base is not None
        torch.testing.assert_close(p.grad, 2.0 * base @ down.T, atol=1e-6, rtol=1e-3)
        compared += 1
    assert compared == 28


def test_the_engine_samples_with_the_adapters(data: tuple[list[RolloutTree], list[list[TrainingRow]]]) -> None:
    session = Session.open(ADAPTED)
    learner = learner_of(session)
    for seed in range(3):
        learner.update(data[1], lr=1e-2, seed=seed)
    session.policy.weights_updated()
    _, rows = sampled(session, seed=7)
    engine = np.concatenate([row.old_logprobs[row.mask] for group in rows for row in group])
    np.testing.assert_allclose(engine, logprobs(session, rows), atol=1e-4)
    base, _ = load_model(TINY_MODEL)
    assert np.abs(engine - logprobs(session, rows, base)).max() > 0.1


def test_the_reference_is_the_model_without_them_and_no_second_one(
    data: tuple[list[RolloutTree], list[list[TrainingRow]]], plain: Session, tmp_path: Path
) -> None:
    trees, rows = data
    session = Session.open(ADAPTED)

    def reference_of(given: Session) -> Reference:
        return Reference(given.model, pad_id=given.pad_id, temperature=1.3, micro_batch_tokens=4000)

    def values(reference: Reference) -> list[list[list[float]]]:
        known = reference.logprobs(trees)
        return [[v.tolist() for v in known(tree, leaf)] for tree in trees for leaf in valid_leaves(tree)]

    reference = reference_of(session)
    assert reference.model is session.model
    learner = learner_of(session)
    for seed in range(3):
        learner.update(rows, lr=1e-2, seed=seed)
    wanted = values(reference_of(plain))
    moved = logprobs(session, rows)
    for ours, theirs in zip(values(reference), wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.array_equal(logprobs(session, rows), moved), "the policy is as it was"
    assert np.abs(moved - logprobs(plain, rows)).max() > 0.1
    reference.save(tmp_path)
    assert (tmp_path / FILE).stat().st_size < 0.3 * (TINY_MODEL / "model.safetensors").stat().st_size
    late = reference_of(session)
    assert values(late) != values(reference)
    late.load(tmp_path)
    assert values(late) == values(reference)


def test_a_cold_start_trains_adapters_and_the_reference_has_them(
    data: tuple[list[RolloutTree], list[list[TrainingRow]]],
) -> None:
    session = Session.open(ADAPTED)
    rows = [SftRow(row.ids.astype(np.int32), row.mask) for group in data[1] for row in group]
    frozen = {n: p.detach().clone() for n, p in session.model.named_parameters() if not p.requires_grad}
    train_sft(session.model, rows, SftConfig(lr=1e-2, epochs=2, batch_tokens=2000), pad_id=session.pad_id)
    assert all(torch.equal(p, frozen[n]) for n, p in session.model.named_parameters() if n in frozen)
    started = logprobs(session, data[1])
    reference = Reference(session.model, pad_id=session.pad_id, temperature=1.3, micro_batch_tokens=4000)
    learner_of(session).update(data[1], lr=1e-2, seed=0)
    known = reference.logprobs(data[0])
    of_reference = np.concatenate([v for tree in data[0] for leaf in valid_leaves(tree) for v in known(tree, leaf)])
    np.testing.assert_allclose(of_reference, started, atol=1e-4)


def run_config(folder: Path, **changes: Any) -> TrainConfig:
    return micro(
        folder,
        model=ADAPTED,
        updates=2,
        checkpoint_every=1,
        eval=EvalConfig(tasks=0),
        algorithm=AlgorithmConfig("reinforce_pp", KL),
        learner=LearnerConfig(lr=1e-2, mini_batches=2),
        **changes,
    )


def test_a_run_with_kl_resumes_and_ends_in_a_merged_model(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(run_config(whole))
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "update_000002")
    (cut / "summary.json").unlink()
    train(run_config(cut), resume=True)
    assert_same_run(cut, whole)
    lines = [line for line in metrics(whole) if line["kind"] == "train"]
    assert any(line.get("grad_norm", 0.0) > 0.0 for line in lines)
    assert any(line.get("kl", 0.0) > 0.0 for line in lines), lines
    saved = torch.load(whole / "checkpoints" / "update_000002" / "model.pt", weights_only=True)
    assert all("lora_" in name for name in saved)

    merged_model, _ = load_model(whole / "model")
    base, _ = load_model(TINY_MODEL)
    assert merged_model.state_dict().keys() == base.state_dict().keys()
    name = "model.layers.1.self_attn.q_proj"
    a, b = saved[f"{name}.lora_A.default.weight"], saved[f"{name}.lora_B.default.weight"]
    added = merged_model.state_dict()[f"{name}.weight"] - base.state_dict()[f"{name}.weight"]
    torch.testing.assert_close(added, 2.0 * b @ a, atol=1e-6, rtol=1e-4)
    assert float(added.abs().max()) > 1e-4

    import peft

    adapter = whole / "model" / "adapter"
    assert len(load_file(adapter / "adapter_model.safetensors")) == 56
    loaded = peft.PeftModel.from_pretrained(base, adapter)
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(input_ids=ids).logits, merged_model(input_ids=ids).logits, atol=1e-4, rtol=1e-4
        )
    with pytest.raises(ValueError, match=r"model\.lora\.rank was 4, now 8"):
        train(replace(run_config(whole), model=ModelConfig(lora=LoraConfig(rank=8, alpha=8))), resume=True)


def test_what_cannot_be_adapted_is_told() -> None:
    with pytest.raises(ValueError, match=r"model\.lora\.rank=-1 must be 0"):
        LoraConfig(rank=-1)
    with pytest.raises(ValueError, match="adapts nothing"):
        LoraConfig(rank=2, target_modules=[])
    with pytest.raises(ValueError, match=r"target_modules=\['nowhere'\] does not fit Qwen3ForCausalLM"):
        Session.open(ModelConfig(lora=LoraConfig(rank=2, target_modules=["nowhere"])))


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "peft" else object())
    with pytest.raises(ImportError, match=r"pip install 'elpo\[lora\]'"):
        Session.open(ADAPTED)
