"""ELPO without its search: branches at random prefixes (the ablation "w/o BEL", arXiv 2602.09598)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from elpo_agent.rollout.base import Anchor, Expander, Localization, SearchResult
from elpo_agent.rollout.draw import Draw, check_n_total
from elpo_agent.rollout.entropy import Rounding, check_counts, suffix_count, tool_steps
from elpo_agent.rollout.failures import any_success, check_reference_options, choose_reference, collect_failures
from elpo_agent.tree import RolloutTree


@dataclass(frozen=True)
class RandomPrefixes:
    """The tree that BEL grows, with anchors drawn uniformly in place of the binary search.

    Failures are collected and one of them chosen as in `BinaryErrorLocalization`, and each anchor asks for as many
    suffixes. A reference with K tool steps gets as many anchors as an inclusive search of K candidates makes at most,
    floor(log2 K) + 1, all different. Nothing is localized: critical steps are None.

    Attributes:
        n_total, b_max, x_min, x_max, beta, entropy_window, rounding: see `BinaryErrorLocalization`.
    """

    n_total: int = 16
    b_max: int = 3
    x_min: int = 1
    x_max: int = 3
    beta: float = 5.0
    entropy_window: int | None = None
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        check_n_total(self.n_total)
        check_counts(self.x_min, self.x_max, self.beta)
        check_reference_options(self.b_max, self.entropy_window)

    async def grow(self, expander: Expander) -> SearchResult:
        """Collect failures and branch from one of them, until the budget is spent or nothing more is given."""
        draw = Draw(expander, self.n_total)
        rng = random.Random(expander.seed)
        found: list[Localization] = []
        while draw.left:
            failures = await collect_failures(draw, expander.tree, self.b_max)
            if not failures:
                break
            found.append(await self._branch(draw, expander.tree, failures, rng))
        return SearchResult(tuple(found))

    async def _branch(self, draw: Draw, tree: RolloutTree, failures: Sequence[int], rng: random.Random) -> Localization:
        chosen = choose_reference(tree, failures, self.entropy_window)
        if chosen is None:
            return Localization(failures[0], n_candidates=0, critical_step=None, critical_node=None)
        reference, h = chosen
        nodes = tool_steps(tree, reference)
        steps = rng.sample(range(1, len(nodes) + 1), len(nodes).bit_length())
        requests = [
            (
                nodes[m - 1],
                suffix_count(h.after_tool[m - 1], h.root, self.x_min, self.x_max, self.beta, self.rounding),
            )
            for m in steps
        ]
        answers = await draw.sample_each(requests)
        anchors = tuple(
            Anchor(m, node, tuple(probes), any_success(tree, probes))
            for m, (node, _), probes in zip(steps, requests, answers, strict=True)
            if probes
        )
        return Localization(reference, len(nodes), None, None, anchors, closed=False)
