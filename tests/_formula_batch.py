"""A fixed small batch as plain numbers: the trees that credit rules see, and the tables that formulas are read off.

Log-probabilities and entropies are multiples of 1/1024, so that float32 holds them exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from elpo_agent.algorithms import Algorithm
from elpo_agent.credit.base import LeafCredit, leaf_credits
from elpo_agent.objective.base import TokenBatch
from elpo_agent.objective.options import LossOptions, row_weights
from elpo_agent.rollout.base import Localization, SearchResult
from elpo_agent.tree import Outcome, RolloutTree, Step


@dataclass(frozen=True)
class End:
    """How a trajectory ended."""

    reward: float
    success: bool = False
    valid: bool = True
    answer: str | None = "7"


WON, LOST = End(1.0, True), End(0.0)
BROKEN = End(-1e6, valid=False)


@dataclass(frozen=True)
class Turn:
    """One node: its parent (0 is the prompt), its number of tokens, and what came of it."""

    parent: int
    tokens: int
    feedback: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    reward: float = 0.0
    end: End | None = None


OK, BAD = (70, 71), (80, 81, 82)  # feedback ids: two texts that come back more than once

CHAINS: list[list[Turn]] = [
    [  # both outcomes; trajectories (1 2), (3), (4 5 6), (7 8), and (9 10), which infrastructure failed
        Turn(0, 3, OK, ("ok",)),
        Turn(1, 2, end=WON),
        Turn(0, 4, end=LOST),
        Turn(0, 2, OK, ("error",)),
        Turn(4, 3, BAD, ("ok", "timeout")),
        Turn(5, 2, end=End(0.3)),
        Turn(0, 3, BAD, ("malformed_call",)),
        Turn(7, 1, end=WON, kinds=("ok",)),
        Turn(0, 2, OK, ("ok",)),
        Turn(9, 2, end=BROKEN, kinds=("sandbox_failure",)),
    ],
    [  # all rewards equal
        Turn(0, 2, OK, ("ok",)),
        Turn(1, 2, end=LOST),
        Turn(0, 3, end=LOST),
        Turn(0, 1, BAD, ("error",)),
        Turn(4, 4, end=LOST, kinds=("error",)),
    ],
    [  # steps with rewards of their own, turns without action, and a deep trajectory
        Turn(0, 3, OK, ("ok",), reward=0.25),
        Turn(1, 2, BAD, ("no_action",)),
        Turn(2, 2, OK, ("empty",), reward=-0.125),
        Turn(3, 3, end=WON),
        Turn(0, 2, BAD, ("no_action",)),
        Turn(5, 5, end=End(0.0, answer=None), kinds=("no_action",)),
        Turn(0, 4, OK, ("unknown_tool",)),
        Turn(7, 2, end=LOST, kinds=("timeout",)),
        Turn(0, 3, OK, ("ok",)),
        Turn(9, 2, OK, ("ok",)),
        Turn(10, 2, end=WON),
    ],
    [Turn(0, 4, end=WON), Turn(0, 2, end=BROKEN)],  # one valid trajectory alone
    [Turn(0, 2, end=BROKEN)],  # and none
]

TREES: list[list[Turn]] = [
    [  # shared steps at two levels; leaves 3, 4, 5, 7, 8, 10
        Turn(0, 3, OK, ("ok",)),
        Turn(1, 2, BAD, ("error",)),
        Turn(2, 2, end=LOST),
        Turn(2, 3, end=End(0.3)),
        Turn(1, 4, end=WON),
        Turn(0, 2, OK, ("ok",)),
        Turn(6, 2, end=LOST),
        Turn(6, 1, end=BROKEN),
        Turn(0, 2, BAD, ("malformed_call",)),
        Turn(9, 3, end=WON, kinds=("ok",)),
    ],
    [  # equal rewards
        Turn(0, 2, OK, ("ok",)),
        Turn(1, 2, end=LOST),
        Turn(1, 3, end=LOST),
        Turn(0, 2, end=LOST),
    ],
    [  # a chain with branches, and a lone trajectory
        Turn(0, 3, OK, ("ok",)),
        Turn(1, 2, OK, ("ok",)),
        Turn(2, 2, BAD, ("error",)),
        Turn(3, 3, end=LOST),
        Turn(2, 2, end=WON),
        Turn(3, 1, end=WON),
        Turn(0, 4, end=LOST),
        Turn(1, 2, end=LOST),
    ],
]
GROUPS = [{3: 0, 4: 0, 5: 1, 7: 1, 8: 1, 10: 0}, {2: 0, 3: 0, 4: 1}, {4: 0, 5: 1, 6: 0, 7: 1}]
"""Tree-GRPO's trees of each prompt; the last prompt's leaf 8 was dropped."""
CRITICAL = [2, None, 3]
"""The node that ELPO's search found in each prompt."""

# Offsets of the current policy's log-probabilities: ratios from 0.3 to 12, on both sides of every bound.
_OFFSETS = (
    *(0.0, -0.5, 0.3, -0.25, 2.5, 0.25, -0.375, 0.125, 1.25, -1.2001953125),
    *(0.2626953125, -0.3017578125, 0.0625, -0.125, 0.2216796875),
)


def _number(prompt: int, node: int, token: int, kind: int) -> float:
    return (((prompt * 53 + node * 29 + token * 17 + kind * 71) ** 2 + 7 * node) % 997) / 1024.0


def old(prompt: int, node: int, token: int) -> float:
    """Sampling-time log-probability."""
    return -2.0 * _number(prompt, node, token, 1) - 0.125


def entropy(prompt: int, node: int, token: int) -> float:
    return 3.0 * _number(prompt, node, token, 2)


