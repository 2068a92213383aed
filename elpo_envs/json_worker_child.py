"""The child's side of `elpo_envs.json_worker`: a script, run alone, so it must not import the package.

A question is a line "LIMIT WALL JSON"; the reply is a line "SECONDS JSON" with the CPU time it took, "late" where the
limit (seconds of CPU time) passed, "overdue" where the wall limit (seconds on the clock) did, or "died STATUS". "ready"
comes first.
Where the platform can fork, a fork of this process answers, which the limits end; elsewhere this process answers, and
the host ends it.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

_MEMORY_BYTES = 2 << 30


def load(program: Path) -> ModuleType:
    """The module in that file, or the module `worker` of the package in that folder."""
    if not program.is_dir():
        return _import(program.stem, program, None)
    _import(program.name, program / "__init__.py", [str(program)])
    return importlib.import_module(program.name + ".worker")


def _import(name: str, file: Path, folders: list[str] | None) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Answerer:
    """A fork of this process that answers one question after another."""

    def __init__(self, program: ModuleType, host: tuple[BinaryIO, BinaryIO]) -> None:
        asked, self._asking = os.pipe()
        self._replied, replying = os.pipe()
        self._buffer = b""
        self.pid = os.fork()
        if self.pid == 0:
            # The pipes of this process must not be held open by the fork: their ends would go unseen.
            os.close(self._asking)
            os.close(self._replied)
            for pipe in host:
                os.close(pipe.fileno())
            try:
                _answer_all(program, asked, replying)
            finally:
                os._exit(1)
        os.close(asked)
        os.close(replying)

    def ask(self, line: bytes, wall_s: float, questions: int) -> bytes | None:
        """The reply, "late", "overdue" or "died STATUS"; None where the host has ended."""
        deadline = time.monotonic() + wall_s
        try:
            _write(self._asking, line)
        except OSError:
            return self.end()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._replied, questions], [], [], max(0.0, deadline - time.monotonic()))
            if self._replied in ready:
                chunk = os.read(self._replied, 65536)
                if not chunk:
                    return self.end()
                self._buffer += chunk
            elif questions in ready:  # the host asks nothing before it has the reply: this is its end
                self.end()
                return None
            elif not ready:
                self.end()
                return b"overdue"
        reply, _, self._buffer = self._buffer.partition(b"\n")
        return reply

    def end(self) -> bytes:
        """Reap it, killed if it still runs; how it ended."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if not done:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        os.close(self._asking)
        os.close(self._replied)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
            return b"late"
        return f"died {os.waitstatus_to_exitcode(status)}".encode()


def _answer_all(program: ModuleType, asked: int, replying: int) -> None:
    """Answer until the pipe ends. The kernel's own timers end a question that takes too long, whoever still waits."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with os.fdopen(asked, "rb") as lines, os.fdopen(replying, "wb") as replies:
        for line in lines:
            limit, wall, request = line.split(b" ", 2)
            signal.setitimer(signal.ITIMER_PROF, float(limit))
            signal.setitimer(signal.ITIMER_REAL, float(wall) + 0.5)
            reply = _answered(program, request)
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            replies.write(reply + b"\n")
            replies.flush()
    os._exit(0)


def _answered(program: ModuleType, request: bytes) -> bytes:
    started = time.process_time()
    reply = json.dumps(program.answer(json.loads(request)))
    return f"{time.process_time() - started:.6f} {reply}".encode()


def _write(target: int, line: bytes) -> None:
    while line:
        line = line[os.write(target, line) :]


def _read_line(source: int) -> bytes:
    """The next line; b"" at the end. The host sends one line and waits, so nothing is left over."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(source, 65536)
        if not chunk:
            return b""
        line += chunk
    return line


def serve(program: ModuleType, questions: BinaryIO, replies: BinaryIO) -> None:
    """Answer until `questions` ends."""
    answerer: Answerer | None = None
    while line := _read_line(questions.fileno()):
        _, wall, request = line.split(b" ", 2)
        if hasattr(os, "fork"):
            if answerer is None or not answerer.pid:
                answerer = Answerer(program, (questions, replies))
            reply = answerer.ask(line, float(wall), questions.fileno())
            if reply is None:
                return
        else:
            reply = _answered(program, request)
        replies.write(reply + b"\n")
        replies.flush()
    if answerer is not None and answerer.pid:
        answerer.end()


def main() -> None:
    """Serve standard input and output."""
    questions = os.fdopen(os.dup(0), "rb", buffering=0)
    replies: Any = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not reach the replies
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = load(Path(sys.argv[1]))
    program.prepare()
    gc.freeze()
    replies.write(b"ready\n")
    replies.flush()
    serve(program, questions, replies)


if __name__ == "__main__":
    main()
