"""What one branch of a session does is not seen by another, nor by the frozen state that both came from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _attempt import LOW
from _ground import Ground, ground

from elpo_envs.sandbox.choice import why_not_fork
from elpo_envs.sandbox.fork.sandbox import ForkSandbox

pytestmark = pytest.mark.skipif(why_not_fork() is not None, reason=f"the fork backend: {why_not_fork()}")

# Before the branch; what one branch does; what must look the same in another as if it had not.
CASES = {
    "variable": ("x = [1]", "x.append(2)", "x"),
    "file": ("open('f', 'w').write('1')", "open('f', 'w').write('2')", "open('f').read()"),
    "new-file": ("1", "open('g', 'w').close()", "os.listdir('.')"),
    "open-file": ("f = open('f', 'w+')", "f.write('2'); f.flush()", "open('f').read()"),
    "offset": ("open('f', 'w').write('12'); f = open('f')", "f.read(1)", "f.read()"),
    "appended": ("f = open('f', 'a+')", "f.write('2'); f.flush()", "open('f').read()"),
    "unlinked-file": ("f = open('f', 'w+'); os.unlink('f')", "f.write('2'); f.flush()", "f.seek(0) or f.read()"),
    "memory-file": ("f = os.memfd_create('f')", "os.write(f, b'2')", "os.pread(f, 9, 0)"),
    "file-that-may-not-be-opened": (
        "f = os.open('f', os.O_RDWR | os.O_CREAT, 0)",
        "os.write(f, b'2')",
        "os.pread(f, 9, 0)",
    ),
    "directory": ("f = os.open('.', os.O_RDONLY)", "open('g', 'w').close()", "os.listdir(f)"),
    "offset-of-a-directory": ("f = os.open('.', os.O_RDONLY)", "os.lseek(f, 77, 0)", "os.lseek(f, 0, 1)"),
    "private-memory": (
        "import mmap; m = mmap.mmap(-1, 9, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
        "m[0] = 2",
        "m[0]",
    ),
    "generator": ("g = iter(range(9))", "next(g)", "next(g)"),
    "random": ("import random", "random.random()", "random.random()"),
    "environment": ("1", "os.environ['X'] = '2'", "os.environ.get('X')"),
    "working-directory": ("os.mkdir('d')", "os.chdir('d')", "os.listdir('.')"),
    "handler": ("import signal", "signal.signal(10, signal.SIG_IGN)", "signal.getsignal(10)"),
}
KNOWN = {
    "pipe": ("r, w = os.pipe(); os.set_blocking(r, False)", "os.write(w, b'2')", "os.read(r, 9)"),
}
REFUSED = {
    "shared-memory": "import mmap; mmap.mmap(-1, 9)",
    "shared-memory-of-a-file": "import mmap; f = open('f', 'wb+'); f.truncate(9); mmap.mmap(f.fileno(), 9)",
}


@pytest.fixture(scope="module")
def field() -> Iterator[Ground]:
    with ground() as made:
        yield made


def seen(field: Ground, before: str, deed: str | None, look: str) -> str:
    """What a branch sees when another has, or has not, done something first."""
    sandbox = ForkSandbox(pool=field.pool)
    sandbox.open(3)
    assert sandbox.run(f"import os\n{before}").kind in ("ok", "empty")
    start = sandbox.snapshot()
    if deed is not None:
        assert sandbox.run(deed).kind in ("ok", "empty")
    sandbox.restore(start)
    text = sandbox.run(look).text
    sandbox.close()
    return text


@pytest.mark.parametrize("case", CASES)
def test_branches_do_not_see_each_other(field: Ground, case: str) -> None:
    before, deed, look = CASES[case]
    assert seen(field, before, deed, look) == seen(field, before, None, look)


@pytest.mark.xfail(strict=True, reason="known: the kernel shares pipes between the branches of a session")
@pytest.mark.parametrize("case", KNOWN)
def test_pipes_are_shared(field: Ground, case: str) -> None:
    before, deed, look = KNOWN[case]
    assert seen(field, before, deed, look) == seen(field, before, None, look)


@pytest.mark.parametrize("case", REFUSED)
def test_memory_that_branches_would_share_is_refused(field: Ground, case: str) -> None:
    assert "PermissionError" in seen(field, "1", None, REFUSED[case])


def test_the_frozen_state_of_a_hostile_branch_is_its_own_affair(field: Ground) -> None:
    """Code may fork early and go on writing to what is frozen; other sessions notice nothing."""
    sandbox = ForkSandbox(pool=field.pool)
    sandbox.open(3)
    sandbox.run("kept = open('f', 'w')")
    early = "_, request, connection = order(); clone() or os._exit(0); os.close(request); os.close(connection)"
    sandbox.run(f"{LOW}\nkept.write('late'); {early}; kept.flush()")
    sandbox.close()
    assert field.problems() == []