def expected(prompt: int, node: int, token: int) -> float:
    """Log-probability under the reference policy."""
    return old(prompt, node, token) + _number(prompt, node, token, 3) - 0.5


def current(prompt: int, node: int, token: int) -> float:
    """Log-probability under the policy that is trained."""
    return old(prompt, node, token) + _OFFSETS[(prompt * 13 + node * 11 + token * 9) % len(_OFFSETS)]


def prompt_ids(prompt: int) -> tuple[int, ...]:
    return (1, 2, 3 + prompt)


def path(turns: Sequence[Turn], node: int) -> list[int]:
    """Nodes from the first turn to `node`; node i is turns[i - 1]."""
    return [] if node == 0 else [*path(turns, turns[node - 1].parent), node]


def ends(turns: Sequence[Turn]) -> list[int]:
    """Leaves that infrastructure did not fail, in order."""
    return [i for i, turn in enumerate(turns, start=1) if turn.end is not None and turn.end.valid]


def total(turns: Sequence[Turn], leaf: int) -> float:
    """The sum of a trajectory's rewards."""
    end = turns[leaf - 1].end
    assert end is not None
    return sum(turns[i - 1].reward for i in path(turns, leaf)[:-1]) + end.reward


def build(prompt: int, turns: Sequence[Turn], groups: dict[int, int] | None = None) -> RolloutTree:
    """The same as a rollout tree."""
    tree = RolloutTree(f"task {prompt}", prompt_ids(prompt))
    for node, turn in enumerate(turns, start=1):
        tokens = range(turn.tokens)
        step = Step(
            ids=tuple(100 + t for t in tokens),
            logprobs=np.array([old(prompt, node, t) for t in tokens], dtype=np.float32),
            entropies=np.array([entropy(prompt, node, t) for t in tokens], dtype=np.float32),
            feedback_ids=turn.feedback,
            tool_calls=len(turn.kinds),
            kinds=turn.kinds,
            reward=turn.reward,
        )
        end = turn.end
        outcome = None if end is None else Outcome(end.reward, end.success, answer=end.answer, valid=end.valid)
        tree.add(turn.parent, step, outcome=outcome)
    tree.groups.update(groups or {})
    return tree


@dataclass(frozen=True)
class Result:
    """What the package makes of a batch, flat over prompts, trajectories and agent tokens."""

    leaves: list[tuple[int, int]]
    advantages: list[float]
    loss: float
    gradient: list[float]


def run(
    algorithm: Algorithm,
    prompts: Sequence[Sequence[Turn]],
    *,
    groups: Sequence[dict[int, int]] | None = None,
    critical: Sequence[int | None] | None = None,
) -> Result:
    """Rewards -> advantages -> loss and its gradient, through the parts of `algorithm`, in float64."""
    trees = [build(p, turns, groups[p] if groups else None) for p, turns in enumerate(prompts)]
    index = {id(tree): p for p, tree in enumerate(trees)}

    def reference(tree: RolloutTree, leaf: int) -> list[np.ndarray]:
        p = int(tree.task_id.removeprefix("task "))
        return [
            np.array([expected(p, i, t) for t in range(len(tree.nodes[i].step.ids))])  # type: ignore[union-attr]
            for i in tree.path(leaf)
        ]

    needed = getattr(algorithm.credit, "needs_reference", False)
    credited = leaf_credits(algorithm.credit, trees, reference if needed else None)
    rows: list[tuple[int, LeafCredit]] = [
        (index[id(tree)], given) for tree, leaves in zip(trees, credited, strict=True) for given in leaves
    ]
    length = max(
        len(tree.prefix_ids(tree.nodes[leaf].index)) + 1 for tree in trees for leaf in tree.leaves
    )  # one column of padding even for the longest
    fields = {
        name: torch.zeros(len(rows), length, dtype=torch.float64)
        for name in ("new", "old", "ref", "adv", "low", "high", "mask")
    }
    where: list[tuple[int, int]] = []
    for i, (p, given) in enumerate(rows):
        tree = trees[p]
        found = critical[p] if critical else None
        localizations = () if found is None else (Localization(0, 1, 1, found),)
        bounds = algorithm.objective.bounds(tree, SearchResult(localizations))
        at = len(tree.prompt_ids)
        advantages = iter(given.advantages.tolist())
        for node in tree.path(given.leaf):
            step = tree.nodes[node].step
            assert step is not None
            for t in range(len(step.ids)):
                values = (current(p, node, t), old(p, node, t), expected(p, node, t), next(advantages))
                values += (float(bounds.low[node]), float(bounds.high[node]), 1.0)
                for field, value in zip(fields.values(), values, strict=True):
                    field[i, at] = value
                where.append((i, at))
                at += 1
            at += len(step.feedback_ids)
    options = getattr(algorithm.objective, "options", LossOptions())
    weights = row_weights(options, [int(n) for n in fields["mask"].sum(dim=1).tolist()])
    batch = TokenBatch(
        old_logprobs=fields["old"],
        advantages=fields["adv"],
        eps_low=fields["low"],
        eps_high=fields["high"],
        mask=fields["mask"],
        weights=torch.tensor(weights, dtype=torch.float64),
        reference_logprobs=fields["ref"],
    )
    logprobs = fields["new"].requires_grad_()
    loss, _ = algorithm.objective.loss(logprobs, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = logprobs.grad
    assert gradient is not None
    assert not gradient[fields["mask"] == 0].any(), "tokens of prompts, tools or padding have a gradient"
    return Result(
        leaves=[(p, given.leaf) for p, given in rows],
        advantages=[float(fields["adv"][i, j]) for i, j in where],
        loss=float(loss.detach()),
        gradient=[float(gradient[i, j]) for i, j in where],
    )
