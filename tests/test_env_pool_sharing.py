"""Few environments for many conversations: who gets one, who is frozen for it, cancellation, failures on the way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

import pytest
from _word_env import ScriptedPolicy, WordEnv, runner_of, tasks_of

from elpo_agent.rollout.env_pool import Conversation, EnvPool, InfrastructureError, StepResult
from elpo_agent.rollout.independent import IndependentSampling
from elpo_envs.sandbox import SandboxError

T = TypeVar("T")


class Counting(WordEnv):
    """Counts its snapshots; it notes the words that were frozen and the steps that were begun."""

    frozen: ClassVar[list[str]]
    stepped: ClassVar[list[str]]

    def freeze(self) -> Any:
        self.frozen.append(self.word)
        return super().freeze()

    def step(self, action: str) -> Any:
        self.stepped.append(self.word + action)
        return super().step(action)


@pytest.fixture
def counting() -> type[Counting]:
    class Fresh(Counting):
        frozen: ClassVar[list[str]] = []
        stepped: ClassVar[list[str]] = []

    return Fresh


def in_pool(
    make_env: Callable[[], WordEnv], threads: int, max_envs: int, play: Callable[[EnvPool, Any], Awaitable[T]]
) -> T:
    """What `play` gives with a pool and the snapshot of an episode's beginning."""
    pool = EnvPool(make_env, threads, max_envs, quiet_s=0.02)

    async def main() -> T:
        pool.begin()
        _, _, beginning = await pool.reset({"index": 0})
        return await asyncio.wait_for(play(pool, beginning), 30)

    try:
        return asyncio.run(main())
    finally:
        pool.close()


def word(result: StepResult) -> str:
    return "".join(m["content"] for m in result.info["messages"] if m["role"] == "assistant")


def test_who_has_an_environment_goes_first(counting: type[Counting]) -> None:
    async def play(pool: EnvPool, beginning: Any) -> None:
        talks = [Conversation(snapshot=beginning) for _ in range(4)]
        words = ["t", "e", "l", "m"]
        for _ in range(3):
            # Always in this order; taken in turn, every step but the first two would need a snapshot.
            results = await asyncio.gather(*(pool.step(t, w, False) for t, w in zip(talks, words, strict=True)))
        assert [word(r) for r in results] == ["ttt", "eee", "lll", "mmm"], "every one continues where it was"

    in_pool(counting, 2, 2, play)
    assert len(counting.frozen) == 1 + 3 * 2, "the beginning, and two a round"


def test_a_kept_snapshot_serves_who_must_go(counting: type[Counting]) -> None:
    async def play(pool: EnvPool, beginning: Any) -> None:
        one, other = Conversation(snapshot=beginning), Conversation(snapshot=beginning)
        for _ in range(3):
            await pool.step(one, "t", True)
            result = await pool.step(other, "e", True)
        assert word(result) == "eee"

    in_pool(counting, 1, 1, play)
    assert len(counting.frozen) == 1 + 6, "one after every step, none for making room"


def test_a_conversation_that_is_over_leaves_its_environment(counting: type[Counting]) -> None:
    made = []

    def make() -> Counting:
        made.append(counting())
        return made[-1]

    async def play(pool: EnvPool, beginning: Any) -> None:
        for _ in range(5):
            talk = Conversation(snapshot=beginning)
            await pool.step(talk, "t", False)
            pool.release(talk)

    in_pool(make, 1, 4, play)
    assert len(made) == 1 and counting.frozen == [""]


def test_calls_that_wait_are_taken_back_at_once(counting: type[Counting]) -> None:
    async def play(pool: EnvPool, beginning: Any) -> float:
        slow, before = Conversation(snapshot=beginning), Conversation(snapshot=beginning)
        waiting = Conversation(snapshot=(await pool.step(before, "l", True)).snapshot)
        pool.release(before)
        running = asyncio.create_task(pool.step(slow, "z", False))
        queued = asyncio.create_task(pool.step(waiting, "t", False))
        while "z" not in counting.stepped:
            await asyncio.sleep(0.001)
        began = time.perf_counter()
        queued.cancel()
        await asyncio.wait([queued])
        took = time.perf_counter() - began
        assert queued.cancelled() and not running.done()
        assert word(await running) == "z"
        assert word(await pool.step(waiting, "e", False)) == "le", "it never took that step"
        return took

    assert in_pool(counting, 1, 2, play) < 0.2, "not as long as the slow tool"
    assert counting.stepped == ["l", "z", "le"]


