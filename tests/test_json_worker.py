"""The child process behind the calculator and the symbolic grader: limits, deaths, threads, its end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from elpo_envs.json_worker import JsonWorker, JsonWorkers, WorkerUnavailableError, WorkLimitError

PROGRAM = """
import os, signal, sys, time

count = 0

def prepare():
    print("noise")

def answer(question):
    global count
    count += 1
    if question["do"] == "sleep":
        time.sleep(question["seconds"])
    if question["do"] == "work":
        started = time.process_time()
        while time.process_time() < started + question["seconds"]:
            pass
    if question["do"] == "spin":
        while True:
            pass
    if question["do"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if question["do"] == "print":
        print("noise", flush=True)
    return {"pid": os.getpid(), "count": count, "text": "x" * question.get("size", 0)}
"""

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[JsonWorker]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    made = JsonWorker(program)
    yield made
    made.close()


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and alive(pid):
        time.sleep(0.02)
    return not alive(pid)


def test_replies_are_remembered_and_what_is_printed_does_not_disturb(worker: JsonWorker) -> None:
    assert worker.pid is None
    first = worker.ask({"do": "print", "n": 1}, 20.0)
    assert worker.ask({"do": "print", "n": 2}, 20.0).content["count"] == 2
    again = worker.ask({"do": "print", "n": 1}, 20.0)
    assert again.content == first.content and again.work_s == 0.0
    assert len(worker.ask({"do": "", "size": 1_000_000}, 20.0).content["text"]) == 1_000_000
    assert worker.ask({"do": "", "more": "y" * 1_000_000}, 20.0).content["count"] == 4


@forks
@proc
def test_a_late_question_costs_a_fork_not_the_child(worker: JsonWorker) -> None:
    before = worker.ask({"do": "", "n": 1}, 20.0).content["pid"]
    child = worker.pid
    started = time.monotonic()
    with pytest.raises(WorkLimitError, match=r"no result within 0\.5 s") as caught:
        worker.ask({"do": "spin"}, 0.5)
    assert caught.value.cause == "work" and 0.5 <= time.monotonic() - started < 30
    assert not Path(f"/proc/{before}").exists()
    after = worker.ask({"do": "", "n": 2}, 20.0).content
    assert after["count"] == 1 and after["pid"] != before
    assert worker.pid == child


@forks
def test_waiting_is_not_work_but_has_an_end(worker: JsonWorker) -> None:
    worker.ask({"do": "", "n": 1}, 20.0)
    reply = worker.ask({"do": "sleep", "seconds": 0.6}, 0.3)
    assert reply.work_s < 0.3
    assert 0.1 < worker.ask({"do": "work", "seconds": 0.1}, 20.0).work_s < 20.0
    with pytest.raises(WorkLimitError, match=r"no result within 0\.1 s") as caught:
        worker.ask({"do": "sleep", "seconds": 60}, 0.1)
    assert caught.value.cause == "clock"
    assert worker.ask({"do": "", "n": 2}, 20.0).content["count"] == 1


@forks
def test_a_question_that_kills_its_answerer_is_asked_twice(worker: JsonWorker) -> None:
    with pytest.raises(WorkLimitError, match="the worker died of it: died -9") as caught:
        worker.ask({"do": "die"}, 20.0)
    assert not caught.value.timed_out
    assert worker.ask({"do": ""}, 20.0).content["count"] == 1


@forks
@proc
def test_nothing_is_left_behind(worker: JsonWorker) -> None:
    fork = worker.ask({"do": "", "n": 1}, 20.0).content["pid"]
    child = worker.pid
    assert child is not None
    worker.close()
    worker.close()
    assert worker.pid is None and not Path(f"/proc/{child}").exists() and not Path(f"/proc/{fork}").exists()
    fork = worker.ask({"do": "", "n": 2}, 20.0).content["pid"]
    child = worker.pid
    assert child is not None
    os.kill(child, signal.SIGKILL)
    assert ends(fork)


@forks
@proc
def test_a_busy_fork_ends_with_its_host(worker: JsonWorker) -> None:
    fork = worker.ask({"do": "", "n": 1}, 20.0).content["pid"]
    child = worker.pid
    assert child is not None
    host = os.fork()
    if host == 0:
        os._exit(0)  # its copies of the pipes must not keep the child alive, nor may it end it
    os.waitpid(host, 0)
    caught: list[WorkLimitError] = []

    def ask() -> None:
        try:
            worker.ask({"do": "sleep", "seconds": 60}, 2.0)
        except WorkLimitError as error:
            caught.append(error)

    busy = threading.Thread(target=ask)
    busy.start()
    time.sleep(0.3)
    assert worker._process is not None and worker._process.stdin is not None
    worker._process.stdin.close()  # as the kernel does for a host that is killed
    assert ends(fork) and ends(child)
    busy.join()
    assert len(caught) == 1


def test_threads_queue_and_waiting_is_not_work(worker: JsonWorker) -> None:
    worker.ask({"do": ""}, 20.0)
    failed: list[object] = []

    def run(n: int) -> None:
        try:
            worker.ask({"do": "sleep", "seconds": 0.4, "n": n}, 2.0)
        except WorkLimitError as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_program_that_cannot_start_is_named(tmp_path: Path) -> None:
    worker = JsonWorker(tmp_path / "absent.py")
    with pytest.raises(WorkerUnavailableError, match=r"absent\.py did not start; check that its imports work"):
        worker.ask({}, 1.0)


@forks
def test_questions_that_come_at_once_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    workers = JsonWorkers(program)
    try:
        assert [workers.ask({"do": "", "n": n}, 20.0).content["count"] for n in range(3)] == [1, 2, 3]
        assert len(workers.pids) == 1  # no more than it takes
        slow = threading.Thread(target=workers.ask, args=({"do": "sleep", "seconds": 30}, 20.0), daemon=True)
        slow.start()
        time.sleep(0.2)
        assert workers.ask({"do": "", "n": 4}, 20.0).content["count"] == 1  # another child
        assert slow.is_alive()
        assert len(workers.pids) == 2
        child = os.fork()
        if not child:  # both are free in a fork, which has children of its own
            done = [workers.ask({"do": "", "n": n}, 20.0).content["count"] for n in (5, 6)]
            os._exit(0 if done == [1, 2] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        for pid in workers.pids:
            os.kill(pid, signal.SIGKILL)
        workers.close()
