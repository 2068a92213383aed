"""What updates train on: rounds of prompts, selection, tool budgets, replay; and all of it over a resumption."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _runs import Silent, assert_same_run, metrics, micro, records

from elpo_agent.algorithms import Algorithm, load
from elpo_agent.algorithms.selection import Selection, is_mixed, shares
from elpo_agent.config import BudgetConfig, EvalConfig, ModelConfig, TrainConfig
from elpo_agent.learner.rows import TrainingRow
from elpo_agent.rollout.base import Expander, SearchResult
from elpo_agent.rollout.runner import tree_metrics
from elpo_agent.rollout.serialization import tree_from_json
from elpo_agent.runs.checkpoint import list_checkpoints
from elpo_agent.training.collection import Collected, Collector
from elpo_agent.training.replay import from_state, positives, to_state
from elpo_agent.training.session import Session
from elpo_agent.training.spending import update_figures
from elpo_agent.training.tasks import task_indices
from elpo_agent.training.trainer import Trainer
from elpo_agent.tree import RolloutTree

NO_EVAL = EvalConfig(tasks=0)
MIXED_SEED = 2  # one whose first update has both successes and failures


@dataclass(frozen=True)
class StopsEarly:
    """`n_total` rollouts at most, but only `first` where those all end alike."""

    n_total: int = 4
    first: int = 2
    branches: bool = False

    async def grow(self, expander: Expander) -> SearchResult:
        await expander.expand(0, self.first)
        if is_mixed(expander.tree):
            await expander.expand(0, self.n_total - self.first)
        return SearchResult()


def trained(config: TrainConfig, algorithm: Algorithm, *, resume: bool = False) -> Trainer:
    trainer = Trainer(config, Silent(), resume=resume)
    trainer.algorithm = algorithm
    trainer.run()
    return trainer


def trees_of(folder: Path, update: int) -> list[RolloutTree]:
    return [tree_from_json(line)[0] for line in records(folder / "trees.jsonl") if line["update"] == update]


def updates_of(folder: Path) -> list[dict[str, Any]]:
    return [record for record in metrics(folder) if record["kind"] == "train"]


GRPO = load("grpo", n_total=4)


@pytest.fixture(scope="module")
def session() -> Session:
    torch.set_num_threads(1)
    return Session.open(ModelConfig())


def collected(session: Session, algorithm: Algorithm, config: TrainConfig, updates: int = 2) -> list[Collected]:
    """The first updates' rollouts, from the same weights."""
    out: list[Collected] = []
    with Collector(session, config, algorithm, None) as collector:
        for update in range(updates):
            out.append(collector.collect(update, sum(len(c.pairs) for c in out)))
    return out


def leaves(update: Collected) -> list[int]:
    return [len(tree.leaves) for tree, _ in update.pairs]


def test_unspent_rollouts_go_to_further_prompts(session: Session) -> None:
    config = micro(Path("unused"))
    done = collected(session, replace(GRPO, strategy=StopsEarly(), selection=Selection(hand_on=True)), config)
    for update in done:
        assert sum(leaves(update)) == 8, "all of the update's budget, and no more"
        assert update.handed_on == 8 - sum(leaves(update)[:2])
        assert update.kept == tuple(range(len(update.pairs)))
        figures = update_figures(update, [[row([1.0], [True])] * n for n in leaves(update)])
        assert (figures["prompts"], figures["rollouts"]) == (len(update.pairs), 8)
        assert (figures["handed_on"], figures["discarded"], figures["over_limit"]) == (update.handed_on, 0, 0)
    assert any(update.handed_on for update in done)
    seen = [tree.task_id for update in done for tree, _ in update.pairs]
    assert len(set(seen)) == len(seen) > 4, "endless tasks come once"
    assert [int(task.rsplit("/", 1)[1]) for task in seen] == task_indices(0, len(seen), None, config.seed)


def test_a_rounds_repeated_task_is_sampled_anew(session: Session) -> None:
    """A source of one task: every prompt of every round is that task, and no two trees are the same."""
    algorithm = replace(GRPO, strategy=StopsEarly(), selection=Selection(hand_on=True))
    with Collector(session, micro(Path("unused")), algorithm, 1) as collector:
        trees = [tree for tree, _ in collector.collect(0, 0).pairs]
    assert len({tree.task_id for tree in trees}) == 1 < len(trees)
    drawn = [tuple(tuple(n.step.logprobs.tolist()) for n in tree.nodes if n.step is not None) for tree in trees]
    assert len(set(drawn)) == len(trees)


