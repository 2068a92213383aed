"""How a strategy grows a tree: it asks for continuations of nodes until its budget is spent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from elpo_agent.tree import RolloutTree


class Budget:
    """Completed rollouts allowed for one prompt; every completed leaf, full or suffix, costs 1.

    Args:
        total: N_total >= 1.
    """

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"n_total={total} leaves nothing to roll out; give at least 1")
        self.total = total
        self.spent = 0

    @property
    def left(self) -> int:
        return self.total - self.spent

    def take(self, n: int) -> int:
        """Reserve up to `n` rollouts; returns how many were granted (0 when nothing is left)."""
        granted = max(0, min(n, self.left))
        self.spent += granted
        return granted


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
            search (K = 0) or the search was given up because every probe of an anchor was invalid.
        critical_node: tree node of that step.
        anchors: probes in the order they were made.
        closed: the search ran to its end. False when the budget ran out first: `critical_step` is then the
            earliest step not shown to be recoverable, possibly without a single probe.
    """

    reference: int
    n_candidates: int
    critical_step: int | None
    critical_node: int | None
    anchors: tuple[Anchor, ...] = ()
    closed: bool = True


@dataclass(frozen=True)
class SearchResult:
    """What a strategy found while growing a tree (empty for independent sampling)."""

    localizations: tuple[Localization, ...] = field(default_factory=tuple)


class Expander(Protocol):
    """Grows one tree by sampling; supplied by the runner, or by a script in tests."""

    @property
    def tree(self) -> RolloutTree: ...

    @property
    def budget(self) -> Budget: ...

    async def expand(self, node: int, n: int) -> list[int]:
        """Complete up to `n` trajectories from `node` (0 = the prompt) and add them to the tree.

        Takes them from the budget first, so fewer (or none) come back when it runs out. Returns the new
        leaves' indices; `tree.leaves` lists them in the same order.
        """


class RolloutStrategy(Protocol):
    """Decides what to sample next. One call per prompt; many run side by side."""

    @property
    def n_total(self) -> int: ...

    async def grow(self, expander: Expander) -> SearchResult:
        """Spend the expander's budget on its tree."""
