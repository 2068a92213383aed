"""Tool-call formats, looked up by name."""

from __future__ import annotations

from elpo_envs.protocols.base import MalformedCall, ParsedCall, ParsedTurn, TurnProtocol
from elpo_envs.protocols.hermes import Hermes

__all__ = ["PROTOCOLS", "Hermes", "MalformedCall", "ParsedCall", "ParsedTurn", "TurnProtocol", "get_protocol"]

PROTOCOLS: dict[str, TurnProtocol] = {"hermes": Hermes()}


def get_protocol(name: str) -> TurnProtocol:
    """The protocol of that name. Raises ValueError, naming the choices, for an unknown one."""
    protocol = PROTOCOLS.get(name)
    if protocol is None:
        raise ValueError(f"protocol={name!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    return protocol
