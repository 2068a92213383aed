"""Runs a peer's Python tool for `sandbox_peers`; started by that peer's own interpreter, so it imports nothing of ours.

    python sandbox_peer_program.py gem|gem-bwrap|skyrl|skyrl-repl

It prints a line of JSON, `{"version": ...}`, and then answers every line `{"scripts": [...], "count": n}` by running
the scripts in order, n times over, with `{"seconds": ..., "text": ...}`: the time that took, and the last output.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

Tool = Callable[[], Callable[[str], str]]
"""Begins a conversation; its result runs code and returns the text that the model would be shown."""


def gem(sandbox_type: str) -> Tool:
    """GEM's `PythonCodeTool`, built as in its ready-made wrappers."""
    tool = importlib.import_module("gem.tools.python_code_tool").PythonCodeTool(timeout=5, sandbox_type=sandbox_type)

    def run(code: str) -> str:
        _, _, observation, _ = tool.execute_action(f"<python>{code}</python>")
        return str(observation).removeprefix("Code execution result: ")

    return lambda: run


def skyrl() -> Tool:
    """skyrl-gym's Python tool, called as its environments call it."""
    group = importlib.import_module("skyrl_gym.tools").PythonCodeExecutorToolGroup()

    def run(code: str) -> str:
        return str(group.execute_tool("python", code))

    return lambda: run


def skyrl_repl() -> Tool:
    """skyrl-gym's `PersistentREPL`: keeps state, inside the trainer's own process, and allows no import."""
    repl = importlib.import_module("skyrl_gym.envs.rlm.repl").PersistentREPL

    def begin() -> Callable[[str], str]:
        session = repl()

        def run(code: str) -> str:
            done = session.execute(code)
            return str(done.stdout + done.stderr)

        return run

    return begin


PEERS: dict[str, tuple[str, Callable[[], Tool]]] = {
    "gem": ("gem-llm", lambda: gem("none")),
    "gem-bwrap": ("gem-llm", lambda: gem("bwrap")),
    "skyrl": ("skyrl-gym", skyrl),
    "skyrl-repl": ("skyrl-gym", skyrl_repl),
}


def main() -> None:
    distribution, make = PEERS[sys.argv[1]]
    begin = make()
    print(json.dumps({"version": version(distribution)}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        text = ""
        start = time.perf_counter()
        for _ in range(request["count"]):
            run = begin()
            for script in request["scripts"]:
                text = run(script)
        print(json.dumps({"seconds": time.perf_counter() - start, "text": text}), flush=True)


if __name__ == "__main__":
    main()
