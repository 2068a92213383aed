"""Continuous batching: budgets, errors, cancellation, slow tools; keys released with their trees; training."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from _engine_conformance import STOP_IDS, VOCAB, random_model  # noqa: E402
from _faulty_runs import tiny  # noqa: E402
from _runs import EASY, metrics, train  # noqa: E402
from _word_env import ScriptedPolicy, WordEnv, check_tree, runner_of, tasks_of  # noqa: E402

from elpo_agent.algorithms import registry  # noqa: E402
from elpo_agent.config import EngineConfig, EnvConfig, ModelConfig, RolloutConfig, TrainConfig  # noqa: E402
from elpo_agent.engines.opening import open_engine  # noqa: E402
from elpo_agent.engines.transformers_engine import TransformersPolicy  # noqa: E402
from elpo_agent.policy import OpenDecode, SampledTurn, SampleRequest  # noqa: E402
from elpo_agent.rollout.base import Expander, SearchResult  # noqa: E402
from elpo_agent.rollout.budget import Account, BudgetLimits  # noqa: E402
from elpo_agent.rollout.continuous import ContinuousBatcher  # noqa: E402
from elpo_agent.rollout.independent import IndependentSampling  # noqa: E402
from elpo_agent.rollout.runner import TaskRef, tree_metrics  # noqa: E402
from elpo_agent.rollout.waiting import Batching  # noqa: E402
from elpo_agent.runs.saved_config import differences, settings  # noqa: E402
from elpo_agent.training.session import Session, env_factory  # noqa: E402

GUARD_S = 30.0  # no test comes near it unless it hangs


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def policy_of(dtype: Any = torch.float64, **options: Any) -> TransformersPolicy:
    options = {"stop_ids": STOP_IDS, "pad_id": 0} | options
    return TransformersPolicy(random_model(tied=True).to(dtype), **options)


def random_ids(length: int, seed: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(2, VOCAB, length).tolist())


class Watched(Account):
    """An account that is looked at whenever it changes."""

    def reserve(self, n: int) -> int:
        granted = super().reserve(n)
        assert self.left is None or self.left >= 0
        return granted

    def settle(self, granted: int, used: int) -> None:
        super().settle(granted, used)
        assert self.left is None or self.left >= 0


@pytest.mark.parametrize("seed", range(8))
def test_budgets_are_never_overspent(seed: int) -> None:
    """Random walkers on few tokens, some of them cancelled: all that was drawn is charged, and nothing else."""
    rng = np.random.default_rng(seed)
    policy = policy_of(torch.float32, max_batch=int(rng.integers(1, 12)))
    accounts = [Watched(int(limit)) for limit in rng.integers(1, 150, 3)]
    drawn = [0, 0, 0]
    short: list[SampledTurn] = []

    async def walk(batcher: ContinuousBatcher, number: int, plan: list[tuple[int, int]]) -> None:
        which = number % 3
        async with batcher.admitted((number,)):
            for turn, (n, longest) in enumerate(plan):
                request = SampleRequest(random_ids(5 + number, number), n, 100 * number + turn, longest)
                turns = await batcher.sample((number, turn), request, accounts[which])
                assert len(turns) <= n and all(len(t.ids) <= longest for t in turns)
                drawn[which] += sum(len(t.ids) for t in turns)
                short.extend(t for t in turns if t.finish == "length" and len(t.ids) < longest)
                assert turns or accounts[which].used_up or accounts[which].left == 0
                for _ in range(number % 4):
                    await asyncio.sleep(0)

    async def main() -> set[int]:
        batcher = ContinuousBatcher(policy, max_walkers=int(rng.integers(1, 10)))
        plans = [[(int(n), int(m)) for n, m in rng.integers(1, (5, 20), (3, 2))] for _ in range(9)]
        tasks = [asyncio.create_task(walk(batcher, i, plan)) for i, plan in enumerate(plans)]
        cancelled = set(rng.choice(9, int(rng.integers(0, 3)), replace=False).tolist())
        for number in cancelled:
            for _ in range(int(rng.integers(0, 60))):
                await asyncio.sleep(0)
            tasks[number].cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), GUARD_S)
        assert not [r for r in results if isinstance(r, Exception)]
        return {number % 3 for number in cancelled}

    touched = asyncio.run(main())
    for which, account in enumerate(accounts):
        assert account.reserved == 0 and account.limit is not None
        assert drawn[which] <= account.spent <= account.limit
        assert which in touched or drawn[which] == account.spent, "only what cancelled requests drew is lost"


def request_of(letter: str, n: int = 1) -> SampleRequest:
    return SampleRequest((ord(letter),), n, 0, 4)


class ScriptedDecode:
    """A token of every row a step, of the turns that a `ScriptedPolicy` would sample."""

    def __init__(self, policy: ScriptedPolicy) -> None:
        self._policy = policy
        self._tickets = 0
        self._open: dict[int, tuple[list[SampledTurn], int]] = {}

    @property
    def live_rows(self) -> int:
        return sum(len(turns) for turns, _ in self._open.values())

    queued_rows = 0

    def add(self, requests: Sequence[SampleRequest]) -> list[int]:
        tickets = list(range(self._tickets, self._tickets + len(requests)))
        self._tickets += len(requests)
        for ticket, turns in zip(tickets, self._policy.sample(requests), strict=True):
            self._open[ticket] = turns, 0
        return tickets

    def step(self, max_steps: int) -> list[tuple[int, list[SampledTurn]]]:
        self._open = {ticket: (turns, taken + max_steps) for ticket, (turns, taken) in self._open.items()}
        done = [t for t, (turns, taken) in self._open.items() if all(len(turn.ids) <= taken for turn in turns)]
        return [(ticket, self._open.pop(ticket)[0]) for ticket in done]

    def cancel(self, ticket: int) -> int:
        turns, taken = self._open.pop(ticket)
        return sum(min(taken, len(turn.ids)) for turn in turns)


class StepwiseScripted(ScriptedPolicy):
    """What is sampled is noted in `batches` when it joins."""

    def open_decode(self) -> OpenDecode:
        return ScriptedDecode(self)


class FailsLater(StepwiseScripted):
    """Its first step is fine and answers nobody, the second one fails."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def open_decode(self) -> OpenDecode:
        policy = self

        class Decode(ScriptedDecode):
            steps = 0

            def step(self, max_steps: int) -> list[tuple[int, list[SampledTurn]]]:
                self.steps += 1
                if self.steps > 1:
                    raise policy.error
                return []

        return Decode(self)