def test_budgets_may_be_smaller_than_groups(session: Session) -> None:
    algorithm = replace(GRPO, strategy=StopsEarly(), selection=Selection(hand_on=True, n_total=3))
    (update,) = collected(session, algorithm, micro(Path("unused")), 1)
    assert sum(leaves(update)) == 6, "2 prompts of 3 each"
    assert leaves(update)[0] in (2, 4), "of which one may take 4"
    assert (shares(6, 4), shares(9, 4), shares(8, 4), shares(3, 4)) == ([4], [4, 4], [4, 4], [3])


@pytest.mark.parametrize("rounds", [0, 2])
def test_only_mixed_prompts_are_trained_on_and_others_refilled(rounds: int, session: Session) -> None:
    algorithm = replace(GRPO, selection=Selection(mixed_only=True, refill_rounds=rounds))
    done = collected(session, algorithm, micro(Path("unused")), 1 + (rounds > 0))
    for update in done:
        mixed = [is_mixed(tree) for tree, _ in update.pairs]
        assert update.kept == tuple(np.flatnonzero(mixed))
        assert leaves(update) == [4] * len(mixed) and update.handed_on == 0
        assert len(mixed) == 2 if not rounds or sum(mixed[:2]) == 2 else 2 < len(mixed) <= 6
        assert len(update.kept) <= 2
    assert any(len(update.kept) < len(update.pairs) for update in done)


def test_an_update_without_any_prompt_to_train_on(tmp_path: Path) -> None:
    """A cool model solves these tasks always: nothing is mixed, nothing is learnt, nothing breaks."""
    config = micro(tmp_path / "run", updates=1, eval=NO_EVAL)
    config = replace(config, rollout=replace(config.rollout, temperature=0.05))
    state = trained(config, replace(GRPO, selection=Selection(mixed_only=True, refill_rounds=1))).state
    assert state.discarded == state.rollouts == 2 * 8
    assert [r["loss"] for r in updates_of(tmp_path / "run")] == [0.0]


def test_the_tool_budget_follows_progress(session: Session) -> None:
    asked: list[float] = []

    def budget(done: float) -> int:
        asked.append(done)
        return 1 if done < 0.5 else 3

    done = collected(session, replace(GRPO, tool_budget=budget), micro(Path("unused")), 4)
    assert asked == [0.0, 0.25, 0.5, 0.75]
    calls = [
        max(
            sum(tree.nodes[i].step.tool_calls for i in tree.path(leaf))
            for tree, _ in update.pairs
            for leaf in tree.leaves
        )  # type: ignore[union-attr]
        for update in done
    ]
    assert calls[0] == calls[1] == 1
    assert 1 < max(calls[2:]) <= 3


@pytest.mark.parametrize("per", ["prompt", "update"])
def test_limits_hold_for_prompts_or_for_updates(per: str, session: Session) -> None:
    share = 2 if per == "update" else 1
    budget = BudgetConfig(tokens=60 * share, tool_calls=15 * share, per=per)
    config = micro(Path("unused"))
    config = replace(config, rollout=replace(config.rollout, budget=budget))
    algorithm = replace(load("grpo", n_total=8), selection=Selection(hand_on=True))
    for update in collected(session, algorithm, config, 1):
        spent = [tree_metrics(tree) for tree, _ in update.pairs]
        assert all(m.generated_tokens <= 60 and m.tool_calls <= 15 for m in spent)
        cut = [tree.outcome(leaf) for tree, _ in update.pairs for leaf in tree.leaves if tree.outcome(leaf).limit]
        figures = update_figures(update, [])
        assert figures["over_limit"] == figures["invalid"] == len(cut) > 0
        if per == "update":
            assert sum(m.generated_tokens for m in spent) <= 120 and sum(m.tool_calls for m in spent) <= 30
        else:
            assert update.handed_on > 0


# --- Replay --------------------------------------------------------------------------------------------------------


def row(advantages: Sequence[float], mask: Sequence[bool]) -> TrainingRow:
    n = len(mask)
    values = np.where(mask, np.linspace(-1, -0.1, n), 0).astype(np.float32)
    return TrainingRow(
        ids=np.arange(n),
        mask=np.array(mask),
        old_logprobs=values,
        advantages=np.array(advantages, dtype=np.float32),
        eps_low=np.where(mask, 0.2, 0).astype(np.float32),
        eps_high=np.where(mask, 0.3, 0).astype(np.float32),
        reference_logprobs=values / 3,
    )


