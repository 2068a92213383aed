"""Runner, batcher, environment pool and tree logs, over a scripted environment and the real one."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from elpo_agent.policy import SampledTurn, SampleRequest
from elpo_agent.rollout.base import Anchor, Expander, Localization, SearchResult
from elpo_agent.rollout.batcher import Batcher
from elpo_agent.rollout.bel import BinaryErrorLocalization
from elpo_agent.rollout.independent import IndependentSampling
from elpo_agent.rollout.runner import Progress, Runner, TaskRef, tree_metrics
from elpo_agent.rollout.serialization import tree_from_json, tree_to_json
from elpo_agent.tree import Outcome, RolloutTree, Step
from elpo_envs.episode import EnvState
from elpo_envs.sandbox import SandboxError

STOP = 0
TOOLS = [{"type": "function", "function": {"name": "python"}}]


class WordEnv(gym.Env[str, str]):
    """An episode is a word, one letter a turn: t and e are tool calls (fine, failing), a and b right and
    wrong answers, ! a broken sandbox, ? a bug, z a slow tool. The feedback spells the word so far."""

    action_space = spaces.Text(10)
    observation_space = spaces.Text(100)
    max_turns = 6
    jitter = 0.0

    def __init__(self) -> None:
        self.task, self.word, self.closed = -1, "", 0

    @property
    def tools(self) -> list[dict[str, Any]]:
        return TOOLS

    @property
    def contract(self) -> dict[str, Any]:
        return {"environment": "WordEnv"}

    def freeze(self) -> EnvState:
        return EnvState((self.task, self.word), {}, None)  # type: ignore[arg-type]

    def thaw(self, state: EnvState, reseed: int | None = None) -> tuple[str, dict[str, Any]]:
        assert reseed is None
        self.task, self.word = state.episode  # type: ignore[misc]
        return "", self._info()

    def clone(self) -> WordEnv:
        return type(self)()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        assert options is not None
        self.task, self.word = options.get("index", 77), ""
        return "", self._info()

    def _info(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"task {self.task}"}]
        for i, letter in enumerate(self.word):
            messages.append({"role": "assistant", "content": letter})
            if letter not in "ab":
                messages.append({"role": "tool", "content": f"{self.task}:{self.word[: i + 1]}"})
        last = self.word[-1:]
        calls = [{"kind": "error" if last == "e" else "ok"}] if last and last not in "ab" else []
        return {
            "task_id": f"word/{self.task}",
            "messages": messages,
            "tool_calls": calls,
            "is_correct": last == "a",
            "answer": last if last in ("a", "b") else None,
        }

    def step(self, action: str) -> Any:
        time.sleep(random.random() * self.jitter)
        if action == "!":
            raise SandboxError("the sandbox died")
        if action == "?":
            raise TypeError("a bug")
        if action == "z":
            time.sleep(0.3)
        self.word += action
        over = action in "ab"
        truncated = not over and len(self.word) >= self.max_turns
        return "", -1.1 if action == "b" else float(action == "a"), over, truncated, self._info()

    def close(self) -> None:
        self.closed += 1


class CharCodec:
    """One token a character; 0 ends a turn."""

    stop_ids = (STOP,)

    def prompt_ids(self, messages: Any, tools: Any) -> tuple[int, ...]:
        assert tools == TOOLS
        return tuple(map(ord, messages[0]["content"]))

    def feedback_ids(self, messages_new: Any, tools: Any, *, closed: bool) -> tuple[int, ...]:
        text = "".join(f"<{m['content']}>" for m in messages_new)
        return (() if closed else (STOP,)) + tuple(map(ord, text))

    def turn_text(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in ids if i != STOP)


@dataclass
class ScriptedPolicy:
    """A letter a turn: drawn from `letters` with the sample's seed, or chosen by (prefix, sample)."""

    letters: str = "tteab"
    choose: Callable[[str, int], str] | None = None
    batches: list[list[SampleRequest]] = field(default_factory=list)
    entropy_kind: Any = "full"
    resets: int = 0

    def reset_cache(self) -> None:
        self.resets += 1

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
        self.batches.append(list(requests))
        return [[self._turn(r, j) for j in range(r.n)] for r in requests]

    def _turn(self, request: SampleRequest, j: int) -> SampledTurn:
        rng = np.random.default_rng([request.seed, j])
        letter = str(rng.choice(list(self.letters)))
        if self.choose is not None:
            letter = self.choose("".join(map(chr, request.prefix_ids)), j)
        ids = (ord(letter), STOP) if letter != "l" else (ord("t"),)
        values = rng.random((2, len(ids)), dtype=np.float32)
        return SampledTurn(ids, -values[0], values[1], "stop" if ids[-1] == STOP else "length")


