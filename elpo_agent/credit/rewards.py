"""Reward rules: what an algorithm makes of how a trajectory went, before its credit rule looks at it.

A rule sees what the tree holds: outcomes, kinds of tool feedback, lengths. Published rewards that compare texts (the F1
score of ARPO and AEPO, exact match against several gold answers in Tree-GRPO) are the environment's to give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, get_args

from elpo_agent.credit.base import valid_leaves
from elpo_agent.tree import Node, RolloutTree, Step
from elpo_envs.episode import CALL_SUCCEEDED, CallKind

MALFORMED: frozenset[str] = frozenset({"malformed_call", "unknown_tool", "invalid_arguments", "no_action"})
"""Kinds of a turn whose form was wrong, whatever it said."""


class RewardRule(Protocol):
    """Replaces rewards, step by step."""

    def reward(self, tree: RolloutTree, node: int, given: float) -> float:
        """The reward of the step at `node`; of a leaf, the outcome's.

        Args:
            tree: as sampled.
            node: never the root, and no leaf that infrastructure failed.
            given: what it is so far.
        """


def rewarded(tree: RolloutTree, rules: tuple[RewardRule, ...]) -> RolloutTree:
    """`tree` with the rewards that `rules` give, one rule after the other; the tree itself stays as it is."""
    valid = set(valid_leaves(tree))
    nodes: list[Node] = []
    for node in tree.nodes:
        step, outcome = node.step, node.outcome
        if step is not None and (outcome is None or node.index in valid):
            value = step.reward if outcome is None else outcome.reward
            before = value
            for rule in rules:
                value = rule.reward(tree, node.index, value)
            if value != before and outcome is None:
                node = replace(node, step=replace(step, reward=value))
            elif value != before and outcome is not None:
                node = replace(node, outcome=replace(outcome, reward=value))
        nodes.append(node)
    return replace(tree, nodes=nodes)


@dataclass(frozen=True)
class SuccessReward:
    """`right` for a success and `wrong` otherwise, in place of the outcome's reward: ToRL, CIR and DAPO give 1 and -1,
    ToRL's second version 1 and -0.5. Rewards of the steps before stay."""

    right: float = 1.0
    wrong: float = -1.0

    def __post_init__(self) -> None:
        _check_finite(right=self.right, wrong=self.wrong)

    def reward(self, tree: RolloutTree, node: int, given: float) -> float:
        """See `RewardRule`."""
        outcome = tree.nodes[node].outcome
        if outcome is None:
            return given
        return self.right if outcome.success else self.wrong


@dataclass(frozen=True)
class LastExecutionPenalty:
    """ToRL's: `penalty` less for a trajectory whose last tool call failed, however the ones before went."""

    penalty: float = 0.5

    def __post_init__(self) -> None:
        _check_finite(penalty=self.penalty)

    def reward(self, tree: RolloutTree, node: int, given: float) -> float:
        """See `RewardRule`."""
        if tree.nodes[node].outcome is None:
            return given
        calls = [kind for i in tree.path(node) for kind in _step(tree, i).kinds if kind != "no_action"]
        return given - self.penalty if calls and calls[-1] not in CALL_SUCCEEDED else given


@dataclass(frozen=True)
class OverlongPenalty:
    """DAPO's soft punishment: + min(-(n - (length - buffer)) / buffer * penalty, 0) for a response of n tokens.

    Tool tokens count. From length - buffer tokens on the reward falls, by `penalty` at `length` (Yu et al., arXiv
    2503.14476, equation 13; past `length`, which the sampler's limit makes impossible there, it falls on).

    Attributes:
        length: most tokens that a response may have; > buffer.
        buffer: tokens over which the punishment grows; >= 1.
        penalty: >= 0.
    """

    length: int = 20480
    buffer: int = 4096
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.buffer < self.length:
            raise ValueError(
                f"overlong_buffer={self.buffer} with overlong_length={self.length}; give 1 <= buffer < length"
            )
        if not (math.isfinite(self.penalty) and self.penalty >= 0.0):
            raise ValueError(f"overlong_penalty={self.penalty} must be a finite number of at least 0")

    def reward(self, tree: RolloutTree, node: int, given: float) -> float:
        """See `RewardRule`."""
        if tree.nodes[node].outcome is None:
            return given
        excess = response_tokens(tree, node) - (self.length - self.buffer)
        return given + min(-excess / self.buffer * self.penalty, 0.0)