def same_rows(a: TrainingRow, b: TrainingRow) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__]
    return all(
        (x.dtype == y.dtype and x.tobytes() == y.tobytes()) if isinstance(x, np.ndarray) else x == y for x, y in pairs
    )


def test_positives_are_kept_with_their_old_ratios() -> None:
    mixed = row([0, 1.5, -1, 0], [False, True, True, True])
    lost = row([0, -1, -1, 0], [False, True, True, True])
    ((kept,),) = positives([[mixed, lost], [lost], []], 0.6)
    assert kept.mask.tolist() == [False, True, False, False]
    assert kept.advantages.tolist() == [0, 1.5, 0, 0]
    assert kept.old_logprobs.tolist() == [0, mixed.old_logprobs[1], 0, 0]
    assert kept.ids.tolist() == [0, 1, 2, 3] and kept.has_signal
    assert (kept.weight, kept.replayed, kept.engine_logprobs) == (0.6, True, None)
    assert kept.reference_logprobs is not None and kept.reference_logprobs[2:].tolist() == [0, 0]


def test_replayed_rows_survive_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    groups = positives([[row([0, 0.1, -1, 7], [False, True, True, True])]] * 2, 1 / 3)
    torch.save(to_state(groups), tmp_path / "rows.pt")
    back = from_state(torch.load(tmp_path / "rows.pt", weights_only=True))
    assert [len(group) for group in back] == [1, 1]
    assert all(
        same_rows(a, b) for ours, theirs in zip(groups, back, strict=True) for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.slow
def test_replay_trains_once_more_on_the_update_before(tmp_path: Path) -> None:
    config = micro(tmp_path / "run", updates=2, eval=NO_EVAL, checkpoint_every=1, seed=MIXED_SEED)
    trained(config, GRPO)
    trained(replace(config, output=str(tmp_path / "replay")), replace(GRPO, replay_weight=0.5))
    one, other = updates_of(tmp_path / "run"), updates_of(tmp_path / "replay")
    assert one[0] == other[0], "there is nothing to replay at first"
    assert one[1]["rollouts"] == other[1]["rollouts"] and one[1]["success"] == other[1]["success"]
    assert one[1]["grad_norm"] != other[1]["grad_norm"]
    saved = list_checkpoints(tmp_path / "replay" / "checkpoints")[-2] / "replayed.pt"
    groups = from_state(torch.load(saved, weights_only=True))
    trees = trees_of(tmp_path / "replay", 1)
    wins = [sum(t.outcome(leaf).success for leaf in t.leaves) for t in trees if is_mixed(t)]
    assert [len(group) for group in groups] == wins and wins
    assert not (list_checkpoints(tmp_path / "run" / "checkpoints")[-1] / "replayed.pt").exists()


# --- Resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda a: replace(a, replay_weight=0.6, strategy=StopsEarly(), selection=Selection(hand_on=True)),
        pytest.param(lambda a: replace(a, replay_weight=0.6), marks=pytest.mark.slow),
        pytest.param(
            lambda a: replace(
                a,
                selection=Selection(mixed_only=True, refill_rounds=2),
                tool_budget=lambda done: 2 if done < 0.7 else 4,
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["replay and hand on", "replay", "refill and tool budget"],
)
def test_killed_then_resumed(change: Callable[[Algorithm], Algorithm], tmp_path: Path) -> None:
    """From the checkpoint of update 2 on, the run is the one that was never killed."""
    algorithm = change(GRPO)
    config = micro(tmp_path / "whole", eval=NO_EVAL)
    taken = tmp_path / "killed"

    class Killing(Trainer):
        def _update(self, *args: Any) -> None:
            if self.state.update == 3 and not taken.exists():
                shutil.copytree(tmp_path / "whole", taken)
            super()._update(*args)

    trainer = Killing(config, Silent())
    trainer.algorithm = algorithm
    trainer.run()
    trained(replace(config, output=str(taken)), algorithm, resume=True)
    assert_same_run(taken, tmp_path / "whole")
    assert any(r["grad_norm"] > 0 for r in updates_of(taken)), "a run that learns nothing proves nothing"
