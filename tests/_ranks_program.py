"""What each rank of tests/test_distributed.py runs under torchrun: the cases named, on a small model and random trees.

torchrun --nproc-per-node 2 tests/_ranks_program.py FOLDER CASE...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _runs import Silent, micro
from test_packing import random_tree, small_model
from torch import nn

from elpo_agent.config import (
    AlgorithmConfig,
    ColdStartConfig,
    EvalConfig,
    LearnerConfig,
    LoraConfig,
    TrainConfig,
)
from elpo_agent.learner.learner import Learner
from elpo_agent.learner.logprobs import row_logprobs
from elpo_agent.learner.lora import add_adapters
from elpo_agent.learner.rows import TrainingRow
from elpo_agent.learner.sft import SftConfig
from elpo_agent.objective import ClippedObjective
from elpo_agent.objective.options import LossOptions
from elpo_agent.ranks import RankLostError, Ranks, launched
from elpo_agent.runs.checkpoint import RunState, list_checkpoints, load_weights, save_checkpoint
from elpo_agent.training.trainer import Trainer

EVERY_TERM = LossOptions(dual_clip=1.3, importance_cap=1.2, kl_coef=0.3, entropy_coef=0.1, aggregation="token-mean")
UPDATES = 3
Groups = list[list[TrainingRow]]


def batch(update: int) -> Groups:
    """Seven prompts, so that mini-batches are uneven; of the last update one prompt with one row."""
    if update == UPDATES - 1:
        return [random_tree(update, prompts=1, depth=2)[0][:1]]
    return random_tree(10 + update, prompts=7, depth=3)


def learner(model: nn.Module, ranks: Ranks, **changes: Any) -> Learner:
    settings: dict[str, Any] = {"mini_batches": 2, "epochs": 2, "micro_batch_tokens": 150, "max_grad_norm": 0.5}
    config = LearnerConfig(**{**settings, **changes})
    return Learner(model, ClippedObjective(0.2, 0.3, EVERY_TERM), config, pad_id=0, temperature=0.9, ranks=ranks)


def trained(
    given: Learner, first: int = 0, last: int = UPDATES, save: Path | None = None, lr: float = 1e-3
) -> dict[str, Any]:
    """Statistics of each update, the weights afterwards (on rank 0), and those of the engine's model."""
    stats = [given.update(batch(update), lr=lr, seed=update) for update in range(first, last)]
    state, optimizer = given.weights.state_dict(), given.state_dict()
    if save is not None and given.ranks.leads:
        save_checkpoint(save, _Given(state), _Given(optimizer), RunState(update=last), keep=1)
    engine = {name: value.clone() for name, value in given.model.state_dict().items()}
    return {"stats": stats, "weights": {n: v.clone() for n, v in state.items()}, "engine": engine}


