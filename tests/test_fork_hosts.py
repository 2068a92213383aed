"""Host processes that use the `fork` backend: whatever state they are in and however they end, nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from _fork_watch import alive, children, descendants, needs_fork, wait_until

pytestmark = needs_fork

ROOT = Path(__file__).parents[1]
HANG_S = 60.0

_HOST = """
import os, signal, sys, threading, time
from elpo_envs.sandbox.fork.pools import current_pool, preload
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
preload()
boxes = [ForkSandbox() for _ in range(4)]
for box in boxes:
    box.open(0)
    box.run("import pathlib; pathlib.Path('d').mkdir(); f = open('d/f', 'w'); f.write('x')")
snapshots = [box.snapshot() for box in boxes]
print(current_pool()._zygote.pid, flush=True)
"""
_BUSY = """
sleep, loop = "import time; time.sleep(1000)", "while True: pass"
write = "n = 0\\nwhile True:\\n n += 1\\n open(f'f{n % 500}', 'w').write('x' * n)"
for box, code in zip(boxes, (sleep, loop, write)):
    threading.Thread(target=box.run, args=(code,), daemon=True).start()
time.sleep(0.3)
print('busy', flush=True)
"""
_WAIT = "print('ready', flush=True); time.sleep(1000)"
_ENDS = {
    "killed": (_WAIT, signal.SIGKILL),
    "killed in calls": (_BUSY + _WAIT, signal.SIGKILL),
    "terminated": (_WAIT, signal.SIGTERM),
    "interrupted": (_WAIT, signal.SIGINT),
    "interrupted in a call": (
        "print('ready', flush=True); boxes[0].run('import time; time.sleep(1000)')",
        signal.SIGINT,
    ),
    "killed before its fork": ("if not os.fork(): time.sleep(1000)\n" + _WAIT, signal.SIGKILL),
    "exit": ("print('ready', flush=True); sys.exit(0)", None),
    "exit in calls": (_BUSY + "print('ready', flush=True); sys.exit(0)", None),
    "abrupt exit": ("print('ready', flush=True); os._exit(0)", None),
    "error": ("print('ready', flush=True); raise ValueError", None),
}


def _start_host(program: str, folder: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *flags, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "2"},
        start_new_session=True,
    )


@pytest.mark.parametrize("end", _ENDS)
def test_a_dead_host_leaves_nothing(end: str, tmp_path: Path) -> None:
    program, signal_number = _ENDS[end]
    host = _start_host(_HOST + program, tmp_path)
    assert host.stdout is not None and host.stderr is not None
    with host.stdout, host.stderr:
        try:
            pid = int(host.stdout.readline())
            processes = {pid, *descendants(pid)}
            while host.stdout.readline() not in ("ready\n", ""):
                processes |= set(descendants(pid))
            if signal_number is not None:
                assert len(processes) >= 7 and all(map(alive, {pid, *children(pid)}))
                assert list(tmp_path.glob("elpo-sandbox-*"))
                os.kill(host.pid, signal_number)
            host.wait(HANG_S)
            assert wait_until(lambda: not any(map(alive, processes)))
            assert wait_until(lambda: not list(tmp_path.iterdir())), list(tmp_path.rglob("*"))
        finally:
            host.kill()
            host.wait()
            if "fork" in end:
                os.killpg(host.pid, signal.SIGKILL)  # the host's own child, which lives on


_CLEAN = """
import asyncio, gc
from elpo_envs.sandbox import Limits, make_sandbox
from elpo_envs.sandbox.fork.pool import Cap, Pool
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
box = make_sandbox("fork", Limits(wall_s=0.5))
box.open(0)
assert box.run("1 + 1").text == "2"
snapshot = box.snapshot()
assert box.run("while True: pass").kind == "timeout"
assert asyncio.run(box.run_async("2 + 2")).text == "4"
box.restore(snapshot, reseed=3)
other = make_sandbox("fork")
other.restore(snapshot)
box.close()
del other
gc.collect()
last = make_sandbox("fork")
last.open(0)
last.run("x = 1")
own = Pool(preload=(), cap=Cap(3, 100))
many = [ForkSandbox(pool=own) for _ in range(9)]
for box in many:
    box.open(0)
    assert box.run("1").text == "1"