def runner_of(policy: Any, make_env: Callable[[], Any] = WordEnv, **kwargs: Any) -> Runner:
    defaults = {"max_new_tokens": 4, "temperature": 1.0, "max_context": 10_000}
    return Runner(policy, CharCodec(), make_env, **(defaults | kwargs))


def tasks_of(n: int) -> list[TaskRef]:
    return [TaskRef(index=i) for i in range(n)]


def logs(results: Sequence[tuple[RolloutTree, SearchResult]]) -> list[str]:
    return [json.dumps(tree_to_json(tree, result)) for tree, result in results]


def check_tree(tree: RolloutTree) -> None:
    """Every prefix is what the environment would have shown for the path's own word."""
    task = tree.task_id.split("/")[1]
    for node in tree.nodes[1:]:
        assert node.step is not None
        word = "".join(tree.nodes[i].step.text for i in tree.path(node.index))  # type: ignore[union-attr]
        expected = f"task {task}"
        for i, letter in enumerate(word[:-1]):
            expected += f"{letter}\0<{task}:{word[: i + 1]}>"
        assert "".join(map(chr, tree.prefix_ids(node.parent))) == expected
        assert (node.outcome is not None) == (not node.children)
        if node.outcome is not None:
            assert node.step.feedback_ids == ()
            assert node.outcome.success == (word[-1] == "a")
            assert node.outcome.truncated == (word[-1] not in "ab")
            assert node.outcome.reward == {"a": 1.0, "b": -1.1}.get(word[-1], 0.0)


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


def test_a_task_does_not_depend_on_its_neighbours() -> None:
    with runner_of(ScriptedPolicy()) as runner:
        together = logs(runner.run(IndependentSampling(6), tasks_of(4), seed=1))
        alone = logs(runner.run(IndependentSampling(6), [TaskRef(index=2)], seed=1))
        twice = logs(runner.run(IndependentSampling(6), [TaskRef(index=2), TaskRef(index=2)], seed=1))
    assert together[2] == alone[0] == twice[0] != twice[1]


def test_the_engine_sees_full_batches_and_siblings_are_one_request() -> None:
    class Jittery(WordEnv):
        jitter = 0.01

    policy = ScriptedPolicy(choose=lambda prefix, j: "t" if prefix.count("<") < 3 else "a")
    with runner_of(policy, Jittery) as runner:
        results = runner.run(IndependentSampling(4), tasks_of(5), seed=0)
        assert runner.batch_sizes == [20, 20, 20, 20]
    assert [r.n for r in policy.batches[0]] == [4] * 5
    assert [len(batch) for batch in policy.batches[1:]] == [20, 20, 20]
    prompts = ["".join(map(chr, r.prefix_ids)) for r in policy.batches[0]]
    assert prompts == [f"task {i}" for i in range(5)], "in the order of the tasks"
    seeds = {r.seed for batch in policy.batches for r in batch}
    assert len(seeds) == 5 + 60
    assert policy.resets == 1
    for tree, _ in results:
        check_tree(tree)


def test_branching_searches_fill_batches_too() -> None:
    policy = ScriptedPolicy(choose=lambda prefix, j: "t" if prefix.count("<") < 3 else "b")
    with runner_of(policy) as runner:
        results = runner.run(BinaryErrorLocalization(16), tasks_of(6), seed=0)
    for tree, result in results:
        check_tree(tree)
        assert result.localizations[0].critical_step == 1
        branched = [n for n in tree.nodes[1:] if len(n.children) > 1]
        assert branched and all(len(tree.path(n.index)) <= 3 for n in branched)
    # A search that is not over has a request in every batch.
    texts = [["".join(map(chr, r.prefix_ids)) for r in batch] for batch in policy.batches]
    for i in range(6):
        present = [any(text.startswith(f"task {i}") for text in batch) for batch in texts]
        assert present == sorted(present, reverse=True)


