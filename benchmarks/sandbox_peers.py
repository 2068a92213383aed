"""The Python tools of GEM (`gem-llm`) and skyrl-gym beside the sandbox, each in an environment of its own.

Their Python tools keep nothing between calls: a conversation repeats all earlier code in each call, as their
users have to. skyrl-gym also has a REPL that keeps state; it runs the model's code inside the trainer's own process
and refuses every import, so it is measured as a limit, where it can do the work at all.

GEM in bubblewrap mounts `sys.prefix` and the system's libraries only: its interpreter must be installed there
itself, shared library included, as conda's is; a virtual environment is not enough.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.interpreters import Call, run_script
from benchmarks.measure import Contestant, Figures, Role
from benchmarks.sandbox_branches import COMPUTING, Contestants, checked
from elpo_envs.sandbox import make_sandbox

ONE = (Call("x = 1", "x"),)
ARITHMETIC = tuple(Call(f"v{i} = {127 + i} * {6 + i}", f"v{i}") for i in range(4))
_PROGRAM = Path(__file__).parent / "sandbox_peer_program.py"


@dataclass(frozen=True)
class Peer:
    """One way of running a peer's tool.

    Attributes:
        key: its name in `sandbox_peer_program`.
        label: its name in the report.
        python: the interpreter that has it installed.
        role: "peer", or "limit" where it does not do the same work.
        keeps_state: whether a call sees the variables of the one before.
        imports: whether its code may import.
    """

    key: str
    label: str
    python: Path
    role: Role = "peer"
    keeps_state: bool = False
    imports: bool = True


@dataclass(frozen=True)
class Absent:
    """A peer that cannot be measured here, and why."""

    label: str
    reason: str


def find_peers(gem: Path | None, skyrl: Path | None) -> tuple[list[Peer], list[Absent]]:
    """What can run, given the interpreters that have the peers installed."""
    peers: list[Peer] = []
    absent: list[Absent] = []
    if gem is None:
        absent.append(Absent("GEM", "no interpreter given (--gem-python or ELPO_GEM_PYTHON)"))
    else:
        peers.append(Peer("gem", "GEM, its default (no isolation)", gem))
        if shutil.which("bwrap") is None:
            absent.append(Absent("GEM in bubblewrap", "bwrap is not installed"))
        else:
            peers.append(Peer("gem-bwrap", "GEM in bubblewrap", gem))
    if skyrl is None:
        absent.append(Absent("skyrl-gym", "no interpreter given (--skyrl-python or ELPO_SKYRL_PYTHON)"))
    else:
        peers.append(Peer("skyrl", "skyrl-gym (no isolation)", skyrl))
        repl = "skyrl-gym's REPL in the trainer's process, no imports"
        peers.append(Peer("skyrl-repl", repl, skyrl, "limit", keeps_state=True, imports=False))
    return peers, absent


def interpreter(given: Path | None, variable: str) -> Path | None:
    """The Python of a peer: from an option, or from an environment variable."""
    return given if given is not None else Path(os.environ[variable]) if os.environ.get(variable) else None


class PeerSession:
    """A running `sandbox_peer_program`, or another program of that form.

    Raises:
        RuntimeError: it ended; its own words stand on stderr.
    """

    def __init__(self, peer: Peer, scratch: str, program: Path = _PROGRAM) -> None:
        self.peer = peer
        # The tools run "python" from the search path: it must be the environment that they are installed in.
        path = f"{peer.python.absolute().parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self._process = subprocess.Popen(
            [str(peer.python), str(program), peer.key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=scratch,
            env={**os.environ, "PATH": path},
            text=True,
        )
        self.version = str(self._answer()["version"])

    def run(self, scripts: Sequence[str], count: int) -> tuple[float, str]:
        """Seconds for `count` conversations of these scripts, and the last output."""
        answer = self.ask({"scripts": list(scripts), "count": count})
        return float(str(answer["seconds"])), str(answer["text"]).strip()

    def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """What the program answers to a request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def problem(self) -> str | None:
        """What its tool says instead of working, or None."""
        _, text = self.run(["print(1)"], 1)
        return None if text == "1" else text or "no output"

    def close(self) -> None:
        """End the program."""
        self._process.communicate()

    def _answer(self) -> Mapping[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the program of {self.peer.label} ended with exit code {self._process.wait()}")
        answer: Mapping[str, object] = json.loads(line)
        return answer


def scripts(calls: Sequence[Call], keeps_state: bool) -> list[str]:
    """What is sent to a peer call by call: all code so far where it keeps no state."""
    statements = [call.statement for call in calls]
    return [
        "\n".join([*([] if keeps_state else statements[:index]), call.statement, f"print({call.variable})"])
        for index, call in enumerate(calls)
    ]


@contextmanager
def running(peers: Sequence[Peer]) -> Iterator[list[PeerSession]]:
    """The peers' programs, each in a scratch directory of its own."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(closing(PeerSession(peer, stack.enter_context(tempfile.TemporaryDirectory()))))
            for peer in peers
        ]


@contextmanager
def conversations(
    backend: str, sessions: Sequence[PeerSession], calls: Sequence[Call], ours_count: int, peer_count: int, unit: str
) -> Iterator[Contestants]:
    """Whole conversations of `calls`, each from a fresh state; figures in `unit`, conversations per second."""
    needs_import = any("import" in call.statement for call in calls)
    with closing(make_sandbox(backend)) as sandbox:

        def converse() -> str:
            sandbox.open(0)
            return [sandbox.run(call.code).text.strip() for call in calls][-1]

        wanted = run_script(calls)
        checked(converse(), wanted)

        def ours(_: int) -> Figures:
            start = time.perf_counter()
            for _i in range(ours_count):
                checked(converse(), wanted)
            return {unit: ours_count / (time.perf_counter() - start)}

        def theirs(session: PeerSession) -> Contestant:
            sent = scripts(calls, session.peer.keeps_state)
            count = peer_count if not session.peer.keeps_state else ours_count

            def run(_: int) -> Figures:
                seconds, text = session.run(sent, count)
                checked(text, wanted)
                return {unit: count / seconds}

            return run

        contestants: dict[str, tuple[Role, Contestant]] = {"fresh session for each": ("ours", ours)}
        if len(calls) == 1:
            contestants["in a running session"] = ("ours", _running_calls(sandbox.run, calls[0].code, ours_count, unit))
        for session in sessions:
            if session.peer.imports or not needs_import:
                contestants[session.peer.label] = (session.peer.role, theirs(session))
        yield contestants


def _running_calls(run: Callable[[str], object], code: str, count: int, unit: str) -> Contestant:
    def contestant(_: int) -> Figures:
        start = time.perf_counter()
        for _i in range(count):
            run(code)
        return {unit: count / (time.perf_counter() - start)}

    return contestant


KINDS: Mapping[str, tuple[tuple[Call, ...], str]] = {
    "x = 1": (ONE, "calls/s"),
    "4 calls of arithmetic": (ARITHMETIC, "conversations/s"),
    "4 calls that import sympy and compute": (COMPUTING, "conversations/s"),
}
