"""Observation wrappers that show the whole conversation: as one text, or as chat messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from elpo_envs.env import ConversationEnv
from elpo_envs.episode import Message, Role
from elpo_envs.spaces import UnicodeText

ROLES: tuple[str, ...] = get_args(Role)
_LONGEST_HEADER = 96  # characters around a message's content: role, tool name (64 at most), brackets, line break
_CUT = "\n[... {} characters left out ...]\n"


class ChatSpace(spaces.Sequence):
    """Tuples of chat messages in the OpenAI form.

    A message is {"role", "content"}, with the tool's "name" besides in messages of the role "tool"; roles are
    "system", "user", "assistant" and "tool". Samples are printable and short.

    Args:
        max_chars: longest content of one message, in characters; >= 1.
        seed: seed or generator for `sample`.
    """

    def __init__(self, max_chars: int, *, seed: int | np.random.Generator | None = None) -> None:
        message = spaces.Dict({"role": spaces.Text(16, min_length=1), "content": UnicodeText(max_chars)})
        super().__init__(message, seed=seed)
        self.max_chars = max_chars

    def contains(self, x: Any) -> bool:
        """Whether `x` is a tuple of such messages."""
        return isinstance(x, tuple) and all(self._is_message(m) for m in x)

    def sample(self, mask: Any = None, probability: Any = None) -> tuple[dict[str, str], ...]:
        """One to four random messages; masks say nothing about chats and are refused with a ValueError."""
        if mask is not None or probability is not None:
            raise ValueError("ChatSpace.sample takes no mask and no probability")
        content = cast(spaces.Dict, self.feature_space)["content"]
        roles = self.np_random.integers(len(ROLES), size=int(self.np_random.integers(1, 5)))
        return tuple(Message(cast(Role, ROLES[i]), content.sample()).as_dict() for i in roles)

    def to_jsonable(self, sample_n: Iterable[Any]) -> list[list[Any]]:
        """Members as JSON values, which they nearly are."""
        return [[dict(m) for m in sample] for sample in sample_n]

    def from_jsonable(self, sample_n: list[list[Any]]) -> list[tuple[Any, ...]]:
        """The inverse of `to_jsonable`."""
        return [tuple(dict(m) for m in sample) for sample in sample_n]

    def __eq__(self, other: object, /) -> bool:
        return isinstance(other, ChatSpace) and self.max_chars == other.max_chars

    def __repr__(self) -> str:
        return f"ChatSpace({self.max_chars})"

    def _is_message(self, message: Any) -> bool:
        if not isinstance(message, dict) or not message.keys() <= {"role", "content", "name"}:
            return False
        role, content, name = message.get("role"), message.get("content"), message.get("name", "")
        named = "name" not in message or (role == "tool" and isinstance(name, str))
        return role in ROLES and isinstance(content, str) and len(content) <= self.max_chars and named


class ChatObservation(gym.ObservationWrapper[Any, str, Any], RecordConstructorArgs):
    """Shows the whole chat, system prompt first, as a tuple of messages: `info["messages"]` as a `ChatSpace`.

    Args:
        env: an environment whose base is a `ConversationEnv`.

    Raises:
        TypeError: it is not.
    """

    def __init__(self, env: gym.Env[Any, str]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self.observation_space = ChatSpace(conversation_of(env).budgets.max_chars)

    def observation(self, observation: Any) -> tuple[dict[str, str], ...]:
        """The chat now; what the environment showed is its end."""
        return tuple(m.as_dict() for m in messages_of(self))


class TranscriptObservation(gym.ObservationWrapper[Any, str, Any], RecordConstructorArgs):
    """Shows the whole transcript as text, a message after another as "[role] content", a tool's with its name.

    Args:
        env: an environment whose base is a `ConversationEnv`.
        max_chars: longest observation, in characters; at least 100. A longer transcript keeps its beginning and
            its end, and says between them how much was left out. None shows everything.

    Raises:
        TypeError: the base is something else.
        ValueError: `max_chars` is out of range.
    """

    def __init__(self, env: gym.Env[Any, str], max_chars: int | None = None) -> None:
        if max_chars is not None and (isinstance(max_chars, bool) or not isinstance(max_chars, int) or max_chars < 100):
            raise ValueError(f"max_chars={max_chars!r} must be an integer of at least 100, or None")
        RecordConstructorArgs.__init__(self, max_chars=max_chars)
        gym.ObservationWrapper.__init__(self, env)
        budgets = conversation_of(env).budgets
        n_messages = 2 + 2 * budgets.max_turns + budgets.max_tool_calls
        self._max_chars = max_chars
        self.observation_space = UnicodeText(max_chars or budgets.max_chars + n_messages * _LONGEST_HEADER)

    def observation(self, observation: Any) -> str:
        """The transcript now; what the environment showed is its end."""
        text = "\n".join(_line(m) for m in messages_of(self))
        return text if self._max_chars is None else _without_middle(text, self._max_chars)

    def snapshot_state(self) -> dict[str, Any]:
        """Nothing: the conversation itself is the state."""
        return {}

    def restore_state(self, state: Any) -> None:
        """Nothing to restore."""


def conversation_of(env: gym.Env[Any, Any]) -> ConversationEnv:
    """The base environment. Raises TypeError unless it is a `ConversationEnv`."""
    base = env.unwrapped
    if not isinstance(base, ConversationEnv):
        raise TypeError(f"{type(base).__name__} is no ConversationEnv, which this wrapper needs")
    return base


def messages_of(env: gym.Env[Any, Any]) -> tuple[Message, ...]:
    """The conversation so far. Raises ResetNeeded before the first reset."""
    return conversation_of(env)._current().messages


def _line(message: Message) -> str:
    who = message.role if message.name is None else f"{message.role} {message.name}"
    return f"[{who}] {message.content}"


def _without_middle(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    # The count is at most as long as the text's own length, written out.
    room = longest - len(_CUT.format(len(text)))
    head = room // 2
    tail = room - head
    return text[:head] + _CUT.format(len(text) - room) + text[len(text) - tail :]