own.shut_down()
del many, own
gc.collect()
"""


@pytest.mark.parametrize("flags", [("-X", "dev", "-W", "error"), ("-I", "-O")])
def test_a_host_with_all_warnings_is_clean(flags: tuple[str, ...], tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{_CLEAN}" if "-I" in flags else _CLEAN
    host = _start_host(program, tmp_path, *flags)
    try:
        out, err = host.communicate(timeout=HANG_S)
    finally:
        host.kill()
    assert (host.returncode, out, err) == (0, "", "")
    assert not list(tmp_path.iterdir())


_TORCH = """
import threading, torch
from elpo_envs.sandbox.fork.pools import preload
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
preload()
torch.set_num_threads(4)
stop = threading.Event()
def work():
    while not stop.is_set():
        torch.randn(200, 200) @ torch.randn(200, 200)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
boxes = [ForkSandbox() for _ in range(4)]
for box in boxes:
    box.open(0)
for n in range(5):
    for box in boxes:
        shown = box.run("x = globals().get('x', 0) + 1; x").text
        assert shown == str(n + 1), shown
stop.set()
for thread in threads:
    thread.join()
"""
_CONCURRENT = """
import sys, threading
from elpo_envs.sandbox.fork.pools import preload
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
preload()
for n in range(15):
    box = ForkSandbox()
    box.open(n)
    box.run("import random; x = random.random()")
    snapshot = box.snapshot()
    assert box.run("x").text == box.run("x").text
    box.restore(snapshot)
    assert float(box.run("x").text) > 0
"""


def test_a_host_with_busy_threads(tmp_path: Path) -> None:
    host = _start_host(_TORCH, tmp_path)
    try:
        _, err = host.communicate(timeout=120)
    finally:
        host.kill()
    assert (host.returncode, err) == (0, "")
    assert not list(tmp_path.glob("elpo-sandbox-*"))


def test_several_hosts_at_once(tmp_path: Path) -> None:
    hosts = [_start_host(_CONCURRENT, tmp_path) for _ in range(4)]
    try:
        errors = [host.communicate(timeout=120)[1] for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [(host.returncode, err) for host, err in zip(hosts, errors, strict=True)] == [(0, "")] * 4
    assert not list(tmp_path.iterdir())


_FEW_DESCRIPTORS = """
import resource
from elpo_envs.sandbox.fork.pools import preload
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
preload()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
boxes = [ForkSandbox() for _ in range(90)]
for number, box in enumerate(boxes):
    box.open(number)
for n in range(2):
    for box in boxes:
        shown = box.run("x = globals().get('x', 0) + 1; x").text
        assert shown == str(n + 1), shown
"""
_ODD_SIGNALS = """
import signal, time
for number in (signal.SIGCHLD, signal.SIGXCPU, signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
from elpo_envs.sandbox import Limits
from elpo_envs.sandbox.fork.pools import preload
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
preload()
box = ForkSandbox(Limits(wall_s=30, cpu_s=1))
box.open(0)
box.run("x = 1")
shown = box.run("while True: pass").text
assert "1 s of CPU time" in shown, shown
assert box.run("x").text == "1"
"""


@pytest.mark.parametrize("program", [_FEW_DESCRIPTORS, _ODD_SIGNALS], ids=["few descriptors", "odd signals"])
def test_hosts_in_odd_states(program: str, tmp_path: Path) -> None:
    host = _start_host(program, tmp_path)
    try:
        _, err = host.communicate(timeout=HANG_S)
    finally:
        host.kill()
    assert (host.returncode, err) == (0, "")
    assert wait_until(lambda: not list(tmp_path.iterdir()))
