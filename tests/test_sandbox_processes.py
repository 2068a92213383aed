"""The processes behind `replay` sessions: that they are replaced, separate, heard correctly, and leave nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elpo_envs.sandbox import Limits, ReplaySandbox, Sandbox
from elpo_envs.sandbox.frames import LENGTH, UnreadableReplyError, decode_replies, read_frame, write_frame

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked on this system")
needs_groups = pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no process groups on this system")
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc")

ROOT = Path(__file__).parent.parent


@pytest.fixture
def sandbox() -> Iterator[ReplaySandbox]:
    box = ReplaySandbox()
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


def _pid(box: Sandbox) -> int:
    """The process of a session, asked by a call; as its text differs in every process, it cannot be repeated."""
    return int(box.run("import os\nos.getpid()").text)


def _process(box: ReplaySandbox) -> subprocess.Popen[bytes]:
    assert box._session is not None
    return box._session._process


# --- their end ----------------------------------------------------------------------------------------------


@needs_groups
@needs_proc
def test_nothing_is_left_after_close_or_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()
    before = descriptors()
    pids = []
    for index in range(6):
        other = ReplaySandbox()  # and the one before is dropped
        other.open(index)
        pids.append(_pid(other))
        pids.append(int(other.run("import subprocess\np = subprocess.Popen(['sleep', '77'])\np.pid").text))
        other.run("open('left', 'w').write('x')")
        assert len(list(tmp_path.glob("elpo-sandbox-*/left"))) == 1
        if index % 2:
            other.close()
        if index == 2:
            other.run("os._exit(0)")
    del other
    gc.collect()
    assert wait_until(lambda: not any(map(running, pids)))
    assert wait_until(lambda: not list(tmp_path.iterdir()))
    assert wait_until(lambda: descriptors() == before)


HOST = """
import os, sys, threading, time
from elpo_envs.sandbox import ReplaySandbox
boxes = [ReplaySandbox() for _ in range(3)]
for box in boxes:
    box.open(0)
    box.run("import os, subprocess, time\\np = subprocess.Popen(['sleep', '77'])")
    print(box.run("print(os.getpid(), p.pid)").text)
