"""ELPO: error-localized policy optimization (Liang et al., arXiv 2602.09598, ACL 2026)."""

from __future__ import annotations

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.credit.rules import HierarchicalCredit
from elpo_agent.objective.clipping import ErrorLocalizedClipping, Scope
from elpo_agent.rollout.bel import BinaryErrorLocalization, Search
from elpo_agent.rollout.entropy import Rounding


def elpo(
    *,
    n_total: int = 16,
    b_max: int = 3,
    x_min: int = 1,
    x_max: int = 3,
    beta: float = 5.0,
    search: Search = "inclusive",
    entropy_window: int | None = None,
    rounding: Rounding = "nearest",
    lambda_tree: float = 0.5,
    ddof: int = 0,
    std_eps: float = 1e-6,
    eps_low: float = 0.2,
    eps_high: float = 0.315,
    eps_elc: float = 0.115,
    elc_scope: Scope = "critical",
) -> Algorithm:
    """Binary error localization, hierarchical advantages and error-localized clipping; no KL term.

    Defaults are the paper's (Table 2); where it is silent, what its Figure 4 shows: the inclusive search,
    suffix counts rounded to the nearest, population standard deviations.

    Args:
        n_total: completed rollouts per prompt, suffixes and probes included; >= 1.
        b_max: failures collected before one of them is searched; >= 1.
        x_min: least suffixes per anchor; >= 1.
        x_max: most suffixes per anchor; >= x_min.
        beta: how sharply entropy after a tool result moves the number of suffixes.
        search: "inclusive" probes the last candidate too, "printed" follows Algorithm 1 to the letter.
        entropy_window: tokens of a turn, from its start, that count for its entropy; None for all.
        rounding: of the number of suffixes: "nearest", "floor" or "ceil".
        lambda_tree: weight of the branch-level advantage in [0, 1]; 0 is the ablation without it.
        ddof: 0 for population, 1 for sample standard deviations.
        std_eps: added to standard deviations; >= 0.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        eps_elc: added to eps_low from the first irrecoverable step on; 0 is the ablation without it.
        elc_scope: "critical" (the text) or "first_all_failed" (Figure 4's counters).

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    return Algorithm(
        name="elpo",
        strategy=BinaryErrorLocalization(n_total, b_max, x_min, x_max, beta, search, entropy_window, rounding),
        credit=HierarchicalCredit(lambda_tree, eps=std_eps, ddof=ddof),
        objective=ErrorLocalizedClipping(eps_low, eps_high, eps_elc, elc_scope),
    )
