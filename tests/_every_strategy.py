"""Every rollout strategy, in forms that take its different ways."""

from __future__ import annotations

from elpo_agent.rollout import (
    BayesianSearch,
    BinaryErrorLocalization,
    EarlyStop,
    EntropyBranching,
    IndependentSampling,
    RandomExpansion,
    RandomPrefixes,
    SuccessAnchored,
)
from elpo_agent.rollout.base import RolloutStrategy


def strategies(n: int) -> list[RolloutStrategy]:
    plain: list[RolloutStrategy] = [
        IndependentSampling(n),
        BinaryErrorLocalization(n, search="printed"),
        BinaryErrorLocalization(n, b_max=1, search="inclusive"),
        BinaryErrorLocalization(n, b_max=2, search="bayesian"),
        BinaryErrorLocalization(n, search="bayesian", bayesian=BayesianSearch(0.4, max_probes=3)),
        RandomPrefixes(n),
        EntropyBranching(n, initial=3),
        EntropyBranching(n, initial=4, beam=4, reference_quirks=True),
        EntropyBranching(n, probe=True, penalty=0.05),
        EntropyBranching(n, probe=True, penalty=0.05, reference_quirks=True),
        RandomExpansion(n),
        RandomExpansion(n, chains=2, expansions=3, rounds=3, keep=2),
        SuccessAnchored(n),
        SuccessAnchored(n, fresh=3, most_fresh=12, enough=(1, 2), probes=5),
    ]
    return plain + [EarlyStop(strategy, after) for strategy in plain for after in (1, 3)]


COUNT = len(strategies(1))
PLAIN = COUNT // 3  # the first so many are not wrapped
