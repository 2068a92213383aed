"""Success-anchored value-gap bisection: probes where the value of a prefix rises most towards a success."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from elpo_agent.rollout.base import Expander, SearchResult
from elpo_agent.rollout.draw import Draw, check_n_total
from elpo_agent.tree import RolloutTree


@dataclass(frozen=True)
class SuccessAnchored:
    """Full rollouts until both outcomes were seen, then probes between low and high value.

    BEL's probes start on failed trajectories, often from prefixes that are lost already. These start where value is
    gained. First up to `fresh` full rollouts, fewer once there are `enough` successes and failures; while all outcomes
    are equal, further ones up to `most_fresh`. Then probes, `per_anchor` at a time: of the unary segments b -> e of the
    tree (b and e the prompt, a branching node or a leaf, with nothing branching between; l >= 2 steps; V(e) > V(b)) the
    one with the largest (V(e) - V(b)) sqrt(l) is probed at its midpoint, floor(l / 2) steps after b. V(prompt) is the
    success rate of the full rollouts, V(leaf) its outcome, and between them V(s) = (S_s + V(b)) / (n_s + 1) with S_s
    successes among n_s trajectories through s, the next branching node (or the prompt) above it being b. The earliest
    segment is taken on a tie. Where there is none (no tool was called), full rollouts take the probes' place.

    A prompt whose outcomes are all equal ends with `most_fresh` full rollouts, the rest unspent. Trajectories that
    infrastructure failed are charged, but enter no count and no value.

    Attributes:
        n_total: completed rollouts per prompt at most, probes included; >= 1.
        fresh: see above; >= 1.
        most_fresh: see above; >= fresh, None for `n_total`.
        enough: (successes, failures), both >= 1, at which full rollouts end early; None for never.
        probes: in all; >= 0, None for what `n_total` leaves.
        per_anchor: probes from one node at a time; >= 1.

    Raises:
        ValueError: a number is out of its range; the message names it.
    """

    n_total: int = 16
    fresh: int = 8
    most_fresh: int | None = None
    enough: tuple[int, int] | None = None
    probes: int | None = None
    per_anchor: int = 2

    def __post_init__(self) -> None:
        check_n_total(self.n_total)
        for name in ("fresh", "per_anchor"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.most_fresh is not None and self.most_fresh < self.fresh:
            raise ValueError(f"most_fresh={self.most_fresh} is less than fresh={self.fresh}")
        if self.enough is not None and min(self.enough) < 1:
            raise ValueError(f"enough={self.enough} needs at least one success and one failure")
        if self.probes is not None and self.probes < 0:
            raise ValueError(f"probes={self.probes} must be at least 0, or None for what the budget leaves")

    async def grow(self, expander: Expander) -> SearchResult:
        """Collect contrast, then probe it."""
        draw, tree = Draw(expander, self.n_total), expander.tree
        fresh = await self._contrast(draw, tree)
        if not _mixed(tree, fresh):
            return SearchResult()
        segments = Segments(tree)
        segments.add(fresh, fresh=True)
        left = draw.left if self.probes is None else min(self.probes, draw.left)
        while left and draw.left:
            midpoint = segments.widest_gap()
            if midpoint is None:
                new = await draw.sample(0, left)
            else:
                new = await draw.sample(midpoint, min(left, self.per_anchor))
            segments.add(new, fresh=midpoint is None)
            left -= len(new)
        return SearchResult()

    async def _contrast(self, draw: Draw, tree: RolloutTree) -> list[int]:
        """Full rollouts until there are enough of both outcomes."""
        leaves: list[int] = []
        most = self.n_total if self.most_fresh is None else self.most_fresh
        while draw.left and len(leaves) < most:
            won, lost = _counts(tree, leaves)
            if len(leaves) < self.fresh:
                wanted = self.fresh - len(leaves)
                if self.enough is not None:
                    # At least this many are still needed, so asking for them at once draws no more than one by one.
                    needed = max(0, self.enough[0] - won) + max(0, self.enough[1] - lost)
                    wanted = min(wanted, needed)
            else:
                wanted = 0 if won and lost else 1
            if not wanted:
                break
            leaves += await draw.sample(0, wanted)
        return leaves


class Segments:
    """The unary segments of a tree, and the values at their ends; without trajectories that infrastructure failed."""

    def __init__(self, tree: RolloutTree) -> None:
        self._tree = tree
        self._paths: list[list[int]] = []
        self._fresh = self._fresh_successes = 0
        # Of every node: trajectories through it, successes among them, and children that a trajectory goes through.
        self._through: dict[int, int] = {}
        self._successes: dict[int, int] = {}
        self._branches: dict[int, int] = {}

    def add(self, leaves: Sequence[int], *, fresh: bool) -> None:
        """Count completed trajectories; `fresh` ones began at the prompt and make up its value."""
        for leaf in leaves:
            outcome = self._tree.outcome(leaf)
            if not outcome.valid:
                continue
            path = self._tree.path(leaf)
            self._paths.append(path)
            self._fresh += fresh
            self._fresh_successes += fresh and outcome.success
            parent = 0
            for node in path:
                if node in self._through:
                    self._through[node] += 1
                    self._successes[node] += outcome.success
                else:
                    self._through[node], self._successes[node], self._branches[node] = 1, int(outcome.success), 0
                    if parent:
                        self._branches[parent] += 1
                parent = node

    def widest_gap(self) -> int | None:
        """The midpoint of the segment with the largest (V(e) - V(b)) sqrt(l), in the order in which trajectories were
        added; None where no segment can be halved."""
        best, midpoint = 0.0, None
        for path in self._paths:
            start, v_start = 0, self._fresh_successes / self._fresh if self._fresh else 0.0
            for depth, node in enumerate(path, start=1):
                branches = self._branches[node]
                if branches == 1:
                    continue
                successes = self._successes[node]
                value = (successes + v_start) / (self._through[node] + 1) if branches else float(successes)
                length = depth - start
                score = (value - v_start) * math.sqrt(length)
                if length >= 2 and score > best:
                    best, midpoint = score, path[start + length // 2 - 1]
                start, v_start = depth, value
        return midpoint


def _counts(tree: RolloutTree, leaves: Sequence[int]) -> tuple[int, int]:
    """Successes and failures among the valid ones of `leaves`."""
    outcomes = [outcome for outcome in map(tree.outcome, leaves) if outcome.valid]
    won = sum(outcome.success for outcome in outcomes)
    return won, len(outcomes) - won


def _mixed(tree: RolloutTree, leaves: Sequence[int]) -> bool:
    return all(_counts(tree, leaves))
