"""How tool calls are written inside an assistant turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

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


@dataclass(frozen=True)
class ParsedTurn:
    """An assistant turn taken apart.

    Attributes:
        content: the text before the first call, or the whole turn when there is none.
        calls: in the order they were written.
    """

    content: str
    calls: tuple[ParsedCall | MalformedCall, ...] = ()


class TurnProtocol(Protocol):
    """A pure reader and writer of assistant turns."""

    name: str

    def parse(self, text: str) -> ParsedTurn:
        """Take a raw turn apart. Never raises: what a model wrote is data."""

    def render(self, turn: ExpertTurn) -> str:
        """The raw assistant turn that says the same as `turn`."""
