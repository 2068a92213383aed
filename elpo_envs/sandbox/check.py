"""How well a sandbox confines code on this machine: the layers in force, and a quick self-test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from elpo_envs.sandbox import jail
from elpo_envs.sandbox.base import Limits, Sandbox, SandboxError


@dataclass(frozen=True)
class Layer:
    """A layer of the jail.

    Attributes:
        name: one of `jail.LAYERS`.
        missing: why it is not active, or None if it is.
        meaning: what is open where it is missing.
    """

    name: str
    missing: str | None
    meaning: str


def layers() -> list[Layer]:
    """The layers around the sessions of the `fork` backend, as the running jail reports them; starts it if need be.

    Raises:
        SandboxError: it could not be started.
    """
    from elpo_envs.sandbox.fork.pools import current_pool  # not to be imported elsewhere than on Linux

    found = current_pool().jail
    return [
        Layer(name, None if name in found.active else found.missing.get(name, "unknown"), jail.LAYER_MEANING[name])
        for name in jail.LAYERS
    ]


MakeSandbox = Callable[[Limits, bool], Sandbox]
"""Builds a sandbox with these limits, with the language layer or without it."""

_ESCAPED = "ESCAPED"
_SAY_IT = "print('ESC' + 'APED')"  # a traceback, which shows the line, does not hold the word


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Attributes:
        name: what should hold.
        holds: whether it did.
        detail: what was seen, where it did not.
    """

    name: str
    holds: bool
    detail: str = ""


def self_test(make: MakeSandbox) -> Iterator[Finding]:
    """Try a sandbox out, in about two seconds; what it yields first is whether it works at all."""
    sandbox = make(Limits(wall_s=1.0, cpu_s=1.0), True)
    try:
        sandbox.open(0)
        yield _expect("runs code and keeps variables", sandbox, ["x = 41", "x + 1"], "42")
        yield _branches(sandbox)
        yield _expect("stops an endless loop, and goes on", sandbox, ["while True: pass", "x"], "41")
        yield _expect("bounds memory", sandbox, ["len(bytearray(2_000_000_000))"], "MemoryError")
        yield _expect("refuses imports by name", sandbox, ["import os"], "import of 'os' is not allowed")
    except SandboxError as error:
        yield Finding("can be started", False, str(error))
        return
    finally:
        sandbox.close()
    yield from _confinement(make)


def _expect(name: str, sandbox: Sandbox, calls: list[str], wanted: str) -> Finding:
    text = ""
    for code in calls:
        text = sandbox.run(code).text
    return Finding(name, wanted in text, text)


def _branches(sandbox: Sandbox) -> Finding:
    sandbox.run("import random; squares = (n * n for n in range(9)); next(squares), next(squares)")
    frozen = sandbox.snapshot()
    seen = set()
    for _ in range(3):
        sandbox.restore(frozen)
        seen.add(sandbox.run("next(squares), random.random()").text)
    return Finding("branches three times to the same state", len(seen) == 1 and "4," in seen.copy().pop(), str(seen))


def _confinement(make: MakeSandbox) -> Iterator[Finding]:
    """What code without the language layer gets done."""
    sandbox = make(Limits(wall_s=2.0, cpu_s=2.0), False)
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "secret"
        secret.write_text(_ESCAPED)
        other = Path(folder) / "other"
        attempts = {
            "cannot read the host's files": f"print(open({str(secret)!r}).read())",
            "cannot write the host's files": f"open({str(other)!r}, 'w').close(); {_SAY_IT}",
            "cannot open a socket": f"import socket; socket.socket(); {_SAY_IT}",
            "cannot start a program": "import subprocess, sys; "
            f"subprocess.run([sys.executable, '-c', ''], check=True); {_SAY_IT}",
            "cannot fork": f"import os; os.fork(); {_SAY_IT}",
            "cannot start a thread": f"import threading; threading.Thread(target=print).start(); {_SAY_IT}",
            "cannot signal other processes": f"import os; os.kill({os.getpid()}, 0); {_SAY_IT}",
        }
        sandbox.open(0)
        try:
            for name, code in attempts.items():
                text = sandbox.run(code).text
                yield Finding(name, _ESCAPED not in text, text)
        finally:
            sandbox.close()
