"""One conversation as a value: everything about an episode that is not held by a tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from elpo_envs.sandbox.base import ExecutionKind
from elpo_envs.tasks.base import ExpertTurn, Task, ToolCall

Role = Literal["system", "user", "assistant", "tool"]
CallKind = ExecutionKind | Literal["malformed_call", "unknown_tool", "invalid_arguments"]
ErrorKind = CallKind | Literal["no_action", "turn_budget", "tool_budget", "char_budget"]

CALL_SUCCEEDED = frozenset({"ok", "empty"})


class Message(NamedTuple):
    """One chat message; `name` is the tool's, in messages of the role "tool"."""

    role: Role
    content: str
    name: str | None = None

    def as_dict(self) -> dict[str, str]:
        """The message in the OpenAI form, in a new dict."""
        if self.name is None:
            return {"role": self.role, "content": self.content}
        return {"role": self.role, "name": self.name, "content": self.content}


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One tool call and what came back.

    Attributes:
        name: the tool's name as the model wrote it; "error" where none could be read.
        arguments: JSON text of the arguments; None where the call was malformed.
        kind: "ok" and "empty" are successes, everything else an error.
        text: what the model was shown.
    """

    name: str
    arguments: str | None
    kind: CallKind
    text: str

    def as_dict(self) -> dict[str, Any]:
        """The call in a new dict, its arguments parsed."""
        arguments = None if self.arguments is None else json.loads(self.arguments)
        return {"name": self.name, "arguments": arguments, "kind": self.kind, "text": self.text}


class Episode(NamedTuple):
    """A conversation after some number of turns. Stepping makes a new one; nothing here can be changed.

    Attributes:
        task: what is being solved.
        messages: the whole chat.
        observation: the text the last reset or step gave.
        turn: assistant turns taken.
        chars: characters in all messages together.
        n_tool_calls, n_tool_errors: over the whole episode; malformed calls count in both.
        calls: those of the last turn.
        answer: the submitted final answer.
        is_correct: it was graded as right.
        grade: JSON text of the grader's verdict; None before an answer.
        error_kind: what went wrong in the last turn: the budget that ended the episode, or else the kind of
            the first call that failed, or "no_action"; None when nothing did.
        valid: False when infrastructure failed, so that the outcome says nothing about the model.
        terminated: an answer was submitted.
        truncated: a budget or the infrastructure ended the episode; never together with `terminated`.
    """

    task: Task
    messages: tuple[Message, ...]
    observation: str
    turn: int = 0
    chars: int = 0
    n_tool_calls: int = 0
    n_tool_errors: int = 0
    calls: tuple[CallRecord, ...] = ()
    answer: str | None = None
    is_correct: bool = False
    grade: str | None = None
    error_kind: ErrorKind | None = None
    valid: bool = True
    terminated: bool = False
    truncated: bool = False

    @property
    def reward(self) -> float:
        """1.0 for a right answer, 0.0 otherwise."""
        return 1.0 if self.terminated and self.is_correct else 0.0

    @property
    def over(self) -> bool:
        return self.terminated or self.truncated

    def info(self) -> dict[str, Any]:
        """Gymnasium's `info`, built anew so that no two calls share anything that can be changed."""
        task = self.task
        return {
            "task_id": task.task_id,
            "index": task.index,
            "split": task.split,
            "turn": self.turn,
            "messages": [
                {"role": role, "content": content} if name is None else {"role": role, "name": name, "content": content}
                for role, content, name in self.messages
            ],
            "tool_calls": [c.as_dict() for c in self.calls] if self.calls else [],
            "answer": self.answer,
            "is_correct": self.is_correct,
            # Never None: Gymnasium's vector environments merge the dictionaries.
            "grade": {} if self.grade is None else json.loads(self.grade),
            "error_kind": self.error_kind,
            "n_tool_calls": self.n_tool_calls,
            "n_tool_errors": self.n_tool_errors,
            "valid": self.valid,
        }

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal episode."""
        return {
            **self._asdict(),
            "task": asdict(self.task),
            "messages": [m._asdict() for m in self.messages],
            "calls": [asdict(c) for c in self.calls],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Episode:
        """The episode in `data`. Raises KeyError or TypeError for anything else."""
        return Episode(
            **{
                **data,
                "task": _task_from_json(data["task"]),
                "messages": tuple(Message(**m) for m in data["messages"]),
                "calls": tuple(CallRecord(**c) for c in data["calls"]),
            }
        )


def _task_from_json(data: Mapping[str, Any]) -> Task:
    expert = tuple(
        ExpertTurn(t["content"], tuple(ToolCall(c["name"], c["arguments"]) for c in t["tool_calls"]))
        for t in data["expert"]
    )
    return Task(**{**data, "expert": expert})


@dataclass(frozen=True)
class EnvState:
    """All that an environment without wrappers needs to continue.

    Attributes:
        episode: the conversation.
        tools: every tool's state, by name.
        np_random: state of the generator that picks the next task, or None where it was never used.
    """

    episode: Episode
    tools: Mapping[str, Any]
    np_random: Mapping[str, Any] | None