def test_a_slow_tool_holds_up_the_others_for_the_patience_only() -> None:
    def choose(prefix: str, j: int) -> str:
        if prefix == "task 0":
            return "z"
        return "t" if prefix.count("<") < 4 else "a"

    policy = ScriptedPolicy(choose=choose)
    with runner_of(policy, patience_s=0.02) as runner:
        start = time.perf_counter()
        results = runner.run(IndependentSampling(1), tasks_of(3), seed=0)
        assert time.perf_counter() - start < 2
    assert 2 in runner.batch_sizes, "tasks 1 and 2 went ahead"
    for tree, _ in results:
        check_tree(tree)


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


def test_a_broken_sandbox_voids_its_trajectory_alone(caplog: pytest.LogCaptureFixture) -> None:
    made: list[WordEnv] = []

    def make() -> WordEnv:
        made.append(WordEnv())
        return made[-1]

    policy = ScriptedPolicy(choose=lambda prefix, j: "t" if "<" not in prefix else "!" if "task 1" in prefix else "a")
    with caplog.at_level(logging.WARNING), runner_of(policy, make) as runner:
        (first, _), (second, _) = runner.run(IndependentSampling(3), tasks_of(2), seed=0)
    assert all(first.outcome(leaf).success for leaf in first.leaves)
    for leaf in second.leaves:
        outcome = second.outcome(leaf)
        assert not outcome.valid and not outcome.success and outcome.reward == 0
        assert len(second.path(leaf)) == 2
    assert "SandboxError: the sandbox died" in caplog.text
    assert all(env.closed == 1 for env in made)


def test_the_environments_own_word_on_validity_counts() -> None:
    class Voided(WordEnv):
        def _info(self) -> dict[str, Any]:
            return super()._info() | {"valid": False}

    with runner_of(ScriptedPolicy(letters="b"), Voided) as runner:
        ((tree, _),) = runner.run(IndependentSampling(1), tasks_of(1), seed=0)
    assert not tree.outcome(tree.leaves[0]).valid


def test_an_episode_that_cannot_begin_is_tried_twice() -> None:
    failures: list[int] = []

    class Flaky(WordEnv):
        def reset(self, **kwargs: Any) -> Any:
            failures.append(1)
            if len(failures) <= self.broken:
                raise SandboxError("no session")
            return super().reset(**kwargs)

    Flaky.broken = 1  # type: ignore[attr-defined]
    with runner_of(ScriptedPolicy(), Flaky) as runner:
        ((tree, _),) = runner.run(IndependentSampling(2), tasks_of(1), seed=0)
    assert len(tree.leaves) == 2
    Flaky.broken = 99  # type: ignore[attr-defined]
    with runner_of(ScriptedPolicy(), Flaky) as runner, pytest.raises(RuntimeError, match="failed twice"):
        runner.run(IndependentSampling(2), tasks_of(1), seed=0)


def test_bugs_surface() -> None:
    with runner_of(ScriptedPolicy(letters="t?")) as runner:
        with pytest.raises(TypeError, match="a bug"):
            runner.run(IndependentSampling(4), tasks_of(3), seed=0)
        # The pool is fit for the next run.
        runner.policy = ScriptedPolicy()
        for tree, _ in runner.run(IndependentSampling(4), tasks_of(3), seed=0):
            check_tree(tree)


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