def test_a_call_that_runs_is_waited_for(counting: type[Counting], caplog: pytest.LogCaptureFixture) -> None:
    class Breaking(counting):  # type: ignore[misc, valid-type]
        def step(self, action: str) -> Any:
            super().step("z")
            raise SandboxError("too late")

    made: list[WordEnv] = []

    def make() -> WordEnv:
        made.append(Breaking())
        return made[-1]

    async def play(pool: EnvPool, beginning: Any) -> None:
        running = asyncio.create_task(pool.step(Conversation(snapshot=beginning), "t", False))
        while not counting.stepped:
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert made[0].word == "z", "the step has ended"
        assert made[0].closed == 1, "an environment that failed is not used again"

    with caplog.at_level(logging.WARNING):
        in_pool(make, 1, 1, play)
    assert "while its run was being cancelled: InfrastructureError('SandboxError: too late')" in caplog.text


def test_who_was_to_make_room_stays_when_the_other_is_cancelled(counting: type[Counting]) -> None:
    async def play(pool: EnvPool, beginning: Any) -> None:
        staying, slow, late = (Conversation(snapshot=beginning) for _ in range(3))
        await pool.step(staying, "t", False)
        running = asyncio.create_task(pool.step(slow, "z", False))
        while "z" not in counting.stepped:
            await asyncio.sleep(0.001)
        queued = asyncio.create_task(pool.step(late, "l", False))
        await asyncio.sleep(0.01)
        assert staying.saving is not None, "it is about to be frozen"
        further = asyncio.create_task(pool.step(staying, "e", False))
        await asyncio.sleep(0.01)
        queued.cancel()
        await asyncio.wait([queued])
        assert word(await further) == "te"
        await running

    in_pool(counting, 1, 2, play)
    assert counting.frozen == [""]


def test_a_snapshot_that_fails_is_the_loss_of_its_own_conversation(counting: type[Counting]) -> None:
    class Fragile(counting):  # type: ignore[misc, valid-type]
        def freeze(self) -> Any:
            if self.word.endswith("e"):
                raise SandboxError("it is gone")
            return super().freeze()

    async def play(pool: EnvPool, beginning: Any) -> None:
        lost, other = Conversation(snapshot=beginning), Conversation(snapshot=beginning)
        await pool.step(lost, "e", False)
        assert word(await pool.step(other, "t", False)) == "t"
        with pytest.raises(InfrastructureError, match="it is gone"):
            await pool.step(lost, "t", False)
        assert word(await pool.step(other, "t", False)) == "tt"

    in_pool(Fragile, 1, 1, play)


def test_bugs_in_environments_reach_the_caller() -> None:
    class Exhausted(WordEnv):
        def step(self, action: str) -> Any:
            return next(iter(()))

    class Unfreezable(WordEnv):
        def freeze(self) -> Any:
            if self.word:
                raise ZeroDivisionError("a bug")
            return super().freeze()

    made: list[int] = []

    def make_few() -> WordEnv:
        made.append(1)
        if len(made) > 1:
            raise ValueError("there is but one")
        return WordEnv()

    for make, error, match in (
        (Exhausted, RuntimeError, "an environment raised StopIteration"),
        (Unfreezable, ZeroDivisionError, "a bug"),
        (make_few, ValueError, "there is but one"),
    ):
        with runner_of(ScriptedPolicy(), make, max_envs=2, tool_threads=2) as runner, pytest.raises(error, match=match):
            runner.run(IndependentSampling(6), tasks_of(1), seed=0)


def test_a_closed_runner_says_so() -> None:
    runner = runner_of(ScriptedPolicy())
    runner.run(IndependentSampling(2), tasks_of(1), seed=0)
    runner.close()
    with pytest.raises(RuntimeError, match="make a new runner"):
        runner.run(IndependentSampling(2), tasks_of(1), seed=0)
