"""The reference policy: what it knows, that it stays, and that a run which needs it resumes to the last bit."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _runs import EASY, Silent, assert_same_run, metrics, micro, train
from safetensors.torch import load_file

from elpo_agent.algorithms import Algorithm, load
from elpo_agent.config import (
    AlgorithmConfig,
    ColdStartConfig,
    EnvConfig,
    EvalConfig,
    LearnerConfig,
    ModelConfig,
    TrainConfig,
)
from elpo_agent.credit.base import LeafCredit, ReferenceLogprobs, broadcast, valid_leaves
from elpo_agent.credit.rewards import SuccessReward, rewarded
from elpo_agent.learner.logprobs import row_logprobs
from elpo_agent.learner.rows import tree_rows
from elpo_agent.learner.sft import SftConfig
from elpo_agent.objective.base import NodeBounds
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.runs.run_folder import RunFolderError
from elpo_agent.training.reference import FILE, Reference, needs_reference
from elpo_agent.training.session import TINY_MODEL, Session, env_factory
from elpo_agent.training.trainer import Trainer
from elpo_agent.tree import Outcome, RolloutTree, Step

# Every term that needs something of the learner or the reference.
LOSS = {"kl_coef": 0.2, "importance_cap": 2.0, "entropy_coef": 0.001, "dual_clip": 3.0, "aggregation": "token-mean"}


def with_kl(output: Path, **changes: Any) -> TrainConfig:
    # The credit rule asks for the reference too, with trees whose rewards have been changed.
    options = {"n_total": 4, "kl_reward": 0.05, "turn_rewards": {"ok": 0.1}, "replay_weight": 0.6, "loss": LOSS}
    return micro(output, algorithm=AlgorithmConfig("reinforce_pp", options), **changes)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(ModelConfig())


def reference_of(session: Session, tokens: int = 200) -> Reference:
    return Reference(session.model, pad_id=session.pad_id, temperature=0.8, micro_batch_tokens=tokens)


@pytest.fixture(scope="module")
def trees(session: Session) -> list[RolloutTree]:
    """Two prompts' trees as the tiny model grows them, and one with nothing valid in it."""
    config = micro(Path("unused")).rollout
    with session.runner(config, env_factory(EnvConfig(kwargs=EASY), evaluating=False), 1.3) as runner:
        pairs = runner.run(load("elpo", n_total=4).strategy, [TaskRef(0), TaskRef(1)], seed=3)
    lost = RolloutTree("lost", (1, 2))
    floats = np.zeros(1, dtype=np.float32)
    lost.add(0, Step((3,), floats, floats), outcome=Outcome(0.0, False, valid=False))
    return [*(tree for tree, _ in pairs), lost]


def literal(session: Session, tree: RolloutTree, leaf: int, temperature: float) -> list[list[float]]:
    """One step at a time, each after all that came before it."""
    out = []
    for node in tree.path(leaf):
        before, step = tree.prefix_ids(tree.nodes[node].parent), tree.nodes[node].step
        assert step is not None
        with torch.no_grad():
            logits = session.model(input_ids=torch.tensor([[*before, *step.ids]])).logits[0].double()
        logs = torch.log_softmax(logits / temperature, -1)
        out.append([float(logs[len(before) + i - 1, token]) for i, token in enumerate(step.ids)])
    return out


def test_it_gives_the_logprobs_of_every_valid_leaf(session: Session, trees: list[RolloutTree]) -> None:
    known = reference_of(session).logprobs(trees)
    compared = 0
    for tree in trees:
        for leaf in valid_leaves(tree):
            ours = known(tree, leaf)
            expected = literal(session, tree, leaf, 0.8)
            assert [values.dtype for values in ours] == [np.float64] * len(expected)
            for values, wanted in zip(ours, expected, strict=True):
                np.testing.assert_allclose(values, wanted, atol=2e-4)
                compared += len(wanted)
            again = known(rewarded(tree, (SuccessReward(),)), leaf)
            assert [v.tolist() for v in again] == [v.tolist() for v in ours], "a copy with other rewards is the same"
    assert compared > 50
    with pytest.raises(KeyError):
        known(trees[-1], 1)


def test_rows_carry_what_the_reference_says(session: Session, trees: list[RolloutTree]) -> None:
    tree = trees[0]
    reference = reference_of(session)
    bounds = NodeBounds(np.full(len(tree.nodes), 0.2), np.full(len(tree.nodes), 0.2))
    credit = broadcast(tree, dict.fromkeys(valid_leaves(tree), 1.0))
    rows = tree_rows(tree, credit, bounds, reference.logprobs([tree]))
    whole = row_logprobs(session.model, rows, pad_id=session.pad_id, temperature=0.8, micro_batch_tokens=1)
    assert rows
    for row, expected in zip(rows, whole, strict=True):
        assert row.reference_logprobs is not None
        assert row.reference_logprobs.dtype == np.float32
        assert not row.reference_logprobs[~row.mask].any()
        np.testing.assert_allclose(row.reference_logprobs, expected, atol=1e-4)
    assert all(row.reference_logprobs is None for row in tree_rows(tree, credit, bounds))


