"""Bounds on calls of the `fork` backend: a bad call is an error of its own session and costs nobody else anything."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from _fork_watch import needs_fork, nodes, wait_until, zygote

from elpo_envs.sandbox import Execution, Limits
from elpo_envs.sandbox.fork.pool import Pool
from elpo_envs.sandbox.fork.sandbox import ForkSandbox
from elpo_envs.sandbox.language import LanguagePolicy

pytestmark = needs_fork

KEPT = "variables are as they were before it"
QUICK = Limits(wall_s=1.0, cpu_s=1.0, memory_mb=256)
LATE_S = 0.5  # after its limit, by which a call has to be over on a machine with nothing else to do
BUSY_S = 4.0  # added to that here, because tests run side by side


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(preload=("numpy",))
    yield pool
    pool.shut_down()


def opened(pool: Pool, limits: Limits | None = None, restricted: bool = False) -> ForkSandbox:
    box = ForkSandbox(limits, pool, LanguagePolicy() if restricted else None)
    box.open(0)
    return box


# --- calls that go wrong ------------------------------------------------------------------------------------------

HANGS = {
    "sleeps": "import time\ntime.sleep(1000)",
    "catches everything": "import time\nwhile True:\n    try: time.sleep(1000)\n    except BaseException: pass",
    "waits for a signal": "import signal\nfor n in range(1, 32):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n"
    "    except (OSError, ValueError):\n        pass\nsignal.pause()",
    "reads its own request": "import os\nos.read(4, 1)",
    "replies slowly": "import os, time\nwhile True:\n    os.write(4, b'\\0')\n    time.sleep(0.3)",
}
EATS_CPU = {
    "loop": "while True: pass",
    "power": "10 ** 10 ** 8 % 7",
    "regex": "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
    "numpy": "import numpy as np\na = np.ones((2000, 2000))\nwhile True: a = a @ a / 2000",
    "ignores the signal": "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
    "blocks the signal": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nwhile True: pass",
}
CRASHES = {
    "null pointer": "import ctypes\nctypes.string_at(0)",
    "abort": "import os\nos.abort()",
    "exit": "import os\nos._exit(3)",
    "deep recursion in C": "import sys\nsys.setrecursionlimit(10**6)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
    "closes its connection": "import os\nos.closerange(0, 64)",
    "exits in its own way": "import sys\nsys.modules['os']._exit(0)",
}
EATS_MEMORY = {
    "one piece": "x = bytearray(10**10)",
    "list": "x = []\nwhile True: x.append('x' * 10**6 + str(len(x)))",
    "text": "x = 'ab'\nwhile True: x += x",
    "array": "import numpy as np\nx = np.ones(10**10)",
}


async def _survives(box: ForkSandbox, code: str, limit: float) -> Execution:
    """Run a bad call; its session's earlier state must be intact and it must end in time."""
    generator = "def count():\n    n = 0\n    while True:\n        n += 1\n        yield n * n"
    await box.run_async(f"x, items = 1, [1]\n{generator}\ng = count()\nnext(g), open('f', 'w').write('text')")
    snapshot = box.snapshot()
    start = time.monotonic()
    shown = await box.run_async("items.append(2)\nnext(g)\nopen('f', 'a').write('!')\n" + code)
    took = time.monotonic() - start
    assert took < limit + LATE_S + BUSY_S, shown
    if shown.kind == "error" and "ProcessDied" not in shown.text:
        box.restore(snapshot)  # the session goes on after an error, as in any interpreter
    assert box.snapshot() == snapshot
    assert (await box.run_async("x, items, next(g), open('f').read()")).text == "(1, [1], 4, 'text')"
    return shown


