"""What there is to show of a conversation, piece by piece, and the same as plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elpo_envs.episode import CallKind, Episode, Message
from elpo_envs.rendering.safe_text import one_line, shown

if TYPE_CHECKING:
    from elpo_envs.env import Budgets

_MAX_SYSTEM = 600


@dataclass(frozen=True)
class Entry:
    """One message of a conversation.

    Attributes:
        turn: the assistant's turn it belongs to, from 1; 0 before the first.
        kind: what a tool result is; None where that is not known, as of turns before a restore.
    """

    message: Message
    turn: int
    kind: CallKind | None = None


def entries(messages: Sequence[Message], kinds: Mapping[int, CallKind]) -> list[Entry]:
    """The messages with their turns. `kinds`: position of a message to the kind of that tool result."""
    turn = 0
    found = []
    for i, message in enumerate(messages):
        turn += message.role == "assistant"
        found.append(Entry(message, turn, kinds.get(i)))
    return found


def budgets_left(episode: Episode, budgets: Budgets) -> str:
    """What may still be used, as a line."""
    return (
        f"turns {budgets.max_turns - episode.turn} of {budgets.max_turns}, "
        f"tool calls {budgets.max_tool_calls - episode.n_tool_calls} of {budgets.max_tool_calls}, "
        f"characters {max(0, budgets.max_chars - episode.chars):,} of {budgets.max_chars:,}"
    )


def ending(episode: Episode) -> list[tuple[str, str]]:
    """How the episode ended, as names and values; [] while it goes on. Values are safe to print.

    The reward is the environment's own, before wrappers.
    """
    if not episode.over:
        return []
    if not episode.valid:
        outcome = "void: the infrastructure failed, which says nothing about the model"
    elif episode.truncated:
        outcome = f"cut short ({episode.error_kind})"
    else:
        outcome = "right" if episode.is_correct else "wrong"
    rows = [("outcome", outcome), ("reward", f"{episode.reward:g}")]
    if episode.answer is not None:
        rows.append(("answer", shown(episode.answer, 400, 12)))
    if not episode.is_correct and not episode.task.metadata.get("tests"):
        rows.append(("expected", shown(episode.task.answer, 400, 12)))
    grade = {} if episode.grade is None else json.loads(episode.grade)
    told = [f"{name} {value}" for name, value in grade.items() if name != "answer" and _is_telling(value)]
    if told:
        rows.append(("grade", one_line(", ".join(told))))
    return rows


def plain(episode: Episode, budgets: Budgets, kinds: Mapping[int, CallKind]) -> str:
    """The conversation as lines of plain text, each message behind who says it; its further lines are indented.

    So no message can pass for another one. Long ones are cut, and control characters shown as escapes;
    `info["messages"]` has them as they are.
    """
    blocks = [f"[task] {one_line(episode.task.task_id)}"]
    for entry in entries(episode.messages, kinds):
        message = entry.message
        who = message.role if message.name is None else f"{message.role} {one_line(message.name)}"
        kind = "" if entry.kind in (None, "ok") else f": {entry.kind}"
        long = {"max_chars": _MAX_SYSTEM} if message.role == "system" else {}
        blocks.append(_indented(f"[{who}{kind}] {shown(message.content, **long)}"))
    blocks += [_indented(f"[{name}] {value}") for name, value in ending(episode)]
    if episode.turn and not episode.over:
        blocks.append(f"[left] {budgets_left(episode, budgets)}")
    return "\n".join(blocks)


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _is_telling(value: object) -> bool:
    return isinstance(value, int | float | str) and value != "" and not isinstance(value, bool)
