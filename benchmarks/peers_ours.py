"""This project's `Trainer` for `peers`, update by update.

python peers_ours.py ARGUMENTS.json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parent.parent)  # in place of this folder, whose modules have common names

from benchmarks.peers_rounds import Rounds, arguments  # noqa: E402
from elpo_agent.config import (  # noqa: E402
    AlgorithmConfig,
    EnvConfig,
    EvalConfig,
    LearnerConfig,
    ModelConfig,
    RolloutConfig,
    TrainConfig,
)
from elpo_agent.learner.rows import TrainingRow  # noqa: E402
from elpo_agent.training.collection import Pair  # noqa: E402
from elpo_agent.training.trainer import Trainer  # noqa: E402


class OneAtATime:
    """A `Display` that holds the trainer up after every update."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self.figures: dict[str, float] = {}

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """There is one only: training."""
        self._rounds.ready(_version())

    def advance(self, done: int, figures: dict[str, float]) -> None:
        """An update is done."""
        self._rounds.done(self.figures)

    def note(self, text: str) -> None:
        """For people who watch."""
        print(text, file=sys.stderr)


class CountingTrainer(Trainer):
    """The trainer, which also counts."""

    def __init__(self, config: TrainConfig, display: OneAtATime, rounds: Rounds) -> None:
        super().__init__(config, display)
        self._watched, self._rounds = display, rounds

    def _rows(self, pairs: Sequence[Pair]) -> list[list[TrainingRow]]:
        seconds = self._rounds.seconds
        groups = super()._rows(pairs)
        self._watched.figures = {"rollout_seconds": seconds, **counted(pairs, groups)}
        return groups


def counted(pairs: Sequence[Pair], groups: Sequence[Sequence[TrainingRow]]) -> dict[str, float]:
    """What an update's rollouts and rows are like; what rollouts share counts in each of them."""
    rollouts = [(tree, leaf) for tree, _ in pairs for leaf in tree.leaves]
    calls = [sum(step.tool_calls for i in tree.path(leaf) if (step := tree.nodes[i].step)) for tree, leaf in rollouts]
    rows = [row for group in groups for row in group]
    return {
        "rollouts": len(rollouts),
        "tool_rollouts": sum(count > 0 for count in calls),
        "tool_calls": sum(calls),
        "turns": sum(len(tree.path(leaf)) for tree, leaf in rollouts),
        "successes": sum(tree.outcome(leaf).success for tree, leaf in rollouts),
        "trained_tokens": sum(int(row.mask.sum()) for row in rows),
        "live_tokens": sum(int(((row.advantages != 0) & row.mask).sum()) for row in rows),
        "generated_tokens": sum(len(node.step.ids) for tree, _ in pairs for node in tree.nodes if node.step),
    }


def configuration(given: dict[str, Any], scratch: Path) -> TrainConfig:
    """One optimiser step an update, nothing saved or evaluated."""
    return TrainConfig(
        output=str(scratch / "run"),
        seed=given["seed"],
        updates=given["updates"] + 1,  # the last one is never asked for: it would be saved
        checkpoint_every=given["updates"] + 1,
        save_trees_every=0,
        threads=given["threads"],
        model=ModelConfig(path=given["model"], device="cpu"),
        env=EnvConfig(id=given["env"], kwargs=given["env_kwargs"]),
        algorithm=AlgorithmConfig(given["algorithm"], {"n_total": given["n_total"]}),
        rollout=RolloutConfig(
            prompts=given["prompts"],
            max_new_tokens=given["max_new_tokens"],
            max_context=given["max_context"],
            temperature=given["temperature"],
        ),
        learner=LearnerConfig(lr=given["lr"], mini_batches=1),
        eval=EvalConfig(tasks=0),
    )


def _version() -> str:
    try:
        return version("elpo")
    except PackageNotFoundError:
        return "of this folder"


def main() -> None:
    given = arguments()
    rounds = Rounds(sys.stdout)
    sys.stdout = sys.stderr
    CountingTrainer(configuration(given, Path(sys.argv[1]).parent), OneAtATime(rounds), rounds).run()


if __name__ == "__main__":
    main()