def test_hanging_calls_are_stopped(pool: Pool) -> None:
    async def all_at_once() -> list[Execution]:
        limits = Limits(wall_s=0.5, cpu_s=30)
        return await asyncio.gather(*(_survives(opened(pool, limits), code, 0.5) for code in HANGS.values()))

    expected = Execution(f"TimeoutError: the call was stopped after 0.5 s; {KEPT}", "timeout")
    assert dict(zip(HANGS, asyncio.run(all_at_once()), strict=True)) == dict.fromkeys(HANGS, expected)


def test_calls_that_eat_cpu_time_are_stopped(pool: Pool) -> None:
    """Those that do not heed the signal are stopped by the limit on wall-clock time."""

    async def all_at_once() -> list[Execution]:
        runs = []
        for name, code in EATS_CPU.items():
            limits = Limits(wall_s=2 if "signal" in name else 60, cpu_s=1)
            runs.append(_survives(opened(pool, limits), code, len(EATS_CPU)))
        return await asyncio.gather(*runs)

    for name, shown in zip(EATS_CPU, asyncio.run(all_at_once()), strict=True):
        limit = "2 s" if "signal" in name else "1 s of CPU time"
        assert shown == Execution(f"TimeoutError: the call was stopped after {limit}; {KEPT}", "timeout"), name


@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_is_an_error_of_the_call(pool: Pool, name: str) -> None:
    shown = asyncio.run(_survives(opened(pool, Limits(wall_s=5)), CRASHES[name], 5.0))
    assert shown.kind == "error"
    assert "ProcessDied: the interpreter was lost in this call" in shown.text and KEPT in shown.text


def test_how_a_process_ended_is_said(pool: Pool) -> None:
    box = opened(pool)
    assert "it was ended by SIGSEGV" in box.run(CRASHES["null pointer"]).text
    assert "it ended with exit code 3" in box.run(CRASHES["exit"]).text


@pytest.mark.parametrize("name", EATS_MEMORY)
def test_a_call_that_eats_memory_is_an_error(pool: Pool, name: str) -> None:
    shown = asyncio.run(_survives(opened(pool, QUICK), EATS_MEMORY[name], 1.0))
    assert shown.kind in ("error", "timeout")
    assert name == "array" or "MemoryError" in shown.text or shown.kind == "timeout", shown


def test_a_limit_holds_for_each_call_alone(pool: Pool) -> None:
    box = opened(pool, Limits(wall_s=30, cpu_s=1))
    box.run("import time\nn = 0")
    work = "n += 1\nend = time.process_time() + 0.35\nwhile time.process_time() < end: pass\nn"
    assert [box.run(work).text for _ in range(4)] == list("1234")


def test_a_restored_session_has_the_limits_and_the_language_of_its_sandbox(pool: Pool) -> None:
    """Not those of the sandbox that the snapshot is of."""
    lavish = opened(pool, Limits(wall_s=30, cpu_s=20, memory_mb=1024))
    lavish.run("x = 1")
    snapshot = lavish.snapshot()
    frugal = ForkSandbox(Limits(wall_s=30, cpu_s=1, memory_mb=300, output_chars=200), pool, LanguagePolicy())
    frugal.restore(snapshot)
    assert frugal.run("x").text == "1"
    start = time.monotonic()
    assert "1 s of CPU time" in frugal.run("while True: pass").text
    assert time.monotonic() - start < 10
    assert "MemoryError" in frugal.run("y = bytearray(400 << 20)").text
    assert 198 <= len(frugal.run("'x' * 3000").text) <= 200
    assert frugal.run("import os").kind == "error"
    lavish.restore(frugal.snapshot())
    assert lavish.run("import os\nlen(bytearray(400 << 20)), len(os.getcwd()) > 0").kind in ("ok", "sandbox_failure")
    lavish.restore(snapshot)
    assert lavish.run("import os\nlen(bytearray(400 << 20))").text == str(400 << 20)
    assert len(lavish.run("'x' * 3000").text) == 3002


