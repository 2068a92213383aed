"""What an update took of its budget, as figures for the logs and as the run's totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from elpo_agent.learner.rows import TrainingRow
from elpo_agent.runs.checkpoint import RunState
from elpo_agent.training.collection import Collected
from elpo_agent.training.figures import rollout_figures

_COUNTED = (
    "prompts",
    "rollouts",
    "generated_tokens",
    "tool_calls",
    "tool_errors",
    "localized",
    "discarded",
    "handed_on",
)


def update_figures(collected: Collected, groups: Sequence[Sequence[TrainingRow]]) -> dict[str, float]:
    """`rollout_figures` of all rollouts, trained on or not, and what became of them.

    "prompts" were used; of "rollouts", "over_limit" were cut by a limit on tokens, tool calls or time, "discarded" were
    not trained on (those, what infrastructure failed, dropped prompts, and what the strategy or the credit rule left
    out), and "handed_on" came from what other prompts had left.

    Args:
        groups: the rows that are trained on.
    """
    figures = rollout_figures(collected.pairs)
    outcomes = [tree.outcome(leaf) for tree, _ in collected.pairs for leaf in tree.leaves]
    return {
        "prompts": len(collected.pairs),
        **figures,
        "over_limit": sum(outcome.limit is not None for outcome in outcomes),
        "discarded": figures["rollouts"] - sum(map(len, groups)),
        "handed_on": collected.handed_on,
    }


def advanced(
    state: RunState, figures: Mapping[str, float], *, rollout_seconds: float, learn_seconds: float, learned: bool
) -> RunState:
    """The run's state after one more update with these figures.

    Args:
        learned: whether some trajectory had a non-zero advantage.
    """
    return replace(
        state,
        update=state.update + 1,
        updates_with_signal=state.updates_with_signal + learned,
        rollout_seconds=state.rollout_seconds + rollout_seconds,
        train_seconds=state.train_seconds + rollout_seconds + learn_seconds,
        **{name: getattr(state, name) + int(figures[name]) for name in _COUNTED},
    )
