"""The training loop: evaluate, cold start, then roll out - credit - update, with checkpoints one can resume from."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml

from elpo_agent.algorithms import registry
from elpo_agent.evaluation.evaluate import evaluate, tree_attempts
from elpo_agent.evaluation.scores import summarize
from elpo_agent.rollout.base import SearchResult
from elpo_agent.rollout.runner import Runner, TaskRef
from elpo_agent.rollout.serialization import tree_to_json
from elpo_agent.training.checkpoint import (
    RunState,
    list_checkpoints,
    load_state,
    load_weights,
    save_checkpoint,
    write_atomic,
)
from elpo_agent.training.config import TrainConfig
from elpo_agent.training.demonstrations import expert_rows
from elpo_agent.training.learner import Learner, scheduled_lr
from elpo_agent.training.rows import tree_rows
from elpo_agent.training.run_folder import RunFolder, RunFolderError
from elpo_agent.training.session import Session, env_factory
from elpo_agent.training.sft import SftProgress, train_sft
from elpo_agent.training.tasks import update_indices
from elpo_agent.tree import RolloutTree


class Display(Protocol):
    """Where progress is shown; the trainer knows nothing about terminals."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """A new phase of `total` units begins, `done` of them already behind it."""

    def advance(self, done: int, figures: dict[str, float]) -> None:
        """`done` units of the phase are finished; `figures` are the latest."""

    def note(self, text: str) -> None:
        """One line for the log."""


def output_folder(config: TrainConfig) -> Path:
    """The run folder that `config.output` names."""
    if config.output != "auto":
        return Path(config.output)
    return Path("runs") / f"{config.algorithm.name}-seed{config.seed}"


class Trainer:
    """One run.

    Args:
        config: everything about it.
        display: shows progress.
        resume: continue the run in the output folder instead of starting one.

    Raises:
        RunFolderError: the folder holds a run and `resume` is off, or it holds none and `resume` is on, or another
            process is using it.
        ValueError: unknown algorithm or option, or (resuming) a configuration that differs from the saved one.
    """

    def __init__(self, config: TrainConfig, display: Display, *, resume: bool = False) -> None:
        self.config = config
        self.display = display
        self.resume = resume
        if config.threads:
            torch.set_num_threads(config.threads)
        self.algorithm = registry.load(config.algorithm.name, **config.algorithm.options)
        self.path = output_folder(config)
        self.state = RunState(config=_comparable(config))
        self.results: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Train to the last update; returns what summary.json holds."""
        with RunFolder(self.path) as folder, _deterministic():
            checkpoint = self._start(folder)
            session = Session.open(self.config.model)
            learner = Learner(
                session.model,
                self.algorithm.objective,
                self.config.learner,
                pad_id=session.pad_id,
                temperature=self.config.rollout.temperature,
            )
            if checkpoint is not None:
                load_weights(checkpoint, session.model, learner.optimizer, session.device)
                session.policy.weights_updated()
                self.display.note(f"resumed from {checkpoint.name}")
            folder.open_logs(
                metrics_bytes=self.state.metrics_bytes,
                trees_bytes=self.state.trees_bytes,
                update=self.state.update,
            )
            if checkpoint is None:
                self._cold_start(session)
                self._evaluate(session, folder, "before")
                self._save(folder, session, learner)
            self._train(session, learner, folder)
            self._evaluate(session, folder, "after")
            return self._finish(session, folder)

    def _start(self, folder: RunFolder) -> Path | None:
        """Check the folder against `resume`; returns the checkpoint to continue from."""
        checkpoints = list_checkpoints(folder.checkpoints)
        started = (folder.path / "config.yaml").exists()
        if not self.resume:
            if started:
                raise RunFolderError(
                    f"output={folder.path} already holds a run; continue it with --resume, or choose another --output"
                )
            write_atomic(folder.path / "config.yaml", yaml.safe_dump(_plain(asdict(self.config)), sort_keys=False))
            return None
        if not started:
            raise RunFolderError(f"output={folder.path} holds no run to resume; leave out --resume to start one")
        if not checkpoints:
            return None  # killed before the first checkpoint: nothing is lost by starting over
        state = load_state(checkpoints[-1])
        differing = _differences(state.config or {}, self.state.config or {})
        if differing:
            raise ValueError(
                f"the run in {folder.path} was started with other settings ({'; '.join(differing)}); "
                "resume with the same ones, or start a new run"
            )
        self.state = state
        saved = folder.path / "results.json"
        self.results = json.loads(saved.read_text()) if saved.exists() else {}
        return checkpoints[-1]

    def _cold_start(self, session: Session) -> None:
        cold = self.config.cold_start
        if cold.tasks <= 0:
            return
        env = env_factory(self.config.env, evaluating=False)()
        size = env.unwrapped.task_source.size  # type: ignore[attr-defined]
        count = cold.tasks if size is None else min(cold.tasks, size)
        self.display.phase("playing expert traces", count)
        indices = update_indices(0, count, size, self.config.seed)
        rows = expert_rows(env, session.codec, indices, self.config.rollout.max_context)
        env.close()
        self.display.note(f"cold start: {len(rows)} expert traces from {count} tasks")

        def show(p: SftProgress) -> None:
            if p.update == 1:
                self.display.phase("cold start (SFT)", p.total)
            self.display.advance(p.update, {"loss": p.loss})

        train_sft(session.model, rows, cold.optimization, pad_id=session.pad_id, on_update=show)
        session.policy.weights_updated()

    def _evaluate(self, session: Session, folder: RunFolder, when: str) -> None:
        """Sampled and greedy scores on the held-out tasks; kept in results.json so that resuming repeats nothing."""
        config = self.config.eval
        if config.tasks <= 0 or when in self.results:
            return
        make_env = env_factory(self.config.env, evaluating=True)
        probe = make_env()
        size = probe.unwrapped.task_source.size  # type: ignore[attr-defined]
        probe.close()
        stop = config.first_index + config.tasks if size is None else min(size, config.first_index + config.tasks)
        tasks = [TaskRef(i) for i in range(config.first_index, stop)]
        scores: dict[str, dict[str, float]] = {}
        modes = [("sampled", config.temperature, config.samples)] + ([("greedy", 0.0, 1)] if config.greedy else [])
        for mode, temperature, samples in modes:
            self.display.phase(f"evaluating {when} ({mode})", len(tasks))
            done = 0

            def count(tree: RolloutTree, result: SearchResult) -> None:
                nonlocal done
                done += 1
                self.display.advance(done, {})

            # The same evaluation seed before and after: the same tasks and the same noise.
            seed = self.config.seed + 10_000
            with session.runner(self.config.rollout, make_env, temperature) as runner:
                scores[mode] = summarize(evaluate(runner, tasks, samples=samples, seed=seed, on_tree=count, batch=128))
            folder.log({"kind": f"eval_{mode}", "update": self.state.update, "when": when, **scores[mode]})
        self.results[when] = scores
        if when in ("before", "after"):
            write_atomic(folder.path / "results.json", json.dumps(self.results, indent=2))

    def _train(self, session: Session, learner: Learner, folder: RunFolder) -> None:
        config = self.config
        make_env = env_factory(config.env, evaluating=False)
        probe = make_env()
        size = probe.unwrapped.task_source.size  # type: ignore[attr-defined]
        probe.close()
        self.display.phase("training", config.updates, self.state.update)
        with session.runner(config.rollout, make_env, config.rollout.temperature) as runner:
            self._updates(session, learner, folder, runner, size)

    def _updates(self, session: Session, learner: Learner, folder: RunFolder, runner: Runner, size: int | None) -> None:
        config = self.config
        for update in range(self.state.update, config.updates):
            started = time.monotonic()
            seed = int(np.random.SeedSequence([config.seed, 3, update]).generate_state(1)[0])
            tasks = [TaskRef(i) for i in update_indices(update, config.rollout.prompts, size, config.seed)]
            pairs = runner.run(self.algorithm.strategy, tasks, seed=seed)
            rolled = time.monotonic()
            groups = []
            for tree, result in pairs:
                credit = self.algorithm.credit.assign(tree)
                groups.append(tree_rows(tree, credit, self.algorithm.objective.bounds(tree, result)))
            lr = scheduled_lr(config.learner, update, config.updates)
            stats = learner.update(groups, lr=lr, seed=seed)
            session.policy.weights_updated()
            ended = time.monotonic()
            figures = rollout_figures(pairs)
            self.state = _advance(self.state, figures, ended - started)
            folder.log(
                {
                    "kind": "train",
                    "update": update + 1,
                    "lr": lr,
                    **figures,
                    **stats,
                    "seconds_rollout": rolled - started,
                    "seconds_learn": ended - rolled,
                }
            )
            if config.save_trees_every and update % config.save_trees_every == 0:
                for tree, result in pairs:
                    folder.log_tree({"update": update + 1, **tree_to_json(tree, result)})
            self.display.advance(update + 1, {**figures, **stats})
            if config.eval.every and (update + 1) % config.eval.every == 0 and update + 1 < config.updates:
                self._evaluate(session, folder, f"update {update + 1}")
                self.display.phase("training", config.updates, update + 1)
            if (update + 1) % config.checkpoint_every == 0 or update + 1 == config.updates:
                self._save(folder, session, learner)

    def _save(self, folder: RunFolder, session: Session, learner: Learner) -> None:
        metrics_bytes, trees_bytes = folder.sync()
        self.state = replace(self.state, metrics_bytes=metrics_bytes, trees_bytes=trees_bytes)
        save_checkpoint(folder.checkpoints, session.model, learner.optimizer, self.state, self.config.keep_checkpoints)

    def _finish(self, session: Session, folder: RunFolder) -> dict[str, Any]:
        model_path = folder.path / "model"
        session.model.save_pretrained(model_path)  # type: ignore[operator]
        session.tokenizer.save_pretrained(model_path)
        folder.sync()
        state = {k: v for k, v in asdict(self.state).items() if k not in ("config", "metrics_bytes", "trees_bytes")}
        summary = {
            "algorithm": self.algorithm.name,
            "seed": self.config.seed,
            "folder": str(folder.path),
            **self.results,
            "spent": state,
        }
        write_atomic(folder.path / "summary.json", json.dumps(summary, indent=2))
        return summary


