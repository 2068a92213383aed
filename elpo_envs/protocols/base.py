"""How tool calls are written inside an assistant turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from elpo_envs.tasks.base import ExpertTurn


@dataclass(frozen=True)
class ParsedCall:
    """A well-formed call; whether such a tool exists and takes these arguments is not known yet."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class MalformedCall:
    """Something that was meant as a call and cannot be read.

    Attributes:
        name: the tool's name, when that much could be read.
        message: one sentence for the model that says what was wrong.
    """

    name: str | None
    message: str


class ParsedTurn(NamedTuple):
    """An assistant turn taken apart.

    Attributes:
        content: what the turn says beside its calls: the text before the first one, or all of it when there
            is none. A final answer is read from here, not from the raw turn, which may be JSON.
        calls: in the order they were written.
    """

    content: str
    calls: tuple[ParsedCall | MalformedCall, ...] = ()


class TurnProtocol(Protocol):
    """A pure reader and writer of assistant turns, and the words that teach a model to write them.

    Attributes:
        name: what it is chosen by.
        taught_by_templates: chat templates and APIs that are given the tools' schemas tell a model of this format
            themselves. Where they do not, an environment's system prompt does, with `describe`.
    """

    name: str
    taught_by_templates: bool

    def parse(self, text: str) -> ParsedTurn:
        """Take a raw turn apart, in time linear in its length. Never raises: what a model wrote is data."""

    def render(self, turn: ExpertTurn) -> str:
        """The raw assistant turn that says the same as `turn`: parsing it gives its calls and content back.

        Raises ValueError, saying why, for a turn that this protocol cannot say.
        """

    def describe(self, tools: Sequence[Mapping[str, Any]]) -> str:
        """Text for a system prompt that says which tools there are and how a call is written; "" for no tools.

        Args:
            tools: OpenAI function schemas: {"type": "function", "function": {"name", "description", ...}}.

        Raises:
            ValueError: this protocol can call none of them.
        """
