"""Tree-GRPO's rollouts: chains that are expanded at random nodes (arXiv 2509.21240; AMAP-ML/Tree-GRPO)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from elpo_agent.rollout.base import Expander, SearchResult
from elpo_agent.rollout.draw import Draw, check_n_total
from elpo_agent.tree import RolloutTree


@dataclass(frozen=True)
class RandomExpansion:
    """M chains, each the seed of a tree of its own; in each of L rounds, N expansions of every tree.

    An expansion takes a node of the tree, uniformly and with replacement among the prompt and all steps that something
    follows, and completes a trajectory from it; what is drawn from the prompt belongs to the tree it was drawn for. It
    takes M (1 + N L) rollouts. Of each tree `keep` leaves stay, drawn at random; the others were paid for and are not
    trained on. `RolloutTree.groups` says which leaf belongs to which tree.

    A smaller `n_total` cuts the shape short, from its end; what a larger one leaves stays unspent. Trajectories that
    infrastructure failed are neither expanded nor kept.

    Attributes:
        n_total: completed rollouts per prompt at most; >= 1.
        chains: M >= 1.
        expansions: N >= 0, for each tree and round.
        rounds: L >= 0.
        keep: leaves of a tree that are trained on, >= 1; None for all of them.

    Raises:
        ValueError: a number is out of its range; the message names it.
    """

    n_total: int = 16
    chains: int = 4
    expansions: int = 3
    rounds: int = 1
    keep: int | None = None

    def __post_init__(self) -> None:
        check_n_total(self.n_total)
        for name, least in (("chains", 1), ("expansions", 0), ("rounds", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep={self.keep} leaves nothing to train on; give at least 1, or None for all leaves")

    async def grow(self, expander: Expander) -> SearchResult:
        """Grow the trees side by side."""
        draw, tree = Draw(expander, self.n_total), expander.tree
        rng = random.Random(expander.seed)
        trees = [[leaf] for leaf in await draw.sample(0, self.chains)]
        for _ in range(self.rounds):
            requests: list[tuple[int, int]] = []
            owners: list[list[int]] = []
            for leaves in trees:
                drawn = Counter(rng.choices(_inner_nodes(tree, leaves), k=self.expansions))
                requests += drawn.items()
                owners += [leaves] * len(drawn)
            for owner, new in zip(owners, await draw.sample_each(requests), strict=True):
                owner += new
        for number, leaves in enumerate(trees):
            kept = [leaf for leaf in leaves if tree.outcome(leaf).valid]
            if self.keep is not None and self.keep < len(kept):
                kept = rng.sample(kept, self.keep)
            tree.groups.update((leaf, number) for leaf in sorted(kept))
        return SearchResult()


def _inner_nodes(tree: RolloutTree, leaves: Sequence[int]) -> list[int]:
    """The prompt and every node above a valid one of `leaves`, in index order."""
    nodes = {0}
    for leaf in leaves:
        if tree.outcome(leaf).valid:
            nodes.update(tree.path(leaf)[:-1])
    return sorted(nodes)
