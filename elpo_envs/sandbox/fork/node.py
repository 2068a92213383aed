"""The life of a process of a session: born of a frozen node, it serves requests and freezes, a node itself.

A frozen node does nothing but wait for the supervisor's order to fork. It is the host that decides how many requests
a process serves before it is frozen. Everything here runs inside the jail and beside the code under test: whoever it
talks to must not trust it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import gc
import os
import select
import signal
import socket
import sys
import tempfile
from json import dumps, loads  # by name: code may replace them in their module
from typing import Any

from ..capture import capture_descriptors
from ..frames import read_frame, write_frame
from ..interpreter import Interpreter
from ..jail import fork_sibling, set_death_signal
from ..language import Language, LanguagePolicy
from ..launch import NO_BACKGROUND_THREADS
from .adopt import OpenFile, adopt_files, open_files
from .scratch import MAX_BYTES, is_full
from .wire import CONTROL, MAX_PACKET, OUTPUT, READY, REQUEST, SCRATCH, SCRATCH_FULL, SPARE, pack, unpack

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SIGNALS = signal.valid_signals()


class Node:
    """One process; built in the template, and handed on by every fork.

    Args:
        supervisor: process id of the supervisor, the parent of all.
        link: the path that leads to whatever directory is at descriptor `SCRATCH`.
    """

    def __init__(self, supervisor: int, link: str) -> None:
        self._supervisor = supervisor
        self._link = link
        self._folder = "."  # the working directory, relative to the scratch directory
        self._interpreter: Interpreter | None = None
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=CONTROL)
        self._getcwd, self._realpath = os.getcwd, os.path.realpath
        self._real_scratch = ""
        self._mask: set[int] = set()  # the signals that the code has blocked
        self._files: tuple[OpenFile, ...] = ()  # what the code had open when this process came to rest
        # By the link, paths that a program keeps stay right in the next process, whose directory is another.
        os.getcwd = lambda: self._by_link(self._getcwd())
        os.path.realpath = lambda path, **how: self._by_link(self._realpath(path, **how))  # type: ignore[assignment]
        os.environ.update(HOME=link, TMPDIR=link, **NO_BACKGROUND_THREADS)
        tempfile.tempdir = None
        sys.argv = [""]
        sys.path.insert(0, "")  # modules that the code wrote can be imported, as at the prompt
        sys.dont_write_bytecode = True

    def live(self) -> None:
        """Serve for ever; the process ends when the supervisor's end of the connection is closed."""
        while True:
            self._settle(self._await_fork())
            frame = read_frame(REQUEST)
            if frame is None:
                os._exit(0)  # nobody wanted this one
            while frame is not None:
                self._serve(frame)
                self._collect()
                frame = self._await_request()

    def _await_request(self) -> bytes | None:
        """The next request, or None once this process is to be frozen, or forked, which comes to the same."""
        poll = select.poll()
        poll.register(CONTROL, select.POLLIN)
        poll.register(REQUEST, select.POLLIN)
        frame = None
        if (REQUEST, select.POLLIN) in poll.poll():  # before a fork that was ordered for afterwards
            with contextlib.suppress(OSError):
                frame = read_frame(REQUEST)
        if frame is None:
            with contextlib.suppress(OSError):
                os.close(REQUEST)
            return None
        os.dup2(0, SPARE, inheritable=False)
        gc.collect(1)  # as a fork would have done
        return frame

    def _await_fork(self) -> dict[str, Any]:
        """Fork whenever told to; returns, with the order, in the children only."""
        while True:
            packet, descriptors, _, _ = socket.recv_fds(self.control, MAX_PACKET, 2)
            if not packet:
                os._exit(0)
            order = unpack(packet)
            request, control = descriptors
            try:
                child = fork_sibling()
            except OSError as error:
                with contextlib.suppress(OSError):  # the host may not want it any more
                    os.write(control, pack({"failed": error.strerror}))
            else:
                if not child:
                    set_death_signal()
                    if os.getppid() != self._supervisor:
                        os._exit(0)  # it died before it could take us along
                    _move(control, CONTROL)
                    _move(request, REQUEST)
                    return order
            os.close(control)
            os.close(request)

    def _settle(self, order: dict[str, Any]) -> None:
        """Make this process independent of the one it was forked from, ahead of its request."""
        os.write(CONTROL, pack({"hello": order["fork"]}))
        self._real_scratch = scratch = order["scratch"]
        _move(os.open(scratch, os.O_RDONLY | os.O_DIRECTORY), SCRATCH)
        try:
            os.chdir(f"{scratch}/{self._folder}")
        except OSError:
            os.chdir(scratch)
        capture_descriptors(OUTPUT)
        adopt_files(self._files, order["from"], scratch)
        os.dup2(0, SPARE, inheritable=False)
        if order["wait"] and not os.read(CONTROL, MAX_PACKET):
            os._exit(0)
        if not _coming(REQUEST):
            self._rehearse()
        gc.collect(1)  # what is new since the fork; later collections come at the same moments in every branch then
        os.write(REQUEST, READY)

    def _serve(self, frame: bytes) -> None:
        _signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        request = loads(frame)
        interpreter = self._interpreter
        if interpreter is None:
            settings = request["settings"]
            take = capture_descriptors(OUTPUT)
            sys.setrecursionlimit(1000 + _depth())
            imports = settings["allowed_imports"]
            language = None if imports is None else Language(LanguagePolicy(tuple(imports)))
            interpreter = Interpreter(settings["seed"], settings["output_chars"], True, take, self._link, language)
            self._interpreter = interpreter
        process = os.getpid()
        replies = []
        for item in request["items"]:
            if isinstance(item, int):
                interpreter.reseed(item)
                continue
            replies.append(interpreter.execute(item))
            if os.getpid() != process:
                os._exit(0)  # outside the jail code can fork, and its child came back here
        self._come_to_rest()
        with contextlib.suppress(OSError):
            os.close(SPARE)
        self._files = open_files()
        if is_full(self._real_scratch) or sum(file.nameless_bytes for file in self._files) > MAX_BYTES:
            os._exit(SCRATCH_FULL)
        with contextlib.suppress(OSError):
            write_frame(REQUEST, dumps(replies).encode())

    def _come_to_rest(self) -> None:
        """A frozen process must not change: no timer that the code started goes off, no handler of its runs."""
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        self._mask = _signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # `signal` would make an object of each
        with contextlib.suppress(OSError):
            folder = self._getcwd()
            if folder.startswith(self._real_scratch):
                self._folder = "." + folder[len(self._real_scratch) :]

    def _rehearse(self) -> None:
        """Do what a request takes, ahead of it, so that the memory which that writes to is this process's own."""
        source, sink = os.pipe()
        write_frame(sink, dumps({"items": ["x = 1"]}).encode())
        loads(read_frame(source) or b"")
        os.close(source)
        os.close(sink)
        if self._interpreter is not None:
            self._interpreter.rehearse()
        open_files()
        is_full(self._real_scratch)
        mask = self._mask
        self._come_to_rest()
        self._mask = mask

    def _collect(self) -> None:
        gc.collect(1)  # what the call left behind, while only this process has it
        gc.freeze()  # a collection in a child would copy the pages of everything inherited

    def _by_link(self, path: Any) -> Any:
        """A path of this process's scratch directory as one that leads every process to its own."""
        real = self._real_scratch
        if real and isinstance(path, str) and (path == real or path.startswith(real + "/")):
            return self._link + path[len(real) :]
        return path


def _coming(descriptor: int) -> bool:
    """Whether there is something to read already."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _move(descriptor: int, to: int) -> None:
    if descriptor != to:
        os.dup2(descriptor, to, inheritable=False)
        os.close(descriptor)


def _depth() -> int:
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth
