"""What the `fork` backend has done by a thread of its own."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.queues
import os
import threading
import time
from collections.abc import Callable

import pytest

from elpo_envs.sandbox.fork.errands import Errand, errand


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_nobody_needs_to_wait() -> None:
    done: list[threading.Thread] = []
    errand(lambda: done.append(threading.current_thread()))
    wait_for(lambda: bool(done))
    assert done[0] is not threading.current_thread()
    assert done[0].daemon


def test_whoever_comes_first_does_it_once() -> None:
    for _ in range(200):
        done: list[int] = []
        given = errand(lambda done=done: done.append(1))  # type: ignore[misc]
        given.finish()
        assert done == [1]
        given.finish()
        assert done == [1]


def test_one_that_is_under_way_is_waited_for() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(30)
        done.set()

    given = errand(work)
    assert begun.wait(30)
    threading.Timer(0.05, go_on.set).start()
    given.finish()
    assert done.is_set()


def test_a_cancelled_one_is_never_begun() -> None:
    done: list[int] = []
    given = Errand(lambda: done.append(1))
    given.cancel()
    given.finish()
    assert not done


def test_one_that_fails_does_not_stop_the_next(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    with caplog.at_level(logging.ERROR):
        errand(lambda: 1 / 0)
        errand(lambda: done.append(1))
        wait_for(lambda: bool(done))
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own_thread_and_leaves_the_parents_errands_alone() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(30)

    held = errand(work)
    assert begun.wait(30)

    def child(answer: multiprocessing.queues.Queue[list[str]]) -> None:
        said: list[str] = []
        held.finish()  # its lock is taken for ever here
        held.cancel()
        errand(lambda: said.append("done"))
        wait_for(lambda: bool(said))
        answer.put(said)

    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    process = context.Process(target=child, args=(answer,))
    process.start()
    try:
        assert answer.get(timeout=30) == ["done"]
    finally:
        go_on.set()
        process.join(30)
    assert process.exitcode == 0
