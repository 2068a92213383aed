"""`elpo envs`: needs only the environments' own packages."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import gymnasium as gym

import elpo_envs
from elpo_envs.registration import CHAIN


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="elpo envs", description="List the environments, or play one.")
    parser.add_argument("id", nargs="?", help="environment to try out, e.g. elpo/Math-v0")
    parser.add_argument("--index", type=int, default=0, help="task index (default 0)")
    parser.add_argument("--expert", action="store_true", help="let the task's expert solution play")
    parser.add_argument(
        "--kwargs",
        type=json.loads,
        default={},
        help="""gym.make arguments as JSON, e.g. '{"split": "test"}'""",
    )
    args = parser.parse_args(argv)
    if args.id is None:
        for env_id in elpo_envs.env_ids():
            print(f"{env_id:26}{_tasks(env_id)}")
        print("\nTry one: elpo envs elpo/Math-v0 --expert   (without --expert you type the turns yourself)")
        return 0
    try:
        env: gym.Env[str, str] = gym.make(args.id, **args.kwargs)
        return _play(env, args.index, args.expert)
    except (gym.error.Error, ValueError, IndexError, KeyError, TypeError, OSError) as error:
        print(f"elpo envs: {error}", file=sys.stderr)
        return 1


def _tasks(env_id: str) -> str:
    """What the tasks of an id are, in a few words."""
    spec = gym.spec(env_id)
    if spec.entry_point == CHAIN:
        return "the prompts of a world with exact values"
    dataset = spec.kwargs.get("dataset")
    return "endless tasks" if dataset is None else f"the benchmark {dataset}"


def _play(env: gym.Env[str, str], index: int, expert: bool) -> int:
    """Play one episode in the terminal."""
    observation, info = env.reset(options={"index": index})
    print(f"task {info['task_id']}\n\n{observation}\n")
    turns = iter(env.unwrapped.expert_turns())  # type: ignore[attr-defined]
    if not expert:
        print("Type a turn and end it with an empty line, e.g.:")
        print('<tool_call>{"name": "python", "arguments": {"code": "3*12"}}</tool_call>   or   \\boxed{36}\n')
    ended = False
    while not ended:
        turn = next(turns, None) if expert else _read_turn()
        if turn is None:
            break
        if expert:
            print(f"assistant> {turn}")
        observation, reward, terminated, truncated, info = env.step(turn)
        ended = terminated or truncated
        print(f"environment> {observation}" if not ended else f"end: reward {reward}, answer {info['answer']!r}")
    env.close()
    return 0


def _read_turn() -> str | None:
    """Lines up to an empty one, or None at the end of input."""
    lines: list[str] = []
    for line in sys.stdin:
        if not line.strip() and lines:
            return "\n".join(lines)
        if line.strip():
            lines.append(line.rstrip("\n"))
    return "\n".join(lines) or None