@pytest.mark.parametrize("error", [OSError("disk"), pytest.fail.Exception("what a time-out raises; no Exception")])
def test_errors_reach_everybody_who_waits(error: BaseException) -> None:
    async def main() -> list[Any]:
        batcher = ContinuousBatcher(FailsLater(error))
        scarce = Account(4)  # enough for one of the two, so that the other is put off
        calls = [batcher.sample((i,), request_of("a"), scarce if i > 1 else None) for i in range(4)]
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), GUARD_S)

    found = asyncio.run(main())
    assert found == [error] * 4
    if isinstance(error, Exception):
        assert "raised by the engine, FailsLater" in "".join(error.__notes__)


def test_a_bad_request_is_an_error_for_everybody_and_nobody_waits_for_ever() -> None:
    async def main() -> list[Any]:
        batcher = ContinuousBatcher(policy_of(torch.float32))
        bad = SampleRequest((VOCAB + 3,), 1, 0, 4)
        calls = [batcher.sample((i,), bad if i == 1 else SampleRequest((5,), 2, i, 9)) for i in range(3)]
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), GUARD_S)

    assert all("vocabulary is 0 to" in str(e) for e in asyncio.run(main()))


def test_an_engine_that_returns_too_little_is_named() -> None:
    class Short(StepwiseScripted):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[SampledTurn]]:
            return [own[:-1] for own in super().sample(requests)]

    async def main() -> None:
        await asyncio.wait_for(ContinuousBatcher(Short()).sample((0,), request_of("a", 2)), GUARD_S)

    with pytest.raises(RuntimeError, match=r"returned \[1\] turns for requests of n=\[2\]"):
        asyncio.run(main())


