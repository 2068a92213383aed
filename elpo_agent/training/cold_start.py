"""Supervised fine-tuning on the environment's own expert traces, before reinforcement learning begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from elpo_agent.config import TrainConfig
from elpo_agent.learner.sft import SftProgress, train_sft
from elpo_agent.training.demonstrations import expert_rows
from elpo_agent.training.display import Display
from elpo_agent.training.session import Session, env_factory
from elpo_agent.training.tasks import update_indices


def cold_start(session: Session, config: TrainConfig, size: int | None, display: Display) -> None:
    """Train the session's model as `config.cold_start` says; nothing happens where it asks for no tasks.

    Args:
        size: how many training tasks there are, None where endless.
    Raises:
        ValueError: none of the tasks has an expert trace that fits.
    """
    cold = config.cold_start
    if cold.tasks <= 0:
        return
    count = cold.tasks if size is None else min(cold.tasks, size)
    display.phase("playing expert traces", count)
    env = env_factory(config.env, evaluating=False)()
    played = _counted(update_indices(0, count, size, config.seed), display)
    rows = expert_rows(env, session.codec, played, config.rollout.max_context, reasoning=cold.reasoning)
    env.close()
    if not rows:
        raise ValueError(
            f"cold_start.tasks={cold.tasks}: none of these tasks has an expert trace of at most "
            f"rollout.max_context={config.rollout.max_context} tokens; set cold_start.tasks=0"
        )
    display.note(f"cold start: {len(rows)} expert traces from {count} tasks")

    def show(p: SftProgress) -> None:
        if p.update == 1:
            display.phase("cold start (SFT)", p.total)
        display.advance(p.update, {"loss": p.loss})

    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # for models with dropout
        train_sft(session.model, rows, cold.optimization, pad_id=session.pad_id, on_update=show)


def _counted(indices: Sequence[int], display: Display) -> Iterator[int]:
    """The same indices, shown as progress as they are taken."""
    for done, index in enumerate(indices):
        yield index
        display.advance(done + 1, {})
