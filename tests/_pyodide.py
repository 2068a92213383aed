"""Sessions of the `pyodide` backend for tests: one process for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from elpo_envs.sandbox.base import Limits
from elpo_envs.sandbox.pyodide import PyodideSandbox, heap_file

LIMITS = Limits(wall_s=30.0, cpu_s=30.0)
INSTALLED = PyodideSandbox.installed()
NOT_INSTALLED = "Node.js 20 and the npm package pyodide are not installed (ELPO_PYODIDE may say where they are)"


def cache(config: pytest.Config) -> Path:
    """Where the file that processes start from is kept: with the other things that pytest keeps from run to run."""
    assert config.cache is not None
    return Path(config.cache.mkdir("elpo-pyodide"))


@pytest.fixture(scope="module", autouse=True)
def own_cache(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heap_file, "_cache", lambda: cache(request.config))
        yield


@pytest.fixture(scope="module", name="shared")
def shared_box() -> Iterator[PyodideSandbox]:
    sandbox = PyodideSandbox(LIMITS)
    yield sandbox
    sandbox.close()


@pytest.fixture(name="box")
def fresh_box(shared: PyodideSandbox) -> PyodideSandbox:
    """A fresh session, in a process that tests share as long as none of them ends it."""
    shared.limits = LIMITS
    shared.open(7)
    return shared


def process_id(sandbox: PyodideSandbox) -> int:
    """The process that the sandbox has now."""
    assert sandbox._process is not None
    return sandbox._process._process.pid


def texts(sandbox: PyodideSandbox, *calls: str) -> list[str]:
    """What calls show, made one after the other."""
    return [sandbox.run(code).text for code in calls]
