"""The processes behind the sandbox: that they are shared rightly, replaced, fast, and leave nothing."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elpo_envs.sandbox import ReplaySandbox, Sandbox, forked, preload

needs_fork = pytest.mark.skipif(not forked.can_fork, reason="sessions cannot be forked on this system")
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc")


@pytest.fixture(params=[pytest.param(True, id="forked", marks=needs_fork), pytest.param(False, id="plain")])
def sandbox(request: pytest.FixtureRequest) -> Iterator[ReplaySandbox]:
    box = ReplaySandbox(fork=request.param)
    box.open(7)
    yield box
    box.close()


def wait_until(holds: Callable[[], bool], seconds: float = 8.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def running(pid: int) -> bool:
    """Whether `pid` is a process that has not ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@needs_fork
@needs_proc
def test_nothing_is_left_after_close_or_collection() -> None:
    box = ReplaySandbox()
    box.open(0)
    zygote = _zygote_pid(box)
    root = Path(Path(f"/proc/{zygote}/cmdline").read_text().split("\0")[-2])
    box.close()

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()
    before = descriptors()
    pids = []
    for index in range(12):
        other = ReplaySandbox()
        other.open(index)
        pids.append(_pid(other))
        other.run("import subprocess\np = subprocess.Popen(['sleep', '77'], start_new_session=True)")
        pids.append(int(other.run("p.pid").text))
        if index % 2:
            other.close()
    del other
    gc.collect()
    assert wait_until(lambda: not any(map(running, pids)))
    assert wait_until(lambda: len(list(root.iterdir())) <= 1)  # that of the session started in advance
    assert descriptors() == before


def _pid(box: Sandbox) -> int:
    return int(box.run("import os\nos.getpid()").text)


def _zygote_pid(box: Sandbox) -> int:
    return int(box.run("import os\nos.getppid()").text)


HOST = """
import sys, threading, time
from elpo_envs.sandbox import ReplaySandbox
boxes = [ReplaySandbox(fork=fork) for fork in {forks} for _ in range(3)]
for box in boxes:
    box.open(0)
    box.run("import os, subprocess, time\\np = subprocess.Popen(['sleep', '77'])")
    print(box.run("print(os.getpid(), os.getppid(), p.pid)").text)
threading.Thread(target=boxes[0].run, args=("time.sleep(60)",), daemon=True).start()
time.sleep(0.2)
print("ready", flush=True)
{end}
"""


@needs_fork
@needs_proc
@pytest.mark.parametrize(
    ("end", "forks"),
    [
        ("time.sleep(60)", "[True]"),
        ("time.sleep(61)", "[True, False]"),
        ("sys.exit(0)", "[True]"),
        ("raise ValueError", "[True, False]"),
    ],
)
def test_a_dead_host_leaves_nothing(end: str, forks: str, tmp_path: Path) -> None:
    program = HOST.format(end=end, forks=forks)
    host = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert host.stdout is not None
    pids: set[int] = set()
    for line in host.stdout:
        if line.startswith("ready"):
            break
        if line[0].isdigit():
            pids.update(map(int, line.split()))
    pids.discard(host.pid)
    assert len(pids) >= 7
    if "sleep" in end:
        assert all(map(running, pids))
        host.kill()
    host.wait()
    host.stdout.close()
    sleeps = {pid for pid in pids if running(pid) and "sleep" in Path(f"/proc/{pid}/comm").read_text()}
    if "False" in forks:  # a plain session cannot end what its code detached
        pids -= sleeps
        wait_until(lambda: not any(map(running, pids)))
        for pid in filter(running, sleeps):
            os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not any(map(running, pids)))
    assert wait_until(lambda: not list(tmp_path.glob("elpo-sandbox-*")))


@needs_fork
@needs_proc
def test_a_killed_zygote_is_replaced() -> None:
    one, two = ReplaySandbox(), ReplaySandbox()
    for box in (one, two):
        box.open(0)
        box.run("x = 8")
    zygote, session = _zygote_pid(one), _pid(two)
    one.restore(one.snapshot())
    one.open(0)
    one.run("x = 8")
    os.kill(zygote, signal.SIGKILL)
    assert wait_until(lambda: not running(session))
    assert one.run("x").text == "8"
    two.close()
    one.close()


@needs_fork
def test_many_sessions_and_threads() -> None:
    boxes = [ReplaySandbox() for _ in range(24)]
    results: dict[int, list[str]] = {}

    def use(index: int) -> None:
        box = boxes[index]
        box.open(index)
        box.run(f"total = {index}")
        snap = box.snapshot()
        texts = [box.run(f"total += {step}\ntotal").text for step in range(5)]
        box.restore(snap)
        results[index] = [*texts, box.run("total").text]
        box.close()

    threads = [threading.Thread(target=use, args=(index,)) for index in range(len(boxes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: [str(i + n) for n in (0, 1, 3, 6, 10)] + [str(i)] for i in range(len(boxes))}


@needs_fork
def test_a_thread_that_started_the_zygote_may_end() -> None:
    box = ReplaySandbox()
    box.open(0)
    forked._shut_down()
    thread = threading.Thread(target=box.run, args=("x = 1",))
    thread.start()
    thread.join()
    before = _pid(box)
    time.sleep(0.05)
    assert _pid(box) == before
    box.close()


@needs_fork
def test_a_forked_host_has_sessions_of_its_own(sandbox: ReplaySandbox) -> None:
    sandbox.run("x = 5")
    session = sandbox._session
    child = os.fork()
    if child == 0:
        seen = (sandbox.run("x = x + 1\nx").text, sandbox._session is not session)
        sandbox.close()
        forked._shut_down()
        os._exit(0 if seen == ("6", True) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sandbox.run("x").text == "5" and sandbox._session is session


@needs_fork
def test_an_interrupted_host_does_not_mix_up_replies(sandbox: ReplaySandbox) -> None:
    sandbox.run("x = 1")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            sandbox.run("import time\ntime.sleep(0.4)\nx = 2\n'late'")
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert sandbox.run("x").text == "1"


@needs_fork
def test_preload() -> None:
    preload("fractions")
    box = ReplaySandbox()
    box.open(0)
    assert box.run("import sys\n'fractions' in sys.modules").text == "True"
    assert box.run("Fraction").kind == "error"
    box.close()
    with pytest.raises(ValueError, match="'no_such_module'"):
        preload("no_such_module")


def test_a_session_that_cannot_start_is_a_sandbox_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    box = ReplaySandbox(fork=False)
    box.open(0)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/such/python")
        execution = box.run("1")
    assert execution.kind == "sandbox_failure" and "could not be started" in execution.text
    assert box.run("1").text == "1"
    box.close()