def test_tools_that_are_done_are_looked_at_while_others_decode() -> None:
    """Nothing but `wake` tells of the tool; its walker's turn is over before the long one."""

    async def main() -> list[str]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        over: list[str] = []
        looks = 0

        def wake() -> bool:
            nonlocal looks
            looks += 1
            if looks == 2:
                done.set_result(None)
            return looks == 2

        batcher = ContinuousBatcher(policy_of(stop_ids=[1]), wake)

        async def long() -> None:
            (turn,) = await batcher.sample((0,), SampleRequest(random_ids(4, 0), 1, 0, 100, 0.0))
            assert len(turn.ids) == 100, "it should be long"
            over.append("long")

        async def tool() -> None:
            await done
            await batcher.sample((1,), SampleRequest(random_ids(4, 1), 1, 0, 2))
            over.append("tool")

        await asyncio.wait_for(asyncio.gather(long(), tool()), GUARD_S)
        return over

    assert asyncio.run(main()) == ["tool", "long"]


def test_walkers_that_are_cancelled_leave_the_batch_and_their_room() -> None:
    policy = policy_of(torch.float32)
    account = Account(None)

    async def main() -> None:
        batcher = ContinuousBatcher(policy, max_walkers=2)
        inside: list[int] = []

        async def walk(key: int) -> list[SampledTurn]:
            async with batcher.admitted((key,)):
                inside.append(key)
                request = SampleRequest(random_ids(9, key), 1, key, 60, 0.0)
                while True:  # until cancelled; it never ends by itself
                    await batcher.sample((key,), request, account)

        tasks = [asyncio.create_task(walk(key)) for key in (5, 3, 4, 1, 2)]
        for _ in range(50):
            await asyncio.sleep(0)
        assert inside == [5, 3]
        tasks[4].cancel()  # waits for room
        tasks[0].cancel()  # has it
        tasks[3].cancel()  # waits, and is next by its key, but for its being cancelled
        while len(inside) < 3:
            await asyncio.sleep(0)
        assert inside == [5, 3, 4]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=GUARD_S)
        assert all(task.cancelled() for task in tasks)
        assert account.reserved == 0
        assert len(await batcher.sample((9,), request_of("!"))) == 1, "it still works"

    asyncio.run(asyncio.wait_for(main(), GUARD_S))


# ---------------------------------------------------------------- seen from the runner


def test_a_slow_tool_holds_nobody_up() -> None:
    """Its tool waits until the other tasks' searches are over, which must not wait for it."""
    others_over = threading.Event()
    finished = []

    class Waits(WordEnv):
        def step(self, action: str) -> Any:
            if action == "z":
                finished.append(others_over.wait(GUARD_S))
            return super().step(action)

    def choose(prefix: str, j: int) -> str:
        if prefix == "task 0":
            return "z"
        return "t" if prefix.count("<") < 4 else "a"

    def watch(progress: Any) -> None:
        if progress.prompts == 5:
            others_over.set()

    policy = StepwiseScripted(choose=choose)
    with runner_of(policy, Waits, batching="continuous", patience_s=GUARD_S, tool_threads=2) as runner:
        results = runner.run(IndependentSampling(1), tasks_of(6), seed=0, on_progress=watch)
    assert finished == [True]
    for tree, _ in results:
        check_tree(tree)
    assert [len(batch) for batch in policy.batches][-1] == 1, "the slow one's last turns, alone"


@pytest.mark.parametrize("max_active", [None, 3])
def test_trees_are_those_of_rounds(max_active: int | None) -> None:
    """With a policy whose turns do not depend on the batch, whichever tools are done first."""

    class Jittery(WordEnv):
        jitter = 0.005

    shapes = []
    for batching in ("rounds", "continuous"):
        policy = StepwiseScripted()
        with runner_of(policy, Jittery, batching=batching, max_active=max_active) as runner:
            results = runner.run(IndependentSampling(4), tasks_of(4), seed=0)
        for tree, _ in results:
            check_tree(tree)
        shapes.append([sorted(tuple(texts(tree, leaf)) for leaf in tree.leaves) for tree, _ in results])
    assert shapes[0] == shapes[1]


def texts(tree: Any, leaf: int) -> Iterator[str]:
    return (tree.nodes[i].step.text for i in tree.path(leaf))


def test_it_needs_an_engine_that_can_be_joined() -> None:
    with pytest.raises(ValueError, match=r"batching='continuous' needs an engine.*ScriptedPolicy has none"):
        runner_of(ScriptedPolicy(), batching="continuous")
    with pytest.raises(ValueError, match=r"batching='always' is unknown; choose rounds or continuous"):
        runner_of(StepwiseScripted(), batching="always")


@pytest.fixture(scope="module")
def session() -> Session:
    """The shipped model in float64, so that what is drawn does not hang on rounding."""
    opened = Session.open(ModelConfig(device="cpu"))
    model = opened.model.double()
    policy = open_engine("transformers", model, opened.codec.stop_ids, opened.pad_id, {"max_batch": 6})
    return replace(opened, policy=policy)


def grown(session: Session, strategy: Any, batching: Batching, tasks: Sequence[int], **kwargs: Any) -> list[Any]:
    config = RolloutConfig(max_new_tokens=40, max_context=400, tool_threads=2, patience_s=60.0, batching=batching)
    with session.runner(config, env_factory(EnvConfig(kwargs=EASY), evaluating=False), 1.3, 16) as runner:
        return [tree for tree, _ in runner.run(strategy, [TaskRef(i) for i in tasks], 1, **kwargs)]


def test_the_shipped_model_plays_the_same_episodes(session: Session) -> None:
    strategy = registry.load("elpo", n_total=4).strategy
    pairs = zip(
        grown(session, strategy, "rounds", range(3)), grown(session, strategy, "continuous", range(3)), strict=True
    )
    for rounds, continuous in pairs:
        assert len(continuous.leaves) == 4
        assert [n.parent for n in rounds.nodes] == [n.parent for n in continuous.nodes]
        for a, b in zip(rounds.nodes[1:], continuous.nodes[1:], strict=True):
            assert (a.step.ids, a.step.feedback_ids, a.outcome) == (b.step.ids, b.step.feedback_ids, b.outcome)
            np.testing.assert_allclose(a.step.logprobs, b.step.logprobs, rtol=0, atol=1e-5)


def test_a_run_that_is_cancelled_leaves_the_engine_usable(session: Session) -> None:
    config = RolloutConfig(max_new_tokens=40, max_context=400, tool_threads=2, batching="continuous")
    with session.runner(config, env_factory(EnvConfig(kwargs=EASY), evaluating=False), 1.3, 16) as runner:
        strategy, tasks = IndependentSampling(4), [TaskRef(i) for i in range(3)]
        seen: list[int] = []

        def cancel(progress: Any) -> None:
            seen.append(progress.rollouts)
            runner.cancel()

        with pytest.raises(asyncio.CancelledError):
            runner.run(strategy, tasks, 1, cancel)
        assert seen and seen[-1] < 12
        assert sum(len(tree.leaves) for tree, _ in runner.run(strategy, tasks, 1)) == 12


