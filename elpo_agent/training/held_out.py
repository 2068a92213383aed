"""Scores on the held-out tasks of a run."""

from __future__ import annotations

from elpo_agent.config import TrainConfig
from elpo_agent.evaluation.evaluate import evaluate
from elpo_agent.evaluation.scores import summarize
from elpo_agent.learner.memory import while_sampling
from elpo_agent.ranks import Ranks
from elpo_agent.rollout.runner import TaskRef
from elpo_agent.training.display import Display
from elpo_agent.training.session import Session, env_factory

_BATCH = 128


def held_out_scores(
    session: Session, config: TrainConfig, size: int | None, ranks: Ranks, when: str, display: Display
) -> dict[str, dict[str, float]]:
    """Figures of "sampled" and, where asked for, "greedy" rollouts; each rank plays its share of the tasks.

    The seed is the same at every call: the same tasks and the same noise before and after training.

    Args:
        size: how many evaluation tasks there are, None where endless.
        when: in words, for the display.
    """
    held_out = config.eval
    stop = held_out.first_index + held_out.tasks
    tasks = [TaskRef(i) for i in range(held_out.first_index, stop if size is None else min(size, stop))]
    make_env = env_factory(config.env, evaluating=True)
    modes = [("sampled", held_out.temperature, held_out.samples)] + ([("greedy", 0.0, 1)] if held_out.greedy else [])
    scores: dict[str, dict[str, float]] = {}
    for mode, temperature, samples in modes:
        display.phase(f"evaluating {when} ({mode})", len(tasks))
        with while_sampling(config.rollout), session.runner(config.rollout, make_env, temperature) as runner:
            attempts = evaluate(
                runner,
                [tasks[i] for i in ranks.share([1] * len(tasks))],
                samples=samples,
                seed=config.seed + 10_000,
                batch=_BATCH,
                on_progress=lambda done: display.advance(done, {}),
            )
        scores[mode] = summarize([attempt for part in ranks.gathered(attempts) for attempt in part])
    return scores
