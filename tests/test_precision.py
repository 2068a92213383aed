"""bfloat16 with float32 masters: small updates add up, engine and learner agree, and a run resumes to the last bit."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _runs import assert_same_run, metrics, micro, train
from torch import Tensor, nn

from elpo_agent.algorithms import load
from elpo_agent.config import EvalConfig, LearnerConfig, ModelConfig, TrainConfig
from elpo_agent.engines.loading import load_model
from elpo_agent.learner.learner import Learner
from elpo_agent.learner.precision import MasterWeights
from elpo_agent.learner.rows import TrainingRow, tree_rows
from elpo_agent.learner.sft import SftConfig, SftRow, train_sft
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.runs.checkpoint import RunState, list_checkpoints, load_weights, save_checkpoint
from elpo_agent.training.session import Session, env_factory

HALF = ModelConfig(dtype="bfloat16")


class Line(nn.Module):
    """One weight: its gradient is what goes in."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x.to(self.weight.dtype)).sum()


def after_steps(weights: MasterWeights, steps: int, lr: float) -> None:
    optimizer = torch.optim.SGD([p for _, p in weights.named()], lr=lr)
    for _ in range(steps):
        weights.module(torch.ones(3)).backward()
        weights.collect()
        optimizer.step()
        optimizer.zero_grad()
        weights.stepped()


def test_updates_of_a_millionth_add_up() -> None:
    plain = Line(torch.bfloat16)
    optimizer = torch.optim.SGD(plain.parameters(), lr=1e-6)
    for _ in range(1000):
        plain(torch.ones(3)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert plain.weight.tolist() == [1.0] * 3, "bfloat16 alone loses them"
    held = MasterWeights(Line(torch.bfloat16))
    after_steps(held, 1000, 1e-6)
    ((_, master),) = held.named()
    assert master.dtype == torch.float32
    np.testing.assert_allclose(master.detach(), 0.999, atol=1e-4)
    assert held.module.weight.tolist() == [1.0] * 3, "less than half of bfloat16's step at 1"
    after_steps(held, 2000, 1e-6)
    np.testing.assert_allclose(master.detach(), 0.997, atol=2e-4)
    assert held.module.weight.dtype == torch.bfloat16
    assert held.module.weight.tolist() == master.bfloat16().tolist() != [1.0] * 3


def test_gradients_are_summed_in_float32() -> None:
    held = MasterWeights(Line(torch.bfloat16))
    for value in [1.0] + [2.0**-9] * 256:  # each is lost beside 1 in bfloat16, together they are a half
        held.module(torch.full((3,), value)).backward()
        held.collect()
        assert held.module.weight.grad is None, "no second copy is kept"
    ((_, master),) = held.named()
    assert master.grad is not None
    assert master.grad.tolist() == [1.5] * 3


def test_float32_is_stepped_as_it_is() -> None:
    model = Line(torch.float32)
    held = MasterWeights(model)
    assert held.named() == [("weight", model.weight)]
    after_steps(held, 1, 0.5)
    assert model.weight.tolist() == [0.5] * 3


def test_tied_weights_stay_tied() -> None:
    model, _ = load_model(Path(__file__).parent.parent / "elpo_agent" / "tiny" / "model", dtype="bfloat16")
    held = MasterWeights(model)
    state = held.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert {value.dtype for value in state.values()} == {torch.float32}
    names = ("lm_head.weight", "model.embed_tokens.weight")
    assert state[names[0]].data_ptr() == state[names[1]].data_ptr()
    assert len(held.named()) == len(state) - 1
    held.load_state_dict({name: value + 0.5 for name, value in state.items()})
    assert model.lm_head.weight is model.model.embed_tokens.weight
    torch.testing.assert_close(model.lm_head.weight.float(), held.state_dict()[names[0]], atol=2**-8, rtol=2**-8)
    with pytest.raises(ValueError, match=r"differ in 1 tensors, the first is 'lm_head\.weight'"):
        held.load_state_dict({name: value for name, value in state.items() if name != names[0]})
    with pytest.raises(ValueError, match="another model"):
        held.load_state_dict({name: value[:1] for name, value in state.items()})


@pytest.fixture(scope="module")
def grown() -> tuple[Session, list[list[TrainingRow]]]:
    """Rows that the tiny model samples in bfloat16."""
    session, algorithm = Session.open(HALF), load("grpo", n_total=4)
    config = micro(Path("unused"))
    with session.runner(config.rollout, env_factory(config.env, evaluating=False), 1.3) as runner:
        pairs = runner.run(algorithm.strategy, [TaskRef(i) for i in range(4)], seed=1)
    rows = [
        tree_rows(tree, algorithm.credit.assign(tree), algorithm.objective.bounds(tree, result))
        for tree, result in pairs
    ]
    return session, rows


def learner_of(session: Session, lr: float = 1e-6, tokens: int = 400) -> Learner:
    config = LearnerConfig(lr=lr, mini_batches=2, micro_batch_tokens=tokens, max_grad_norm=1e9)
    return Learner(session.model, load("grpo").objective, config, pad_id=session.pad_id, temperature=1.3)


def test_a_small_learning_rate_moves_the_policy(grown: tuple[Session, list[list[TrainingRow]]]) -> None:
    """AdamW steps of a millionth: the masters take each of them, the model some."""
    session, rows = grown[0].copy(), grown[1]
    before = copy.deepcopy(session.model)
    learner = learner_of(session)
    start = {name: value.clone() for name, value in learner.weights.state_dict().items()}
    for seed in range(3):
        learner.update(rows, lr=1e-6, seed=seed)
    after = learner.weights.state_dict()
    moved = torch.cat([(after[name] - start[name]).abs().flatten() for name in start])
    assert float((moved > 1e-6).float().mean()) > 0.5
    assert float(moved.max()) < 1e-5
    ours, theirs = session.model.state_dict(), before.state_dict()
    changed = torch.cat([(ours[name] != theirs[name]).flatten() for name in ours]).float().mean()
    assert 0.0 < float(changed) < 0.1
    for name, value in ours.items():
        assert torch.equal(value, after[name].bfloat16())


def test_the_learner_computes_what_the_engine_sampled_with(grown: tuple[Session, list[list[TrainingRow]]]) -> None:
    """Both run the same bfloat16 weights: what is left are roundings of sums taken in another order.

    A learner in float32 is no closer, so that nothing is lost by computing in bfloat16.
    """
    session, rows = grown[0].copy(), grown[1]
    stats = learner_of(session).update(rows, lr=0.0, seed=0)
    exact = Session.open(ModelConfig())
    beside = learner_of(exact).update(rows, lr=0.0, seed=0)
    assert 0.0 < stats["mismatch_mean"] < 0.03
    assert stats["mismatch_mean"] < 1.5 * beside["mismatch_mean"]


def test_gradients_are_those_of_float32_but_for_rounding(grown: tuple[Session, list[list[TrainingRow]]]) -> None:
    session, rows = grown[0].copy(), grown[1]
    exact = session.copy()
    exact.model.float()
    grads = []
    for given in (session, exact):
        learner = learner_of(given)
        learner.config = replace(learner.config, mini_batches=1)
        learner.update(rows, lr=0.0, seed=0)
        grads.append(torch.cat([p.grad.flatten() for _, p in learner.weights.named() if p.grad is not None]))
    assert grads[0].dtype == torch.float32
    assert float((grads[0] - grads[1]).norm()) < 0.1 * float(grads[1].norm())
    assert float(grads[1].norm()) > 0.0


def test_a_checkpoint_holds_the_masters(grown: tuple[Session, list[list[TrainingRow]]], tmp_path: Path) -> None:
    session, rows = grown[0].copy(), grown[1]
    straight = learner_of(session)
    straight.update(rows, lr=1e-5, seed=0)
    save_checkpoint(tmp_path, straight.weights, straight, RunState(update=1), keep=1)
    other = grown[0].copy()
    resumed = learner_of(other)
    load_weights(list_checkpoints(tmp_path)[0], resumed.weights, resumed, other.device)
    for learner in (straight, resumed):
        learner.update(rows, lr=1e-5, seed=1)
    for (name, ours), (_, theirs) in zip(resumed.weights.named(), straight.weights.named(), strict=True):
        assert torch.equal(ours, theirs), name
    for name, value in session.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value)


