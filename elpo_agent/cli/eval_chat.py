"""The part of `elpo eval` that talks with a model behind chat completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import gymnasium as gym

from elpo_agent.cli.display import TerminalDisplay
from elpo_agent.cli.eval import EvalRunConfig
from elpo_agent.config import EnvConfig
from elpo_agent.engines.openai.chat import ChatModel
from elpo_agent.engines.openai.http import Endpoint
from elpo_agent.evaluation.chat_episodes import ChatLimits, PlayedEpisode, evaluate_chat
from elpo_agent.evaluation.journal import Journal
from elpo_agent.evaluation.scores import Attempt
from elpo_agent.interrupts import run_coroutine
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.training.session import MAX_ENVS


def chat_attempts(
    config: EvalRunConfig,
    env_config: EnvConfig,
    make_env: Callable[[], gym.Env[str, str]],
    tasks: Sequence[int],
    display: TerminalDisplay,
    write: Callable[[dict[str, Any]], None],
) -> list[Attempt]:
    """Attempts at `tasks`; those that an earlier evaluation finished before it broke off are taken over.

    Args:
        config: the evaluation.
        env_config: its environment, `data` applied.
        make_env: makes one of these.
        tasks: indices.
        display: shows how far it is.
        write: takes every attempt as JSON values, in order, when all are finished.
    Raises:
        EndpointError, InfrastructureError: see `evaluate_chat`; what was finished is in `config.journal`.
        ValueError: no endpoint is named, or the journal is of another evaluation.
    """
    limits = ChatLimits(min(config.batch, MAX_ENVS), config.rollout.tool_threads, config.rollout.max_context)
    settings = {
        "model": config.model.path,
        "env": asdict(env_config),
        "temperature": config.temperature,
        "seed": config.seed,
        "max_new_tokens": config.rollout.max_new_tokens,
        "max_context": config.rollout.max_context,
        "tools": config.endpoint.tools,
        "extra": config.endpoint.extra,
    }
    journal = Journal(config.journal, settings) if config.output else None
    with journal or nullcontext():
        played = () if journal is None else journal.played
        if played:
            display.note(f"{len(played)} attempts of an evaluation that broke off are taken over")
        left = Counter(dict.fromkeys(range(len(tasks)), config.samples))
        left.subtract(p.position for p in played if p.position < len(tasks) and p.sample < config.samples)

        def finished(episode: PlayedEpisode) -> None:
            if journal is not None:
                journal.add(episode)
            left[episode.position] -= 1
            display.advance(sum(n == 0 for n in left.values()), {})

        async def play() -> list[PlayedEpisode]:
            async with Endpoint(config.endpoint, config.seed) as endpoint:
                model = ChatModel(
                    endpoint,
                    config.model.path,
                    temperature=config.temperature,
                    max_tokens=config.rollout.max_new_tokens,
                    native=config.endpoint.tools == "native",
                )
                return await evaluate_chat(
                    model,
                    make_env,
                    [TaskRef(i) for i in tasks],
                    samples=config.samples,
                    seed=config.seed,
                    limits=limits,
                    played=played,
                    on_episode=finished,
                )

        episodes = run_coroutine(play)
    for episode in episodes:
        write({**asdict(episode.attempt), "messages": episode.messages})
    return [episode.attempt for episode in episodes]
