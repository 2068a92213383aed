"""The algorithms that the laboratory compares, by the names in its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from elpo_agent.algorithms import Algorithm, load
from elpo_agent.algorithms.early_stopping import stop_early
from elpo_agent.algorithms.shared import with_shared
from elpo_agent.credit.wrappers import PositivesWeighted, Rewarded
from elpo_agent.laboratory.oracle import oracle

_CLIP = {"eps_low": 0.2, "eps_high": 0.315}  # ELPO's, for all that have no published reason for another
_NO_KL = {"loss": {"kl_coef": 0.0}}
_FEEDBACK = {"error": -1.0}


def _named(name: str, **options: Any) -> Callable[[], Algorithm]:
    return partial(load, name, **options)


def _grpo_early() -> Algorithm:
    return stop_early(load("grpo", **_CLIP))


def _grpo_fair() -> Algorithm:
    """GRPO with what else is known to help: smaller groups, early stop, and emphasis on successes."""
    algorithm = load("grpo", n_total=10, **_CLIP)
    return stop_early(replace(algorithm, credit=PositivesWeighted(algorithm.credit, 1.6)))


def _dapo() -> Algorithm:
    """Without its rewards, which here are 0 and 1 on another scale, and without refill: rollouts are what is equal."""
    algorithm = load("dapo", overlong_penalty=0.0, refill_rounds=0)
    assert isinstance(algorithm.credit, Rewarded)
    return replace(algorithm, credit=algorithm.credit.inner)


def _grpo_emphasized() -> Algorithm:
    algorithm = load("grpo", **_CLIP)
    return replace(algorithm, credit=PositivesWeighted(algorithm.credit, 1.6))


def _first_plus(group: int, fresh: int, **options: Any) -> Algorithm:
    """The first form of `elpo_plus`: groups of a fixed size, and no replay."""
    return load(
        "elpo_plus",
        n_total=group,
        fresh=fresh,
        most_fresh=group,
        enough_successes=None,
        enough_failures=None,
        probes=None,
        largest_group=group,
        replay_weight=0.0,
        **options,
    )


def _with_feedback(make: Callable[[], Algorithm]) -> Callable[[], Algorithm]:
    return lambda: with_shared(make(), turn_advantages=_FEEDBACK)


ARMS: Mapping[str, Callable[[], Algorithm]] = {
    "grpo": _named("grpo", **_CLIP),
    "rloo": _named("rloo", **_CLIP),
    "reinforce_pp": _named("reinforce_pp", kl_reward=0.0, **_CLIP),
    "reinforce_pp_baseline": _named("reinforce_pp_baseline", **_CLIP, **_NO_KL),
    "dapo": _dapo,
    "gigpo": _named("gigpo", **_NO_KL),
    "arpo": _named("arpo", vocabulary=8),
    "aepo": _named("aepo", vocabulary=8),
    "tree_grpo": _named("tree_grpo", **_CLIP, **_NO_KL),
    "elpo": _named("elpo"),
    "elpo, printed search": _named("elpo", search="printed"),
    "elpo, bayesian search": _named("elpo", search="bayesian", x_max=1),
    "elpo_no_bel": _named("elpo_no_bel"),
    "elpo_no_branch": _named("elpo_no_branch"),
    "elpo_no_elc": _named("elpo_no_elc"),
    "grpo, early stop": _grpo_early,
    "grpo, positives x 1.6": _grpo_emphasized,
    "plus, no early stop": partial(_first_plus, 16, 8, early_stop=None),
    "plus, first form": partial(_first_plus, 16, 8),
    "plus, groups of 10": partial(_first_plus, 10, 6, positive_weight=1.6),
    "grpo, fair": _grpo_fair,
    "elpo_plus": _named("elpo_plus"),
    "grpo, fair, turn feedback": _with_feedback(_grpo_fair),
    "elpo_plus, no probes": _named("elpo_plus", probes=0),
    "elpo_plus, turn feedback": _named("elpo_plus", turn_advantages=_FEEDBACK),
    "oracle": oracle,
}
"""The exact-value oracle is no algorithm: it shows the room that is left."""
