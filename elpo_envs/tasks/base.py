"""Tasks and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class ToolCall:
    """One call in the protocol-neutral form: a tool's name and its JSON arguments."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ExpertTurn:
    """One assistant turn of a reference solution: free text, then tool calls (none in the last turn)."""

    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Task:
    """A question with its gold answer.

    Attributes:
        task_id: unique across all sources and splits, e.g. "generated/train/17" or "gsm8k/test/3".
        index: position in its source and split, from 0.
        question: what the agent is asked.
        answer: the gold final answer, as text.
        expert: a reference solution as turns, empty where the data has none.
        metadata: JSON values only (family, steps, level, ...).
    """

    task_id: str
    index: int
    split: str
    question: str
    answer: str
    expert: tuple[ExpertTurn, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


class TaskSource(Protocol):
    """An indexed collection of tasks of one split. `get(i)` is a pure function of `i`."""

    name: str
    split: str

    @property
    def size(self) -> int | None:
        """Number of tasks, or None for an endless source."""

    def get(self, index: int) -> Task:
        """The task at `index`. Raises IndexError, naming the valid range, outside it."""

    def by_id(self, task_id: str) -> Task:
        """The task with that id. Raises KeyError naming the id."""