class _Given:
    """State that is there already, as `save_checkpoint` takes it."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any, /) -> None:
        raise AssertionError("not used here")


def full(ranks: Ranks, folder: Path, **changes: Any) -> dict[str, Any]:
    return trained(learner(small_model(), ranks, **changes))


def half(ranks: Ranks, folder: Path, **changes: Any) -> dict[str, Any]:
    return trained(learner(small_model().bfloat16(), ranks, **changes), lr=1e-2)


def adapters(ranks: Ranks, folder: Path) -> dict[str, Any]:
    model = small_model()
    add_adapters(model, LoraConfig(rank=2, alpha=4))
    return trained(learner(model, ranks))


def saved(ranks: Ranks, folder: Path, **changes: Any) -> dict[str, Any]:
    """Two updates and a checkpoint."""
    return trained(learner(small_model(), ranks, **changes), last=2, save=folder / f"by{ranks.size}")


def resumed(ranks: Ranks, folder: Path, **changes: Any) -> dict[str, Any]:
    """On from a checkpoint of another number of ranks; every weight is another one before it is loaded."""
    given = learner(small_model(seed=9), ranks, **changes)
    checkpoint = list_checkpoints(folder / f"by{3 - ranks.size}")[0]
    load_weights(checkpoint, given.weights, given, torch.device("cpu"))
    return trained(given, first=2)


def scored(ranks: Ranks, folder: Path) -> dict[str, Any]:
    rows = [row for group in batch(0) for row in group]
    values = row_logprobs(
        small_model(), rows, pad_id=0, temperature=0.9, micro_batch_tokens=150, packing="auto", ranks=ranks
    )
    return {"weights": {str(i): torch.from_numpy(line) for i, line in enumerate(values)}, "stats": []}


def lost(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """The last rank ends in the middle of a run, without a word."""
    given = learner(small_model(), ranks)
    given.update(batch(0), lr=1e-3, seed=0)
    if ranks.rank == ranks.size - 1:
        os._exit(7)
    try:
        given.update(batch(1), lr=1e-3, seed=1)
    except RankLostError as error:
        return {"stats": [], "weights": {}, "error": str(error)}
    raise AssertionError("nobody noticed")


def resharded(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """How much of the parameters and moments this rank holds."""
    given = learner(small_model(), ranks)
    given.update(batch(0), lr=1e-3, seed=0)
    moments = [v for own in given.optimizer.state.values() for v in own.values() if v.ndim]
    held = [p.to_local() if hasattr(p, "to_local") else p for p in [*(p for _, p in given.weights.named()), *moments]]
    return {"stats": [], "weights": {}, "held": sum(t.numel() for t in held)}


def run_config(folder: Path) -> TrainConfig:
    """Three updates with all that ranks share: a reference, the learner's own log-probabilities, a cold start."""
    loss = {"kl_coef": 0.2, "importance_cap": 2.0}
    config = micro(
        folder,
        updates=3,
        checkpoint_every=1,
        algorithm=AlgorithmConfig(
            "reinforce_pp", {"n_total": 4, "kl_reward": 0.05, "replay_weight": 0.5, "loss": loss}
        ),
        eval=EvalConfig(tasks=3, greedy=False),
        cold_start=ColdStartConfig(tasks=4, optimization=SftConfig(lr=1e-5)),
    )
    return replace(config, rollout=replace(config.rollout, prompts=3))


def run(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """A whole run."""
    return {"summary": Trainer(run_config(folder / f"run of {ranks.size}"), Silent(), ranks=ranks).run()}


def broken(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """A run whose last rank ends in the midst of the second update, without a word."""
    trainer = Trainer(run_config(folder / "broken"), Silent(), ranks=ranks)
    updating = Learner.update

    def update(self: Learner, *args: Any, **kwargs: Any) -> dict[str, float]:
        if trainer.state.update == 1 and ranks.rank == ranks.size - 1:
            os._exit(7)
        return updating(self, *args, **kwargs)

    Learner.update = update  # type: ignore[method-assign]
    try:
        trainer.run()
    except RankLostError as error:
        return {"error": str(error)}
    raise AssertionError("nobody noticed")


Case = Callable[[Ranks, Path], dict[str, Any]]
CASES: dict[str, Case] = {
    "sharded": full,
    "replicated": lambda ranks, folder: full(ranks, folder, shard=False),
    "sharded packed": lambda ranks, folder: full(ranks, folder, packing="always"),
    "replicated packed": lambda ranks, folder: full(ranks, folder, shard=False, packing="always"),
    "sharded recomputed": lambda ranks, folder: full(ranks, folder, activation_checkpointing=True, packing="always"),
    "sharded half": half,
    "replicated half": lambda ranks, folder: half(ranks, folder, shard=False),
    "adapters": adapters,
    "saved": saved,
    "resumed": resumed,
    "resumed replicated": lambda ranks, folder: resumed(ranks, folder, shard=False),
    "scored": scored,
    "held": resharded,
    "run": run,
    "broken": broken,
    "lost": lost,
}


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    with launched() as ranks:
        for name in names:
            torch.save(CASES[name](ranks, folder), folder / f"{name} {ranks.rank}.pt")
            if name in ("lost", "broken"):
                os._exit(0)  # there is nobody to take leave of


if __name__ == "__main__":
    main()
