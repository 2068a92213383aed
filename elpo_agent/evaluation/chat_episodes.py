"""Evaluate a model behind a chat endpoint: whole conversations through the environments' public interface alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import gymnasium as gym

from elpo_agent.engines.openai.chat import ChatModel, continued, opened
from elpo_agent.engines.openai.failures import ContextOverflowError
from elpo_agent.evaluation.scores import Attempt
from elpo_agent.rollout.env_pool import INFRASTRUCTURE_ERRORS, InfrastructureError
from elpo_agent.rollout.runner import TaskRef

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class PlayedEpisode:
    """One finished attempt.

    Attributes:
        position: of its task in the list of tasks.
        sample: which of the task's attempts, from 0.
        attempt: how it went.
        messages: the conversation, as the environment has it.
    """

    position: int
    sample: int
    attempt: Attempt
    messages: list[dict[str, Any]]


@dataclass(frozen=True)
class ChatLimits:
    """What an evaluation may use at a time.

    Attributes:
        conversations: that go on side by side; each has an environment of its own.
        tool_threads: environments that work at once.
        max_context: tokens of a conversation and one more turn, as far as the server counts them; one that has no room
            for that turn ends as truncated.
    """

    conversations: int
    tool_threads: int
    max_context: int

    def __post_init__(self) -> None:
        for name in ("conversations", "tool_threads", "max_context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


async def evaluate_chat(
    model: ChatModel,
    make_env: Callable[[], gym.Env[str, str]],
    tasks: Sequence[TaskRef],
    *,
    samples: int,
    seed: int,
    limits: ChatLimits,
    played: Sequence[PlayedEpisode] = (),
    on_episode: Callable[[PlayedEpisode], None] | None = None,
) -> list[PlayedEpisode]:
    """`samples` attempts at every task, in the order of tasks and samples, whichever finished first.

    A conversation that the server finds too long for the model counts as truncated. One whose environment fails is not
    valid.

    Args:
        model: the endpoint's model.
        make_env: makes one environment; all must be alike.
        tasks: which tasks.
        samples: attempts per task, >= 1.
        seed: >= 0; goes into every turn's seed.
        limits: what may go on at a time.
        played: attempts that an earlier evaluation finished; they are not made again.
        on_episode: called with each new attempt as it finishes.
    Raises:
        EndpointError: the endpoint refused a request or went on failing. Other conversations are broken off.
        InfrastructureError: an environment could not even begin an episode, twice.
    """
    done = {(p.position, p.sample): p for p in played if p.position < len(tasks) and p.sample < samples}
    todo = iter([(i, j) for i in range(len(tasks)) for j in range(samples) if (i, j) not in done])
    stage = _Stage(make_env, limits.tool_threads)

    async def play_on() -> None:
        env: gym.Env[str, str] | None = None
        for position, sample in todo:
            if env is None:
                env = await stage.new()
            task = tasks[position]
            episode = _Episode(model, stage, env, limits.max_context, (seed, task.key, sample))
            attempt, messages = await episode.play(task)
            if not attempt.valid:
                await stage.drop(env)
                env = None
            done[position, sample] = result = PlayedEpisode(position, sample, attempt, messages)
            if on_episode is not None:
                on_episode(result)

    open_attempts = len(tasks) * samples - len(done)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(limits.conversations, open_attempts)):
                group.create_task(play_on())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    finally:
        stage.close()
    return [done[key] for key in sorted(done)]


class _Stage:
    """Environments, and the threads that they work in."""

    def __init__(self, make_env: Callable[[], gym.Env[str, str]], threads: int) -> None:
        self._make_env = make_env
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="elpo-chat")
        self._envs: list[gym.Env[str, str]] = []

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def new(self) -> gym.Env[str, str]:
        def make() -> gym.Env[str, str]:
            env = self._make_env()
            self._envs.append(env)  # here, so that none is lost when the wait for it is broken off
            return env

        return await self.run(make)

    async def drop(self, env: gym.Env[str, str]) -> None:
        """Close an environment that failed."""
        self._envs.remove(env)
        try:
            await self.run(env.close)
        except INFRASTRUCTURE_ERRORS as error:
            logger.warning("closing an environment that failed: %s", error)

    def close(self) -> None:
        """Wait for the calls under way, then close every environment."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        while self._envs:
            self._envs.pop().close()


class _Episode:
    """One conversation between the model and an environment."""

    def __init__(
        self, model: ChatModel, stage: _Stage, env: gym.Env[str, str], max_context: int, seed: tuple[int, int, int]
    ) -> None:
        self._model, self._stage, self._env = model, stage, env
        self._max_context = max_context
        self._seed = seed

    async def play(self, task: TaskRef) -> tuple[Attempt, list[dict[str, Any]]]:
        info = await self._reset(task)
        tools, protocol = self._env.get_wrapper_attr("tools"), self._env.get_wrapper_attr("protocol")
        chat, tools = opened(info["messages"], tools, protocol, native=self._model.native)
        tokens = 0
        while True:
            try:
                turn = await self._model.turn(chat, tools, protocol, (*self._seed, info["turn"]))
            except ContextOverflowError as error:
                logger.info("task %s: %s", info["task_id"], error)
                return _attempt(info, tokens, truncated=True), info["messages"]
            tokens += turn.tokens
            seen = len(info["messages"])
            try:
                _, _, terminated, truncated, info = await self._stage.run(partial(self._env.step, turn.text))
            except INFRASTRUCTURE_ERRORS as error:
                logger.warning("task %s: %s", info["task_id"], error)
                messages = [*info["messages"], {"role": "assistant", "content": turn.text}]
                return _attempt(info, tokens, truncated=True, valid=False), messages
            if terminated or truncated:
                return _attempt(info, tokens, truncated=truncated), info["messages"]
            if turn.prompt_tokens + turn.tokens + self._model.max_tokens > self._max_context:
                return _attempt(info, tokens, truncated=True), info["messages"]
            chat += continued(turn, info["messages"][seen + 1 :])

    async def _reset(self, task: TaskRef) -> Mapping[str, Any]:
        """Begin the episode; an environment that fails gets a second chance."""
        for last in (False, True):
            try:
                _, info = await self._stage.run(partial(self._env.reset, options=task.options))
                return info
            except INFRASTRUCTURE_ERRORS as error:
                if last:
                    raise InfrastructureError(f"reset(options={task.options}) failed twice: {error}") from error
                logger.warning("reset(options=%s) failed, trying once more: %s", task.options, error)
        raise AssertionError("unreachable")


def _attempt(info: Mapping[str, Any], tokens: int, *, truncated: bool, valid: bool = True) -> Attempt:
    return Attempt(
        task_id=str(info["task_id"]),
        success=bool(info["is_correct"]),
        answer=info["answer"],
        truncated=truncated,
        tool_calls=info["n_tool_calls"],
        tool_errors=info["n_tool_errors"],
        turns=info["turn"],
        tokens=tokens,
        valid=valid and bool(info["valid"]),
    )
