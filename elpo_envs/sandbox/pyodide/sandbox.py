"""The `pyodide` backend: a session is a Python in WebAssembly, and a snapshot a copy of its memory.

It runs wherever Node.js does, with packages written in Python alone; numpy is not one of them. Tried with versions
0.28, 0.29 and 314 of Pyodide, whose Python is not the host's. The numbers of system errors are those of WebAssembly.

What was found about copies: all that Python can see lies in one memory, but for the file system, which JavaScript
holds. Memory and files together, put back, continue the session exactly: variables and their `id`, generators
half run, `random`, the decimal context, files with their contents, positions and working directory. Copies share
the pages of 4 KiB that are equal, so that each costs what changed since the one before. They are not exact where a
program made JavaScript hold something for it (callbacks of ctypes, pipes): this is noticed, and the snapshot is
then one to be replayed. Copies live in the process of Node.js. Where that ended, in another sandbox, and after the
oldest copies made room, a restore repeats the session's calls and compares what they gave.

Code is stopped by KeyboardInterrupt first, which keeps the process and its copies, and where it does not listen
(long loops in C), by ending the process. `time.sleep` is a busy wait here and counts as CPU time.

WebAssembly cannot reach the host by itself, but Pyodide is full of ways into Node.js. Those that can be are shut:
JavaScript gets no globals and may not compile text, its modules are taken out of Python, and system calls that
would start programs or open sockets fail. None of that is a boundary. On Linux Node.js itself runs in the jail,
which is one; elsewhere the code can do what the host's user can, if it finds the way. The sessions that follow each
other in one sandbox object share its process; one that broke into JavaScript could tamper with those after it.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from elpo_envs.sandbox import jail
from elpo_envs.sandbox.base import Capabilities, Execution, Fidelity, Limits, SandboxError, SandboxSnapshot
from elpo_envs.sandbox.calls import call_in_thread, call_persistently
from elpo_envs.sandbox.endings import not_repeated, process_ended, stopped
from elpo_envs.sandbox.frames import Reply, UnreadableReplyError, decode_replies
from elpo_envs.sandbox.history import extend_digest, items_of, pending_reseeds
from elpo_envs.sandbox.piped import SessionLostError
from elpo_envs.sandbox.pyodide import installation
from elpo_envs.sandbox.pyodide.heap_file import heap_file
from elpo_envs.sandbox.pyodide.process import NodeProcess, Setup

if TYPE_CHECKING:
    from elpo_envs.sandbox.language import LanguagePolicy

_GRACE_S = 2.0
_ANSWER_S = 60.0
_FILE_BYTES = 8 << 20
_SESSION = "_elpo_sandbox.pyodide.session"
_SOURCES = ("capture.py", "interpreter.py", "output.py", "pyodide/session.py")


class _StoppedError(Exception):
    """A call went over a limit, and Python was stopped; `intact`: it is as it was before the call."""

    def __init__(self, limit: str, intact: bool) -> None:
        super().__init__(limit)
        self.limit = limit
        self.intact = intact


class MemoryCopy:
    """A snapshot's copy in a process. The process drops it when nothing refers to this any more."""

    def __init__(self, process: NodeProcess, number: int) -> None:
        self.process = weakref.ref(process)
        self.number = number

    @property
    def alive(self) -> bool:
        """Whether its process is there; that may have dropped the copy to make room, and then repeats calls."""
        process = self.process()
        return process is not None and process.usable()

    def __del__(self) -> None:
        if (process := self.process()) is not None:
            process.forget(self.number)