def test_it_stays_while_the_model_moves(trees: list[RolloutTree], tmp_path: Path) -> None:
    session = Session.open(ModelConfig())
    reference = reference_of(session)
    assert not any(p.requires_grad for p in reference.model.parameters())
    tree = trees[0]
    leaf = valid_leaves(tree)[0]
    before = reference.logprobs([tree])(tree, leaf)
    reference.save(tmp_path)
    with torch.no_grad():
        for p in session.model.parameters():
            p += 0.05
    after = reference.logprobs([tree])(tree, leaf)
    assert [v.tolist() for v in after] == [v.tolist() for v in before]
    late = reference_of(session)
    assert [v.tolist() for v in late.logprobs([tree])(tree, leaf)] != [v.tolist() for v in before]
    late.load(tmp_path)
    assert [v.tolist() for v in late.logprobs([tree])(tree, leaf)] == [v.tolist() for v in before]
    assert [p.name for p in tmp_path.iterdir()] == [FILE], "nothing is left half-written"


@dataclass(frozen=True)
class FromReference:
    """Advantages that are the reference's log-probabilities, to see that they arrive."""

    needs_reference: bool = True

    def assign_batch(
        self, trees: list[RolloutTree], reference: ReferenceLogprobs | None = None
    ) -> list[list[LeafCredit]]:
        assert reference is not None
        return [
            [LeafCredit(leaf, np.concatenate(reference(tree, leaf))) for leaf in valid_leaves(tree)] for tree in trees
        ]


def test_who_needs_one() -> None:
    assert not needs_reference(load("grpo"))
    assert not needs_reference(load("grpo", loss={"importance_cap": 2.0, "entropy_coef": 0.1}))
    assert needs_reference(load("grpo", loss={"kl_coef": 1e-3}))
    assert needs_reference(replace(load("grpo"), credit=FromReference()))

    class Bare:
        """An objective of another distribution, without options."""

    assert not needs_reference(replace(load("grpo"), objective=Bare()))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An uninterrupted run with everything on after a cold start, and its folder as a kill in update 3 leaves it."""
    root = tmp_path_factory.mktemp("kl")
    config = after_cold_start(root / "run")
    logged = Trainer._update

    def taking(self: Trainer, *args: Any, **kwargs: Any) -> None:
        if self.state.update == 2:
            shutil.copytree(self.path, root / "killed")
        logged(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", taking)
        train(config)
    return {"run": root / "run", "killed": root / "killed"}


def after_cold_start(output: Path) -> TrainConfig:
    cold = ColdStartConfig(tasks=2, reasoning=False, optimization=SftConfig(epochs=1, lr=1e-4))
    learner = LearnerConfig(lr=1e-3, schedule="linear", mini_batches=1)
    return with_kl(output, updates=3, cold_start=cold, eval=EvalConfig(tasks=0), learner=learner)


def test_a_run_with_a_reference_trains(run: dict[str, Path]) -> None:
    updates = [r for r in metrics(run["run"]) if r["kind"] == "train"]
    assert len(updates) == 3
    assert abs(updates[0]["kl"]) < 1e-6 and max(r["kl"] for r in updates) > 1e-4, (
        "it begins at the reference and leaves it"
    )
    assert all(r["grad_norm"] > 0 for r in updates)
    for name in ("entropy", "dual_clipped", "importance_mean", "importance_max", "mismatch_max"):
        assert all(np.isfinite(r[name]) for r in updates), name
    assert all(r["mismatch_max"] < 1e-3 for r in updates), "engine and learner agree here"
    frozen = torch.load(run["run"] / FILE, weights_only=True)
    start, end = load_file(TINY_MODEL / "model.safetensors"), load_file(run["run"] / "model" / "model.safetensors")
    name = next(n for n in start if "embed" in n)
    assert not torch.equal(frozen[name], start[name]), "it is the model after the cold start"
    assert not torch.equal(frozen[name], end[name])


def test_killed_then_resumed(run: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run["killed"], folder)
    stamp = (folder / FILE).stat().st_mtime_ns
    train(after_cold_start(folder), resume=True)
    assert_same_run(folder, run["run"])
    assert (folder / FILE).stat().st_mtime_ns == stamp, "it is written once"


def test_without_its_reference_a_run_does_not_resume(run: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run["killed"], folder)
    (folder / FILE).unlink()
    with pytest.raises(RunFolderError, match=r"reference\.pt is missing"):
        Trainer(after_cold_start(folder), Silent(), resume=True).run()


@pytest.mark.slow
def test_a_strong_kl_term_keeps_the_policy_near(tmp_path: Path) -> None:
    moved = {}
    for coefficient in (1e-9, 20.0):
        config = micro(
            tmp_path / str(coefficient),
            updates=5,
            algorithm=AlgorithmConfig("grpo", {"n_total": 8, "loss": {"kl_coef": coefficient, "kl": "k2"}}),
            eval=EvalConfig(tasks=0),
            # Slow enough that Adam's steps of one size do not hide the pull.
            learner=LearnerConfig(lr=1e-4, mini_batches=1, epochs=3),
        )
        train(config)
        seen = [r["kl"] for r in metrics(Path(config.output)) if r["kind"] == "train"]
        moved[coefficient] = sum(seen[1:])
    assert moved[20.0] < 0.5 * moved[1e-9]


def test_a_credit_rule_gets_it_and_others_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = Trainer(micro(tmp_path / "plain", updates=1, eval=EvalConfig(tasks=0)), Silent())
    built.run()
    assert built.reference is None
    assert not (tmp_path / "plain" / FILE).exists()

    def from_reference(config: TrainConfig) -> Algorithm:
        return replace(load("grpo", n_total=2), credit=FromReference())

    monkeypatch.setattr("elpo_agent.training.trainer._algorithm", from_reference)
    train(micro(tmp_path / "credit", updates=1, eval=EvalConfig(tasks=0), save_trees_every=0))
    (update,) = metrics(tmp_path / "credit")
    assert update["live_rows"] == 1.0
    assert update["grad_norm"] > 0
