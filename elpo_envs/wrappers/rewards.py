"""Reward wrappers; what they share is in `ShapedReward`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

from elpo_envs.wrappers.feedback import CALL_KINDS, FEEDBACK_KINDS, FORMAT_ERRORS, assistant_chars, turn_kinds
from elpo_envs.wrappers.shaping import ShapedReward, finite


class PlusMinusReward(ShapedReward):
    """+1 for a right answer, -1 at the end of any other valid episode (ToRL: +1 and -1, or +1 and -0.5).

    Args:
        env: the environment.
        right: the episode's outcome with a right answer, in place of 1.
        wrong: its outcome with a wrong answer or none, in place of 0.

    Raises:
        ValueError: one of them is no finite number.
    """

    def __init__(self, env: gym.Env[Any, str], right: float = 1.0, wrong: float = -1.0) -> None:
        super().__init__(env, right=right, wrong=wrong)
        self._right, self._wrong = finite("right", right), finite("wrong", wrong)

    def term(self, info: Mapping[str, Any], over: bool) -> float:
        if not over:
            return 0.0
        return self._right - 1.0 if info["is_correct"] else self._wrong


class FormatPenalty(ShapedReward):
    """A penalty for every turn that is not written as agreed (GiGPO: 0.1 for an invalid action).

    A turn counts once, however many of its calls are wrong, and also where a budget ended the episode with it.

    Args:
        env: the environment.
        penalty: taken from the reward of such a turn; >= 0.
        kinds: of `FEEDBACK_KINDS`, those that count; by default "malformed_call", "unknown_tool",
            "invalid_arguments" and "no_action".

    Raises:
        ValueError: an unknown kind or a negative penalty.
    """

    def __init__(self, env: gym.Env[Any, str], penalty: float = 0.1, kinds: Sequence[str] | None = None) -> None:
        super().__init__(env, penalty=penalty, kinds=None if kinds is None else list(kinds))
        self._penalty = finite("penalty", penalty, 0.0)
        self._kinds = FORMAT_ERRORS if kinds is None else frozenset(kinds)
        _check_kinds("kinds", self._kinds)

    def term(self, info: Mapping[str, Any], over: bool) -> float:
        return -self._penalty if self._kinds.intersection(turn_kinds(info)) else 0.0


class ToolBonus(ShapedReward):
    """A bonus for each successful tool call of an episode that ends with a right answer.

    Given at the end. Wrong answers earn none, so that calls are no way to be paid without solving the task. A
    call that hands in the answer (`submit`) does not count.

    Args:
        env: the environment.
        bonus: for one call that gave "ok" or "empty"; >= 0.
        cap: the most that one episode earns; >= 0.

    Raises:
        ValueError: one of them is negative or no finite number.
    """

    def __init__(self, env: gym.Env[Any, str], bonus: float = 0.1, cap: float = 0.5) -> None:
        super().__init__(env, bonus=bonus, cap=cap)
        self._bonus, self._cap = finite("bonus", bonus, 0.0), finite("cap", cap, 0.0)

    def term(self, info: Mapping[str, Any], over: bool) -> float:
        if not over or not info["is_correct"]:
            return 0.0
        submitted = 1 if info["tool_calls"] else 0
        succeeded: int = info["n_tool_calls"] - info["n_tool_errors"] - submitted
        return min(self._cap, self._bonus * succeeded)


class DemyAgentReward(ShapedReward):
    """DemyAgent's (GRPO-TCR's) outcome: 1 for a right answer, else min(-0.6, -1 + 0.1 (n - 2) / 2).

    n is the number of turns as its rollout engine counts them, assistant's and user's together and one more: 2
    for an answer at once, and 2 more for each round of tool calls. Tool use thus softens the punishment of a
    wrong answer and adds nothing to a right one.

    Args:
        env: the environment.
        bonus: for each round of tool calls; >= 0.
        ceiling: the mildest outcome of a wrong answer.
        reference_quirks: reproduce the published program, which never sets n: a wrong answer is -1.1 always.

    Raises:
        ValueError: a value is out of range.

    Source: Open-AgentRL, `recipe/demystify/reward.py`.
    """

    def __init__(
        self,
        env: gym.Env[Any, str],
        bonus: float = 0.1,
        ceiling: float = -0.6,
        reference_quirks: bool = False,
    ) -> None:
        super().__init__(env, bonus=bonus, ceiling=ceiling, reference_quirks=reference_quirks)
        self._bonus, self._ceiling = finite("bonus", bonus, 0.0), finite("ceiling", ceiling)
        self._reference_quirks = reference_quirks

    def term(self, info: Mapping[str, Any], over: bool) -> float:
        if not over or info["is_correct"]:
            return 0.0
        n = 0 if self._reference_quirks else 2 * info["turn"]
        return min(self._ceiling, -1.0 + self._bonus * (n - 2) / 2)


class OverlongPenalty(ShapedReward):
    """DAPO's soft overlong punishment, in characters of the assistant's turns.

    At the end of an episode with c such characters, whatever its outcome: 0 up to `start_chars`, then linearly
    down to -`penalty` at `end_chars`, and no lower.

    Args:
        env: the environment.
        start_chars: where the punishment begins; >= 0.
        end_chars: where it is full; > `start_chars`.
        penalty: the full punishment; >= 0.

    Raises:
        ValueError: a value is out of range.

    Source: Yu et al. 2025, "DAPO", soft overlong punishment; there the length is in tokens.
    """

    def __init__(self, env: gym.Env[Any, str], start_chars: int, end_chars: int, penalty: float = 1.0) -> None:
        super().__init__(env, start_chars=start_chars, end_chars=end_chars, penalty=penalty)
        self._penalty = finite("penalty", penalty, 0.0)
        self._start, self._end = finite("start_chars", start_chars, 0.0), finite("end_chars", end_chars, 0.0)
        if not self._start < self._end:
            raise ValueError(f"end_chars={end_chars} must be greater than start_chars={start_chars}")

    def term(self, info: Mapping[str, Any], over: bool) -> float:
        if not over:
            return 0.0
        share = (assistant_chars(info) - self._start) / (self._end - self._start)
        return -self._penalty * min(1.0, max(0.0, share))


class PerTurnReward(ShapedReward):
    """Rewards what tools answered: a turn is given the sum of its calls' values.

    Args:
        env: the environment.
        table: from kinds (`FEEDBACK_KINDS`) to rewards, such as {"ok": 0.05, "error": -0.05}; other kinds give
            nothing. Of "sandbox_failure" nothing is ever given, since it voids the episode.

    Raises:
        ValueError: an unknown kind, or a reward that is no finite number.
    """

    def __init__(self, env: gym.Env[Any, str], table: Mapping[str, float]) -> None:
        super().__init__(env, table=dict(table))
        _check_kinds("table", table)
        self._table = {kind: finite(f"table[{kind!r}]", value) for kind, value in table.items()}

    def term(self, info: Mapping[str, Any], over: bool) -> float:
        return sum(self._table.get(kind, 0.0) for kind in turn_kinds(info))


def _check_kinds(name: str, kinds: Mapping[str, Any] | frozenset[str]) -> None:
    unknown = sorted(set(kinds) - FEEDBACK_KINDS)
    if unknown:
        known = ", ".join([*sorted(CALL_KINDS), "no_action"])
        raise ValueError(f"{name} has the unknown kind {unknown[0]!r}; choose of {known}")
