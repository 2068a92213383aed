"""The host's side of a session: what is sent there, and what came back, which a hostile program may have written."""

from __future__ import annotations

import binascii
import json
import zlib
from base64 import b64decode
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from elpo_envs.grading.code.in_session.message import PREFIX, TOO_LARGE
from elpo_envs.grading.code.outcome import CodeLimits, Outcome, TestOutcome
from elpo_envs.sandbox import Isolation, Limits, Sandbox, SandboxSnapshot, make_sandbox

_SOURCES = Path(__file__).with_name("in_session")
_OUTPUT_CHARS = 4_000_000  # below what a sandbox takes for one reply
_MAX_JSON_BYTES = 64 << 20
_NOTE_CHARS = 200

# Puts the modules into the session, as a package of its own.
_INSTALL = """
def _install(sources):
    import sys, types
    package = types.ModuleType("_elpo_code")
    package.__path__ = []
    sys.modules["_elpo_code"] = package
    for name, source in sources.items():
        module = types.ModuleType("_elpo_code." + name)
        module.__package__ = "_elpo_code"
        sys.modules[module.__name__] = module
        setattr(package, name, module)
        exec(compile(source, f"<{name}>", "exec", dont_inherit=True), module.__dict__)
    return module
"""


class SandboxFailedError(RuntimeError):
    """The sandbox itself failed: nothing is known of the program."""


@dataclass(frozen=True)
class Reply:
    """What a session answered: `content`, a list of JSON values, or why there is none, in `failure`."""

    content: tuple[Any, ...] = ()
    failure: TestOutcome | None = None


class Session:
    """A sandbox with the modules of one role in it.

    Args:
        modules: names of files in `in_session`; calls go to the last one.
        limits: of each call.
        sandbox, isolation: for `make_sandbox`.

    Raises:
        SandboxError: such a sandbox cannot be had here.
    """

    def __init__(self, modules: tuple[str, ...], limits: CodeLimits, sandbox: str, isolation: Isolation) -> None:
        self._modules = modules
        self._sandbox: Sandbox = make_sandbox(
            sandbox,
            Limits(
                wall_s=limits.per_test_s * limits.wall_factor,
                cpu_s=limits.per_test_s,
                memory_mb=limits.memory_mb,
                output_chars=_OUTPUT_CHARS,
            ),
            isolation=isolation,
            restricted=False,
        )
        self._fresh: SandboxSnapshot | None = None

    def begin(self) -> None:
        """Be a session in which nothing has been called."""
        if self._fresh is None:
            self._sandbox.open(0)
            sources = {name: _source(name) for name in self._modules}
            done = self._sandbox.run(f"{_INSTALL}\n_session = _install({sources!r})")
            if done.kind != "empty":
                raise SandboxFailedError(f"a session could not be prepared: {done.text[-_NOTE_CHARS:]}")
            self._fresh = self._sandbox.snapshot()
        else:
            self._sandbox.restore(self._fresh)

    def here(self) -> SandboxSnapshot:
        """The state now, to `go` back to."""
        return self._sandbox.snapshot()

    def go(self, state: SandboxSnapshot) -> None:
        """Be in `state`."""
        self._sandbox.restore(state)

    def ask(self, function: str, payload: Any) -> Reply:
        """Call `function` of the session's module. Raises SandboxFailedError."""
        done = self._sandbox.run(f"_session.{function}({json.dumps(payload)!a})")
        if done.kind == "sandbox_failure":
            raise SandboxFailedError(done.text[:_NOTE_CHARS])
        if done.kind == "timeout":
            return Reply(failure=TestOutcome("timeout", "it was stopped at its time limit"))
        if done.kind != "ok":
            last = done.text.rstrip().rpartition("\n")[2]
            outcome: Outcome = "memory" if last.startswith("MemoryError") else "error"
            return Reply(failure=TestOutcome(outcome, last))
        try:
            content = read_message(done.text)
        except ValueError as error:
            return Reply(failure=TestOutcome("invalid", str(error)))
        if content == [TOO_LARGE]:
            return Reply(failure=TestOutcome("invalid", "its output or value is too large"))
        return Reply(tuple(content))

    def close(self) -> None:
        """End the session. Idempotent."""
        self._fresh = None
        self._sandbox.close()


@cache
def _source(name: str) -> str:
    return (_SOURCES / f"{name}.py").read_text(encoding="utf-8")


def read_message(text: str) -> list[Any]:
    """The content of the `Message` that is the last line of a session's text.

    Raises:
        ValueError: it is none.
    """
    line = text.rstrip().rpartition("\n")[2]
    if not line.startswith(PREFIX):
        raise ValueError("it gave no reply")
    try:
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(b64decode(line[len(PREFIX) :], b"-_", validate=True), _MAX_JSON_BYTES)
        if not unpacking.eof:
            raise ValueError("its reply is too large, or not whole")
        content = json.loads(data, object_pairs_hook=_refuse)
    except (binascii.Error, zlib.error, UnicodeError, RecursionError) as error:
        raise ValueError("its reply cannot be read") from error
    if not isinstance(content, list):
        raise ValueError("its reply cannot be read")
    return content


def _refuse(_: object) -> NoReturn:
    raise ValueError("its reply holds an object")  # keys could be chosen so that a dict of them takes for ever
