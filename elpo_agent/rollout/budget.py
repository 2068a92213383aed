"""What one prompt's rollouts may use up: completed rollouts, generated tokens, tool calls, wall time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class BudgetLimits:
    """Limits beside the number of rollouts; None is no limit.

    Attributes:
        tokens: generated tokens; a step that several trajectories share counts once.
        tool_calls: calls that turns ask for; at least as many as are run.
        seconds: wall time from the moment the prompt's episode has begun; the only limit that is not the same in equal
            runs.

    Raises:
        ValueError: a limit is not above 0; the message names it.
    """

    tokens: int | None = None
    tool_calls: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "tool_calls"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"budget.{name}={value} allows nothing; give at least 1, or null for no limit")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0.0):
            raise ValueError(f"budget.seconds={self.seconds} must be a number above 0, or null for no limit")

    def divided(self, prompts: int) -> BudgetLimits:
        """Each prompt's share of limits that hold for all of them together.

        Tokens and tool calls are divided, rounded down; the time is not, for prompts run side by side.

        Raises:
            ValueError: a share is less than 1.
        """

        def share(name: str, value: int | None) -> int | None:
            if value is not None and value < prompts:
                raise ValueError(f"budget.{name}={value} is less than 1 for each of {prompts} prompts; raise it")
            return None if value is None else value // prompts

        return BudgetLimits(share("tokens", self.tokens), share("tool_calls", self.tool_calls), self.seconds)


NO_LIMITS = BudgetLimits()


class Account:
    """One countable resource: reserved before it is used, settled afterwards, and never overdrawn.

    Args:
        limit: what there is; None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.spent = 0
        self.reserved = 0

    @property
    def left(self) -> int | None:
        """What may still be reserved; None where there is no limit."""
        return None if self.limit is None else self.limit - self.spent - self.reserved

    @property
    def used_up(self) -> bool:
        """Nothing is left, and nothing can come back."""
        return self.limit is not None and self.spent >= self.limit

    def reserve(self, n: int) -> int:
        """Set up to `n` >= 0 aside; returns how much that is."""
        left = self.left
        granted = n if left is None else min(n, left)
        self.reserved += granted
        return granted

    def settle(self, granted: int, used: int) -> None:
        """Of a reservation of `granted`, `used` was needed; the rest is free again.

        Raises:
            ValueError: more was used than reserved, or more is settled than is reserved at all.
        """
        if not 0 <= used <= granted <= self.reserved:
            raise ValueError(f"used={used} of granted={granted} with reserved={self.reserved}: this overdraws a budget")
        self.reserved -= granted
        self.spent += used


class Budget:
    """What one prompt's rollouts may use up; whoever grows its tree asks here first, and nobody can overspend.

    - Rollouts: `take` before they begin. Every completed leaf, full or suffix, costs 1.
    - Tokens: a turn's `max_new_tokens` are reserved before it is sampled and settled at its true length afterwards.
    - Tool calls: what a turn asks for is charged before the environment sees it, since an environment runs all of a
      turn or none. Calls that it then did not run (behind a submission, say) are not given back: when that is known
      depends on how long tools take, and the trees would too.
    - Wall time: looked at before every turn, so that it is exceeded by a turn and its tools at most.

    Args:
        total: completed rollouts, N_total >= 1.
        limits: the others.
        clock: seconds; its zero does not matter.
    """

    def __init__(
        self, total: int, limits: BudgetLimits = NO_LIMITS, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if total < 1:
            raise ValueError(f"n_total={total} leaves nothing to roll out; give at least 1")
        self.total = total
        self.spent = 0
        self.limits = limits
        self.tokens = Account(limits.tokens)
        self.tool_calls = Account(limits.tool_calls)
        self._clock = clock
        self._began = clock()

    @property
    def seconds(self) -> float:
        """Wall time since the budget was made."""
        return self._clock() - self._began

    @property
    def out_of_time(self) -> bool:
        return self.limits.seconds is not None and self.seconds >= self.limits.seconds

    @property
    def left(self) -> int:
        """Rollouts that may still begin: 0 once any of the limits is used up."""
        over = self.tokens.used_up or self.tool_calls.used_up or self.out_of_time
        return 0 if over else self.total - self.spent

    def take(self, n: int) -> int:
        """Reserve up to `n` rollouts; returns how many were granted (0 when nothing is left)."""
        granted = max(0, min(n, self.left))
        self.spent += granted
        return granted

    def give_back(self, n: int) -> None:
        """`n` of the rollouts that were taken could not begin.

        Raises:
            ValueError: `n` is negative, or more than were taken.
        """
        if not 0 <= n <= self.spent:
            raise ValueError(f"n={n} rollouts cannot be given back of {self.spent} that were taken")
        self.spent -= n

    def charge_calls(self, n: int) -> bool:
        """Whether a turn that asks for `n` tool calls may go to the environment; if so, they are spent."""
        granted = self.tool_calls.reserve(n)
        self.tool_calls.settle(granted, granted if granted == n else 0)
        return granted == n
