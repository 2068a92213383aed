"""A budget of tokens for an environment that never sees one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import RecordConstructorArgs

from elpo_envs.wrappers.chat import conversation_of


def estimate_tokens(text: str) -> int:
    """An estimate from characters alone: one token for four ASCII characters or part of them, one for any other.

    English text and programs come out near what byte-pair vocabularies of 100,000 and more give, other scripts
    somewhat high.
    """
    n_ascii = len(text.encode("ascii", "ignore"))
    return -(-n_ascii // 4) + len(text) - n_ascii


class TokenBudget(gym.Wrapper[Any, str, Any, str], RecordConstructorArgs):
    """Truncates an episode when the assistant's turns together exceed a number of tokens.

    As with the environment's own `max_chars`, the turn that exceeds the budget is recorded but neither run nor
    graded, and `info["error_kind"]` is "char_budget". `info["token_budget"]` is {"used", "max"}, the turn
    included. Only the assistant's text counts. Wrappers inside see the truncation, too.

    Args:
        env: an environment whose base is a `ConversationEnv`.
        max_tokens: the budget of one episode; >= 1.
        count: from one turn's text to its number of tokens: a function, or "module:function", which unlike a
            function lets `env.spec.to_json()` work; None for `estimate_tokens`. It is called once a turn, with
            whatever the model wrote.

    Raises:
        TypeError: the base is something else.
        ValueError: `max_tokens` is out of range, or `count` names nothing that can be called.
    """

    def __init__(
        self, env: gym.Env[Any, str], max_tokens: int, count: Callable[[str], int] | str | None = None
    ) -> None:
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens!r} must be an integer of at least 1")
        # Not copied: a tokenizer may be large, or hold what cannot be copied.
        RecordConstructorArgs.__init__(self, max_tokens=max_tokens, count=count, _disable_deepcopy=True)
        gym.Wrapper.__init__(self, env)
        self._base = conversation_of(env)
        self._count = _counter(count)
        self._max_tokens = max_tokens
        self._used = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        self._used = 0
        return obs, self._noted(info)

    def step(self, action: str) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        used = self._used + (self._tokens(action) if isinstance(action, str) else 0)
        if used <= self._max_tokens:
            obs, reward, terminated, truncated, info = self.env.step(action)
        else:
            with self._base.refusing_turns():
                obs, reward, terminated, truncated, info = self.env.step(action)
        self._used = used
        return obs, reward, terminated, truncated, self._noted(info)

    def affords(self, turns: Sequence[str]) -> bool:
        """Whether these turns of the assistant, taken one after the other from here, keep within the budget."""
        return self._used + sum(map(self._tokens, turns)) <= self._max_tokens

    def snapshot_state(self) -> dict[str, int]:
        """The tokens used so far in this episode."""
        return {"used": self._used}

    def restore_state(self, state: Mapping[str, int]) -> None:
        """Continue from `snapshot_state`."""
        self._used = state["used"]

    def _tokens(self, text: str) -> int:
        number = self._count(text)
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ValueError(f"count gave {number!r} for a text; it must give an integer of at least 0")
        return number

    def _noted(self, info: dict[str, Any]) -> dict[str, Any]:
        info["token_budget"] = {"used": self._used, "max": self._max_tokens}
        return info


def _counter(count: Callable[[str], int] | str | None) -> Callable[[str], int]:
    if count is None:
        return estimate_tokens
    if not isinstance(count, str):
        found: Any = count
    else:
        try:
            found = load_env_creator(count)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"count={count!r} must name a function as 'module:function': {error}") from error
    if not callable(found):
        raise ValueError(f"count={count!r} must be a function from text to a number of tokens")
    function: Callable[[str], int] = found
    return function
