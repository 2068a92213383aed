"""How a strategy grows a tree: it asks for continuations of nodes until its budget is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from elpo_agent.rollout.budget import Budget
from elpo_agent.tree import RolloutTree

__all__ = ["Allowance", "Anchor", "Budget", "Expander", "Localization", "RolloutStrategy", "SearchResult", "SideBySide"]


@dataclass(frozen=True)
class Anchor:
    """One probe of the binary search.

    Attributes:
        step: m, 1-based among the reference's tool steps; steps 1..m were kept as the prefix.
        node: tree node of that prefix.
        probes: leaves sampled from it.
        recovered: any valid one succeeded; None when infrastructure failed in all of them (no evidence).
    """

    step: int
    node: int
    probes: tuple[int, ...]
    recovered: bool | None


@dataclass(frozen=True)
class Localization:
    """Where one failed reference trajectory became irrecoverable.

    Attributes:
        reference: the failed leaf that was searched.
        n_candidates: K, its number of tool steps.
        critical_step: t_crit, 1-based; K + 1 means the final answer step; None when there was nothing to
            search (K = 0), when nothing was (random prefixes), or when the search was given up because every probe
            of an anchor was invalid.
        critical_node: tree node of that step.
        anchors: probes in the order they were made.
        closed: the search ran to its end. False when the budget ran out first: `critical_step` is then the
            earliest step not shown to be recoverable, possibly without a single probe; of a Bayesian search, the
            likeliest one.
        posterior: of a Bayesian search, the probability of each step 1..K + 1 being the first irrecoverable one;
            () of others.
    """

    reference: int
    n_candidates: int
    critical_step: int | None
    critical_node: int | None
    anchors: tuple[Anchor, ...] = ()
    closed: bool = True
    posterior: tuple[float, ...] = ()


@dataclass(frozen=True)
class SearchResult:
    """What a strategy found while growing a tree (empty for independent sampling)."""

    localizations: tuple[Localization, ...] = field(default_factory=tuple)


class Allowance(Protocol):
    """What a strategy sees of a `Budget`."""

    @property
    def left(self) -> int:
        """Rollouts that may still be asked for."""


class Expander(Protocol):
    """Grows one tree by sampling; supplied by the runner, or by a script in tests."""

    @property
    def tree(self) -> RolloutTree: ...

    @property
    def budget(self) -> Allowance: ...

    @property
    def seed(self) -> int:
        """For strategies with randomness of their own; >= 0, other for every prompt, equal in equal runs."""

    async def expand(self, node: int, n: int) -> list[int]:
        """Complete up to `n` trajectories from `node` (0 = the prompt) and add them to the tree.

        Takes them from the budget first, so fewer (or none) come back when it runs out. A trajectory during which one
        of the budget's other limits runs out is cut there; its outcome is not valid. Returns the new leaves'
        indices; `tree.leaves` lists them in the same order.
        """


class SideBySide(Protocol):
    """What an `Expander` has beside `expand` where several expansions can be under way at once, for larger batches."""

    async def expand_each(self, requests: Sequence[tuple[int, int]]) -> list[list[int]]:
        """`expand(node, n)` for each of `requests`; budget and node numbers go as if they had been made in turn."""


class RolloutStrategy(Protocol):
    """Decides what to sample next. One call per prompt; many run side by side."""

    @property
    def n_total(self) -> int: ...

    async def grow(self, expander: Expander) -> SearchResult:
        """Spend the expander's budget on its tree."""