def test_limits_can_be_changed_between_calls(pool: Pool) -> None:
    box = opened(pool, Limits(wall_s=30, cpu_s=20, output_chars=4000))
    box.run("x = 1")
    box.limits = Limits(wall_s=0.3, cpu_s=20, output_chars=4000)
    assert "after 0.3 s" in box.run("import time; time.sleep(1000)").text
    box.limits = Limits(wall_s=30, cpu_s=1, output_chars=100)
    assert "1 s of CPU time" in box.run("while True: pass").text
    assert 98 <= len(box.run("'x' * 3000").text) <= 100
    assert box.run("x").text == "1"


@pytest.mark.slow
def test_a_call_may_take_longer_than_a_process_may_take_to_be_born(pool: Pool) -> None:
    """The supervisor gives a fork ten seconds to say who it is; a call that is under way does not count."""
    box = opened(pool, Limits(wall_s=60, cpu_s=60))
    box.run("x = 1")
    assert box.run("import time\ntime.sleep(11)\nx").text == "1"
    assert box.run("x").text == "1"


def test_other_sessions_keep_their_pace(pool: Pool) -> None:
    bad = [*HANGS.values(), *EATS_CPU.values(), *CRASHES.values(), *EATS_MEMORY.values()]
    many, calls = 64, 4

    async def misuse(box: ForkSandbox, code: str) -> Execution:
        await box.run_async("kept = 1")
        shown = await box.run_async(code)
        assert (await box.run_async("kept")).text == "1"
        return shown

    async def use(number: int) -> list[str]:
        box = opened(pool, restricted=True)
        await box.run_async(f"import random\nx = [{number}]")
        return [(await box.run_async(f"x.append({n}); x")).text for n in range(calls)]

    async def all_at_once() -> tuple[list[Execution], list[list[str]], float]:
        misused = [asyncio.create_task(misuse(opened(pool, QUICK), code)) for code in bad]
        start = time.monotonic()
        seen = await asyncio.gather(*map(use, range(many)))
        took = time.monotonic() - start
        return await asyncio.gather(*misused), seen, took

    shown, seen, took = asyncio.run(all_at_once())
    assert seen == [[str([number, *range(n + 1)]) for n in range(calls)] for number in range(many)]
    assert [s for s in shown if s.kind not in ("error", "timeout")] == []
    assert took < 60, "a hang, not a slow machine"


def test_bad_calls_leave_no_process(pool: Pool) -> None:
    boxes = [opened(pool, Limits(wall_s=0.5, cpu_s=30)) for _ in range(4)]
    for box, code in zip(boxes, (*HANGS.values(), "while True: pass"), strict=False):
        assert box.run(code).kind == "timeout"
        box.close()
    del box, boxes
    assert wait_until(lambda: nodes(pool) == [])


# --- output and code ----------------------------------------------------------------------------------------------


def test_a_megabyte_of_output_is_cut_in_the_middle(pool: Pool) -> None:
    box = opened(pool, Limits(output_chars=1000))
    shown = box.run("print('start'); print('x' * 10**6); print('end')").text
    assert 998 <= len(shown) <= 1000 and shown.startswith("start\nxxx") and shown.endswith("xxx\nend")
    assert "... [" in shown and "characters omitted] ..." in shown
    raised = box.run("raise ValueError('y' * 10**6)").text
    assert 998 <= len(raised) <= 1000 and "ValueError" in raised
    assert 998 <= len(box.run("'z' * 10**6").text) <= 1000
    assert len(box.run("import os\nfor _ in range(99): os.write(1, b'w' * 9999)").text) <= 1000
    largest = opened(pool, Limits(output_chars=10**6))
    assert 10**6 - 10 <= len(largest.run("print('x' * 10**6 + 'y')").text) <= 10**6


