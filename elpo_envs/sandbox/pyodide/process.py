"""A Node.js process: start it, in the jail where there is one, and ask it."""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elpo_envs.sandbox.base import SandboxError
from elpo_envs.sandbox.launch import command, environment
from elpo_envs.sandbox.piped import PipedProcess, SessionLostError, start_process
from elpo_envs.sandbox.pyodide.installation import Installation

MAX_FRAME_BYTES = 256 << 20

_HERE = Path(__file__).parent
_PROGRAM = _HERE / "main.mjs"
_LAUNCHER = _HERE / "launcher.py"
_START_S = 120.0
_STACK_BYTES = 128 << 20
_SPARE_STACK_BYTES = 1 << 20
_NODE_BYTES = 1 << 30
_NODE_HEAP_MB = 512
_SYSTEM_PATHS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/nodejs", "/etc/ld.so.cache", "/dev/urandom")
_LOADER = "ld-"  # how the names of dynamic loaders begin


@dataclass(frozen=True)
class Setup:
    """What a process is started with.

    Attributes:
        installation: the programs.
        sources: files of this project that Python in there needs, path below its folder to text.
        packages: name to path of Python packages to copy into it.
        preload: modules that sessions find imported.
        memory_bytes: upper bound on the memory of Python.
        copies_bytes: upper bound on the memory of copies that snapshots hold.
        file_bytes: upper bound on the size of a file.
    """

    installation: Installation
    sources: dict[str, str]
    packages: dict[str, str]
    preload: tuple[str, ...]
    memory_bytes: int
    copies_bytes: int
    file_bytes: int

    def message(self, heap: Path | None) -> dict[str, Any]:
        return {
            "pyodide": str(self.installation.pyodide),
            "sources": self.sources,
            "packages": self.packages,
            "preload": self.preload,
            "heap": None if heap is None else str(heap),
            "memoryBytes": self.memory_bytes,
            "copiesBytes": self.copies_bytes,
            "fileBytes": self.file_bytes,
        }


class NodeProcess(PipedProcess):
    """A running Node.js with a Python in it.

    Args:
        setup: what to start.
        heap: file to start from; None for the start that makes its contents.

    Attributes:
        isolated: whether the jail has all layers that it needs; False where there is none.
        lacking: layers of the jail that are missing, and why.
        hello: the first frame it sent.

    Raises:
        SandboxError: it could not be started.
    """

    def __init__(self, setup: Setup, heap: Path | None) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # what it writes to stderr, closed at its end
        jailed = sys.platform == "linux"
        line, variables = (_jailed if jailed else _plain)(setup, heap)
        start = functools.partial(start_process, line, variables, self._said)
        try:
            process = _steady_thread().submit(start).result()
        except OSError as error:
            self._said.close()
            raise SandboxError(f"Node.js could not be started: {error}") from error
        super().__init__(process, MAX_FRAME_BYTES, self._said.close)
        self._forgotten: deque[int] = deque()
        try:
            told = json.loads(self._await_frame(_START_S)) if jailed else _NO_JAIL
            self.isolated, self.lacking = bool(told["isolated"]), dict(told["missing"])
            self._send(setup.message(heap), _START_S)
            self.hello = self._await_frame(_START_S)
        except (TimeoutError, SessionLostError, ValueError, TypeError, KeyError) as error:
            said = self._last_words()
            how = f"{error!r}, exit status {self.end()}"
            raise SandboxError(f"Pyodide did not start in Node.js: {said or how}") from error
        except BaseException:
            self.discard()
            raise

    def request(self, request: dict[str, Any], timeout_s: float) -> bytes:
        """Send one request and return the reply to it.

        Raises:
            TimeoutError: `timeout_s` seconds of wall-clock time went by.
            SessionLostError: the process did not live to answer.
        """
        forgotten = [self._forgotten.popleft() for _ in range(len(self._forgotten))]
        self._send({**request, "forget": forgotten}, timeout_s)
        return self._await_frame(timeout_s)

    def forget(self, copy: int) -> None:
        """Have the process drop a copy, with the next request. Safe in any thread and during garbage collection."""
        self._forgotten.append(copy)

    def _last_words(self) -> str:
        self._let_exit()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").splitlines()
        # Node.js shows the line of source, which may be a million characters long, before the error.
        return " ".join(line.strip() for line in lines if len(line) < 400 and "    at " not in line)[-600:]


def _jailed(setup: Setup, heap: Path | None) -> tuple[list[str], dict[str, str]]:
    node = setup.installation.node
    modules = [str(setup.installation.pyodide), str(setup.installation.pyodide.parent / "ws")]
    libraries = [str(file) for file in setup.installation.libraries]
    own = [str(node), *libraries, *map(str, _HERE.glob("*.mjs")), *modules, *setup.packages.values()]
    if heap is not None:
        own.append(str(heap))
    options = {
        "command": [str(node), *_NODE_OPTIONS, str(_PROGRAM)],
        "environment": {"OPENSSL_CONF": os.devnull},  # or Node.js ends when it may not read the system's
        "read": [path for path in (*_SYSTEM_PATHS, *own) if os.path.lexists(path)],
        "execute": [str(node), *(path for path in libraries if Path(path).name.startswith(_LOADER))],
        "data_bytes": setup.memory_bytes + setup.copies_bytes + _NODE_BYTES,
        "stack_bytes": _STACK_BYTES,
    }
    return command(_LAUNCHER, json.dumps(options)), environment()


def _plain(setup: Setup, heap: Path | None) -> tuple[list[str], dict[str, str]]:
    stack = []
    if sys.platform != "win32":
        import resource

        soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
        room = _STACK_BYTES if soft == resource.RLIM_INFINITY else min(soft - _SPARE_STACK_BYTES, _STACK_BYTES)
        stack = [f"--stack-size={room >> 10}"]
    return [str(setup.installation.node), *stack, *_NODE_OPTIONS, str(_PROGRAM)], {**environment(), "TZ": "UTC"}


_NO_JAIL: dict[str, Any] = {"isolated": False, "missing": {"jail": f"this system is {sys.platform}, not Linux"}}
_NODE_OPTIONS = ("--disallow-code-generation-from-strings", f"--max-old-space-size={_NODE_HEAP_MB}")

_starter: ThreadPoolExecutor | None = None


def _steady_thread() -> ThreadPoolExecutor:
    # The kernel kills the process when the THREAD that started it ends, so one is kept for that.
    global _starter
    if _starter is None:
        _starter = ThreadPoolExecutor(1, thread_name_prefix="elpo-node")
    return _starter


def _after_fork() -> None:
    global _starter
    _starter = None  # its thread was left behind


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
