"""ELPO: error-localized policy optimization (Liang et al., arXiv 2602.09598, ACL 2026), and its ablations."""

from __future__ import annotations

from collections.abc import Sequence

from elpo_agent.algorithms.base import Algorithm
from elpo_agent.algorithms.fixed import with_fixed
from elpo_agent.algorithms.loss_setting import LossSetting, loss_options
from elpo_agent.credit.rules import HierarchicalCredit
from elpo_agent.objective.clipping import ErrorLocalizedClipping, Scope
from elpo_agent.rollout.bayesian import BayesianSearch, as_recovery
from elpo_agent.rollout.bel import BinaryErrorLocalization, Search
from elpo_agent.rollout.entropy import Rounding
from elpo_agent.rollout.random_prefix import RandomPrefixes


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
    recovery: float | Sequence[float] = (1.0, 3.0),
    certainty: float = 0.9,
    max_probes: int | None = None,
    lambda_tree: float = 0.5,
    ddof: int = 0,
    std_eps: float = 1e-6,
    eps_low: float = 0.2,
    eps_high: float = 0.315,
    eps_elc: float = 0.115,
    elc_scope: Scope = "critical",
    loss: LossSetting = None,
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
        search: "inclusive" probes the last candidate too, "printed" follows Algorithm 1 to the letter, "bayesian" (not
            of the paper) weighs failures; best with x_max=1.
        entropy_window: tokens of a turn, from its start, that count for its entropy; None for all.
        rounding: of the number of suffixes: "nearest", "floor" or "ceil".
        recovery: of the Bayesian search: the probability that a suffix from a recoverable step succeeds, in (0, 1),
            or the two parameters of a Beta prior over it.
        certainty: of the Bayesian search: probability of one step at which it ends; in (0, 1].
        max_probes: of the Bayesian search: suffixes per search at most; >= 1, None for no limit but n_total.
        lambda_tree: weight of the branch-level advantage in [0, 1]; 0 is the ablation without it.
        ddof: 0 for population, 1 for sample standard deviations.
        std_eps: added to standard deviations; >= 0.
        eps_low: ratios below 1 - eps_low are clipped.
        eps_high: ratios above 1 + eps_high are clipped.
        eps_elc: added to eps_low from the first irrecoverable step on; 0 is the ablation without it.
        elc_scope: "critical" (the text) or "first_all_failed" (Figure 4's counters).
        loss: further terms of the loss, see `LossOptions`.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    bayesian = BayesianSearch(as_recovery(recovery), certainty, max_probes)
    return Algorithm(
        name="elpo",
        strategy=BinaryErrorLocalization(
            n_total, b_max, x_min, x_max, beta, search, entropy_window, rounding, bayesian
        ),
        credit=HierarchicalCredit(lambda_tree, eps=std_eps, ddof=ddof),
        objective=ErrorLocalizedClipping(eps_low, eps_high, eps_elc, elc_scope, loss_options(loss)),
    )


def elpo_no_bel(
    *,
    n_total: int = 16,
    b_max: int = 3,
    x_min: int = 1,
    x_max: int = 3,
    beta: float = 5.0,
    entropy_window: int | None = None,
    rounding: Rounding = "nearest",
    lambda_tree: float = 0.5,
    ddof: int = 0,
    std_eps: float = 1e-6,
    eps_low: float = 0.2,
    eps_high: float = 0.315,
    eps_elc: float = 0.115,
    loss: LossSetting = None,
) -> Algorithm:
    """The paper's ablation without BEL: branches at uniformly random prefixes in place of the binary search.

    Nothing is localized, so clipping is relaxed from the step below which every sampled trajectory failed, which is
    `elpo` with elc_scope="first_all_failed".

    Args: those of `elpo` but for the search's.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """
    return Algorithm(
        name="elpo_no_bel",
        strategy=RandomPrefixes(n_total, b_max, x_min, x_max, beta, entropy_window, rounding),
        credit=HierarchicalCredit(lambda_tree, eps=std_eps, ddof=ddof),
        objective=ErrorLocalizedClipping(eps_low, eps_high, eps_elc, "first_all_failed", loss_options(loss)),
    )


elpo_no_branch = with_fixed(elpo, "elpo_no_branch", lambda_tree=0.0)
"""The paper's ablation without the branch level: trajectory-level advantages alone. Takes `elpo`'s other options."""

elpo_no_elc = with_fixed(elpo, "elpo_no_elc", eps_elc=0.0)
"""The paper's ablation without error-localized clipping. Takes `elpo`'s other options."""