def rollout_figures(pairs: Sequence[tuple[RolloutTree, SearchResult]]) -> dict[str, float]:
    """Counts and means over one update's trees; tokens and calls of shared steps are counted once."""
    attempts = [a for tree, _ in pairs for a in tree_attempts(tree)]
    valid = [a for a in attempts if a.valid]
    steps = [node.step for tree, _ in pairs for node in tree.nodes if node.step is not None]
    fresh = [tree.outcome(leaf) for tree, _ in pairs for leaf in _fresh_leaves(tree)]
    tokens = sum(len(s.ids) for s in steps)
    return {
        "rollouts": len(attempts),
        "invalid": len(attempts) - len(valid),
        "success": float(np.mean([a.success for a in valid])) if valid else 0.0,
        "success_fresh": float(np.mean([o.success for o in fresh if o.valid])) if fresh else 0.0,
        "truncated": float(np.mean([a.truncated for a in valid])) if valid else 0.0,
        "turns": float(np.mean([a.turns for a in valid])) if valid else 0.0,
        "generated_tokens": tokens,
        "tool_calls": sum(s.tool_calls for s in steps),
        "tool_errors": sum(s.tool_errors for s in steps),
        "entropy": float(sum(s.entropies.sum() for s in steps)) / max(1, tokens),
        "localized": sum(
            loc.closed and loc.critical_node is not None for _, result in pairs for loc in result.localizations
        ),
        "mixed_groups": float(np.mean([len({o.success for o in _outcomes(tree)}) > 1 for tree, _ in pairs])),
    }


