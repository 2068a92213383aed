"""Pass@K and Major@K over graded attempts, and the figures about tool use beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb


@dataclass(frozen=True)
class Attempt:
    """One finished episode.

    Attributes:
        task_id: which task.
        success: the answer was right.
        answer: the submitted answer, or None.
        truncated: a budget ran out first.
        tool_calls, tool_errors: in this episode.
        turns, tokens: assistant turns and generated tokens.
        valid: False when infrastructure failed; such attempts are left out of every score.
    """

    task_id: str
    success: bool
    answer: str | None
    truncated: bool = False
    tool_calls: int = 0
    tool_errors: int = 0
    turns: int = 0
    tokens: int = 0
    valid: bool = True


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of P(at least one of k samples is right) from `correct` of `n` (Chen et al. 2021, eq. 1).

    Raises:
        ValueError: k outside 1..n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"k={k} must lie between 1 and the number of samples n={n}")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def major_at_k(attempts: Sequence[Attempt], k: int) -> float:
    """Whether the most frequent answer of the first k attempts is right; ties share the credit evenly.

    Answers are compared as text; no answer never wins a vote, and a task where nobody answered scores 0.
    """
    votes = Counter(a.answer for a in attempts[:k] if a.answer is not None)
    if not votes:
        return 0.0
    best = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == best]
    right = {a.answer for a in attempts if a.success}
    return sum(w in right for w in winners) / len(winners)


def summarize(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Scores over tasks: pass@k and major@k for k = 1, 2, 4, ... up to the samples every task has, and tool use per
    episode. An empty or all-invalid sequence gives only the counts."""
    tasks: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.valid:
            tasks.setdefault(attempt.task_id, []).append(attempt)
    valid = [a for group in tasks.values() for a in group]
    out: dict[str, float] = {
        "tasks": len(tasks),
        "attempts": len(valid),
        "invalid": len(attempts) - len(valid),
    }
    if not valid:
        return out
    fewest = min(len(group) for group in tasks.values())
    k = 1
    while k <= fewest:
        scores = [pass_at_k(len(g), sum(a.success for a in g), k) for g in tasks.values()]
        out[f"pass@{k}"] = sum(scores) / len(scores)
        if k > 1:
            votes = [major_at_k(g, k) for g in tasks.values()]
            out[f"major@{k}"] = sum(votes) / len(votes)
        k *= 2
    for name in ("tool_calls", "tool_errors", "turns", "tokens"):
        out[name] = sum(getattr(a, name) for a in valid) / len(valid)
    out["truncated"] = sum(a.truncated for a in valid) / len(valid)
    solved = sum(a.success for a in valid)
    if solved:
        out["tool_calls_per_solved"] = sum(a.tool_calls for a in valid) / solved
    return out
