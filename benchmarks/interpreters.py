"""Running a tool call without this project: in a bare child process (a limit), and in plain subprocesses (a peer)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from elpo_envs.protocols import get_protocol
from elpo_envs.tasks.base import ExpertTurn, ToolCall


@dataclass(frozen=True)
class Call:
    """A tool call: a statement, and the variable whose value is the result."""

    statement: str
    variable: str

    @property
    def code(self) -> str:
        return f"{self.statement}\n{self.variable}"

    @property
    def turn(self) -> str:
        """The assistant turn that makes the call."""
        return get_protocol("hermes").render(ExpertTurn("", (ToolCall("python", {"code": self.code}),)))


_BARE_SESSION = """
import json, os, sys
scope = {}
for line in sys.stdin:
    statement, variable, in_copy = json.loads(line)
    copy = os.fork() if in_copy else 0
    if copy:
        os.waitpid(copy, 0)
        continue
    exec(statement, scope)
    print(json.dumps(repr(scope[variable])), flush=True)
    if in_copy:
        os._exit(0)
"""
BareSession = Callable[[Call, bool], str]
"""Runs a call in the session, or (True) in a copy of it that is thrown away."""


def run_script(calls: Sequence[Call]) -> str:
    """The result of the last call, by running all of them in a new interpreter."""
    code = "\n".join([*(call.statement for call in calls), f"print({calls[-1].variable})"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def replay_by_calls(calls: Sequence[Call]) -> str:
    """The result of the last call, after every call of the episode was made again in order."""
    return [run_script(calls[: n + 1]) for n in range(len(calls))][-1]


@contextmanager
def bare_session() -> Iterator[BareSession]:
    """An interpreter behind a pair of pipes and nothing else: no limits, no captured output, no recovery."""
    with subprocess.Popen(
        [sys.executable, "-c", _BARE_SESSION], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        source, sink = process.stdout, process.stdin

        def run(call: Call, in_copy: bool) -> str:
            sink.write(json.dumps([call.statement, call.variable, in_copy]) + "\n")
            sink.flush()
            return str(json.loads(source.readline()))

        yield run