def _outcomes(tree: RolloutTree) -> list[Any]:
    return [tree.outcome(leaf) for leaf in tree.leaves]


def _fresh_leaves(tree: RolloutTree) -> Iterator[int]:
    """Leaves sampled from the prompt itself: the first through each child of the root (suffixes join a child that
    a full rollout made). Only these estimate pass@1."""
    seen: set[int] = set()
    for leaf in tree.leaves:
        top = tree.path(leaf)[0]
        if top not in seen:
            seen.add(top)
            yield leaf


def _advance(state: RunState, figures: dict[str, float], seconds: float) -> RunState:
    return replace(
        state,
        update=state.update + 1,
        rollouts=state.rollouts + int(figures["rollouts"]),
        generated_tokens=state.generated_tokens + int(figures["generated_tokens"]),
        tool_calls=state.tool_calls + int(figures["tool_calls"]),
        tool_errors=state.tool_errors + int(figures["tool_errors"]),
        localized=state.localized + int(figures["localized"]),
        train_seconds=state.train_seconds + seconds,
    )


# What may differ between a run and its resumption without changing its results.
_FREE_TO_CHANGE = ("output", "checkpoint_every", "keep_checkpoints", "save_trees_every")


def _comparable(config: TrainConfig) -> dict[str, Any]:
    plain: dict[str, Any] = _plain(asdict(config))
    return {k: v for k, v in plain.items() if k not in _FREE_TO_CHANGE}


def _plain(value: Any) -> Any:
    """JSON- and YAML-safe copy: tuples become lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    out: list[str] = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            out.extend(_differences(a, b, f"{prefix}{key}."))
        elif a != b:
            out.append(f"{prefix}{key}: was {a!r}, now {b!r}")
    return out


@contextmanager
def _deterministic() -> Iterator[None]:
    """The same seed gives the same run: deterministic kernels where torch has them."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
