"""The file that processes start from: the memory of a Python that has already started and imported things.

Starting Python and importing sympy takes seconds in WebAssembly; reading what is in memory afterwards does not. The
file is made once for each combination of what goes into it, and kept in the user's cache directory
(`$XDG_CACHE_HOME/elpo/pyodide`, by default below `~/.cache`), or for the life of this process where that cannot be
written.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from elpo_envs.sandbox.base import SandboxError
from elpo_envs.sandbox.pyodide.process import NodeProcess, Setup

_KEPT = 4
_ENOUGH_BYTES = 2 << 30
_lock = threading.Lock()
_substitute: Path | None = None


def heap_file(setup: Setup) -> Path:
    """The file for `setup`, made if need be, which takes as long as starting Python and importing its `preload`.

    Raises:
        SandboxError: it could not be made.
    """
    name = f"{_key(setup)}.heap"
    with _lock:
        for folder in (_cache(), _substitute):
            if folder is not None and (path := folder / name).is_file():
                with contextlib.suppress(OSError):  # a cache that may only be read
                    path.touch()
                return path
        process = NodeProcess(replace(setup, memory_bytes=_ENOUGH_BYTES), None)
        process.discard()
        if not process.hello:
            raise SandboxError("Pyodide's memory could not be had from Node.js: the reply was empty or too long")
        return _write(name, process.hello)


def _key(setup: Setup) -> str:
    """A digest of everything that the contents depend on."""
    digest = hashlib.blake2b(digest_size=16)

    def add(*parts: object) -> None:
        digest.update(repr(parts).encode())

    wasm = setup.installation.pyodide / "pyodide.asm.wasm"
    add(setup.installation.version, _stamp(wasm), setup.preload, sorted(setup.sources.items()))
    for name, place in sorted(setup.packages.items()):
        path = Path(place)
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            add(name, str(file.relative_to(path)), _stamp(file))
    return digest.hexdigest()


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _cache() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or Path.home() / ".cache", "elpo", "pyodide")
    except RuntimeError:  # a user without a home directory
        return None


def _write(name: str, contents: bytes) -> Path:
    global _substitute
    if (folder := _cache()) is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _write_into(folder, name, contents)
    try:
        if _substitute is None:
            _substitute = Path(tempfile.mkdtemp(prefix="elpo-pyodide-"))
            atexit.register(_remove, _substitute, os.getpid())
        return _write_into(_substitute, name, contents)
    except OSError as error:
        raise SandboxError(f"the memory of Pyodide could not be written to a file: {error}") from error


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _write_into(folder: Path, name: str, contents: bytes) -> Path:
    """Write a file that is there whole or not at all, and remove those that were not used for longest."""
    handle, temporary = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
        Path(temporary).replace(folder / name)
    except BaseException:
        Path(temporary).unlink()
        raise
    with contextlib.suppress(OSError):  # another process may be doing the same
        for old in sorted(folder.glob("*.heap"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            old.unlink()
    return folder / name


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
