"""Tool-call formats, looked up by name."""

from __future__ import annotations

from elpo_envs.protocols.base import MalformedCall, ParsedCall, ParsedTurn, TurnProtocol
from elpo_envs.protocols.fences import Fences
from elpo_envs.protocols.hermes import Hermes
from elpo_envs.protocols.openai import OpenAI
from elpo_envs.protocols.python_tags import PythonTags

__all__ = [
    "PROTOCOLS",
    "Fences",
    "Hermes",
    "MalformedCall",
    "OpenAI",
    "ParsedCall",
    "ParsedTurn",
    "PythonTags",
    "TurnProtocol",
    "get_protocol",
]

PROTOCOLS: dict[str, TurnProtocol] = {p.name: p for p in (Hermes(), Fences(), PythonTags(), OpenAI())}


def get_protocol(name: str) -> TurnProtocol:
    """The protocol of that name. Raises ValueError, naming the choices, for an unknown one."""
    protocol = PROTOCOLS.get(name)
    if protocol is None:
        raise ValueError(f"protocol={name!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    return protocol
