"""Plays episodes in a peer's environment for `environment_peers`; started by that peer's own interpreter.

    python environment_peer_program.py gem|gem-bwrap|skyrl|skyrl-repl

It prints a line of JSON, `{"version": ...}`, and then answers every line `{"tasks": [...], "count": n, "at_once": k}`
by playing n episodes, k at a time, with `{"seconds": ..., "solved": ...}`: the time without what is made once, and
how many episodes were graded as right. A task is `{"question": ..., "answer": ..., "scripts": [...]}`: each script is
a turn that calls the Python tool, and after the last one comes the answer.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any

Task = dict[str, Any]
Play = Callable[[list[Task], int, int], tuple[float, int]]
"""Plays `count` episodes, `at_once` at a time; the seconds that took and how many were solved."""


def gem(sandbox_type: str) -> Play:
    """GEM's `MathEnv` with its Python tool; several at once in its `AsyncVectorEnv`, which resets by itself."""
    math_env = importlib.import_module("gem.envs.math_env").MathEnv
    python_tool = importlib.import_module("gem.tools.python_code_tool").PythonCodeTool
    wrapper = importlib.import_module("gem.tools.tool_env_wrapper").ToolEnvWrapper
    vector = importlib.import_module("gem.vector.async_vector_env").AsyncVectorEnv
    dataset = importlib.import_module("datasets").Dataset

    def make(tasks: list[Task]) -> Any:
        rows = dataset.from_list([{"problem": task["question"], "answer": task["answer"]} for task in tasks])
        return wrapper(math_env(dataset=rows, eval=True), [python_tool(timeout=5, sandbox_type=sandbox_type)])

    def turns(task: Task) -> list[str]:
        return [*(f"<python>{script}</python>" for script in task["scripts"]), f"\\boxed{{{task['answer']}}}"]

    def play(tasks: list[Task], count: int, at_once: int) -> tuple[float, int]:
        by_question = {task["question"]: turns(task) for task in tasks}

        def asked(observation: str) -> list[str]:
            return by_question[observation.partition("\n")[0]]

        if at_once == 1:
            env, solved = make(tasks), 0
            start = time.perf_counter()
            for _ in range(count):
                observation, _info = env.reset()
                for turn in asked(observation):
                    _, reward, *_ = env.step(turn)
                solved += int(reward == 1)
            seconds = time.perf_counter() - start
            env.env.close()
            return seconds, solved
        many, solved = vector(["math"] * at_once, [lambda: make(tasks)] * at_once), 0
        start = time.perf_counter()
        observations, _infos = many.reset()
        for _ in range(count // at_once):
            plans = [asked(observation) for observation in observations]
            for row in zip(*plans, strict=True):
                observations, rewards, *_ = many.step(list(row))
            solved += sum(int(reward == 1) for reward in rewards)
        seconds = time.perf_counter() - start
        for env in many.envs:
            env.env.close()
        return seconds, solved

    return play


def skyrl(repl: bool) -> Play:
    """skyrl-gym: an environment for each episode, in threads where several run at once, as in SkyRL's generator."""
    if repl:
        base = importlib.import_module("skyrl_gym.envs.rlm.env").BaseRLMEnv

        class Graded(base):  # type: ignore[misc, valid-type]
            """Its base class leaves the grading to whoever uses it."""

            def _get_reward(self, final_answer: str) -> float:
                return float(final_answer.strip() == self.extras["answer"])

        def begin(task: Task) -> Any:
            return Graded(extras={"answer": task["answer"], "max_turns": len(task["scripts"]) + 2})

        def turns(task: Task) -> list[str]:
            last = f"```repl\npass\n```\nFINAL({task['answer']})"
            return [*(f"```repl\n{script}\n```" for script in task["scripts"]), last]

    else:
        make = importlib.import_module("skyrl_gym").make

        def begin(task: Task) -> Any:
            extras = {"reward_spec": {"ground_truth": task["answer"]}, "max_turns": len(task["scripts"]) + 2}
            return make("searchcode", env_config={}, extras=extras)

        def turns(task: Task) -> list[str]:
            tools = [f"<tool><python>{script}</python></tool>" for script in task["scripts"]]
            return [*tools, f"<solution>#### {task['answer']}</solution>"]

    def episode(task: Task) -> int:
        env = begin(task)
        chat, _ = env.init([{"role": "user", "content": task["question"]}])
        for turn in turns(task):
            done = env.step(turn)
            chat += [{"role": "assistant", "content": turn}, *done["observations"]]
        env.close()
        return int(done["done"] and done["reward"] == 1)

    def play(tasks: list[Task], count: int, at_once: int) -> tuple[float, int]:
        given = [tasks[number % len(tasks)] for number in range(count)]
        with ThreadPoolExecutor(at_once) as threads:
            start = time.perf_counter()
            solved = sum(threads.map(episode, given) if at_once > 1 else map(episode, given))
            return time.perf_counter() - start, solved

    return play


PEERS: dict[str, tuple[str, Callable[[], Play]]] = {
    "gem": ("gem-llm", lambda: gem("none")),
    "gem-bwrap": ("gem-llm", lambda: gem("bwrap")),
    "skyrl": ("skyrl-gym", lambda: skyrl(repl=False)),
    "skyrl-repl": ("skyrl-gym", lambda: skyrl(repl=True)),
}


def main() -> None:
    distribution, make = PEERS[sys.argv[1]]
    replies = sys.stdout
    with redirect_stdout(sys.stderr):  # whatever a peer prints must not reach the replies
        play = make()
        print(json.dumps({"version": version(distribution)}), file=replies, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            seconds, solved = play(request["tasks"], request["count"], request["at_once"])
            print(json.dumps({"seconds": seconds, "solved": solved}), file=replies, flush=True)


if __name__ == "__main__":
    main()