@dataclass(frozen=True)
class TurnBonus:
    """DemyAgent's reward: `right` for a success, else min(cap, -1 + (turns - 2) / 2 * 0.1).

    The authors' code never sets the number of turns, so that a failure always has -1.1; that is `count_turns=False`.
    With it, turns = assistant turns + tool turns + 1, verl's count: 0.1 for each tool turn, up to the cap.

    Attributes:
        count_turns: what was meant, in place of what was run.
        right: a success's reward.
        cap: most that a failure can have.
    """

    count_turns: bool = False
    right: float = 1.0
    cap: float = -0.6

    def __post_init__(self) -> None:
        _check_finite(right=self.right, cap=self.cap)

    def reward(self, tree: RolloutTree, node: int, given: float) -> float:
        """See `RewardRule`."""
        outcome = tree.nodes[node].outcome
        if outcome is None:
            return given
        if outcome.success:
            return self.right
        turns = 2 * tree.nodes[node].depth if self.count_turns else 0
        return min(self.cap, -1.0 + (turns - 2) / 2 * 0.1)


@dataclass(frozen=True)
class FormatScores:
    """Tree-GRPO's reward, with success for its exact match: 1 for a right answer in good form and 1 - form for another;
    `form` for a wrong answer in good form, `final` for one in bad form, 0 without an answer in bad form.

    Good form means that no turn was malformed; the authors parse tags instead.

    Attributes:
        form: their structure score, in [0, 1].
        final: their final-format score, in [0, 1].
    """

    form: float = 0.2
    final: float = 0.1

    def __post_init__(self) -> None:
        for name, value in (("form", self.form), ("final", self.final)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}={value} is no score; give a number from 0 to 1")

    def reward(self, tree: RolloutTree, node: int, given: float) -> float:
        """See `RewardRule`."""
        outcome = tree.nodes[node].outcome
        if outcome is None:
            return given
        good = all(MALFORMED.isdisjoint(_step(tree, i).kinds) for i in tree.path(node))
        if outcome.success:
            return 1.0 if good else 1.0 - self.form
        if good:
            return self.form
        return self.final if outcome.answer is not None else 0.0


@dataclass(frozen=True)
class TurnRewards:
    """Something for every turn with a certain kind of tool feedback, as -0.1 for an error or a timeout.

    Attributes:
        amounts: by kind, finite: "error", "timeout", "empty", "ok", "malformed_call", "unknown_tool",
            "invalid_arguments", "no_action" ... A kind counts once in a turn, however many calls had it; a turn with
            several kinds gets the sum.

    Raises:
        ValueError: an unknown kind, or an amount that is no finite number.
    """

    amounts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_amounts("turn_rewards", self.amounts)

    def reward(self, tree: RolloutTree, node: int, given: float) -> float:
        """See `RewardRule`."""
        return given + amount_of(self.amounts, _step(tree, node).kinds)


def check_amounts(name: str, amounts: Mapping[str, float]) -> None:
    """Raise ValueError for an unknown kind of tool feedback, or an amount that is no finite number."""
    known = sorted({*_literals(CallKind), "no_action"})
    for kind, amount in amounts.items():
        if kind not in known:
            raise ValueError(f"{name} has no kind {kind!r}; known are {', '.join(known)}")
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount):
            raise ValueError(f"{name}[{kind!r}]={amount!r} is no finite number")


def amount_of(amounts: Mapping[str, float], kinds: Sequence[str]) -> float:
    """What a turn with these kinds of feedback gets; each kind counts once."""
    return math.fsum(amounts.get(kind, 0.0) for kind in sorted(set(kinds)))


def response_tokens(tree: RolloutTree, leaf: int) -> int:
    """Tokens after the prompt, those of tool feedback included; what follows the last turn does not count."""
    path = tree.path(leaf)
    return int(tree.token_counts(path).sum()) + sum(len(_step(tree, i).feedback_ids) for i in path[:-1])


def _step(tree: RolloutTree, node: int) -> Step:
    step = tree.nodes[node].step
    assert step is not None  # only the root has none
    return step


def _literals(alias: object) -> set[str]:
    """The strings that a union of `Literal`s allows."""
    inner = get_args(alias)
    return {x for a in inner for x in ({a} if isinstance(a, str) else _literals(a))}


def _check_finite(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}={value} must be a finite reward")