def test_what_a_call_shows(pool: Pool) -> None:
    box = opened(pool)
    for code, text in {
        "import os\nos.write(1, b'ok \\xff\\xfe \\xc3\\xa9\\n')\nNone": "ok \ufffd\ufffd \u00e9",
        "import sys\nsys.stdout.buffer.write(b'\\xff!')\nNone": "\ufffd!",
        "print('\\ud800')": "\\ud800",
        "print('a\\x00b')": "a\x00b",
        "import sys\nfor n in range(3):\n    print(n)\n    print(-n, file=sys.stderr)": "0\n0\n1\n-1\n2\n-2",
        "import os, sys\nprint('one')\nos.write(2, b'two\\n')\nprint('three')\nNone": "one\ntwo\nthree",
        "print('no newline', end='')\n6 * 7": "no newline\n42",
        "x = 5": "",
        "None": "",
        "# nothing": "",
        "x = 1; x": "1",
        "if True:\n    99": "",
        "'\\n'": "'\\n'",
    }.items():
        assert box.run(code).text == text, code
    assert box.run("class Bad:\n    def __repr__(self): return 5\nBad()").kind == "error"


def test_recursion_goes_as_deep_as_in_any_interpreter(pool: Pool) -> None:
    for restricted in (False, True):
        box = opened(pool, restricted=restricted)
        box.run("def dive(n):\n    return n if n == 0 else 1 + dive(n - 1)")
        assert box.run("dive(900)").text == "900"
        failed = box.run("dive(100_000)")
        assert failed.kind == "error" and "RecursionError: maximum recursion depth exceeded" in failed.text
        assert box.run("dive(900)").text == "900"
        assert "nested too deeply" not in box.run("x = " + "(" * 80 + "1" + ")" * 80).text


def test_a_megabyte_of_code(pool: Pool) -> None:
    for restricted in (False, True):
        box = opened(pool, Limits(wall_s=60, cpu_s=60), restricted)
        assert box.run(f"text = '{'x' * 2**20}'\nlen(text)").text == str(2**20)
        assert box.run("#" + "x" * 2**20 + "\n'after'").text == "'after'"
        assert box.run("(" * 2**20).kind == "error"
        assert box.run("x = 1\n" * 20_000 + "x").text == "1"


@pytest.mark.parametrize(
    "code", ["\0", "x = '\0'", "\ud800", "# \ud800", "\ufeffx = 1", "x = 1\r\nx", "\x0c", "é = 1; é"]
)
def test_code_that_is_hardly_text(pool: Pool, code: str) -> None:
    for restricted in (False, True):
        box = opened(pool, restricted=restricted)
        box.run("kept = 1")
        assert box.run(code).kind in ("ok", "empty", "error")
        assert box.run("kept").text == "1"


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_file_has_a_largest_size(pool: Pool) -> None:
    box = opened(pool, Limits(wall_s=10))
    box.run("x = 1")
    shown = box.run("with open('big', 'wb') as f:\n    for _ in range(64): f.write(bytes(2**20))")
    assert "File too large" in shown.text or "SIGXFSZ" in shown.text
    assert box.run("open('small', 'w').write('y' * 1000)").text == "1000"
    assert box.run("x").text == "1"


@pytest.mark.parametrize(
    "fill",
    [
        "for n in range(20):\n    open(f'f{n}', 'wb').write(bytes(7 << 20))",
        "for n in range(3000):\n    open(f'f{n}', 'w').close()",
        "import os\nfor n in range(3000):\n    os.mkdir('d')\n    os.chdir('d')",
    ],
    ids=["few large", "many small", "deep"],
)
@pytest.mark.parametrize("pause", ["", "\nimport time\ntime.sleep(1)"], ids=["short", "long"])
def test_a_full_scratch_directory_is_an_error_of_the_call(pool: Pool, fill: str, pause: str) -> None:
    box = opened(pool, Limits(wall_s=30, cpu_s=30))
    box.run("open('f', 'w').write('text')")
    snapshot = box.snapshot()
    shown = box.run(fill + pause)
    assert shown.kind == "error"
    assert "its files were more than 32 MB" in shown.text and KEPT in shown.text
    assert box.run("import os; open('f').read(), os.listdir()").text == "('text', ['f'])"
    box.restore(snapshot)
    assert box.run("open('f').read()").text == "'text'"


