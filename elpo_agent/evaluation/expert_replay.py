"""A policy without a model: run the data's expert calls and answer with the last value the tool gave.

It checks data, tool and grader on real input: the boxed answer comes from tool output, never from the gold answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym

from elpo_agent.evaluation.scores import Attempt
from elpo_envs.tasks.gsm8k import final_value


def replay_expert(
    env: gym.Env[str, str],
    tasks: Sequence[int],
    on_attempt: Callable[[Attempt, dict[str, Any]], None] | None = None,
) -> list[Attempt]:
    """One attempt at every task index: its expert turns except the last, then `\\boxed{last tool result}`.

    A task without expert calls counts as a wrong answer. `on_attempt` also gets the final info.
    """
    attempts = []
    for index in tasks:
        _, info = env.reset(options={"index": index})
        turns = env.unwrapped.expert_turns()  # type: ignore[attr-defined]
        outputs: list[str] = []
        terminated = truncated = False
        for turn in turns[:-1]:
            _, _, terminated, truncated, info = env.step(turn)
            outputs.extend(call["text"] for call in info["tool_calls"] if call["kind"] == "ok")
            if terminated or truncated:
                break
        if not (terminated or truncated):
            answer = final_value(outputs) if outputs else ""
            _, _, terminated, truncated, info = env.step(f"\\boxed{{{answer}}}")
        attempt = Attempt(
            task_id=info["task_id"],
            success=bool(info["is_correct"]),
            answer=info["answer"],
            truncated=truncated,
            tool_calls=info["n_tool_calls"],
            tool_errors=info["n_tool_errors"],
            turns=info["turn"],
            valid=info["valid"],
        )
        attempts.append(attempt)
        if on_attempt is not None:
            on_attempt(attempt, info)
    return attempts
