"""The grader's worker process: when it is asked, how long it may take, threads, forks, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from _grading_cases import EQUAL, UNEQUAL

from elpo_envs.grading import grade as grade_module
from elpo_envs.grading import grade_math, grade_response, symbolic
from elpo_envs.grading.symbolic import compare_symbolically
from elpo_envs.json_worker import JsonWorker, WorkLimitError


def test_numbers_and_most_wrong_answers_never_reach_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"asked the worker about {arguments}")

    monkeypatch.setattr(grade_module, "compare_symbolically", refuse)
    cheap = [pair for pair in EQUAL + UNEQUAL if all(char in "0123456789.,/%$-" for char in pair[0] + pair[1])]
    assert len(cheap) >= 25
    wrong = [
        (r"3\sqrt{13}", r"2\sqrt{13}"),
        (r"\frac{\pi}{2}", r"\frac{\pi}{3}"),
        ("(x+1)^2", "x^2+1"),
        ("(1,2]", "(1,2)"),
        (r"\tan \theta = 3\theta", r"\tan \theta = 2\theta"),
    ]
    for answer, gold in cheap + wrong:
        grade_math(answer, gold)


def test_work_is_bounded_and_the_worker_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grade_module, "SYMBOLIC_LIMIT_S", 1.0)
    assert grade_math(r"\lfloor 3.5 \rfloor", "3").correct  # the worker is up: its start is no work
    started = time.monotonic()
    grade = grade_math(r"\lfloor 9^{9^{9}} \rfloor", "3")
    assert time.monotonic() - started < 30.0  # the bound is on CPU time
    assert (grade.correct, grade.timed_out, grade.failed_infrastructure) == (False, True, False)
    assert grade_math(r"\lfloor 4.5 \rfloor", "4").correct


def test_a_turn_has_one_bound_for_all_its_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[float] = []

    def slow(a: str, b: str, kind: symbolic.Kind, limit_s: float) -> symbolic.Verdict:
        spent.append(min(0.5, limit_s))
        return symbolic.Verdict(True, work_s=spent[-1])

    monkeypatch.setattr(grade_module, "compare_symbolically", slow)
    turn = " ".join(rf"\boxed{{\lfloor {n}.5 \rfloor}}" for n in range(40))
    assert not grade_response(turn, "3").correct
    assert sum(spent) <= grade_module.SYMBOLIC_LIMIT_S and len(spent) == 2


def test_waiting_for_the_worker_is_not_work() -> None:
    """A question that queued behind one that ran into its bound still gets all of its own bound."""
    worker = JsonWorker(Path(symbolic.__file__).with_name("worker.py"))
    assert compare_symbolically("1", r"\lfloor 1.5 \rfloor", "value", 5.0, worker).equal
    slow = threading.Thread(target=compare_symbolically, args=(r"\lfloor 9^{9^{9}} \rfloor", "1", "value", 1.5, worker))
    slow.start()
    time.sleep(0.2)
    verdict = compare_symbolically(r"\lfloor 2.5 \rfloor", "2", "value", 1.0, worker)
    slow.join()
    worker.close()
    assert verdict.equal is True
    assert not verdict.timed_out


def test_a_machine_without_time_says_nothing_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def ask(self, question: object, limit_s: float) -> None:
            raise WorkLimitError(f"no result within {limit_s} s", "clock")

    monkeypatch.setattr(grade_module, "compare_symbolically", partial(compare_symbolically, worker=Busy()))
    for response in (r"\boxed{\lfloor 3.5 \rfloor}", r"\boxed{\lfloor 3.5 \rfloor} or \boxed{\lfloor 2.5 \rfloor}"):
        grade = grade_response(response, "3")
        assert not grade.correct
        assert grade.failed_infrastructure


def test_many_threads() -> None:
    pairs = [(rf"{n}\sqrt{{13}}", rf"\sqrt{{{13 * n * n}}}", rf"\sqrt{{{13 * n * n + 1}}}") for n in range(2, 14)]
    failures: list[object] = []

    def run(offset: int) -> None:
        for at in range(len(pairs)):
            left, right, wrong = pairs[(at + offset) % len(pairs)]
            if not grade_math(left, right).correct or grade_math(left, wrong).correct:
                failures.append((left, right))

    threads = [threading.Thread(target=run, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_gets_a_worker_of_its_own() -> None:
    code = r"""
import os
from elpo_envs.grading import grade_math
assert grade_math(r"\lfloor 1.5 \rfloor", "1").correct
child = os.fork()
ok = grade_math(r"\lfloor 2.5 \rfloor", "2").correct and grade_math(r"3\sqrt{2}", r"\sqrt{18}").correct
if child == 0:
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
assert ok and os.waitstatus_to_exitcode(status) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=Path(__file__).parents[1])


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_the_worker_ends_with_its_host() -> None:
    code = r"""
import os, signal
from elpo_envs.grading import grade_math, symbolic
assert grade_math(r"\lfloor 1.5 \rfloor", "1").correct
print(*symbolic._WORKERS.pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[1],
    )
    status = Path("/proc") / done.stdout.strip() / "stat"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        time.sleep(0.05)
    assert not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"