def test_few_files_may_be_open(pool: Pool) -> None:
    box = opened(pool)
    box.run("x = 1")
    shown = box.run("files = []\nwhile True: files.append(open(f'f{len(files)}', 'w'))")
    assert "Too many open files" in shown.text
    assert box.run("x").text == "1"
    assert box.run("del files; open('f', 'w').write('a')").text == "1"


# --- replies ----------------------------------------------------------------------------------------------------------

_FORGE = "import os, struct\nos.write(4, struct.pack('!I', {size}) + {payload!r})\nos._exit(0)"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[NaN]",
        b'[["text", NaN]]',
        b'[[NaN, "ok"]]',
        b'[["text"]]',
        b'[["text", "ok", 1]]',
        b'[["text", "timeout"]]',
        b'[["text", "sandbox_failure"]]',
        b'[["text", ["ok"]]]',
        b'[["\\ud800", "ok"]]',
        b'[["a", "ok"], ["b", "ok"]]',
        b"[" * 50_000,
        b'{"text": "ok"}',
    ],
)
def test_a_forged_reply_is_an_error_of_the_call(pool: Pool, payload: bytes) -> None:
    box = opened(pool)
    box.run("x = 1")
    shown = box.run(_FORGE.format(size=len(payload), payload=payload))
    assert shown.kind == "error"
    assert "ProcessDied" in shown.text
    assert box.run("x").text == "1"


@pytest.mark.parametrize("size", [2**22 + 1, 2**31, 2**32 - 1])
def test_an_oversized_reply_is_not_read(pool: Pool, size: int) -> None:
    box = opened(pool)
    box.run("x = 1")
    shown = box.run(_FORGE.format(size=size, payload=b"x" * 100))
    assert "it wrote an unreadable reply" in shown.text or "exit code 0" in shown.text
    assert box.run("x").text == "1"


def test_a_forged_reply_harms_its_own_session_only(pool: Pool) -> None:
    """Code can say of itself whatever it likes: it is one with the process that replies."""
    box, other = opened(pool), opened(pool)
    other.run("y = 2")
    payload = json.dumps([["forged", "ok"]]).encode()
    assert box.run(_FORGE.format(size=len(payload), payload=payload)).text == "forged"
    assert box.run("1 + 1").kind in ("ok", "sandbox_failure", "error")
    box.open(0)
    assert box.run("1 + 1").text == "2"
    assert other.run("y").text == "2"


def test_a_reply_longer_than_the_bound_on_output_is_cut(pool: Pool) -> None:
    box = opened(pool, Limits(output_chars=200))
    payload = json.dumps([["f" * 10**6, "ok"]]).encode()
    assert len(box.run(_FORGE.format(size=len(payload), payload=payload)).text) <= 200


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.write(3, b'junk')",
        "import os\nos.write(3, b'{\"hello\": 7}')",
        'import os\nos.write(3, b\'{"failed": "no"}\')',
        "import os\nfor _ in range(10_000):\n    try: os.write(3, b'x' * 999)\n    except OSError: break",
        "import socket\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=3)\ns.shutdown(2)",
        "import os\nos.close(3)",
        "import os\nos.dup2(0, 3)",
    ],
)
def test_meddling_with_the_supervisor_harms_its_own_session_only(pool: Pool, code: str) -> None:
    box, other = opened(pool, Limits(wall_s=2.0)), opened(pool)
    other.run("y = 2")
    before = zygote(pool)
    box.run(code)
    shown: Any = box.run("1 + 1")
    assert shown.kind in ("ok", "sandbox_failure", "error", "timeout")
    assert other.run("y").text == "2"
    box.open(0)
    assert box.run("1 + 1").text == "2"
    assert zygote(pool) == before