class PyodideSandbox:
    """A `Sandbox` in WebAssembly. The process starts lazily, at the first `run` after `open` or `restore`.

    Args:
        limits: bounds on each call; `memory_mb` bounds the memory of Python, of which sympy takes about 60.
        language: what the language layer lets code do; None for no such layer.
        isolation_required: refuse to run anything where the jail lacks a layer.
        package: where Pyodide is; None looks as `installation.find` does.
        node: name or path of Node.js, version 20 or later.
        packages: Python packages of this environment that sessions can import; those not installed are left out.
        preload: modules that sessions find imported; those not in `packages` or the standard library are left out.
        copies_mb: memory, in MiB, that snapshots' copies may take; beyond it those used longest ago are dropped.

    Raises:
        SandboxError: Node.js or Pyodide is missing.
        ValueError: an argument is out of range.
    """

    name = "pyodide"
    fidelity: Fidelity = "exact"

    def __init__(
        self,
        limits: Limits | None = None,
        language: LanguagePolicy | None = None,
        isolation_required: bool = False,
        *,
        package: str | os.PathLike[str] | None = None,
        node: str = "node",
        packages: Sequence[str] = ("sympy", "mpmath"),
        preload: Sequence[str] = ("sympy",),
        copies_mb: int = 512,
    ) -> None:
        if isinstance(copies_mb, bool) or not isinstance(copies_mb, int) or copies_mb < 0:
            raise ValueError(f"copies_mb must be a whole number of 0 or more, not {copies_mb!r}")
        self.limits = Limits() if limits is None else limits
        self._language = language
        self._isolation_required = isolation_required
        found = installation.locate_packages(packages)
        own = [_SESSION]
        if language is not None:
            found |= installation.locate_packages(["RestrictedPython"])
            own.append("_elpo_sandbox.language")
        importable = sys.stdlib_module_names | {Path(file).stem for file in found}
        wanted = [name for name in preload if name.partition(".")[0] in importable]
        self._setup = Setup(
            installation=installation.find(package, node),
            sources=_sources(with_language=language is not None),
            packages=found,
            preload=(*own, *wanted),
            memory_bytes=self.limits.memory_mb << 20,
            copies_bytes=copies_mb << 20,
            file_bytes=_FILE_BYTES,
        )
        self._state: SandboxSnapshot | None = None
        self._process: NodeProcess | None = None
        self._in_place = False  # whether the process holds the state, but perhaps for its last reseeds
        self._copies = 0

    @staticmethod
    def installed(package: str | os.PathLike[str] | None = None, node: str = "node") -> bool:
        """Whether Node.js and Pyodide are found."""
        try:
            installation.find(package, node)
        except SandboxError:
            return False
        return True

    @property
    def capabilities(self) -> Capabilities:
        if self._process is not None:
            isolated = self._process.isolated
        else:
            needed = jail.ISOLATING - {"fork_grants"}  # Node.js cannot fork in the jail
            isolated = not any(why for layer, why in jail.probe().items() if layer in needed)
        return Capabilities(exact=True, isolated=isolated, numpy=False, cheap_snapshot=True)

    def open(self, seed: int) -> None:
        """Start a fresh session, dropping any current one; `seed` is any integer."""
        self._state, self._in_place = SandboxSnapshot(int(seed), (), "", self.fidelity), False

    def run(self, code: str) -> Execution:
        """Run `code`; raises only SandboxError, and only if there is no session (`open` was never called)."""
        self._opened()
        return call_persistently(lambda: self._run(code), self._drop)

    async def run_async(self, code: str) -> Execution:
        """`run` in a thread, without blocking the event loop; if cancelled, the session is as before the call."""
        state = self._opened()
        return await call_in_thread(lambda: self.run(code), lambda: self._process, lambda: self._reset(state))

    def snapshot(self) -> SandboxSnapshot:
        """The session now; takes milliseconds. Raises SandboxError if there is no session."""
        state, process = self._opened(), self._process
        if state.calls and self._in_place and process is not None and not _in_process(state.live, process):
            try:
                state = replace(state, live=self._save(process))
            except (TimeoutError, SessionLostError):
                self._drop()
        exact = not state.calls or _in_process(state.live, self._process)
        fidelity: Fidelity = "exact" if exact else "replay"
        if state is not self._state or state.fidelity != fidelity:
            self._state = replace(state, fidelity=fidelity)
        return self._opened()

    def restore(self, snapshot: SandboxSnapshot, reseed: int | None = None) -> None:
        """Become the session in `snapshot`, of any backend; takes effect with the next `run`."""
        if snapshot is not self._state:
            self._in_place = False
        self._state = snapshot
        if reseed is not None:
            reseeds = (*snapshot.reseeds, (len(snapshot.calls), int(reseed)))
            self._state = replace(snapshot, reseeds=reseeds)

    def close(self) -> None:
        """End the session and its process. Idempotent; snapshots stay valid, and are replayed."""
        self._reset(None)

    # --- one call -------------------------------------------------------------------------------------------

    def _opened(self) -> SandboxSnapshot:
        if self._state is None:
            raise SandboxError("the sandbox has no session: call open() or restore() first")
        return self._state

    def _run(self, code: str) -> Execution:
        process = self._ready()
        state = self._opened()
        try:
            for seed in pending_reseeds(state):
                process.request({"reseed": seed}, _ANSWER_S)
            reply = self._ask(process, code)
        except _StoppedError as over:
            self._in_place = over.intact
            limits = self.limits
            return stopped(f"{limits.wall_s:g} s" if over.limit == "wall" else f"{limits.cpu_s:g} s of CPU time")
        except TimeoutError:
            self._drop()
            return stopped(f"{self.limits.wall_s:g} s")
        except SessionLostError as lost:
            self._process, self._in_place = None, False
            return process_ended(process.end(), str(lost), self.limits)
        except BaseException:
            self._drop()  # an interrupted host: the late reply would be taken for that to the next call
            raise
        digest = extend_digest(state.digest, [reply])
        self._state = replace(state, calls=(*state.calls, code), digest=digest, live=None)
        return Execution(*reply)

    def _ask(self, process: NodeProcess, code: str) -> Reply:
        """Run `code`. Raises _StoppedError, TimeoutError where it could not be stopped, or SessionLostError."""
        limits = self.limits
        request = {"run": code, "wall": limits.wall_s, "cpu": limits.cpu_s}
        frame = process.request(request, limits.wall_s + _GRACE_S)
        if frame.startswith(b"{"):
            over = _fields(frame)
            raise _StoppedError(str(over.get("over")), over.get("intact") is True)
        try:
            (reply,) = decode_replies(frame, 1)
        except UnreadableReplyError as error:
            raise SessionLostError(str(error)) from error
        return reply

    # --- the process ----------------------------------------------------------------------------------------

    def _ready(self) -> NodeProcess:
        """The process, holding the state; raises SandboxError where that cannot be."""
        process = self._process
        if process is None or not process.usable():
            self._drop()
            process = self._process = NodeProcess(self._setup, heap_file(self._setup))
            if self._isolation_required and not process.isolated:
                lacking = ", ".join(f"{layer} ({why})" for layer, why in process.lacking.items())
                raise SandboxError(f"isolation='required', but the jail lacks {lacking}")
        if not self._in_place:
            try:
                self._bring(process, self._opened())
            except BaseException as error:
                self._drop()  # half-built
                if isinstance(error, TimeoutError | SessionLostError | _StoppedError):
                    raise SandboxError(f"the session could not be rebuilt: {error!r}") from error
                raise
            self._in_place = True
        return process

    def _bring(self, process: NodeProcess, state: SandboxSnapshot) -> None:
        """Make the process hold `state`, from a copy if it has one, else by repeating the calls."""
        copy = state.live
        if _in_process(copy, process) and _fields(process.request({"load": copy.number}, _ANSWER_S)) == {"found": True}:
            return
        self._state = state = replace(state, live=None)
        imports = None if self._language is None else self._language.allowed_imports
        settings = {"seed": state.seed, "output_chars": self.limits.output_chars, "allowed_imports": imports}
        process.request({"start": settings}, _ANSWER_S)
        digest = ""
        for item in items_of(state):
            if isinstance(item, int):
                process.request({"reseed": item}, _ANSWER_S)
            else:
                digest = extend_digest(digest, [self._ask(process, item)])
        if digest != state.digest:
            raise SandboxError(not_repeated(len(state.calls)))

    def _save(self, process: NodeProcess) -> MemoryCopy | None:
        """A copy of what the process holds, or None where it would not be exact."""
        self._copies += 1
        told = _fields(process.request({"save": self._copies}, _ANSWER_S))
        return MemoryCopy(process, self._copies) if "bytes" in told else None

    def _reset(self, state: SandboxSnapshot | None) -> None:
        """Be in `state`, with no process."""
        self._drop()
        self._state = state

    def _drop(self) -> None:
        process, self._process, self._in_place = self._process, None, False
        if process is not None:
            process.discard()


def _in_process(live: object, process: NodeProcess | None) -> TypeGuard[MemoryCopy]:
    """Whether `live` is a copy in `process`."""
    return isinstance(live, MemoryCopy) and process is not None and live.process() is process


def _fields(frame: bytes) -> dict[str, Any]:
    """A reply that is a JSON object; raises SessionLostError where it is not, as code that broke out could have it."""
    try:
        fields = json.loads(frame)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise SessionLostError("it wrote an unreadable reply")
    return fields


def _sources(with_language: bool) -> dict[str, str]:
    """The files of this project that run in Pyodide: path to text."""
    folder = Path(__file__).parent.parent
    files = [folder / name for name in _SOURCES]
    if with_language:
        files += sorted((folder / "language").glob("*.py"))
    texts = {file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8") for file in files}
    packages = {"__init__.py": "", "pyodide/__init__.py": ""}
    return {f"_elpo_sandbox/{name}": text for name, text in (packages | texts).items()}