def test_scarce_tokens_are_kept_to(session: Session) -> None:
    strategy = registry.load("elpo", n_total=8).strategy
    trees = grown(session, strategy, "continuous", range(3), limits=BudgetLimits(tokens=200))
    spent = [tree_metrics(tree).generated_tokens for tree in trees]
    assert all(0 < n <= 200 for n in spent)
    assert any(tree.outcome(leaf).limit == "tokens" for tree in trees for leaf in tree.leaves)


# ---------------------------------------------------------------- keys and values, as long as their trees


class GrowsThenLooks:
    """Task 0's search ends first; the others look at what is cached before and after that, and go on."""

    n_total = 4

    def __init__(self, cached: Callable[[], int], first: bool) -> None:
        self.cached, self.first = cached, first
        self.grown: list[int] = []
        self.before = self.after = 0

    async def grow(self, expander: Expander) -> SearchResult:
        await expander.expand(0, 2)
        self.grown.append(0)
        tree = expander.tree
        if self.first and tree.task_id.endswith("0"):
            while len(self.grown) < 2:
                await asyncio.sleep(0.001)
            self.before, self.tree = self.cached(), tree
            return SearchResult()
        if self.first:
            while not hasattr(self, "tree") or self.tree.nodes[0].snapshot is not None:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
        self.after = self.cached()
        inner = [n.index for n in tree.nodes[1:] if n.snapshot is not None]
        await expander.expand(inner[-1] if inner else 0, 1)
        return SearchResult()


@pytest.mark.parametrize("batching", ["rounds", "continuous"])
def test_keys_go_with_the_search_that_they_were_for(session: Session, batching: Batching) -> None:
    policy: Any = session.policy
    both = GrowsThenLooks(lambda: policy.cached_tokens, first=True)
    (first, second) = grown_with_patience(session, both, batching, (0, 1))
    alone = GrowsThenLooks(lambda: policy.cached_tokens, first=False)
    (same,) = grown_with_patience(session, alone, batching, (1,))
    assert first.prompt_ids != second.prompt_ids and second.prompt_ids == same.prompt_ids
    assert first.prompt_ids[:9] == second.prompt_ids[:9], "they share the beginning of the prompt"
    assert both.before > both.after == alone.after > len(second.prompt_ids)
    assert len(second.leaves) == 3
    assert policy.cached_tokens == 0


def grown_with_patience(session: Session, strategy: Any, batching: Batching, tasks: Sequence[int]) -> list[Any]:
    """With little patience: a search that looks on, and does not ask, is not waited for long."""
    config = RolloutConfig(max_new_tokens=40, max_context=400, tool_threads=2, patience_s=0.5, batching=batching)
    with session.runner(config, env_factory(EnvConfig(kwargs=EASY), evaluating=False), 1.0, 16) as runner:
        return [tree for tree, _ in runner.run(strategy, [TaskRef(i) for i in tasks], 1)]


# ---------------------------------------------------------------- training


def test_two_updates_with_continuous_batching(tmp_path: Path) -> None:
    base = tiny(tmp_path / "run")
    config = replace(base, rollout=replace(base.rollout, batching="continuous"))
    train(config)
    (first, second) = [m for m in metrics(tmp_path / "run") if m["kind"] == "train"]
    assert (first["update"], second["update"]) == (1, 2)
    for record in (first, second):
        assert np.isfinite([v for v in record.values() if isinstance(v, float)]).all()


def test_settings() -> None:
    now = settings(TrainConfig())
    before = {**now, "rollout": {k: v for k, v in now["rollout"].items() if k != "batching"}}
    assert differences(before, now) == []
    other = settings(TrainConfig(rollout=RolloutConfig(batching="continuous")))
    assert differences(before, other) == ["rollout.batching was 'rounds', now 'continuous'"]
    with pytest.raises(ValueError, match=r"rollout\.batching='steps' is unknown; choose rounds or continuous"):
        RolloutConfig(batching="steps")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rollout\.batching='continuous' does not go with engine\.name='vllm'"):
        TrainConfig(engine=EngineConfig("vllm"), rollout=RolloutConfig(batching="continuous"))
