"""The training loop: evaluate, cold start, then roll out - credit - update, with checkpoints one can resume from."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elpo_agent.algorithms import Algorithm, registry
from elpo_agent.config import TrainConfig
from elpo_agent.credit.base import leaf_credits
from elpo_agent.interrupts import uninterrupted
from elpo_agent.learner.learner import Learner, scheduled_lr
from elpo_agent.learner.memory import while_learning, while_sampling
from elpo_agent.learner.rows import TrainingRow, tree_rows
from elpo_agent.ranks import ALONE, Ranks
from elpo_agent.rollout.serialization import tree_to_json
from elpo_agent.runs.checkpoint import (
    RunState,
    list_checkpoints,
    load_engine,
    load_random,
    load_replayed,
    load_weights,
    save_checkpoint,
    write_atomic,
)
from elpo_agent.runs.follower import folder_of
from elpo_agent.runs.random_state import deterministic_kernels, random_states, restore_random_states, seeded
from elpo_agent.runs.resuming import begin, go_on
from elpo_agent.runs.run_folder import RunFolder
from elpo_agent.runs.saved_config import settings
from elpo_agent.runs.trackers import TensorBoardTracker, Tracker, WandbTracker
from elpo_agent.training.ahead import AheadCollector
from elpo_agent.training.cold_start import cold_start
from elpo_agent.training.collection import Collected, Collector, Pair, training_env
from elpo_agent.training.display import Display
from elpo_agent.training.held_out import held_out_scores
from elpo_agent.training.reference import Reference, needs_reference
from elpo_agent.training.replay import from_state, positives, to_state
from elpo_agent.training.session import Session, env_factory, task_count
from elpo_agent.training.spending import advanced, update_figures
from elpo_agent.training.stopping import Stopping


def output_folder(config: TrainConfig) -> Path:
    """The run folder that `config.output` names."""
    if config.output != "auto":
        return Path(config.output)
    return Path("runs") / f"{config.algorithm.name}-seed{config.seed}"


def _algorithm(config: TrainConfig) -> Algorithm:
    name, options = config.algorithm.name, config.algorithm.options
    try:
        return registry.load(name, **options)
    except TypeError as error:
        raise ValueError(f"algorithm.name={name!r} with algorithm.options={options}: {error}") from error


def _check_importance(algorithm: Algorithm) -> None:
    options = getattr(algorithm.objective, "options", None)
    if options is None or options.importance_cap is None:
        raise ValueError(
            "rollout.ahead=True trains on rollouts of the weights of one update before; correct for that with a cap "
            "on importance weights, algorithm.options.loss.importance_cap=2.0"
        )


class Trainer:
    """One run.

    Whatever breaks an update off while its rollouts are made (Ctrl-C, SIGTERM where `raising_terminated` sees to it, an
    engine that dies), the state after the last finished update is saved first. While the learner is at work, an
    interrupt waits for it to be done; a second one does not.

    Args:
        config: everything about it.
        display: shows progress.
        resume: continue the run in the output folder instead of starting one.
        ranks: the processes that make the run together, each of which runs a trainer of its own. The first one writes.
            An interrupt of one ends all, as soon as they talk to each other; where one fails, nothing more is saved.

    Raises:
        RunFolderError: the folder holds a run and `resume` is off, or it holds none and `resume` is on, or another
            process is using it.
        ValueError: unknown algorithm or option, an environment or data that cannot be used, or (resuming) settings
            that differ from the saved ones.
        DamagedCheckpointError: none of the folder's checkpoints is intact.
        NonFiniteLossError: training broke down; the last checkpoint is from before.
        OutOfMemoryError: what was saved before is intact; the message says which settings to lower.
        DiskFullError: what was saved before is intact.
        RankLostError: another process of the run has ended; what was saved before is intact.
    """

    def __init__(self, config: TrainConfig, display: Display, *, resume: bool = False, ranks: Ranks = ALONE) -> None:
        self.ranks, self.stopping = ranks, Stopping(ranks)
        if config.rollout.ahead and not ranks.alone:
            raise ValueError(f"rollout.ahead=True runs on one rank, not on {ranks.size}; set it to False")
        self.config = config
        self.display = display
        self.resume = resume
        if config.threads:
            torch.set_num_threads(config.threads)
        self.algorithm = _algorithm(config)
        if config.rollout.ahead:
            _check_importance(self.algorithm)
        self.path = output_folder(config)
        self.state = RunState(config=settings(config))
        self.reference: Reference | None = None
        self._replayed: list[list[TrainingRow]] = []  # the next update trains on them once more
        self._ahead: AheadCollector | None = None  # where rollouts are made while the learner trains
        self._random: dict[str, Any] = {}  # the random generators' states at the moment of `state`
        self._saved = 0  # updates in the newest checkpoint
        self._whole = True  # weights, optimiser and logs are those of `state`

    def run(self) -> dict[str, Any]:
        """Train to the last update; returns what summary.json holds."""
        with folder_of(self.path, self.ranks) as folder, deterministic_kernels(), seeded(self.config.seed):
            checkpoint = self._start(folder)
            summary = folder.path / "summary.json"
            if checkpoint is not None and self.state.update >= self.config.updates and summary.exists():
                self.display.note("this run is finished; there is nothing left to do")
                return {**json.loads(summary.read_text()), "folder": str(folder.path)}
            try:
                return self._run(folder, checkpoint)
            except Exception:
                if self.ranks.leads and not self.resume and not list_checkpoints(folder.checkpoints):
                    # It failed before there was anything to continue: let the next try have the folder.
                    (folder.path / "config.yaml").unlink()
                raise

    def _run(self, folder: RunFolder, checkpoint: Path | None) -> dict[str, Any]:
        tasks, eval_tasks = self._task_counts()
        device = self.ranks.device(self.config.model.device)
        session = Session.open(replace(self.config.model, device=device), self.config.engine)
        missing = folder.open_logs(
            metrics_bytes=self.state.metrics_bytes,
            trees_bytes=self.state.trees_bytes,
            trackers=self._trackers() if self.ranks.leads else (),
        )
        for sentence in missing:
            self.display.note(sentence)
        if checkpoint is None:
            cold_start(session, self.config, tasks, self.display)
            self.ranks.align(session.model)
            session.policy.weights_updated()
        # It holds what is trained in full precision from here on.
        learner = Learner(
            session.model,
            self.algorithm.objective,
            self.config.learner,
            pad_id=session.pad_id,
            temperature=self.config.rollout.temperature,
            ranks=self.ranks,
        )
        if checkpoint is not None:
            load_weights(checkpoint, learner.weights, learner, session.device)
            self._replayed = from_state(load_replayed(checkpoint) or [])
            session.policy.weights_updated()
            self.display.note(f"resumed from {checkpoint.name}")
        self.reference = self._frozen(session, folder, resumed=checkpoint is not None)
        if checkpoint is None:
            self._evaluate(session, folder, "before", eval_tasks)
            self._finished(folder)
            self._save(folder, learner)
        engine = None if checkpoint is None or not self.config.rollout.ahead else load_engine(checkpoint)
        if self.config.rollout.ahead:
            self._ahead = AheadCollector(session, self.config, self.algorithm, tasks, engine)
        if checkpoint is not None:
            self._random = load_random(checkpoint) or random_states()
            restore_random_states(self._random)
        rollouts = self._ahead or Collector(session, self.config, self.algorithm, tasks, self.ranks, self.stopping)
        with (
            rollouts as collector,
            self.stopping.watching(),
            self._saving_at_the_end(folder, learner),
        ):
            self._train(session, learner, folder, collector, eval_tasks)
        self._evaluate(session, folder, "after", eval_tasks)
        return self._finish(session, folder)

    def _task_counts(self) -> tuple[int | None, int | None]:
        """Tasks to train on and to evaluate on, None where endless; what is wrong with the data shows here."""
        tasks = task_count(env_factory(training_env(self.config.env, self.algorithm, 0.0), evaluating=False))
        config = self.config.eval
        if config.tasks <= 0:
            return tasks, 0
        eval_tasks = task_count(env_factory(self.config.env, evaluating=True))
        if eval_tasks is not None and config.first_index >= eval_tasks:
            raise ValueError(f"eval.first_index={config.first_index} is past the last of the {eval_tasks} tasks")
        return tasks, eval_tasks

    def _trackers(self) -> list[Tracker]:
        trackers: list[Tracker] = [TensorBoardTracker(self.path / "tensorboard", self.state.update)]
        if self.config.wandb_project:
            trackers.append(WandbTracker(self.config.wandb_project, self.path, self.state.config or {}))
        return trackers

    def _start(self, folder: RunFolder) -> Path | None:
        """Check the folder against `resume`; returns the checkpoint to continue from."""
        checkpoint = None
        if self.ranks.leads and not self.resume:
            self.state = begin(folder, self.config)
        elif self.ranks.leads:
            self.state, checkpoint = go_on(folder, self.config, self.display.note)
        self.state, checkpoint = self.ranks.of_first((self.state, checkpoint))
        self._saved = self.state.update
        return checkpoint

    def _frozen(self, session: Session, folder: RunFolder, *, resumed: bool) -> Reference | None:
        """The model as it was when reinforcement learning began, where the algorithm compares with it."""
        if not needs_reference(self.algorithm):
            return None
        reference = Reference(
            session.model,
            pad_id=session.pad_id,
            temperature=self.config.rollout.temperature,
            micro_batch_tokens=self.config.learner.micro_batch_tokens,
            packing=self.config.learner.packing,
            ranks=self.ranks,
        )
        if resumed:
            reference.load(folder.path)
        else:
            reference.save(folder.path)
        return reference

    def _evaluate(self, session: Session, folder: RunFolder, when: str, size: int | None) -> None:
        """Sampled and greedy scores on the held-out tasks."""
        if self.config.eval.tasks <= 0 or when in self.state.results:
            return
        scores = held_out_scores(session, self.config, size, self.ranks, when, self.display)
        for mode, figures in scores.items():
            folder.log({"kind": f"eval_{mode}", "update": self.state.update, "when": when, **figures})
        self.state = replace(self.state, results={**self.state.results, when: scores})
        self._finished(folder)

    def _train(
        self,
        session: Session,
        learner: Learner,
        folder: RunFolder,
        collector: Collector | AheadCollector,
        eval_tasks: int | None,
    ) -> None:
        config = self.config
        if self.state.update:
            self._evaluate_on_the_way(session, folder, eval_tasks)  # where a resumed run was stopped before that
        self.display.phase("training", config.updates, self.state.update)
        while self.state.update < config.updates:
            self._update(session, learner, folder, collector)
            done = self.state.update
            if self._evaluate_on_the_way(session, folder, eval_tasks):
                self.display.phase("training", config.updates, done)
            if done % config.checkpoint_every == 0 or done == config.updates:
                self._save(folder, learner)

    def _evaluate_on_the_way(self, session: Session, folder: RunFolder, size: int | None) -> bool:
        """Evaluate if it is time for it; whether it was."""
        done, every = self.state.update, self.config.eval.every
        if not every or done % every or done >= self.config.updates:
            return False
        self._evaluate(session, folder, f"update {done}", size)
        return True

    def _update(
        self, session: Session, learner: Learner, folder: RunFolder, collector: Collector | AheadCollector
    ) -> None:
        config, update = self.config, self.state.update
        started = time.monotonic()
        with while_sampling(config.rollout):
            collected = collector.collect(update, self.state.prompts)
        seconds = time.monotonic() - started
        with uninterrupted() as held, while_learning(config.learner):
            held.act(lambda: self.display.note("stopping as soon as this update is learnt; again, to stop at once"))
            self._whole = False
            figures = self._learn(session, learner, folder, collected, seconds)
            self._finished(folder)
            self._whole = True
        self.display.advance(update + 1, figures)

    def _learn(
        self, session: Session, learner: Learner, folder: RunFolder, collected: Collected, rollout_seconds: float
    ) -> dict[str, float]:
        """Train on what was rolled out, and log it; returns the logged figures."""
        config, update = self.config, self.state.update
        started = time.monotonic()
        lr = scheduled_lr(config.learner, update, config.updates)
        groups = learner.prepared(self._rows([collected.pairs[i] for i in collected.kept]))
        seed = int(np.random.SeedSequence([config.seed, 3, update]).generate_state(1)[0])
        stats = learner.update([*groups, *self._replayed] or [[]], lr=lr, seed=seed)
        if self.algorithm.replay_weight:
            self._replayed = positives(groups, self.algorithm.replay_weight)
        session.policy.weights_updated()
        seconds = time.monotonic() - started
        figures = update_figures(collected, groups)
        times = {"seconds_rollout": rollout_seconds, "seconds_learn": seconds}
        self.state = advanced(
            self.state,
            figures,
            rollout_seconds=rollout_seconds,
            learn_seconds=seconds,
            learned=stats.get("live_rows", 0.0) > 0,
        )
        folder.log({"kind": "train", "update": update + 1, "lr": lr, **figures, **stats, **times})
        if config.save_trees_every and update % config.save_trees_every == 0:
            for tree, result in collected.pairs:
                folder.log_tree({"update": update + 1, **tree_to_json(tree, result)})
        return {**figures, **stats}

    def _finished(self, folder: RunFolder) -> None:
        """Note where the logs and the random generators are, now that an update or an evaluation is whole."""
        metrics_bytes, trees_bytes = folder.lengths
        self.state = replace(self.state, metrics_bytes=metrics_bytes, trees_bytes=trees_bytes)
        self._random = random_states()

    def _rows(self, pairs: Sequence[Pair]) -> list[list[TrainingRow]]:
        """What each prompt gives to train on: nothing, where no rollout came to a valid end."""
        trees = [tree for tree, _ in pairs]
        reference = None if self.reference is None else self.reference.logprobs(trees)
        credited = leaf_credits(self.algorithm.credit, trees, reference)
        return [
            tree_rows(tree, given, self.algorithm.objective.bounds(tree, result), reference)
            for (tree, result), given in zip(pairs, credited, strict=True)
        ]

    @contextmanager
    def _saving_at_the_end(self, folder: RunFolder, learner: Learner) -> Iterator[None]:
        """Whatever ends the block, the state after the last finished update is saved, if it is not yet and can be."""
        try:
            yield
        except BaseException as error:
            # Rollouts that are made ahead are made again with the weights that they were begun with.
            again = self._ahead is None or self._ahead.update == self.state.update
            together = self.ranks.alone or self.stopping.agreed
            if together and self._whole and again and self.state.update > self._saved:
                try:
                    self._save(folder, learner)
                except Exception as another:
                    if not isinstance(error, Exception):
                        raise
                    error.add_note(f"update {self.state.update} could not be saved: {another}")
            raise

    def _save(self, folder: RunFolder, learner: Learner) -> None:
        if not self.ranks.leads:
            for part in (learner.weights, learner):
                part.state_dict()  # the first rank asks for this one's share of it
            self._saved = self.state.update
            return
        folder.sync()
        save_checkpoint(
            folder.checkpoints,
            learner.weights,
            learner,
            self.state,
            self.config.keep_checkpoints,
            to_state(self._replayed) if self.algorithm.replay_weight else None,
            None if self._ahead is None else self._ahead.weights,
            self._random,
        )
        self._saved = self.state.update

    def _warn_if_nothing_was_learned(self) -> None:
        if self.state.update > 0 and self.state.updates_with_signal == 0:
            self.display.note(
                "warning: no prompt had both a success and a failure, so reinforcement learning changed nothing; "
                "start from a stronger model, a longer cold start or easier tasks"
            )

    def _finish(self, session: Session, folder: RunFolder) -> dict[str, Any]:
        self._warn_if_nothing_was_learned()
        if self.ranks.leads:
            session.save(folder.path / "model")
        folder.sync()
        spent = asdict(self.state)
        for name in ("config", "results", "metrics_bytes", "trees_bytes"):
            del spent[name]
        summary = {
            "algorithm": self.algorithm.name,
            "seed": self.config.seed,
            "folder": str(folder.path),
            **self.state.results,
            "spent": spent,
        }
        if self.ranks.leads:
            write_atomic(folder.path / "summary.json", json.dumps(summary, indent=2))
        return summary
