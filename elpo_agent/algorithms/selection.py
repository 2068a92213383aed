"""Which prompts an update trains on, when groups turn out useless or end before their budget."""

from __future__ import annotations

from dataclasses import dataclass

from elpo_agent.credit.base import valid_leaves
from elpo_agent.tree import RolloutTree


@dataclass(frozen=True)
class Selection:
    """How an update's prompts are chosen beyond the first `rollout.prompts` of them.

    Every rollout is charged to the update's budget and counted in its figures, whatever becomes of it.

    Attributes:
        mixed_only: train only on prompts whose valid rollouts both succeeded and failed (DAPO's dynamic sampling).
        refill_rounds: further rounds of fresh prompts, at most, until `rollout.prompts` trees can be trained on; the
            budget grows by what they take. 0 does without.
        hand_on: give rollouts that strategies left unspent to fresh prompts, within the update's budget.
        n_total: rollouts that each of the `rollout.prompts` adds to the update's budget, where a group may take more
            than its share and leave the less to others; needs `hand_on`. None: the strategy's own `n_total`.

    Raises:
        ValueError: `refill_rounds` is negative, or set without `mixed_only`; `n_total` is below 1, or set without
            `hand_on`.
    """

    mixed_only: bool = False
    refill_rounds: int = 0
    hand_on: bool = False
    n_total: int | None = None

    def __post_init__(self) -> None:
        if self.refill_rounds < 0:
            raise ValueError(f"refill_rounds={self.refill_rounds} must be 0 or more")
        if self.refill_rounds and not self.mixed_only:
            raise ValueError(f"refill_rounds={self.refill_rounds} refills what mixed_only drops; set mixed_only=True")
        if self.n_total is not None and (self.n_total < 1 or not self.hand_on):
            raise ValueError(
                f"n_total={self.n_total} with hand_on={self.hand_on}: give at least 1, and set hand_on=True"
            )


def is_mixed(tree: RolloutTree) -> bool:
    """Whether the valid rollouts both succeeded and failed."""
    return len({tree.outcome(leaf).success for leaf in valid_leaves(tree)}) > 1


def shares(left: int, n_total: int) -> list[int]:
    """What the next prompts may spend of `left` >= 1 rollouts: whole budgets; the rest, if that is all there is."""
    return [n_total] * (left // n_total) or [left]
