"""Branching where entropy changes after a tool result: ARPO (arXiv 2507.19849) and AEPO (arXiv 2510.14545).

Both work in rounds. In round r every trajectory under way that has made its r-th tool call may be branched there, in
the order of their numbers, until the prompt's budget is spent. A decision depends only on the trajectory's entropies up
to that round (and a random number), never on what comes later; so trajectories are completed first and branched
afterwards, round by round, which gives the same tree as branching them on the way.

An entropy is that of a turn's first tokens, summed, by log V. The authors' code sees ten log-probabilities a token, a
lower bound; here entropies are those of the full distribution. ARPO's paper divides by V, which only scales its `beta`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from elpo_agent.rollout.base import Expander, SearchResult
from elpo_agent.rollout.draw import Draw, check_n_total
from elpo_agent.rollout.entropy import sigmoid, summed_entropy
from elpo_agent.tree import RolloutTree


@dataclass(frozen=True)
class EntropyBranching:
    """Some full rollouts, then branches after tool results whose entropy rose, then full rollouts again.

    A trajectory at a tool result gets `beam - 1` branches if

        P = (alpha + gamma * (H_t - H_init)) * max(0, 1 - penalty * l) > tau,

    where H_init is the entropy of its first turn, H_t that of the turn after the result, and l the rounds directly
    before in which it, or what it was branched from, got a branch (ARPO: no penalty). What branches leave of the budget
    goes to full rollouts.

    With `probe`, a full rollout comes first (AEPO's pre-monitoring) and decides the number of initial ones: of the k
    rollouts left, m = k * sigmoid(monitor_beta * (H_root - H_tool)), rounded to the nearest, at least 1, where H_root
    is the entropy of the probe's first turn and H_tool the mean over its turns after tool results (H_root without any).
    The probe is charged, and trained on like any other; it is not branched.

    `reference_quirks=True` is what the authors' code does instead, in what differs:

    * H_t is that of the turn that made the call, not of the one after its result; H_init is that of the first turn
      sampled for this trajectory's own slot, so that the difference is 0 in the first round of every trajectory, a
      branch included. (The code also keeps H_init between batches; this does not.)
    * each of the `beam - 1` tries draws U in [0, 1): without probe, branch if clip(U - gamma * dH, 0, 1) <= tau; with,
      if clip((U + gamma * dH) * max(0, 1 - penalty * l), 0, 1) >= tau, where l counts the rounds directly before in
      which the prompt got any new trajectory.
    * a prompt none of whose trajectories is under way gets one full rollout a round, which may be branched in its turn;
      so groups are always filled, and the padding with copies of the last, which the code provides for, never happens.
    * m = floor(k * sigmoid(monitor_beta * (H_root - H_all))) + 1, at most k, where H_all is the mean over all turns.

    Trajectories that infrastructure failed are charged, but not branched, and no evidence for m.

    Attributes:
        n_total: completed rollouts per prompt, branches and probe included; >= 1.
        initial: full rollouts at the start; >= 1. Not looked at with `probe`.
        beam: a trajectory at a tool result becomes this many at most; >= 1.
        alpha, gamma, tau: of the rule above; finite. ARPO calls gamma beta.
        penalty: of consecutive branching; >= 0.
        probe: decide the number of initial rollouts by a probe.
        monitor_beta: see above; finite.
        entropy_window: tokens of a turn, from its start, that count; None for all of them.
        vocabulary: V, the number of tokens the policy chooses from; >= 2. The default is Qwen2.5's.
        reference_quirks: see above.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    n_total: int = 16
    initial: int = 8
    beam: int = 2
    alpha: float = 0.5
    gamma: float = 0.2
    tau: float = 0.5
    penalty: float = 0.0
    probe: bool = False
    monitor_beta: float = 0.5
    entropy_window: int | None = 20
    vocabulary: int = 151_936
    reference_quirks: bool = False

    def __post_init__(self) -> None:
        check_n_total(self.n_total)
        for name in ("initial", "beam"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("alpha", "gamma", "tau", "penalty", "monitor_beta"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} must be a finite number")
        if self.penalty < 0.0:
            raise ValueError(f"penalty={self.penalty} would favour consecutive branches; give at least 0")
        if self.entropy_window is not None and self.entropy_window < 1:
            raise ValueError(
                f"entropy_window={self.entropy_window} selects no token; give at least 1, or None for whole turns"
            )
        if self.vocabulary < 2:
            raise ValueError(f"vocabulary={self.vocabulary} leaves nothing to choose from; give at least 2")

    async def grow(self, expander: Expander) -> SearchResult:
        """Roll out, branch round by round, and spend what is left on full rollouts."""
        draw, tree = Draw(expander, self.n_total), expander.tree
        rng = random.Random(expander.seed) if self.reference_quirks else None
        initial = self.initial
        if self.probe:
            probe = await draw.sample(0, 1)
            initial = self._initial_after(tree, probe, draw.left)
        walks = [_Walk(tree, leaf) for leaf in await draw.sample(0, initial)]
        round_, streak = 0, 0  # the streak of the whole prompt
        while draw.left:
            round_ += 1
            active = [walk for walk in walks if walk.under_way(round_)]
            if not active:
                leaves = await draw.sample(0, 1 if self.reference_quirks else draw.left)
                walks += [_Walk(tree, leaf, started=round_) for leaf in leaves]
                streak += 1
                continue
            sources = self._sources(tree, active, round_, streak, draw.left, rng)
            answers = await draw.sample_each([(walk.node_at(round_), 1) for walk in sources])
            for walk in active:
                walk.streak = walk.streak + 1 if walk in sources else 0
            for source, leaves in zip(sources, answers, strict=True):
                walks += [source.branched(tree, leaf, round_) for leaf in leaves]
            streak = streak + 1 if sources else 0
        return SearchResult()

    def _initial_after(self, tree: RolloutTree, probe: Sequence[int], k: int) -> int:
        """m: full rollouts of the `k` that the probe left."""
        difference = 0.0
        if probe and tree.outcome(probe[0]).valid:
            entropies = [self._entropy(tree, node) for node in tree.path(probe[0])]
            others = entropies if self.reference_quirks else entropies[1:]
            if others:
                difference = entropies[0] - math.fsum(others) / len(others)
        share = k * sigmoid(self.monitor_beta * difference)
        m = math.floor(share) + 1 if self.reference_quirks else math.floor(share + 0.5)
        return max(1, min(m, k))

    def _sources(
        self, tree: RolloutTree, active: Sequence[_Walk], round_: int, streak: int, left: int, rng: random.Random | None
    ) -> list[_Walk]:
        """Which of the trajectories are branched in this round; one entry for each branch, `left` at most."""
        sources: list[_Walk] = []
        for walk in active:
            difference = self._rise(tree, walk, round_)
            for _ in range(min(self.beam - 1, left - len(sources))):
                branch = (
                    (self.alpha + self.gamma * difference) * self._damping(walk.streak) > self.tau
                    if rng is None
                    else self._quirky_choice(difference, streak, rng)
                )
                if branch:
                    sources.append(walk)
        return sources

    def _rise(self, tree: RolloutTree, walk: _Walk, round_: int) -> float:
        """H_t - H_init of a trajectory in a round."""
        call = walk.depth_at(round_)
        first, now = (walk.own_from, call) if self.reference_quirks else (0, call + 1)
        return self._entropy(tree, walk.path[now]) - self._entropy(tree, walk.path[first])

    def _quirky_choice(self, difference: float, streak: int, rng: random.Random) -> bool:
        u = rng.random()
        if not self.probe:
            return _clip01(u - self.gamma * difference) <= self.tau
        return _clip01((u + self.gamma * difference) * self._damping(streak)) >= self.tau

    def _damping(self, streak: int) -> float:
        return max(0.0, 1.0 - self.penalty * streak)

    def _entropy(self, tree: RolloutTree, node: int) -> float:
        return summed_entropy(tree, node, self.entropy_window) / math.log(self.vocabulary)


class _Walk:
    """A completed trajectory as it looked round by round while it was under way.

    Args:
        leaf: where it ended.
        started: the round after which its first turn was sampled (for a branch: its trunk's).
        own_from: place on its path of the first step that is its own.
        streak: rounds directly before in which it got a branch.
    """

    def __init__(self, tree: RolloutTree, leaf: int, started: int = 0, own_from: int = 0, streak: int = 0) -> None:
        self.path = tree.path(leaf)
        self.started = started
        self.own_from = own_from
        self.streak = streak
        self._valid = tree.outcome(leaf).valid

    def depth_at(self, round_: int) -> int:
        """Place on the path of the call that is made in a round."""
        return round_ - self.started - 1

    def node_at(self, round_: int) -> int:
        return self.path[self.depth_at(round_)]

    def under_way(self, round_: int) -> bool:
        """Whether it makes a call of its own in that round, and goes on after it."""
        return self._valid and self.own_from <= self.depth_at(round_) < len(self.path) - 1

    def branched(self, tree: RolloutTree, leaf: int, round_: int) -> _Walk:
        """The trajectory to `leaf`, which leaves this one after the call of a round."""
        return _Walk(tree, leaf, self.started, self.depth_at(round_) + 1, self.streak)


def _clip01(x: float) -> float:
    return max(0.0, min(1.0, x))
