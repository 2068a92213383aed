"""The pool that all sandboxes of a process share: started at the first need, again if it died, anew after a fork."""

from __future__ import annotations

import atexit
import functools
import os
import threading

from elpo_envs.sandbox import jail
from elpo_envs.sandbox.base import SandboxError
from elpo_envs.sandbox.fork.pool import Pool

# With the parts that sympy and numpy import only when they are first needed, and what programs use most.
DEFAULT_PRELOAD = (
    *("dataclasses", "datetime", "decimal", "fractions", "heapq", "json", "statistics", "typing"),
    *("numpy", "numpy.fft", "numpy.polynomial", "numpy.random"),
    *("sympy", "sympy.tensor.tensor", "sympy.integrals.manualintegrate", "sympy.integrals.heurisch"),
)

_pool: Pool | None = None
_exiting = False
_lock = threading.Lock()
_preload: tuple[str, ...] = DEFAULT_PRELOAD


def current_pool() -> Pool:
    """This process's pool; starting it takes as long as importing what sessions are to have.

    Raises:
        SandboxError: it could not be started.
    """
    global _pool
    with _lock:
        if _exiting:
            raise SandboxError("the interpreter is exiting")
        if _pool is None or not _pool.usable():
            if _pool is not None:
                _pool.shut_down()
                _pool = None
            _pool = Pool(_preload)
        return _pool


def running_pool() -> Pool | None:
    """This process's pool, if it was started and has not failed."""
    return _pool if _pool is not None and _pool.usable() else None


def lacking_layers() -> dict[str, str]:
    """Layers of the jail without which sessions are not isolated, and why they are missing; {} if none is.

    What the running pool reports, or what the system lets expect before it is started.
    """
    if (pool := running_pool()) is not None:
        return {} if pool.jail.isolated else pool.jail.missing
    return dict(_expected())


@functools.cache
def _expected() -> dict[str, str]:
    return {layer: why for layer, why in jail.probe().items() if why is not None and layer in jail.ISOLATING}


def preload(*names: str) -> None:
    """Set which modules sessions find imported already; those that are not installed are left out.

    Applies to this process's sessions from now on; running ones are rebuilt at their next call. The default is
    numpy and sympy.
    """
    global _preload, _pool
    with _lock:
        if names != _preload:
            _preload = names
            if _pool is not None and _pool.owner == os.getpid():
                _pool.shut_down()
            _pool = None


def _shut_down() -> None:
    global _pool, _exiting
    _exiting = True  # threads that still run calls must not start another one
    if _pool is not None and _pool.owner == os.getpid():
        _pool.shut_down()
        _pool = None


def _after_fork() -> None:
    global _pool, _lock
    _lock = threading.Lock()  # another thread of the parent may have held it
    if _pool is not None:
        _pool.forget()
        _pool = None


atexit.register(_shut_down)
os.register_at_fork(after_in_child=_after_fork)
