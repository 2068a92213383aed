"""The runner over a scripted environment: equal trees, snapshots, context, errors, progress, settings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from _word_env import STOP, ScriptedPolicy, WordEnv, check_tree, logs, runner_of, tasks_of

from elpo_agent.policy import SampledTurn, SampleRequest
from elpo_agent.rollout.base import Expander, SearchResult
from elpo_agent.rollout.bel import BinaryErrorLocalization
from elpo_agent.rollout.independent import IndependentSampling
from elpo_agent.rollout.runner import Progress, TaskRef, tree_metrics
from elpo_agent.tree import Outcome


class BranchEverywhere:
    """Full rollouts, then suffixes from every inner node, several expansions in flight at once."""

    n_total = 24

    async def grow(self, expander: Expander) -> SearchResult:
        await expander.expand(0, 4)
        while expander.budget.left:
            inner = [n.index for n in expander.tree.nodes if n.children]
            await asyncio.gather(*(expander.expand(i, 2) for i in inner))
        return SearchResult()


@pytest.mark.parametrize("strategy", [IndependentSampling(8), BinaryErrorLocalization(12), BranchEverywhere()])
def test_equal_runs_give_equal_trees_whatever_the_timing(strategy: Any) -> None:
    class Jittery(WordEnv):
        jitter = 0.004

    with runner_of(ScriptedPolicy(), Jittery) as runner:
        expected = runner.run(strategy, tasks_of(5), seed=3)
        again = runner.run(strategy, tasks_of(5), seed=3)
        unbounded = runner.batch_sizes
    for tree, _ in expected:
        check_tree(tree)
        assert len(tree.leaves) == strategy.n_total
        assert all(node.snapshot is None for node in tree.nodes)
    assert logs(again) == logs(expected)
    # Three environments for all conversations: states move through snapshots, one thread or two.
    for limits in ({"tool_threads": 1, "max_envs": 3}, {"tool_threads": 2, "max_envs": 2}):
        with runner_of(ScriptedPolicy(), **limits) as runner:
            assert logs(runner.run(strategy, tasks_of(5), seed=3)) == logs(expected)
            assert logs(runner.run(strategy, tasks_of(5), seed=4)) != logs(expected)
    # Four trajectories at a time, the others wait: the same trees, in batches that do not depend on timing either.
    batches = []
    for make_env in (WordEnv, Jittery, Jittery):
        with runner_of(ScriptedPolicy(), make_env, max_active=4) as runner:
            assert logs(runner.run(strategy, tasks_of(5), seed=3)) == logs(expected)
            batches.append(runner.batch_sizes)
    assert batches[0] == batches[1] == batches[2]
    assert len(batches[0]) > len(unbounded)


def test_a_task_does_not_depend_on_its_neighbours() -> None:
    with runner_of(ScriptedPolicy()) as runner:
        together = logs(runner.run(IndependentSampling(6), tasks_of(4), seed=1))
        alone = logs(runner.run(IndependentSampling(6), [TaskRef(index=2)], seed=1))
        twice = logs(runner.run(IndependentSampling(6), [TaskRef(index=2), TaskRef(index=2)], seed=1))
    assert together[2] == alone[0] == twice[0] != twice[1]


def test_snapshots_are_there_where_branching_may_happen() -> None:
    held: list[list[bool]] = []

    @dataclass(frozen=True)
    class Look:
        n_total: int = 6
        branches: bool = True

        async def grow(self, expander: Expander) -> SearchResult:
            await expander.expand(0, 6)
            held.append([n.snapshot is not None for n in expander.tree.nodes])
            assert all((n.snapshot is not None) == (n.outcome is None) for n in expander.tree.nodes[:1])
            if self.branches:
                assert all((n.snapshot is not None) == bool(n.children) for n in expander.tree.nodes)
            else:
                assert not any(n.snapshot for n in expander.tree.nodes[1:])
            return SearchResult()

    with runner_of(ScriptedPolicy()) as runner:
        with_branches = runner.run(Look(), tasks_of(1), seed=0)
        without = runner.run(Look(branches=False), tasks_of(1), seed=0)
    assert logs(with_branches) == logs(without)
    assert sum(held[0]) > 1 and sum(held[1]) == 1


def test_what_cannot_be_expanded() -> None:
    class Wrong:
        n_total = 4

        async def grow(self, expander: Expander) -> SearchResult:
            (leaf,) = await expander.expand(0, 1)
            with pytest.raises(ValueError, match=f"node={leaf} holds no snapshot"):
                await expander.expand(leaf, 1)
            with pytest.raises(ValueError, match="node=99 holds no snapshot"):
                await expander.expand(99, 1)
            assert len(await expander.expand(0, 10)) == 3
            assert await expander.expand(0, 1) == []
            return SearchResult()

    with runner_of(ScriptedPolicy()) as runner:
        ((tree, _),) = runner.run(Wrong(), tasks_of(1), seed=0)
    assert len(tree.leaves) == 4


def test_a_trajectory_that_outgrows_the_context_is_truncated() -> None:
    policy = ScriptedPolicy(choose=lambda prefix, j: "t")
    # Prefixes: "task 0", then +2 for the turn and +5, +6, ... for "<0:t>", "<0:tt>", ...: 6, 13, 21, 30.
    with runner_of(policy, max_context=25) as runner:
        ((tree, _),) = runner.run(IndependentSampling(2), tasks_of(1), seed=0)
    assert [len(tree.path(leaf)) for leaf in tree.leaves] == [3, 3]
    assert len(tree.prefix_ids(tree.nodes[tree.leaves[0]].parent)) == 21
    for leaf in tree.leaves:
        assert tree.outcome(leaf) == Outcome(reward=0.0, success=False, truncated=True)
        assert tree.nodes[leaf].step.feedback_ids == ()  # type: ignore[union-attr]
    assert max(len(r.prefix_ids) for batch in policy.batches for r in batch) == 21


def test_a_prompt_that_does_not_fit_gives_an_empty_tree(caplog: pytest.LogCaptureFixture) -> None:
    policy = ScriptedPolicy()
    tasks = [TaskRef(index=1), TaskRef(index=123456), TaskRef(index=2)]
    with runner_of(policy, max_context=12, max_new_tokens=4) as runner:
        results = runner.run(BinaryErrorLocalization(4), tasks, seed=0)
    assert [len(tree.leaves) for tree, _ in results] == [4, 0, 4]
    assert "word/123456: 11 prompt tokens" in caplog.text


def test_errors_of_the_policy_and_the_strategy_surface() -> None:
    class Broken(ScriptedPolicy):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
            if len(self.batches) == 2:
                raise RuntimeError("out of memory")
            return super().sample(requests)

    class Nervous(IndependentSampling):
        async def grow(self, expander: Expander) -> SearchResult:
            await expander.expand(0, 1)
            raise ZeroDivisionError("strategy")

    with runner_of(Broken(letters="t")) as runner, pytest.raises(RuntimeError, match="out of memory"):
        runner.run(IndependentSampling(4), tasks_of(3), seed=0)
    with runner_of(ScriptedPolicy()) as runner, pytest.raises(ZeroDivisionError):
        runner.run(Nervous(2), tasks_of(3), seed=0)


def test_a_cut_turn_is_closed_by_the_feedback() -> None:
    policy = ScriptedPolicy(choose=lambda prefix, j: "l" if "<" not in prefix else "a")
    with runner_of(policy) as runner:
        ((tree, _),) = runner.run(IndependentSampling(1), tasks_of(1), seed=0)
    check_tree(tree)
    step = tree.nodes[1].step
    assert step is not None and step.ids == (ord("t"),) and step.feedback_ids[0] == STOP


def test_progress_and_metrics() -> None:
    seen: list[Progress] = []
    with runner_of(ScriptedPolicy()) as runner:
        results = runner.run(BinaryErrorLocalization(8), tasks_of(3), seed=5, on_progress=seen.append)
    metrics = [tree_metrics(tree) for tree, _ in results]
    assert seen[-1] == Progress(
        prompts=3,
        prompts_total=3,
        rollouts=24,
        successes=sum(tree.outcome(leaf).success for tree, _ in results for leaf in tree.leaves),
        generated_tokens=sum(m.generated_tokens for m in metrics),
    )
    assert all(a.rollouts <= b.rollouts and a.prompts <= b.prompts for a, b in pairwise(seen))
    for (tree, _), m in zip(results, metrics, strict=True):
        letters = [node.step.text for node in tree.nodes[1:] if node.step is not None]
        assert m.rollouts == 8 and m.turns == len(letters) and m.generated_tokens == 2 * len(letters)
        assert m.tool_calls == sum(x in "te" for x in letters)
        assert m.tool_errors == letters.count("e")


def test_task_refs() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        TaskRef()
    with pytest.raises(ValueError, match="exactly one"):
        TaskRef(index=1, task_id="x")
    assert TaskRef(task_id="x").options == {"task_id": "x"}
    assert TaskRef(task_id="x").key == TaskRef(task_id="x").key != TaskRef(task_id="y").key
    with runner_of(ScriptedPolicy()) as runner:
        ((tree, _),) = runner.run(IndependentSampling(1), [TaskRef(task_id="x")], seed=0)
        assert tree.task_id == "word/77"
        assert runner.run(IndependentSampling(1), [], seed=0) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_context": 4}, "no room for a prompt"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"tool_threads": 0}, "at least one thread"),
        ({"tool_threads": 4, "max_envs": 3}, "as many"),
    ],
)
def test_bad_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runner_of(ScriptedPolicy(), **change)


def test_strategies_have_a_seed_of_their_own_for_every_prompt() -> None:
    seen: list[int] = []

    class Look(IndependentSampling):
        async def grow(self, expander: Expander) -> SearchResult:
            seen.append(expander.seed)
            return await super().grow(expander)

    with runner_of(ScriptedPolicy()) as runner:
        for seed in (1, 1, 2):
            runner.run(Look(1), [*tasks_of(3), TaskRef(index=0)], seed=seed)
    first, again, other = seen[:4], seen[4:8], seen[8:]
    assert first == again and len({*first, *other}) == 8 and min(seen) >= 0