def test_logs_round_trip() -> None:
    with runner_of(ScriptedPolicy()) as runner:
        results = runner.run(BinaryErrorLocalization(12), tasks_of(4), seed=0)
    assert any(result.localizations for _, result in results)
    for tree, result in results:
        data = json.loads(json.dumps(tree_to_json(tree, result)))
        tree2, result2 = tree_from_json(data)
        assert result2 == result
        assert (tree2.task_id, tree2.prompt_ids, tree2.leaves) == (tree.task_id, tree.prompt_ids, tree.leaves)
        for a, b in zip(tree.nodes, tree2.nodes, strict=True):
            assert (a.parent, a.depth, a.children, a.outcome) == (b.parent, b.depth, b.children, b.outcome)
            if a.step is None or b.step is None:
                assert a.index == 0
                continue
            assert b.step.logprobs.dtype == np.float32
            assert a.step.logprobs.tobytes() == b.step.logprobs.tobytes()
            np.testing.assert_allclose(a.step.entropies, b.step.entropies, atol=1e-5)
            blank = {"logprobs": np.zeros(0), "entropies": np.zeros(0)}
            assert str(replace(a.step, **blank)) == str(replace(b.step, **blank))


def test_logs_of_every_kind_of_localization_and_bad_ones() -> None:
    tree = RolloutTree("t", (1, 2))
    logprobs = np.array([-1e-7, -3.1415927, -123456.79], dtype=np.float32)
    leaf = tree.add(0, Step((5, 6, 7), logprobs, logprobs), outcome=Outcome(-1.1, False, answer="½"))
    found = (
        Localization(leaf, 0, None, None),
        Localization(leaf, 2, 1, leaf, (Anchor(1, leaf, (leaf,), None), Anchor(2, leaf, (), True)), closed=False),
    )
    data = json.loads(json.dumps(tree_to_json(tree, SearchResult(found))))
    again, result = tree_from_json(data)
    assert result.localizations == found
    assert again.nodes[1].step.logprobs.tobytes() == logprobs.tobytes()  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="version=9"):
        tree_from_json(data | {"version": 9})
    with pytest.raises(ValueError, match="nodes"):
        tree_from_json({k: v for k, v in data.items() if k != "nodes"})


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


def request(letter: str, n: int = 1) -> SampleRequest:
    return SampleRequest((ord(letter),), n, 0, 4)


def test_batcher_orders_by_key_and_waits_for_registered_walkers() -> None:
    policy = ScriptedPolicy()
    batcher = Batcher(policy, patience_s=5)

    async def walker(key: int, delay: float) -> None:
        with batcher.walker():
            await asyncio.sleep(delay)
            for _ in range(3):
                await batcher.sample((key,), request(chr(97 + key)))
                await asyncio.sleep(delay)

    async def main() -> None:
        await asyncio.gather(*(walker(key, 0.001 * (5 - key)) for key in (3, 0, 2, 1)))

    start = time.perf_counter()
    asyncio.run(main())
    assert time.perf_counter() - start < 1
    assert [[r.prefix_ids[0] - 97 for r in batch] for batch in policy.batches] == [[0, 1, 2, 3]] * 3


def test_batcher_passes_errors_to_everybody() -> None:
    class Broken(ScriptedPolicy):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
            raise OSError("disk")

    class Stopped(ScriptedPolicy):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
            raise pytest.fail.Exception("what a time-out of the test runner raises; no Exception")

    class Short(ScriptedPolicy):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
            return super().sample(requests)[:-1]

    async def ask(policy: Any) -> list[Any]:
        batcher = Batcher(policy)
        both = (batcher.sample((i,), request("a")) for i in range(2))
        return await asyncio.gather(*both, return_exceptions=True)

    assert [type(e) for e in asyncio.run(ask(Broken()))] == [OSError, OSError]
    assert [type(e) for e in asyncio.run(ask(Stopped()))] == [pytest.fail.Exception] * 2
    assert all("returned [1] turns" in str(e) for e in asyncio.run(ask(Short())))


def test_batcher_forgets_the_cancelled() -> None:
    policy = ScriptedPolicy()

    async def main() -> None:
        batcher = Batcher(policy, patience_s=5)

        async def walker(key: int) -> None:
            with batcher.walker():
                await batcher.sample((key,), request("a", n=key))

        with batcher.walker():  # holds the batch back
            tasks = [asyncio.create_task(walker(i)) for i in (1, 2, 3)]
            await asyncio.sleep(0.01)
            tasks[1].cancel()
        await asyncio.wait(tasks)
        assert [t.cancelled() for t in tasks] == [False, True, False]

    asyncio.run(main())
    assert [[r.n for r in batch] for batch in policy.batches] == [[1, 3]]


