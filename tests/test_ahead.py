"""Rollouts one update ahead: whose weights they come from, that timing changes nothing, and how they end."""

from __future__ import annotations

import asyncio
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from _runs import Silent, assert_same_run, metrics, micro, train
from torch import nn

from elpo_agent.algorithms import load
from elpo_agent.config import AlgorithmConfig, EvalConfig, ModelConfig, TrainConfig
from elpo_agent.rollout.base import Expander, SearchResult
from elpo_agent.training.ahead import AheadCollector
from elpo_agent.training.collection import Collected, Collector
from elpo_agent.training.session import Session
from elpo_agent.training.trainer import Trainer

NO_EVAL = EvalConfig(tasks=0)
GRPO = load("grpo", n_total=4)
CONFIG = micro(Path("unused"))
MIXED_SEED = 2  # one whose first update has both successes and failures


@pytest.fixture
def session() -> Session:
    torch.set_num_threads(1)
    return Session.open(ModelConfig())


def changed(model: nn.Module, step: int) -> None:
    """As an optimiser would: in place."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def drawn(update: Collected) -> list[tuple[Any, ...]]:
    return [
        (tree.task_id, node.step.ids, node.step.logprobs.tobytes())
        for tree, _ in update.pairs
        for node in tree.nodes
        if node.step is not None
    ]


def test_each_update_comes_from_the_weights_of_one_before(session: Session) -> None:
    plain = session.copy()
    with AheadCollector(session, CONFIG, GRPO, None) as ahead, Collector(plain, CONFIG, GRPO, None) as collector:
        used = 0
        behind = {name: value.clone() for name, value in session.model.state_dict().items()}
        for update in range(4):
            collected = ahead.collect(update, used)
            plain.policy.load_weights(behind)
            assert drawn(collected) == drawn(collector.collect(update, used)), f"update {update}"
            behind = {name: value.clone() for name, value in session.model.state_dict().items()}
            changed(session.model, update)
            used += len(collected.pairs)


def test_rollouts_under_way_can_be_made_once_more(session: Session) -> None:
    """From the weights that the engine had, whatever became of the model meanwhile."""
    with AheadCollector(session, CONFIG, GRPO, None) as ahead:
        first = ahead.collect(0, 0)
        changed(session.model, 0)
        second = ahead.collect(1, len(first.pairs))
        weights = {name: value.clone() for name, value in ahead.weights.items()}
        changed(session.model, 1)
        used = len(first.pairs) + len(second.pairs)
        third = ahead.collect(2, used)
    changed(session.model, 2)
    with AheadCollector(session, CONFIG, GRPO, None, weights) as again:
        assert drawn(again.collect(2, used)) == drawn(third)


class Stuck:
    """A strategy that grows the first trees and then fails, or never comes to an end."""

    n_total = 4
    branches = False

    def __init__(self, grown: int, error: Exception | None = None) -> None:
        self.stuck = threading.Event()
        self._left, self._error = grown, error

    async def grow(self, expander: Expander) -> SearchResult:
        await expander.expand(0, 4)
        if self._left:
            self._left -= 1
            return SearchResult()
        self.stuck.set()
        while self._error is None:
            await asyncio.sleep(0.01)
        raise self._error


def test_leaving_ends_what_is_under_way(session: Session) -> None:
    strategy, before = Stuck(2), threading.active_count()
    with AheadCollector(session, CONFIG, replace(GRPO, strategy=strategy), None) as ahead:
        ahead.collect(0, 0)
        assert strategy.stuck.wait(60)
    assert threading.active_count() <= before, "no thread is left"


def test_what_rolling_out_raises_comes_to_the_learner(session: Session) -> None:
    strategy = Stuck(2, RuntimeError("the strategy is broken"))
    with AheadCollector(session, CONFIG, replace(GRPO, strategy=strategy), None) as ahead:
        used = len(ahead.collect(0, 0).pairs)
        with pytest.raises(RuntimeError, match="the strategy is broken"):
            ahead.collect(1, used)


# --- In a run ------------------------------------------------------------------------------------------------------


def ahead_run(output: Path, **changes: Any) -> TrainConfig:
    options = {"n_total": 4, "loss": {"importance_cap": 2.0}}
    config = micro(output, eval=NO_EVAL, seed=MIXED_SEED, algorithm=AlgorithmConfig("grpo", options), **changes)
    return replace(config, rollout=replace(config.rollout, ahead=True))


def test_killed_then_resumed(tmp_path: Path) -> None:
    config, taken = ahead_run(tmp_path / "whole"), tmp_path / "killed"

    class Killing(Trainer):
        def _update(self, *args: Any) -> None:
            if self.state.update == 3 and not taken.exists():
                shutil.copytree(tmp_path / "whole", taken)
            super()._update(*args)

    Killing(config, Silent()).run()
    train(replace(config, output=str(taken)), resume=True)
    assert_same_run(taken, tmp_path / "whole")
    learnt = [record for record in metrics(taken) if record["kind"] == "train"]
    assert any(record["grad_norm"] > 0 for record in learnt), "a run that learns nothing proves nothing"
    assert learnt[0]["mismatch_max"] < 1e-4, "the first update is on-policy"
    assert max(record["mismatch_max"] for record in learnt[1:] if "mismatch_max" in record) > 1e-4, "later ones are not"


def test_it_needs_an_importance_cap(tmp_path: Path) -> None:
    config = ahead_run(tmp_path)
    with pytest.raises(ValueError, match=r"rollout\.ahead=True .* algorithm\.options\.loss\.importance_cap"):
        Trainer(replace(config, algorithm=AlgorithmConfig("grpo", {"n_total": 4})), Silent())