def test_a_cold_start_in_bfloat16_learns_at_a_small_rate() -> None:
    rng = np.random.default_rng(0)
    rows = [SftRow(rng.integers(0, 200, 30, dtype=np.int32), np.arange(30) > 4) for _ in range(8)]
    losses: dict[str, list[float]] = {}
    for dtype in ("float32", "bfloat16"):
        session = Session.open(ModelConfig(dtype=dtype))
        config = SftConfig(epochs=10, lr=4e-5, warmup=0.0, batch_tokens=120, weight_decay=0.0)
        seen: list[float] = []
        train_sft(session.model, rows, config, pad_id=0, on_update=lambda p, seen=seen: seen.append(p.loss))  # type: ignore[misc]
        losses[dtype] = seen
        assert next(session.model.parameters()).dtype == getattr(torch, dtype)
    gained = {dtype: np.mean(seen[:2]) - np.mean(seen[-2:]) for dtype, seen in losses.items()}
    assert gained["float32"] > 0.1
    assert gained["bfloat16"] == pytest.approx(gained["float32"], rel=0.1)


def test_a_run_resumes_to_the_last_bit(tmp_path: Path) -> None:
    def config(folder: str) -> TrainConfig:
        return micro(tmp_path / folder, model=HALF, updates=2, checkpoint_every=1, eval=EvalConfig(tasks=0))

    train(config("whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "update_000002")
    (tmp_path / "cut" / "summary.json").unlink()
    train(config("cut"), resume=True)
    assert any(line.get("grad_norm", 0.0) > 0.0 for line in metrics(tmp_path / "whole"))
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    saved = torch.load(tmp_path / "whole" / "checkpoints" / "update_000002" / "model.pt", weights_only=True)
    assert {value.dtype for value in saved.values()} == {torch.float32}
    model, _ = load_model(tmp_path / "whole" / "model", dtype="bfloat16")
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved[name].bfloat16())