# The real environment


CHATML = """
{%- for m in messages %}
    {{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def byte_tokenizer() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    special = [tokenizers.AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>", "<tool_call>")]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=259, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([""], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    fast.chat_template = CHATML
    return fast


def make_math() -> Any:
    return gym.make("elpo/Math-v0")


def test_expert_turns_succeed_in_the_real_environment() -> None:
    from elpo_agent.chat import ChatCodec

    codec = ChatCodec(byte_tokenizer())
    turns: dict[str, list[str]] = {}
    env = make_math()
    for index in range(3):
        env.reset(options={"index": index})
        turns[env.unwrapped.task.question] = env.unwrapped.expert_turns()
    env.close()

    class Expert(ScriptedPolicy):
        def _turn(self, request: SampleRequest, j: int) -> SampledTurn:
            text = codec._tokenizer.decode(list(request.prefix_ids))
            ((_, expert),) = [(q, t) for q, t in turns.items() if q in text]
            ids = codec.turn_ids(expert[text.count("<tool_response>\n")])
            if j == 1:
                ids = codec.turn_ids("\\boxed{nothing}")
            return SampledTurn(ids, np.zeros(len(ids), np.float32), np.zeros(len(ids), np.float32), "stop")

    with Runner(Expert(), codec, make_math, max_new_tokens=300, temperature=1.0, max_context=20_000) as runner:
        results = runner.run(IndependentSampling(3), tasks_of(3), seed=0)
    for index, (tree, _) in enumerate(results):
        outcomes = [tree.outcome(leaf) for leaf in tree.leaves]
        assert [o.success for o in outcomes] == [True, False, True]
        assert [o.reward for o in outcomes] == [1.0, 0.0, 1.0]
        assert outcomes[1].answer == "nothing" and not outcomes[1].truncated
        steps = [tree.nodes[i].step for i in tree.path(tree.leaves[0])]
        assert [s.text for s in steps if s] == list(turns.values())[index]
        assert [s.tool_calls for s in steps if s] == [1] * (len(steps) - 1) + [0]


@pytest.mark.parametrize("branching", [False, True])
def test_the_in_process_engine_end_to_end(branching: bool) -> None:
    """A random model in the real environment: log-probabilities of a path equal one plain pass over it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from elpo_agent.chat import ChatCodec
    from elpo_agent.engines.transformers_engine import TransformersPolicy

    tokenizer = byte_tokenizer()
    codec = ChatCodec(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=4096,
            initializer_range=0.3,
        )
        model = transformers.Qwen3ForCausalLM(config).eval()
    policy = TransformersPolicy(model, stop_ids=codec.stop_ids, pad_id=0)
    strategy = BinaryErrorLocalization(5) if branching else IndependentSampling(3)

    def make() -> Any:
        return gym.make("elpo/Math-v0", max_turns=3)

    with Runner(policy, codec, make, max_new_tokens=12, temperature=1.0, max_context=4000) as runner:
        results = runner.run(strategy, tasks_of(2), seed=0)
        assert logs(runner.run(strategy, tasks_of(2), seed=0)) == logs(results)
    for tree, _ in results:
        assert len(tree.leaves) == strategy.n_total
        for leaf in tree.leaves:
            assert tree.outcome(leaf).truncated
            ids = torch.tensor([tree.prefix_ids(leaf)])
            with torch.no_grad():
                logp = torch.log_softmax(model(ids).logits[0].double(), -1)
            for i in tree.path(leaf):
                step, start = tree.nodes[i].step, len(tree.prefix_ids(tree.nodes[i].parent))
                assert step is not None
                rows = torch.arange(start - 1, start - 1 + len(step.ids))
                expected = logp[rows, torch.tensor(step.ids)].numpy()
                np.testing.assert_allclose(step.logprobs, expected, atol=1e-4)
