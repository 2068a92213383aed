"""Batches: their order, who is waited for and for how long, errors, cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from _word_env import ScriptedPolicy, WordEnv, check_tree, runner_of, tasks_of

from elpo_agent.policy import SampledTurn, SampleRequest
from elpo_agent.rollout.batcher import Batcher
from elpo_agent.rollout.bel import BinaryErrorLocalization
from elpo_agent.rollout.independent import IndependentSampling


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
    assert time.perf_counter() - start < batcher.patience_s
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


def test_every_request_gives_the_missing_walkers_their_time_again() -> None:
    policy = ScriptedPolicy()
    batcher = Batcher(policy, patience_s=1.0)

    async def walker(key: int) -> None:
        with batcher.walker():
            await asyncio.sleep(0.6 * key)
            await batcher.sample((key,), request("a"))

    async def main() -> None:
        with batcher.walker():  # never comes
            await asyncio.gather(*(walker(key) for key in range(3)))

    start = time.perf_counter()
    asyncio.run(main())
    assert [len(batch) for batch in policy.batches] == [3], "the last came 1.2 s after the first"
    assert time.perf_counter() - start >= 2.2 - 0.05


def test_only_so_many_walkers_go_on_at_a_time() -> None:
    """In the order of their keys, whenever all that go on wait for the policy, however long their tools take."""

    def batches(delays: Sequence[float]) -> tuple[list[list[int]], int]:
        policy = ScriptedPolicy()
        batcher = Batcher(policy, patience_s=20, max_walkers=2)
        inside = most = 0

        async def walk(key: int) -> None:
            nonlocal inside, most
            async with batcher.admitted((key,)):
                inside += 1
                most = max(most, inside)
                for turn in range(1 + key % 3):
                    await asyncio.sleep(delays[(key + turn) % len(delays)])
                    await batcher.sample((key,), request(chr(97 + key)))
                inside -= 1

        async def main() -> None:
            await asyncio.gather(*(walk(key) for key in (4, 0, 3, 1, 5, 2)))

        asyncio.run(main())
        return [[r.prefix_ids[0] - 97 for r in batch] for batch in policy.batches], most

    fast, most = batches([0.0])
    assert most == 2
    # Keys 4 and 0 come first, and find room; 0 takes one turn and 4 two, and so on.
    assert fast == [[0, 4], [1, 4], [1, 2], [2, 3], [2, 5], [5], [5]]
    assert batches([0.0, 0.02, 0.005]) == batches([0.01, 0.0, 0.03, 0.0]) == (fast, 2)


def test_walkers_that_are_cancelled_leave_their_room() -> None:
    policy = ScriptedPolicy()
    batcher = Batcher(policy, patience_s=20, max_walkers=1)

    async def walk(key: int) -> None:
        async with batcher.admitted((key,)):
            await batcher.sample((key,), request(chr(97 + key)))
            await asyncio.sleep(60 if key == 0 else 0)

    async def main() -> None:
        tasks = [asyncio.create_task(walk(key)) for key in range(4)]
        while not policy.batches:
            await asyncio.sleep(0.001)
        tasks[1].cancel()  # waits for room
        tasks[0].cancel()  # has it
        await asyncio.wait(tasks, timeout=20)
        assert all(task.done() for task in tasks)

    asyncio.run(main())
    assert [[r.prefix_ids[0] - 97 for r in batch] for batch in policy.batches] == [[0], [2], [3]]


def test_who_is_cancelled_the_moment_there_is_room_is_not_let_in() -> None:
    """At whichever trip round the event loop that is."""

    async def main(trips: int) -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        batcher = Batcher(ScriptedPolicy(), patience_s=20, max_walkers=1)
        inside: list[int] = []

        async def walk(key: int) -> None:
            async with batcher.admitted((key,)):
                inside.append(key)
                await batcher.sample((key,), request("a"))

        tasks = [asyncio.create_task(walk(key)) for key in range(3)]
        for _ in range(trips):
            await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks, timeout=20)
        assert all(task.done() for task in tasks) and inside in ([0, 2], [0, 1, 2])
        assert problems == []

    for trips in range(1, 70):
        asyncio.run(main(trips))


# ---------------------------------------------------------------- seen from the runner


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
    assert policy.resets == 2, "before and after, so that nothing is kept between runs"
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


def test_results_that_are_ready_are_not_left_behind() -> None:
    """One tool after the other is done, each within the patience of the last: the batch waits for all of them."""

    class Slow(WordEnv):
        def step(self, action: str) -> Any:
            time.sleep({"z": 0.5, "t": 0.12}.get(action, 0.0))
            return super().step("t" if action == "z" else action)

    def choose(prefix: str, j: int) -> str:
        return "a" if "<" in prefix else "e" if prefix == "task 0" else "z" if prefix == "task 1" else "t"

    policy = ScriptedPolicy(choose=choose)
    # The first is ready at once, the next after a pause in which it is looked at, and the rest keep coming.
    with runner_of(policy, Slow, patience_s=0.4, tool_threads=1) as runner:
        runner.run(IndependentSampling(1), tasks_of(12), seed=0)
        assert runner.batch_sizes == [12, 12]
