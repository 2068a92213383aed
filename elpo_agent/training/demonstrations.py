"""Expert traces as token rows, made by playing them in the environment so that feedback is what really comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from elpo_agent.chat import ChatCodec
from elpo_agent.learner.sft import SftRow


def played_row(
    env: gym.Env[str, str],
    codec: ChatCodec,
    options: dict[str, Any],
    turns: Sequence[str],
    last_turn: Callable[[str], str],
) -> SftRow:
    """Play a conversation from a reset with `options` and record it.

    Args:
        turns: every turn but the last.
        last_turn: the last turn, which is not played, from the last observation.
    """
    observation, info = env.reset(options=options)
    tools = env.unwrapped.tools  # type: ignore[attr-defined]
    messages = info["messages"]
    ids = list(codec.prompt_ids(messages, tools))
    mask = [False] * len(ids)
    for turn in turns:
        observation, _, terminated, truncated, info = env.step(turn)
        _append(ids, mask, codec.turn_ids(turn), agent=True)
        if terminated or truncated:
            break
        heard = info["messages"][len(messages) + 1 :]
        messages = info["messages"]
        _append(ids, mask, codec.feedback_ids(heard, tools, closed=True), agent=False)
    else:
        _append(ids, mask, codec.turn_ids(last_turn(observation)), agent=True)
    return SftRow(np.array(ids, dtype=np.int32), np.array(mask, dtype=bool))


def _constant(answer: str, observation: str) -> str:
    return answer


def _append(ids: list[int], mask: list[bool], new: Sequence[int], *, agent: bool) -> None:
    ids.extend(new)
    mask.extend([agent] * len(new))


def expert_rows(
    env: gym.Env[str, str], codec: ChatCodec, indices: Iterable[int], max_context: int, *, reasoning: bool = True
) -> list[SftRow]:
    """Expert conversations of the tasks at `indices`; tasks without an expert or longer than `max_context` tokens
    are left out. Without `reasoning`, turns that call tools lose their free text."""
    rows = []
    base: Any = env.unwrapped
    for index in indices:
        env.reset(options={"index": index})
        turns = [t if reasoning or not t.tool_calls else replace(t, content="") for t in base.task.expert]
        if turns:
            *steps, answer = [base.protocol.render(turn) for turn in turns]
            row = played_row(env, codec, {"index": index}, steps, partial(_constant, answer))
            if len(row.ids) <= max_context:
                rows.append(row)
    return rows
