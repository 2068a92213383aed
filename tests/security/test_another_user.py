"""Attempts in sessions of a user who is not root, with namespaces and without, and of root without namespaces."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import RestrictedPython
from _ground import PRELOAD, ground
from _registry import ATTEMPTS, applicable

import elpo_envs
from elpo_envs.sandbox.choice import why_not_fork

pytestmark = pytest.mark.skipif(why_not_fork() is not None, reason=f"the fork backend: {why_not_fork()}")

NOBODY = 65534
HANG_S = 280
WITHOUT_NAMESPACES = ["namespaces"]
# A few of every kind, for every run of the tests; all of them where there is time.
SOME = [
    *("base-and-subclasses", "sympify", "use-subprocess", "read-open", "read-list-all-sessions", "write-open"),
    *("read-memory-of-another-session", "write-beside-the-scratch-directory", "write-rename-the-scratch-directory"),
    *("disk-folders-nobody-may-read", "disk-endless-paths", "fork-without-an-order", "signal-the-host", "connect"),
    *("greeting-huge-failure", "greeting-empty-object", "control-flood-of-descriptors", "every-other-call"),
]
NEEDS_LIBRARIES = ("numpy", "sympy", "mpmath")


@functools.cache
def interpreter_for_nobody() -> str | None:
    """A Python that this user may execute; the one that runs the tests may lie in root's home."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        check = [candidate, "-c", "import ctypes, sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            done = subprocess.run(check, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True)
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    return None


@pytest.fixture(scope="module")
def program() -> Iterator[list[str]]:
    """The command of a Python for that user: an environment with what sessions need, copied to where it may read."""
    if os.geteuid() != 0:
        pytest.skip("the tests run as a user who is not root already")
    interpreter = interpreter_for_nobody()
    if interpreter is None:
        pytest.skip(f"no Python 3.11 here that the user {NOBODY} may execute")
    version = subprocess.run(
        [interpreter, "-c", "import sys; print(sys.base_prefix, '%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    folder = Path(tempfile.mkdtemp(prefix="elpo-nobody-")).resolve()
    folder.chmod(0o755)
    packages = folder / "lib" / f"python{version[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(Path(interpreter).resolve())
    (folder / "pyvenv.cfg").write_text(f"home = {Path(interpreter).resolve().parent}\n")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(RestrictedPython.__file__).parent, packages / "RestrictedPython", ignore=ignored)
    source = Path(elpo_envs.__path__[0])
    shutil.copytree(source / "sandbox", folder / "project" / "elpo_envs" / "sandbox", ignore=ignored)
    shutil.copytree(Path(__file__).parent, folder / "tests", ignore=ignored)
    yield [str(folder / "bin" / "python"), "-P", str(folder / "tests" / "_as_another_user.py")]
    shutil.rmtree(folder)


def as_nobody(program: list[str], disabled: list[str], attempts: list[str]) -> dict[str, Any]:
    folder = Path(program[0]).parents[1]
    options = {"disabled": disabled, "attempts": attempts, "packages": str(folder / "project")}
    done = subprocess.run(
        [*program, json.dumps(options)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def without_libraries() -> list[str]:
    """Names of the attempts that need nothing but the standard library."""
    return [a.name for a in ATTEMPTS if not any(name in code for code in a.calls for name in NEEDS_LIBRARIES)]


@pytest.mark.parametrize("disabled", [[], WITHOUT_NAMESPACES], ids=["all-layers", "without-namespaces"])
def test_some_attempts_of_another_user(program: list[str], disabled: list[str]) -> None:
    known = set(without_libraries())
    report = as_nobody(program, disabled, [name for name in SOME if name in known])
    assert report["problems"] == []
    assert report["attempts"] >= 15


@pytest.mark.slow
@pytest.mark.parametrize("disabled", [[], WITHOUT_NAMESPACES], ids=["all-layers", "without-namespaces"])
def test_all_attempts_of_another_user(program: list[str], disabled: list[str]) -> None:
    names = without_libraries()
    report = as_nobody(program, disabled, names)
    assert report["problems"] == []
    assert len(names) >= 200


@pytest.mark.slow
def test_all_attempts_without_namespaces() -> None:
    chosen = [attempt for attempt in ATTEMPTS if applicable(attempt, WITHOUT_NAMESPACES)]
    with ground(frozenset(WITHOUT_NAMESPACES), PRELOAD) as field:
        problems = [problem for attempt in chosen if not attempt.patient for problem in field.verdict(attempt)]
        assert problems + field.verdicts([attempt for attempt in chosen if attempt.patient]) == []
