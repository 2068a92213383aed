"""Binary error localization (BEL): Algorithm 1 of ELPO (arXiv 2602.09598)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from elpo_agent.rollout.base import Anchor, Expander, Localization, SearchResult
from elpo_agent.rollout.bayesian import BayesianSearch, StepBelief
from elpo_agent.rollout.draw import Draw, check_n_total
from elpo_agent.rollout.entropy import PathEntropy, Rounding, check_counts, suffix_count, tool_steps
from elpo_agent.rollout.failures import any_success, check_reference_options, choose_reference, collect_failures
from elpo_agent.tree import RolloutTree

Search = Literal["printed", "inclusive", "bayesian"]


@dataclass(frozen=True)
class BinaryErrorLocalization:
    """Collect failures, search one for its first irrecoverable step; repeat until N_total is spent.

    The reference is the failure whose entropy rises most after tool results (H_tool - H_root; the earliest
    one on a tie; one with a tool step before one without). The search bisects its K tool steps: an anchor m
    keeps steps 1..m and samples suffixes from there; if any succeeds the prefix is recoverable. This assumes,
    as its authors say, that recoverability is monotone along a trajectory (once lost it stays lost), and a
    finite number of probes takes a step for irrecoverable when success from it is merely rare.

    Where the paper is silent or at odds with its own figure:

    * search="printed" runs `while L < R` and sets R = m after a failed anchor, as Algorithm 1 is printed: the
      last candidate is never probed (K = 1 makes no probe and returns step 1).
    * search="inclusive" runs `while L <= R` and sets R = m - 1, which is what the paper's Figure 4 shows:
      every answer rests on a probe, and K + 1 (the final answer step) is returned when every prefix is
      recoverable.
    * search="bayesian" weighs failures instead of believing them, and takes the likeliest step: see
      `elpo_agent.rollout.bayesian`. It is no part of the paper.
    * K = 0: nothing to localize; no critical step.
    * The budget ends inside a search: as printed, t_crit = L. The localization is marked as not closed.
    * Probes that infrastructure failed are no evidence. An anchor with no valid probe ends its search without
      a critical step, and the next reference is sought.

    Attributes:
        n_total: completed rollouts per prompt, full and suffix together; >= 1.
        b_max: failures collected before one is chosen; >= 1.
        x_min, x_max: least and most suffixes per anchor, 1 <= x_min <= x_max.
        beta: how sharply the entropy rise at an anchor moves its number of suffixes between the two.
        search: see above.
        entropy_window: tokens of a turn, from its start, that count for its entropy; None for all of them.
        rounding: of the real-valued number of suffixes.
        bayesian: how search="bayesian" goes about it; the others do not look at it.
    """

    n_total: int = 16
    b_max: int = 3
    x_min: int = 1
    x_max: int = 3
    beta: float = 5.0
    search: Search = "inclusive"
    entropy_window: int | None = None
    rounding: Rounding = "nearest"
    bayesian: BayesianSearch = field(default_factory=BayesianSearch)

    def __post_init__(self) -> None:
        check_n_total(self.n_total)
        check_counts(self.x_min, self.x_max, self.beta)
        check_reference_options(self.b_max, self.entropy_window)
        if self.search not in get_args(Search):
            raise ValueError(f"search={self.search!r} is unknown; give 'printed', 'inclusive' or 'bayesian'")
        if self.rounding not in get_args(Rounding):
            raise ValueError(f"rounding={self.rounding!r} is unknown; give 'nearest', 'floor' or 'ceil'")

    async def grow(self, expander: Expander) -> SearchResult:
        """Run Algorithm 1 on the expander's tree until the budget is spent or nothing more is given."""
        draw = Draw(expander, self.n_total)
        found: list[Localization] = []
        while draw.left:
            failures = await collect_failures(draw, expander.tree, self.b_max)
            if not failures:
                break
            found.append(await self._localize(draw, expander.tree, failures))
        return SearchResult(tuple(found))

    async def _localize(self, draw: Draw, tree: RolloutTree, failures: Sequence[int]) -> Localization:
        """Choose the reference among `failures` and search its tool steps."""
        chosen = choose_reference(tree, failures, self.entropy_window)
        if chosen is None:
            return Localization(failures[0], n_candidates=0, critical_step=None, critical_node=None)
        search = self._weigh if self.search == "bayesian" else self._bisect
        return await search(draw, tree, *chosen)

    async def _bisect(self, draw: Draw, tree: RolloutTree, reference: int, h: PathEntropy) -> Localization:
        anchors: list[Anchor] = []
        nodes = [*tool_steps(tree, reference), reference]  # node of step m at m - 1; step K + 1 is the leaf
        k = len(nodes) - 1
        low, high = 1, k
        while self._open(low, high) and draw.left:
            m = (low + high) // 2
            probes = await draw.sample(nodes[m - 1], self._suffixes(h, m))
            if not probes:
                break
            recovered = any_success(tree, probes)
            anchors.append(Anchor(m, nodes[m - 1], tuple(probes), recovered))
            if recovered is None:
                return Localization(reference, k, None, None, tuple(anchors), closed=False)
            if recovered:
                low = m + 1
            else:
                high = m if self.search == "printed" else m - 1
        closed = not self._open(low, high)
        return Localization(reference, k, low, nodes[low - 1], tuple(anchors), closed)

    async def _weigh(self, draw: Draw, tree: RolloutTree, reference: int, h: PathEntropy) -> Localization:
        anchors: list[Anchor] = []
        nodes = [*tool_steps(tree, reference), reference]
        k = len(nodes) - 1
        belief = StepBelief.before(k, self.bayesian.recovery)
        step, probability = belief.likeliest()
        left = draw.left if self.bayesian.max_probes is None else self.bayesian.max_probes
        while probability < self.bayesian.certainty and left and draw.left:
            m = belief.best_anchor()
            probes = await draw.sample(nodes[m - 1], min(left, self._suffixes(h, m)))
            if not probes:
                break
            left -= len(probes)
            recovered = any_success(tree, probes)
            anchors.append(Anchor(m, nodes[m - 1], tuple(probes), recovered))
            if recovered is None:
                return Localization(reference, k, None, None, tuple(anchors), closed=False)
            valid = [outcome.success for outcome in map(tree.outcome, probes) if outcome.valid]
            belief = belief.after(m, sum(valid), len(valid) - sum(valid))
            step, probability = belief.likeliest()
        closed = probability >= self.bayesian.certainty
        posterior = tuple(belief.probabilities().tolist())
        return Localization(reference, k, step, nodes[step - 1], tuple(anchors), closed, posterior)

    def _suffixes(self, h: PathEntropy, m: int) -> int:
        """How many suffixes anchor `m` asks for."""
        return suffix_count(h.after_tool[m - 1], h.root, self.x_min, self.x_max, self.beta, self.rounding)

    def _open(self, low: int, high: int) -> bool:
        return low < high if self.search == "printed" else low <= high
