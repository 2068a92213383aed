"""Evaluate a policy: independent samples on a list of tasks, through the same runner as training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from elpo_agent.evaluation.scores import Attempt
from elpo_agent.rollout.base import SearchResult
from elpo_agent.rollout.independent import IndependentSampling
from elpo_agent.rollout.runner import Progress, Runner, TaskRef
from elpo_agent.tree import RolloutTree


def tree_attempts(tree: RolloutTree) -> Iterator[Attempt]:
    """One attempt per leaf, in completion order."""
    for leaf in tree.leaves:
        outcome = tree.outcome(leaf)
        steps = [step for i in tree.path(leaf) if (step := tree.nodes[i].step) is not None]
        yield Attempt(
            task_id=tree.task_id,
            success=outcome.success,
            answer=outcome.answer,
            truncated=outcome.truncated,
            tool_calls=sum(s.tool_calls for s in steps),
            tool_errors=sum(s.tool_errors for s in steps),
            turns=len(steps),
            tokens=sum(len(s.ids) for s in steps),
            valid=outcome.valid,
        )


def evaluate(
    runner: Runner,
    tasks: Sequence[TaskRef],
    *,
    samples: int,
    seed: int,
    batch: int = 64,
    on_tree: Callable[[RolloutTree, SearchResult], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[Attempt]:
    """`samples` attempts at every task.

    Args:
        runner: samples at its own temperature (0 = greedy).
        tasks: which tasks.
        samples: attempts per task, >= 1.
        seed: fixes every sample.
        batch: rollouts that run side by side.
        on_tree: called with each finished task, in order, when its batch is finished.
        on_progress: called with the number of tasks finished so far, as they finish.

    A task whose prompt does not fit in the context counts as `samples` truncated failures.
    """
    attempts: list[Attempt] = []
    width = max(1, batch // samples)
    for start in range(0, len(tasks), width):

        def report(progress: Progress, start: int = start) -> None:
            if on_progress is not None:
                on_progress(start + progress.prompts)

        part = tasks[start : start + width]
        for tree, result in runner.run(IndependentSampling(samples), part, seed=seed, on_progress=report):
            attempts.extend(tree_attempts(tree))
            if not tree.leaves:
                attempts.extend([Attempt(tree.task_id, success=False, answer=None, truncated=True)] * samples)
            if on_tree is not None:
                on_tree(tree, result)
    return attempts