threading.Thread(target=boxes[0].run, args=({busy!r},), daemon=True).start()
time.sleep(0.2)
{end}
"""
SLEEPS = "time.sleep(60)"
WRITES = "n = 0\nwhile True:\n    os.makedirs(f'{n}')\n    n += 1"


@needs_groups
@needs_proc
@pytest.mark.parametrize(
    ("busy", "end"),
    [
        pytest.param(SLEEPS, "print('ready', flush=True); time.sleep(60)", id="killed"),
        pytest.param(WRITES, "print('ready', flush=True); time.sleep(60)", id="killed-while-writing"),
        pytest.param(
            SLEEPS,
            "if not os.fork(): time.sleep(77)\nprint('ready', flush=True); time.sleep(60)",
            id="killed-before-its-fork",
        ),
        pytest.param(SLEEPS, "print('ready', flush=True); sys.exit(0)", id="exit"),
        pytest.param(SLEEPS, "print('ready', flush=True); raise ValueError", id="error"),
    ],
)
def test_a_dead_host_leaves_nothing(busy: str, end: str, tmp_path: Path) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST.format(busy=busy, end=end)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    assert host.stdout is not None
    pids: set[int] = set()
    for line in host.stdout:
        if line.startswith("ready"):
            break
        pids.update(map(int, line.split()))
    try:
        assert len(pids) == 6
        if "sleep" in end:
            assert all(map(running, pids))
            host.kill()
        host.wait()
        assert wait_until(lambda: not any(map(running, pids)))
        assert wait_until(lambda: not list(tmp_path.glob("elpo-sandbox-*")))
    finally:
        host.stdout.close()
        if "fork" in end:
            os.killpg(host.pid, signal.SIGKILL)  # the forked host


def test_a_killed_process_is_replaced(sandbox: ReplaySandbox) -> None:
    sandbox.run("x = 8")
    process = _process(sandbox)
    process.kill()
    assert wait_until(lambda: process.poll() is not None)
    assert sandbox.run("x").text == "8"


@needs_fork
@needs_proc
def test_what_a_session_started_ends_with_it(sandbox: ReplaySandbox) -> None:
    started = int(sandbox.run("import os, time\npid = os.fork()\nif not pid: time.sleep(77)\npid").text)
    assert running(started)
    sandbox.close()
    assert wait_until(lambda: not running(started))


@needs_fork
def test_a_death_is_noticed_though_a_forked_child_lives(sandbox: ReplaySandbox) -> None:
    sandbox.run("x = 1")
    code = "import os, time\nif not os.fork():\n    time.sleep(60)\nos._exit(3)"
    assert "it ended with exit code 3" in sandbox.run(code).text
    assert sandbox.run("x").text == "1"


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped on this system")
def test_a_process_that_does_not_listen_is_a_timeout() -> None:
    box = ReplaySandbox(Limits(wall_s=0.5))
    box.open(0)
    box.run("x = 1")
    for code in ("x = 2", "x = 3  # " + "long" * 10**5):
        _process(box).send_signal(signal.SIGSTOP)
        assert box.run(code).kind == "timeout"
        assert box.run("x").text == "1"
    box.close()


def test_a_session_that_cannot_start_is_a_sandbox_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    box = ReplaySandbox()
    box.open(0)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/such/python")
        execution = box.run("1")
    assert execution.kind == "sandbox_failure" and "could not be started" in execution.text
    with monkeypatch.context() as patch:
        patch.setattr("elpo_envs.sandbox.replay.subprocess_session._PROGRAM", "/no/such/program.py")
        execution = box.run("1")
    assert execution.kind == "sandbox_failure" and "did not start" in execution.text
    assert box.run("1").text == "1"
    box.close()


# --- their host ---------------------------------------------------------------------------------------------


def test_a_session_sees_neither_the_package_nor_the_environment(
    sandbox: ReplaySandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "1")
    code = "import os, sys\n({'elpo_envs', 'numpy', 'gymnasium'} & set(sys.modules), 'A_SECRET' in os.environ)"
    assert sandbox.run(code).text == "(set(), False)"


def test_many_sessions_and_threads() -> None:
    boxes = [ReplaySandbox() for _ in range(12)]
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


def test_the_thread_that_started_a_session_may_end(sandbox: ReplaySandbox) -> None:
    pids: list[int] = []
    thread = threading.Thread(target=lambda: pids.append(_pid(sandbox)))
    thread.start()
    thread.join()
    time.sleep(0.05)
    assert _pid(sandbox) == pids[0]


@needs_fork
def test_a_forked_host_has_sessions_of_its_own(sandbox: ReplaySandbox) -> None:
    sandbox.run("x = 5")
    session = sandbox._session
    child = os.fork()
    if child == 0:
        try:
            seen = (sandbox.run("x = x + 1\nx").text, sandbox._session is not session)
            sandbox.close()
            os._exit(0 if seen == ("6", True) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sandbox.run("x").text == "5" and sandbox._session is session


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no interval timers on this system")
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


def test_calls_of_many_sessions_overlap_in_one_event_loop() -> None:
    boxes = [ReplaySandbox() for _ in range(6)]

    async def use(index: int) -> str:
        box = boxes[index]
        box.open(index)
        await box.run_async(f"import time\nx = {index}")
        # Only if all of them run at once does each find the files of all.
        wait = f"open('{{}}/{index}', 'w').close()\nwhile len(os.listdir('{{}}')) < 6: time.sleep(0.01)\nx"
        return (await box.run_async("import os\n" + wait.format(folder, folder))).text

    async def use_all() -> list[str]:
        return await asyncio.gather(*map(use, range(len(boxes))))

    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(use_all()) == [str(index) for index in range(len(boxes))]
    for box in boxes:
        box.close()


def test_a_cancelled_call_leaves_no_trace(sandbox: ReplaySandbox) -> None:
    sandbox.run("x = 1")
    snap = sandbox.snapshot()

    async def cancel() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sandbox.run_async("import time\nx = 2\ntime.sleep(60)"), 0.3)

    start = time.monotonic()
    asyncio.run(cancel())
    assert time.monotonic() - start < 5.0  # far from the call's own limit
    assert sandbox.snapshot() == snap
    assert sandbox.run("x").text == "1"


# --- frames -------------------------------------------------------------------------------------------------


def test_frames_survive_a_pipe() -> None:
    source, sink = os.pipe()
    payloads = [b"", b"x", os.urandom(1 << 20)]

    def write() -> None:
        for payload in payloads:
            write_frame(sink, payload)
        os.write(sink, LENGTH.pack(9) + b"cut")
        os.close(sink)

    thread = threading.Thread(target=write)
    thread.start()
    assert [read_frame(source) for _ in payloads] == payloads
    assert read_frame(source) is None
    thread.join()
    os.close(source)


def test_a_frame_that_is_too_long_is_not_read() -> None:
    source, sink = os.pipe()
    write_frame(sink, b"12345")
    assert read_frame(source, 5) == b"12345"
    write_frame(sink, b"123456")
    with pytest.raises(UnreadableReplyError):
        read_frame(source, 5)
    os.close(source)
    os.close(sink)


GOOD = [["a", "ok"], ["", "empty"]]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\xff",
        b"null",
        b"[" * 10**5,
        json.dumps(GOOD[:1]).encode(),
        json.dumps([*GOOD, ["b", "ok"]]).encode(),
        json.dumps([["a", "fine"], GOOD[1]]).encode(),
        json.dumps([["a", ["ok"]], GOOD[1]]).encode(),
        json.dumps([[1, "ok"], GOOD[1]]).encode(),
        json.dumps([["\ud800", "ok"], GOOD[1]]).encode(),
        json.dumps([["a", "ok", "more"], GOOD[1]]).encode(),
    ],
)
def test_replies_are_decoded_only_if_they_are_replies(bad: bytes) -> None:
    assert decode_replies(json.dumps(GOOD).encode(), 2) == [("a", "ok"), ("", "empty")]
    with pytest.raises(UnreadableReplyError):
        decode_replies(bad, 2)
