"""The program of a `replay` session's process: bound the process, then answer requests until stdin ends.

It is run by path, its argument being an existing directory that becomes its working, home and temporary directory.
Requests arrive on stdin and replies leave on stdout as frames (see `frames`). The first request holds the
`Settings`. Every other one is a list whose items are code to run (strings) or seeds for the random generators
(integers), in order. The reply lists `[text, kind]` for each code; to the settings it is an empty list, once the
session is ready. When stdin ends, which it does at the host's death too, the process removes the directory and
ends itself, also in the middle of a call, and with it what the code started. Standard library only.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import shutil
import signal
import sys
import threading
import time
import types
import warnings
from collections.abc import Sequence
from json import dumps, loads  # by name: code may replace them in their module
from typing import NamedTuple

if not __package__:
    # Run by path. A package of this name stands for the folder, so that the package around it is not imported.
    _folder = types.ModuleType("_elpo_sandbox")
    _folder.__path__ = [__file__.rsplit(os.sep, 2)[0]]
    sys.modules["_elpo_sandbox"] = _folder
    __package__ = "_elpo_sandbox.replay"

from ..capture import capture_descriptors
from ..frames import read_frame, write_frame
from ..interpreter import Interpreter

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_FILE_BYTES = 8 << 20
_OPEN_FILES = 64


class Settings(NamedTuple):
    """What a session is started with.

    Attributes:
        seed, output_chars: as for `Interpreter`.
        cpu_s, memory_mb: as in `Limits`.
        allowed_imports: what the language layer lets code import; None for no such layer.
    """

    seed: int
    output_chars: int
    cpu_s: float
    memory_mb: int
    allowed_imports: Sequence[str] | None


def serve(scratch: str) -> None:
    """Answer requests; the process ends when stdin does."""
    source, sink = os.dup(0), os.dup(1)
    os.chdir(scratch)
    os.environ.update(HOME=scratch, TMPDIR=scratch, TEMP=scratch, TMP=scratch)
    sys.argv = [""]
    sys.path.insert(0, "")  # modules that the code wrote can be imported, as at the prompt
    foreign = capture_descriptors()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(source, requests, scratch), daemon=True).start()
    _prepare_for_forks(source, sink)
    settings = Settings(**loads(requests.get()))
    _bound_process(settings)
    # The depth at which the code meets RecursionError must not depend on how the session was started.
    sys.setrecursionlimit(1000 + _depth())
    language = None
    if settings.allowed_imports is not None:
        from ..language import Language, LanguagePolicy  # slow to import, and not needed by every session

        language = Language(LanguagePolicy(tuple(settings.allowed_imports)))
    interpreter = Interpreter(settings.seed, settings.output_chars, True, foreign, scratch, language)
    process = os.getpid()
    write_frame(sink, b"[]")
    while True:
        replies = []
        for item in loads(requests.get()):
            if isinstance(item, int):
                interpreter.reseed(item)
                continue
            _allow_cpu(settings.cpu_s)
            replies.append(interpreter.execute(item))
            if os.getpid() != process:
                os._exit(0)  # the code forked and its child came back here; only the parent may reply
            _stop_alarm()
        write_frame(sink, dumps(replies).encode())


def _receive(source: int, requests: queue.SimpleQueue[bytes], scratch: str) -> None:
    """Pass requests on, in a thread of its own so that the host's death is seen during a call."""
    try:
        while (request := read_frame(source)) is not None:
            requests.put(request)
        _clean_up(scratch)
    finally:
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)  # what the code started is in our process group
        os._exit(1)


def _clean_up(scratch: str) -> None:
    """Remove the directory that the code may be using at this moment, and end this process where that can be first."""
    if not hasattr(os, "fork"):
        os.chdir(os.sep)  # Windows does not remove a working directory
        shutil.rmtree(scratch, ignore_errors=True)
        return
    process, group = os.getpid(), os.getpgid(0)
    if cleaner := os.fork():
        os.waitpid(cleaner, 0)
        return
    try:
        os.setsid()
        os.killpg(group, signal.SIGKILL)
        while os.getppid() == process:  # dying, perhaps in a system call that makes a file
            time.sleep(0.001)
        shutil.rmtree(scratch, ignore_errors=True)
    finally:
        os._exit(0)


def _prepare_for_forks(source: int, sink: int) -> None:
    """A process forked by the code must not hold the connection open, nor be warned of a thread it never saw."""
    warnings.filterwarnings("ignore", r"This process .* is multi-threaded", DeprecationWarning)

    def let_go() -> None:
        for descriptor in (source, sink):
            with contextlib.suppress(OSError):  # the code closed it
                os.close(descriptor)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=let_go)


def _bound_process(settings: Settings) -> None:
    if resource is None:
        return
    _lower(resource.RLIMIT_AS, settings.memory_mb << 20)
    _lower(resource.RLIMIT_FSIZE, _FILE_BYTES)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # macOS refuses an address-space limit below what is mapped already; the other bounds still hold there.
    with contextlib.suppress(ValueError):
        resource.setrlimit(limit, (value, value))


def _allow_cpu(seconds: float) -> None:
    """Let the process use `seconds` more of CPU time before SIGXCPU ends it."""
    if resource is None:
        return
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _stop_alarm() -> None:
    """An alarm that the code left running would end the session between two calls."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _depth() -> int:
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


if __name__ == "__main__":
    try:
        serve(sys.argv[1])
    finally:
        os._exit(1)  # only after an error; threads that the code left behind are not waited for
